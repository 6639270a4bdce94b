"""The runtime ladder: the same models in every runtime, compared within each and with the reference runtime.

Runtimes are timed one after the other, each interleaved with the baseline in the reference runtime: what the machine's
speed does from one minute to the next then changes no ratio.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure.comparison import relative
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import bootstrap_ci, paired_ratio, summarise
from icd_lib.metric import figure
from icd_lib.models.export import as_tensors, export_onnx
from icd_lib.runtimes import CUDA, REFERENCE, RUNTIMES, reference_of
from icd_lib.runtimes.base import Prepared, Runtime
from icd_lib.runtimes.target import Target
from icd_lib.runtimes.threads import torch_threads

BESIDE = "the baseline in the reference runtime"


def measure_ladder(
    models: dict[str, nn.Module],
    inputs: Sequence[dict],
    *,
    runtimes: Iterable[str] | None = None,
    repeats: int = 30,
    warmup: int = 3,
    seed: int = 0,
    resamples: int = 2000,
    baseline: str = "dense",
    workdir=None,
    calibration: Sequence[dict] | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
    settle_ms: float = SETTLE_MS,
    device: str | None = None,
    precision: str = "fp32",
) -> dict:
    """Every arm under every runtime, at every shape, arms interleaved within a runtime and with the reference.

    models    arm -> model; `baseline` names the arm the others are compared with
    inputs    one input dict per shape, each (B, L); shapes are labelled "8x128"
    runtimes  names of rows of `icd_lib.runtimes.RUNTIMES` (default: all that compute on the device)
    threads   CPU threads of every runtime, torch's included for the time of the measurement (default: torch's)
    progress  called with one line per finished runtime
    settle_ms as in `measure_interleaved`: other runtimes' threads spin on for milliseconds
    device    what the runtimes compute on (default: the CPU); the reference runtime is PyTorch eager there
    precision of the reference runtime on a GPU: that of the models' weights

    Returns {"baseline", "threads", "runtimes": {runtime: entry}}, where an entry is {"status": "measured", "label",
    "setup_s": {arm: s}, "shapes": {shape: {"arms": {arm: {"latency_ms", "p95_ms", "vs_baseline", "vs_eager",
    "max_abs_error": figures}}, "samples_ms": {arm: list}}}}, or {"status": "not_measured", "label", "reason"} for a
    runtime that is not available. `vs_baseline` compares with the baseline in the same runtime, `vs_eager` with the
    baseline in the reference runtime, timed in the same rounds; where that one is not asked for, it is left out.
    """
    if baseline not in models:
        raise MeasureError(f"the baseline arm {baseline!r} is not among the models {', '.join(models)}")
    compared_with = reference_of(device, precision)
    on_cpu = compared_with == REFERENCE
    runtimes = [name for name in RUNTIMES if (name in CUDA) != on_cpu] if runtimes is None else list(runtimes)
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise MeasureError(f"unknown runtime {unknown[0]!r}; known are {', '.join(RUNTIMES)}")
    threads = threads or torch.get_num_threads()
    shapes = {shape_label(item): as_tensors(item) for item in inputs}
    targets = {name: Target.named(name, device=device) for name in {*runtimes, compared_with}}
    against = targets[compared_with]
    ordered = sorted(runtimes, key=lambda name: name != against.row.name)
    entries: dict[str, dict] = {}
    result = {"baseline": baseline, "threads": threads, "runtimes": entries}
    with torch_threads(threads), tempfile.TemporaryDirectory(dir=workdir) as folder, ExitStack() as whole:
        arms = _Arms(models, shapes, Path(folder), calibration, threads)
        references = arms.outputs(against.row)
        beside = None
        if against.row.name in runtimes:
            alone = _Arms({baseline: models[baseline]}, shapes, Path(folder), None, threads)
            beside = alone.prepare(against.row, whole)[0][baseline]
        for name in ordered:
            start = time.perf_counter()
            row, is_reference = targets[name].row, targets[name] is against
            with ExitStack() as held:
                try:
                    if (name in CUDA) == on_cpu:
                        raise ResourceError(f"it computes on a {'GPU' if on_cpu else 'CPU'}, and this run does not")
                    prepared, setup_s = arms.prepare(row, held)
                except ResourceError as error:
                    entry = {"status": "not_measured", "label": row.label, "reason": error.args[0]}
                else:
                    timed: dict[str, dict] = {}
                    entry = {"status": "measured", "label": row.label, "setup_s": setup_s, "shapes": timed}
                    for label, item in shapes.items():
                        calls = {arm: one.enqueue(item) for arm, one in prepared.items()}
                        if beside is not None and not is_reference:
                            calls[BESIDE] = beside.enqueue(item)
                        clock: dict[str, Any] = {"settle_ms": settle_ms, "time_round": against.time_round}
                        samples = measure_interleaved(calls, repeats=repeats, warmup=warmup, seed=seed, **clock)
                        reference = samples.pop(BESIDE, samples[baseline] if is_reference else None)
                        errors = {arm: _error(one.run(item), references[arm][label]) for arm, one in prepared.items()}
                        timed[label] = _shape_entry(samples, errors, baseline, reference, seed, resamples, against.row)
            entries[name] = entry
            if progress is not None:
                progress(f"{name}: {entry['status']} in {time.perf_counter() - start:.1f} s")
    return result


def shape_label(inputs: dict) -> str:
    """The shape of an input dict as "BxL", e.g. "8x128"."""
    return "x".join(str(size) for size in next(iter(inputs.values())).shape)


class _Arms:
    """The models and what they are prepared with; an arm is exported once, by the first runtime that reads ONNX."""

    def __init__(self, models, shapes: dict[str, dict], folder: Path, calibration, threads: int):
        self.models, self.shapes, self.folder = models, shapes, folder
        self.options = {"workdir": folder, "calibration": calibration, "threads": threads}
        self.example = next(iter(shapes.values()))
        self._exports: dict[str, Path] = {}

    def prepare(self, row: Runtime, held: ExitStack) -> tuple[dict[str, Prepared], dict[str, float]]:
        """Every arm ready for every shape, closed with `held`; and the seconds that each took."""
        row.check()
        row.reset()
        prepared, setup_s = {}, {}
        for arm, model in self.models.items():
            start = time.perf_counter()
            path = self._exported(arm) if row.from_onnx else None
            prepared[arm] = row.prepare(model, self.example, onnx_path=path, **self.options)
            held.enter_context(closing(prepared[arm]))
            for item in self.shapes.values():
                prepared[arm].warm(item)
            setup_s[arm] = round(time.perf_counter() - start, 3)
        return prepared, setup_s

    def outputs(self, row: Runtime) -> dict[str, dict[str, np.ndarray]]:
        """arm → shape → the arm's output in a runtime."""
        with ExitStack() as held:
            prepared, _ = self.prepare(row, held)
            return {arm: {label: one.run(item) for label, item in self.shapes.items()} for arm, one in prepared.items()}

    def _exported(self, arm: str) -> Path:
        if arm not in self._exports:
            path = self.folder / f"arm{len(self._exports)}.onnx"
            self._exports[arm] = export_onnx(self.models[arm], self.example, path)
        return self._exports[arm]


def _error(output: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(output - reference).max())


def _shape_entry(samples, errors, baseline, reference_samples, seed, resamples, row: Runtime) -> dict:
    """Figures of one runtime at one shape, and the raw samples in ms.

    reference_samples: the baseline's in the reference runtime in the same rounds; None: there are none
    row: the reference runtime
    """
    reference = f"{row.engine} {row.precision}"
    arms = {}
    for arm, sample in samples.items():
        summary = summarise(sample)
        interval = bootstrap_ci(sample, seed=seed, resamples=resamples)
        timed = {"kind": "measured", "n": summary["n"]}
        arms[arm] = {
            "latency_ms": figure(summary["median"], "ms", ci95=interval, method="median, interleaved", **timed),
            "p95_ms": figure(summary["p95"], "ms", method="95th percentile, interleaved", **timed),
            "max_abs_error": figure(
                errors[arm], "1", "measured", n=1, method=f"largest absolute output difference to {reference}, same arm"
            ),
        }
        if arm != baseline:
            arms[arm]["vs_baseline"] = relative(paired_ratio(sample, samples[baseline], seed=seed, resamples=resamples))
        if reference_samples is not None:
            arms[arm]["vs_eager"] = relative(paired_ratio(sample, reference_samples, seed=seed, resamples=resamples))
    return {"arms": arms, "samples_ms": {arm: sample.tolist() for arm, sample in samples.items()}}
