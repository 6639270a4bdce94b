"""With and without AMX: the same model, runtimes and rounds in two processes whose instructions differ.

    python benchmarks/isa.py outputs/bert --out artifacts/isa    # minutes; prints a table, writes isa.json
    python benchmarks/isa.py outputs/bert --limit AVX512_CORE_BF16 --runtimes openvino_int8 --rounds 60

Two processes hold the models of a finished run, dense and iterative; the second has `ONEDNN_MAX_CPU_ISA`, which ends
the instructions of oneDNN in PyTorch and in OpenVINO. ONNX Runtime does not read it, so there both states should be
equal. Calls alternate between the processes, one at a time, each timed in its own, so that ratios are of pairs. On a
processor without AMX there is nothing to switch off, and nothing is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np

from icd_lib.errors import IcdError, MeasureError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.measure.comparison import relative
from icd_lib.measure.conditions import warnings_of, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.statistics import paired_ratio, summarise
from icd_lib.metric import figure, not_measured
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.report.words import interval_text, value_text
from icd_lib.run.artifacts import LOCK, Run
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.machine import ISA_LIMIT, cpu_flags
from icd_lib.workloads.model.contexts import make_context
from icd_lib.workloads.model.measure import form_in

FILE = "isa.json"
WITH, WITHOUT = "with AMX", "without AMX"
NO_AMX = "this processor has no AMX"
RUNTIMES = ("eager", "openvino", "openvino_bf16", "onnxruntime_int8", "openvino_int8")
SEED, RESAMPLES = 0, 2000


def serve(run: Path, runtimes: list[str]) -> None:
    """The process of one state: every case made ready, then a line of nanoseconds for every name of a case read."""
    answers = sys.stdout  # libraries print too
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr), ExitStack() as held:
        context = make_context(Run(load_scenario(run / LOCK), Path(folder)), lambda line: None)
        held.enter_context(torch_threads(context.get("threads")))
        models = {DENSE: context.model, RESULT: load_optimized(run / RESULT / "model")}
        calls = {}
        for runtime in runtimes:
            for arm, model in models.items():
                ready = context.deployed(runtime).prepare(form_in(runtime, model), context.example)
                held.enter_context(closing(ready))
                for batch, length in context.get("measure.shapes"):
                    inputs = context.fixed(batch, length)
                    ready.warm(inputs)
                    calls[f"{runtime}|{arm}|{batch}x{length}"] = ready.call(inputs)
        print(json.dumps(list(calls)), file=answers, flush=True)
        for line in sys.stdin:
            call = calls[line.strip()]
            start = time.perf_counter_ns()
            call()
            print(time.perf_counter_ns() - start, file=answers, flush=True)


class State:
    """A process that serves; `limit`: its `ONEDNN_MAX_CPU_ISA`, None: as the processor is."""

    def __init__(self, run: Path, runtimes: list[str], limit: str | None):
        env = {name: value for name, value in os.environ.items() if name != ISA_LIMIT}
        words = [sys.executable, __file__, str(run), "--serve", "--runtimes", *runtimes]
        self.process = subprocess.Popen(
            words,
            env=env | ({ISA_LIMIT: limit} if limit else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cases: list[str] = json.loads(self._line())

    def elapsed_ns(self, case: str) -> int:
        """Nanoseconds of one call, by the process's own clock."""
        assert self.process.stdin, "it was opened with a pipe"
        print(case, file=self.process.stdin, flush=True)
        return int(self._line())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout, "it was opened with a pipe"
        line = self.process.stdout.readline()
        if not line:
            raise MeasureError(f"the process that serves ended (exit code {self.process.wait()}); its words are above")
        return line


def compare_states(run: Path, runtimes: list[str], limit: str, rounds: int, warmup: int) -> dict:
    """Every case in both states, interleaved: median of both, and what ending the instructions changes."""
    with ExitStack() as held:
        states = {}
        for name, most in ((WITH, None), (WITHOUT, limit)):
            states[name] = held.enter_context(closing(State(run, runtimes, most)))
        found: dict = {"limit": limit, "rounds": rounds, "environment": fingerprint(), "cases": {}}
        for case in states[WITH].cases:
            calls = {name: partial(state.elapsed_ns, case) for name, state in states.items()}
            with watched() as conditions:
                samples = measure_interleaved(
                    calls,
                    repeats=rounds,
                    warmup=warmup,
                    seed=SEED,
                    time_round=lambda arms, settle_ns: [call() for call in arms],
                )
            found["cases"][case] = entry(samples) | {"warnings": warnings_of(conditions, rounds)}
    return found


def entry(samples: dict[str, np.ndarray]) -> dict:
    """Medians, and latency without AMX relative to with."""
    medians = {
        name: figure(summarise(ms)["median"], "ms", "measured", n=len(ms), method="median, processes interleaved")
        for name, ms in samples.items()
    }
    ratio = paired_ratio(samples[WITHOUT], samples[WITH], seed=SEED, resamples=RESAMPLES)
    return {"latency_ms": medians, "without_vs_with": relative(ratio)}


def table(found: dict) -> str:
    """Markdown: a line per runtime, arm and shape."""
    lines = [f"| runtime | arm | shape | {WITH}, ms | {WITHOUT}, ms | change |", "|---" * 6 + "|"]
    for case, item in found["cases"].items():
        ms, change = item["latency_ms"], item["without_vs_with"]
        told = f"{value_text(change.value, change.unit)} ({interval_text(change.ci95, change.unit)})"
        lines.append(f"| {case.replace('|', ' | ')} | {ms[WITH].value:.2f} | {ms[WITHOUT].value:.2f} | {told} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure where the processor has AMX, say so where it has none; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run on an encoder")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--limit", default="AVX512_CORE_FP16", help=f"{ISA_LIMIT} of the state without AMX")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--out", type=Path, help=f"folder of {FILE} (default: nothing is written)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        if args.serve:
            serve(args.run, args.runtimes)
            return 0
        if "amx_tile" not in cpu_flags():
            found = {"without_vs_with": not_measured("fraction", NO_AMX), "environment": fingerprint()}
            told = f"not_measured: {NO_AMX}"
        else:
            found = compare_states(args.run, args.runtimes, args.limit, args.rounds, args.warmup)
            told = table(found)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.out is not None:
        atomic_write(args.out / FILE, to_json(found))
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
