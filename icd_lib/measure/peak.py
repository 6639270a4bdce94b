"""Peak memory of models, each alone in a process: `python -m icd_lib.measure.peak MODULE BATCH LENGTH`.

It reads the models' folders from its input, one a line.
"""

import importlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import weakref
from typing import IO

import torch

from icd_lib.measure.memory import peak_memory_mb
from icd_lib.metric import Figure, not_measured
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.runtimes import reference_call
from icd_lib.storage.record_json import as_json, from_json

_READY = "ready"


class PeakProcess:
    """A process that imports what running a model takes, while its owner does something else; it ends with its owner.

    module: of the model's class
    """

    def __init__(self, module: str, batch: int, length: int):
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, module, str(batch), str(length)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        weakref.finalize(self, _end, self._process, self._errors)

    def wait(self) -> None:
        """Return when it has imported, and disturbs nobody from then on."""
        if self._process.stdout is not None:
            self._process.stdout.readline()

    def peaks(self, folders: list) -> list[Figure]:
        """One figure per folder; the process is gone then."""
        told, _ = self._process.communicate("".join(f"{folder}\n" for folder in folders))
        lines = [line for line in told.splitlines() if line.startswith("{")]
        if self._process.returncode or len(lines) != len(folders):
            self._errors.seek(0)
            said = self._errors.read().strip()[-300:]
            why = f"the memory process failed with exit code {self._process.returncode}: {said}"
            return [not_measured("MB", why)] * len(folders)
        return [from_json(Figure, json.loads(line), "the memory process") for line in lines]


def _end(process: subprocess.Popen, errors: IO) -> None:
    process.kill()
    process.wait()
    for file in (process.stdin, process.stdout, errors):
        if file is not None:
            file.close()


def peaks_of_folders(
    folders: list, module: str, batch: int, length: int, started: PeakProcess | None = None
) -> list[Figure]:
    """Figures: peak resident memory of a fresh process that loads the model in a folder and runs it three times.

    Includes the interpreter and libraries, the same for every folder; `module` is imported ahead, in `started` if it is
    given. Where a process fails the figure is not_measured and says so; the others stand.
    """
    # A copy of a process that has only imported is as good as a fresh one, on Linux, and takes no seconds to start.
    groups = [folders] if sys.platform == "linux" else [[folder] for folder in folders]
    found = []
    for group in groups:
        process, started = started or PeakProcess(module, batch, length), None
        found += process.peaks(group)
    return found


def print_peak(folder: str, batch: int, length: int) -> None:
    """Print the figure as one line of JSON."""

    def load_and_run() -> None:
        model = load_optimized(folder)
        ids = torch.full((batch, length), 1000 % model.config.vocab_size)
        call = reference_call(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        for _ in range(3):
            call()

    print(json.dumps(as_json(peak_memory_mb(load_and_run))), flush=True)


def main(module: str, batch: str, length: str) -> None:
    """One line per folder."""
    importlib.import_module(module)
    print(_READY, flush=True)
    folders = sys.stdin.read().splitlines()
    if sys.platform != "linux":
        for folder in folders:
            print_peak(folder, int(batch), int(length))
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
