"""Peak memory of one model alone, in a process of its own: `python -m icd_lib.measure.peak FOLDER BATCH LENGTH`."""

import json
import subprocess
import sys

import torch

from icd_lib.errors import MeasureError
from icd_lib.measure.memory import peak_memory_mb
from icd_lib.models.optimized import load_optimized


def peak_of_folder(folder, batch: int, length: int) -> dict:
    """Figure: peak resident memory of a fresh process that loads the model in `folder` and runs it three times.

    Includes the interpreter and libraries, the same for every arm. Raises `MeasureError` if the process fails.
    """
    command = [sys.executable, "-m", __spec__.name, str(folder), str(batch), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasureError(f"the memory process failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(folder: str, batch: str, length: str) -> None:
    """Print the figure as one line of JSON."""

    def load_and_run() -> None:
        model = load_optimized(folder)
        ids = torch.full((int(batch), int(length)), 1000 % model.config.vocab_size)
        with torch.inference_mode():
            for _ in range(3):
                model(input_ids=ids, attention_mask=torch.ones_like(ids))

    print(json.dumps(peak_memory_mb(load_and_run)))


if __name__ == "__main__":
    main(*sys.argv[1:])
