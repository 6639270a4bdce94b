"""Peak memory of decoding, each row in a process of its own: `python -m icd_lib.measure.decode_peak '{…}'`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from icd_lib.measure.memory import peak_memory_mb
from icd_lib.metric import Figure, not_measured
from icd_lib.storage.record_json import as_json, from_json

_STEPS = 4
_SECONDS = 1800


def decode_peak(name: str, model: Path | str, batch: int, context: int, **options) -> Figure:
    """Figure: peak resident memory of a process that prepares row `name`, reads prompts and goes on for four tokens.

    model: the name of a checkpoint or a folder; options: of the row, as JSON holds them

    The interpreter and the libraries are in it, and all that preparing takes, the model in PyTorch too. A row that runs
    in a process of its own again (llama.cpp) is not measured, nor is one that fails: the figure says why.
    """
    if name == "llamacpp":
        return not_measured("MB", "it runs in a process of its own, whose memory is not this one's")
    asked = json.dumps({"name": name, "model": str(model), "batch": batch, "context": context, "options": options})
    words = [sys.executable, "-m", __spec__.name, asked]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return not_measured("MB", f"the memory process did not end within {_SECONDS} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        reason = f"the memory process failed with exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        return not_measured("MB", reason)
    return from_json(Figure, json.loads(lines[-1]), "the memory process")


def main(asked: str) -> None:
    """One line of JSON."""
    from icd_lib.decoding import DECODERS
    from icd_lib.models.checkpoint.loading import open_model

    given = json.loads(asked)

    def decode() -> None:
        model, *_ = open_model(given["model"])
        decoder = DECODERS[given["name"]].prepare(model, **given["options"])
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (given["batch"], given["context"]))
        decoder.greedy(ids, _STEPS)

    print(json.dumps(as_json(peak_memory_mb(decode))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
