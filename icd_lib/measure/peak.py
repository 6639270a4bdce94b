"""Peak memory of models, each alone in a process: `python -m icd_lib.measure.peak MODULE BATCH LENGTH FOLDER ...`."""

import importlib
import json
import multiprocessing
import subprocess
import sys

import torch

from icd_lib.measure.memory import peak_memory_mb
from icd_lib.metric import Figure, not_measured
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.runtimes import reference_call
from icd_lib.storage.record_json import as_json, from_json


def peaks_of_folders(folders: list, module: str, batch: int, length: int) -> list[Figure]:
    """Figures: peak resident memory of a fresh process that loads the model in a folder and runs it three times.

    Includes the interpreter and libraries, the same for every folder; `module` is imported ahead. Where a process
    fails the figure is not_measured and says so; the others stand.
    """
    # A copy of a process that has only imported is as good as a fresh one, on Linux, and takes no seconds to start.
    groups = [folders] if sys.platform == "linux" else [[folder] for folder in folders]
    return [peak for group in groups for peak in _run(group, module, batch, length)]


def _run(folders: list, module: str, batch: int, length: int) -> list[Figure]:
    command = [sys.executable, "-m", __spec__.name, module, str(batch), str(length), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != len(folders):
        why = f"the memory process failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        return [not_measured("MB", why)] * len(folders)
    return [from_json(Figure, json.loads(line), "the memory process") for line in lines]


def print_peak(folder: str, batch: int, length: int) -> None:
    """Print the figure as one line of JSON."""

    def load_and_run() -> None:
        model = load_optimized(folder)
        ids = torch.full((batch, length), 1000 % model.config.vocab_size)
        call = reference_call(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        for _ in range(3):
            call()

    print(json.dumps(as_json(peak_memory_mb(load_and_run))), flush=True)


def main(module: str, batch: str, length: str, *folders: str) -> None:
    """One line per folder."""
    importlib.import_module(module)
    if sys.platform != "linux":
        print_peak(*folders, int(batch), int(length))
        return
    for folder in folders:
        alone = multiprocessing.get_context("fork").Process(target=print_peak, args=(folder, int(batch), int(length)))
        alone.start()
        alone.join()
        if alone.exitcode:
            why = f"the memory process ended with exit code {alone.exitcode}"
            print(json.dumps(as_json(not_measured("MB", why))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
