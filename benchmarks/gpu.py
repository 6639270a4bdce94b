"""Latency, L2 traffic and energy on an NVIDIA device: one mask scattered, dropped by tiles, and compacted first.

    python benchmarks/gpu.py --out DIR                five minutes, what matters most first
    python benchmarks/gpu.py --out DIR --minutes 8    all of it

Weights are random: latency, L2 and energy are those of the shapes, and nothing is said about quality. Writes gpu.json,
ncu.json, power.csv, samples.json and README.md to DIR, anew after every step, so that an end by force loses one step.
What the minutes or the machine do not allow is named in gpu.json, and so is what failed: that alone ends with an error.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's icd_lib, installed or not
from gpu_arms import ARMS, CASES, build_arm, build_dense, facts, make_inputs
from gpu_figures import CONTROL, energy_figures, largest_error, latency_figures
from gpu_readme import readme
from gpu_scan import compare_mamba, compare_scans

from icd_lib.errors import FOREIGN, IcdError, MeasureError, ResourceError
from icd_lib.measure.board import Board
from icd_lib.measure.board_energy import SETTLE_S, board_windows
from icd_lib.measure.energy import NvmlCounter
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.ncu import measured_range, profile
from icd_lib.optional import brief
from icd_lib.records.counted import as_csv
from icd_lib.runtimes.cuda import cuda_runtimes
from icd_lib.runtimes.cuda_events import time_round_on_device
from icd_lib.scrub import text as scrub
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.record_json import as_json, fields_of

BADGE = "random weights: no quality"
MINUTES = 5.0  # what claims.yaml states takes 4.1 on an H200
ROUNDS, WARMUP = 60, 8
WINDOWS, WINDOW_S = 4, 5.0
BASE, WIDE, SMALL = CASES
PROFILED = "cuda_eager_bf16"  # ncu counts kernel by kernel: the same ones as in a graph, without the graph
WARM_CALLS = 3  # of a profiled program, before its range


@dataclass(frozen=True)
class Step:
    """A part of the benchmark.

    seconds: what it is thought to take, it begins only where so much is left; where: its figures are in gpu.json
    """

    name: str
    seconds: float
    take: Callable[["Bench"], None]
    where: str

    def without(self, reason: str) -> dict:
        """The entry of a step that has no figures."""
        return {"step": self.name, "where": self.where, "reason": reason}


class Bench:
    """What was found so far, and the folder it is written to."""

    def __init__(self, out: Path):
        self.out = out
        self.result: dict = {
            "title": "One mask in three layouts on an NVIDIA device",
            "badges": [BADGE],
            "clock": "CUDA events around one call that finds the device idle; interleaved rounds, each in a new order",
            "device": describe_device(),
            "environment": fingerprint(),
            "cases": {},
            "taken": [],
            "left_out": [],
            "not_measured": [],
            "failed": [],
        }
        self.samples: dict = {"latency_ms": {}, "energy_j_per_token": {}, "scan_ms": {}}
        self.ncu: dict = {}

    def case(self, name: str) -> dict:
        """The entry of a case, made when it is first asked for."""
        if name not in self.result["cases"]:
            case = CASES[name]
            models = {arm: model_of(case.shape, arm) for arm in ARMS}
            entry = {"shape": case.shape, "batch": case.batch, "length": case.length, **facts(models)}
            self.result["cases"][name] = {"badges": [BADGE], **entry, "runtimes": {}}
        return self.result["cases"][name]

    def take(self, steps: list[Step], minutes: float) -> None:
        """Every step that still fits, in order; what is known is written after each."""
        began = time.perf_counter()
        for step in steps:
            left = 60 * minutes - (time.perf_counter() - began)
            if left < step.seconds:
                reason = f"{max(0.0, left):.0f} s of {minutes:g} min were left and it takes about {step.seconds:.0f} s"
                self.result["left_out"].append(step.without(reason))
            else:
                self._take_one(step)
            self.write()

    def _take_one(self, step: Step) -> None:
        began = time.perf_counter()
        print(f"{step.name} ...", flush=True)
        try:
            step.take(self)
        except (IcdError, OSError, *FOREIGN) as error:  # what one step meets must not lose the others
            reason = str(error) if isinstance(error, IcdError) else brief(error)
            how = "not_measured" if isinstance(error, ResourceError) else "failed"
            self.result[how].append(step.without(reason))
            print(f"  {how.replace('_', ' ')}: {reason}", flush=True)
        else:
            self.result["taken"].append({"step": step.name, "seconds": round(time.perf_counter() - began, 1)})

    def write(self) -> None:
        """gpu.json, ncu.json, samples.json and README.md, without this machine's names and folders."""
        found = scrub.scrub_strings(as_json(self.result | {"ncu": self.ncu}))
        atomic_write(self.out / "gpu.json", to_json(found))
        atomic_write(self.out / "ncu.json", to_json(found["ncu"]))
        atomic_write(self.out / "samples.json", to_json(self.samples))
        atomic_write(self.out / "README.md", readme(found))


def plan_steps() -> list[Step]:
    """All there is to measure, what matters most first; runtimes that compile come late, since they take long."""
    steps = [latency_step(BASE, row, seconds) for row, seconds in QUICK]
    steps += [latency_step(WIDE, row, 8) for row, _ in QUICK]
    steps += [ncu_step(BASE, arm, "kernel", 35) for arm in ("dense", "masked", "compacted")]
    windows_s = 3 * WINDOWS * (WINDOW_S + SETTLE_S) + 2 * WINDOW_S + 10
    take_energy = partial(measure_energy, BASE, "cuda_graph_bf16")
    steps.append(Step(f"energy: {BASE}, cuda_graph_bf16", windows_s, take_energy, "energy"))
    steps.append(Step("scan: the selective scan of the 130M shape", 15, measure_scan, "scan / kernel"))
    steps += [latency_step(SMALL, row, 8) for row, _ in QUICK]
    steps.append(latency_step(BASE, "cuda_compile_bf16", 75))
    steps.append(Step("scan: a whole Mamba of the 130M shape, prefill", 25, measure_mamba, "scan / model"))
    steps += [ncu_step(BASE, arm, "application", 70) for arm in ("dense", "masked", "compacted")]
    steps.append(ncu_step(BASE, "tile_dropped", "kernel", 35))
    steps += [latency_step(case, "cuda_compile_bf16", 50) for case in (WIDE, SMALL)]
    return steps + [ncu_step(WIDE, arm, "kernel", 30) for arm in ("dense", "masked", "compacted", "tile_dropped")]


QUICK = (("cuda_eager_bf16", 20), ("cuda_graph_bf16", 12), ("cuda_eager", 15))


def latency_step(case: str, row: str, seconds: float) -> Step:
    where = f"cases / {case} / runtimes / {row}"
    return Step(f"latency: {case}, {row}", seconds, partial(measure_latency, case, row), where)


def ncu_step(case: str, arm: str, replay: str, seconds: float) -> Step:
    where = f"ncu / {case} / {replay} replay / {arm}"
    return Step(f"ncu: {case}, {arm}, {replay} replay", seconds, partial(measure_ncu, case, arm, replay), where)


def measure_latency(name: str, row_name: str, bench: Bench) -> None:
    """Every arm in one runtime: milliseconds, changes with intervals, A/A, and how far the outputs lie apart."""
    case, row = CASES[name], cuda_runtimes()[row_name]
    row.reset()
    inputs = make_inputs(case)
    prepared = {arm: row.prepare(model_of(case.shape, arm), inputs) for arm in ARMS}
    calls = {arm: one.enqueue(inputs) for arm, one in prepared.items()}
    calls[CONTROL] = calls["dense"]
    samples = measure_interleaved(
        calls, repeats=ROUNDS, warmup=WARMUP, time_round=time_round_on_device, settle_ms=SETTLE_MS
    )
    outputs = {arm: one.run(inputs) for arm, one in prepared.items()}
    for one in prepared.values():
        one.close()
    del calls, prepared
    torch.cuda.empty_cache()
    bench.samples["latency_ms"].setdefault(name, {})[row_name] = samples
    entry = latency_figures(samples, case.tokens)
    entry |= {"label": row.label, "precision": row.precision}
    entry["max_rel_error_vs_masked"] = {
        arm: largest_error(outputs[arm], outputs["masked"]) for arm in ("tile_dropped", "compacted")
    }
    bench.case(name)["runtimes"][row_name] = entry


def measure_ncu(name: str, arm: str, replay: str, bench: Bench) -> None:
    """One call of an arm under ncu, in a process of its own (`run_profiled`)."""
    program = [sys.executable, str(Path(__file__).resolve()), "--profile", name, arm, PROFILED]
    entry = bench.ncu.setdefault(name, {}).setdefault(f"{replay} replay", {})
    entry[arm] = profile(program, replay=replay, timeout_s=90 if replay == "kernel" else 140)


def run_profiled(name: str, arm: str, row_name: str) -> None:
    """What is profiled: one warm call within the range that ncu counts."""
    case = CASES[name]
    inputs = make_inputs(case)
    prepared = cuda_runtimes()[row_name].prepare(model_of(case.shape, arm), inputs)
    call = prepared.call(inputs)
    for _ in range(WARM_CALLS):
        call()
    with measured_range():
        call()


def measure_energy(name: str, row_name: str, bench: Bench) -> None:
    """Joules per token of dense and compacted in interleaved windows, with idle before and after; the board's state."""
    case, row = CASES[name], cuda_runtimes()[row_name]
    inputs = make_inputs(case)
    prepared = {arm: row.prepare(model_of(case.shape, arm), inputs) for arm in ("dense", "compacted")}
    calls = {arm: one.call(inputs) for arm, one in prepared.items()}
    calls[CONTROL] = calls["dense"]
    joules, how = board_windows(
        calls,
        case.tokens,
        NvmlCounter("cuda"),
        Board("cuda"),
        windows=WINDOWS,
        window_s=WINDOW_S,
        keep=lambda readings: atomic_write(bench.out / "power.csv", as_csv(readings)),
    )
    for one in prepared.values():
        one.close()
    bench.samples["energy_j_per_token"] = joules
    bench.result["energy"] = {
        "case": name,
        "runtime": row_name,
        **fields_of(how),
        **energy_figures(joules, how.counter, WINDOW_S),
    }


def measure_scan(bench: Bench) -> None:
    found, bench.samples["scan_ms"]["kernel"] = compare_scans()
    bench.result.setdefault("scan", {})["kernel"] = found


def measure_mamba(bench: Bench) -> None:
    found, bench.samples["scan_ms"]["model"] = compare_mamba()
    bench.result.setdefault("scan", {})["model"] = found


@cache
def model_of(shape: str, arm: str) -> torch.nn.Module:
    """The arm of a shape, on the CPU; runtimes take copies."""
    return build_dense(shape) if arm == "dense" else build_arm(model_of(shape, "dense"), arm)


def describe_device() -> dict:
    """The device and what drives it; `ResourceError` where torch has none."""
    cuda_runtimes()["cuda_eager"].check()
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(properties.L2_cache_size / 2**20, 1),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tf32": {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for what is found")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="what does not fit is left out, and named")
    parser.add_argument("--profile", nargs=3, metavar=("CASE", "ARM", "RUNTIME"), help="one call, for ncu to count")
    options = parser.parse_args()
    if options.out is None and options.profile is None:
        parser.error("say where to write with --out DIR")
    transformers.logging.set_verbosity_error()
    try:
        if options.profile:
            run_profiled(*options.profile)
            return 0
        bench = Bench(options.out)
        bench.take(plan_steps(), options.minutes)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print((options.out / "README.md").read_text())
    return MeasureError.exit_code if bench.result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
