"""Width → latency on this machine: the whole model with every layer at a smaller width, interleaved with the dense one.

Timing the whole model rather than a lone Linear keeps what matters in situ: caches, activation functions, allocation.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.measure.latency import SETTLE_MS, TimeRound, measure_interleaved
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.runtimes import reference_call

Call = Callable[[nn.Module, dict], Callable[[], object]]  # a model and its inputs → a call for the clock


@dataclass(frozen=True)
class WidthCurve:
    """Milliseconds of the model when every layer keeps `kept[i]` elements of the axes of `kind` (last = all).

    `saved_ms[i]`: median paired saving per layer against the dense model, made monotone (`monotone_savings`).
    """

    kind: str
    kept: list[int]
    model_ms: list[float]
    saved_ms: list[float]

    def to_json(self) -> dict:
        return {"kept": self.kept, "model_ms": self.model_ms, "saved_ms_per_layer": self.saved_ms}


def mean_over_shapes(measured: list[tuple[float, dict[str, WidthCurve]]]) -> tuple[float, dict[str, WidthCurve]]:
    """One dense latency and one curve per kind for several shapes: what is saved is the mean of the shares of dense.

    Milliseconds are those of the first shape, of which the shares are taken.
    """
    dense_ms, first = measured[0]
    if len(measured) == 1:
        return dense_ms, first
    curves = {}
    for kind, curve in first.items():
        parts = [(one[kind], ms) for ms, one in measured]
        model_ms, saved_ms = (
            np.mean([np.divide(getattr(one, name), ms) for one, ms in parts], axis=0) * dense_ms
            for name in ("model_ms", "saved_ms")
        )
        curves[kind] = WidthCurve(kind, curve.kept, model_ms.tolist(), saved_ms.tolist())
    return dense_ms, curves


def widths_to_try(size: int, points: int, step: int) -> list[int]:
    """About `points` widths between one step and `size`, multiples of `step`, ascending, `size` last.

    >>> widths_to_try(12, 3, 1)
    [1, 5, 8, 12]
    """
    raw = np.linspace(step, size, points + 1)
    rounded = np.maximum(step, np.round(raw / step).astype(int) * step)
    return sorted({*np.minimum(rounded, size).tolist(), size})


def narrowed_copy(adapter: Adapter, kind: str, kept: int) -> nn.Module:
    """Copy of the model whose axes of `kind` keep their first `kept` elements; embeddings are shared, not copied."""
    shared = {id(p): p for name, p in adapter.model.named_parameters() if "embeddings" in name}
    narrow = copy.deepcopy(adapter.model, memo=shared)
    for axis in find_adapter(narrow).axes():
        if axis.kind == kind:
            compact(narrow, axis, np.arange(axis.size) < kept)
    return narrow


def monotone_savings(saved: list[float]) -> list[float]:
    """What the widths below the dense one save, ascending, with a 0 for dense: never less for a smaller width.

    A width that is slower than dense saves nothing. Were it left negative, the regression would put dense, whose saving
    is 0 by definition, on a step with it, and that width would seem to save something.

    >>> monotone_savings([0.19, -0.07, -0.06, -0.26])
    [0.19, 0.0, 0.0, 0.0, 0.0]
    """
    return isotonic_regression([*np.maximum(saved, 0.0), 0.0], increasing=False).x.tolist()


def measure_width_curves(
    adapter: Adapter,
    inputs: dict,
    widths: dict[str, list[int]],
    *,
    repeats: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    call: Call = reference_call,
    settle_ms: float = SETTLE_MS,
    time_round: TimeRound | None = None,
) -> tuple[float, dict[str, WidthCurve]]:
    """Dense milliseconds, and one curve per axis kind in `widths`; all variants interleaved in one process.

    call: makes a model ready to be timed, where it is deployed; time_round: its clock, as in `measure_interleaved`
    """
    arms = {("dense", 0): call(adapter.model, inputs)}
    for kind, kept in widths.items():
        for width in kept[:-1]:
            arms[kind, width] = call(narrowed_copy(adapter, kind, width), inputs)
    clock: dict[str, Any] = {"settle_ms": settle_ms, "time_round": time_round}
    samples = measure_interleaved(arms, repeats=repeats, warmup=3, seed=seed, progress=progress, **clock)
    dense = samples["dense", 0]
    layers = len({block.layer for block in adapter.blocks()})
    curves = {}
    for kind, kept in widths.items():
        saved = [float(np.median(dense - samples[kind, width])) / layers for width in kept[:-1]]
        model_ms = [float(np.median(samples[kind, width])) for width in kept[:-1]] + [float(np.median(dense))]
        curves[kind] = WidthCurve(kind, list(kept), model_ms, monotone_savings(saved))
    return float(np.median(dense)), curves
