"""Width → latency on this machine: the whole model with every layer at a smaller width, interleaved with the dense one.

Timing the whole model rather than a lone Linear keeps what matters in situ: caches, activation functions, allocation.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.measure.latency import SETTLE_MS, TimeRound, measure_interleaved
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.runtimes import reference_call

DENSE = ("dense", 0)
WARM_UP = 3  # rounds that are not kept
ON_DEVICE = 4  # variants that a device holds beside dense: all of a curve's would take more than the loop itself
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
    at_once: int | None = None,
) -> tuple[float, dict[str, WidthCurve]]:
    """Dense milliseconds, and one curve per axis kind in `widths`; variants interleaved with dense in one process.

    call: makes a model ready to be timed, where it is deployed; time_round: its clock, as in `measure_interleaved`
    at_once: variants held together (default: all); what a width saves is told of the rounds that it shares with dense
    """
    variants = [(kind, width) for kind, kept in widths.items() for width in kept[:-1]]
    at_once = at_once or max(len(variants), 1)
    groups = [variants[first : first + at_once] for first in range(0, len(variants), at_once)] or [[]]
    layers = len({block.layer for block in adapter.blocks()})
    rounds, dense, ms, saved = repeats + WARM_UP, [], {}, {}

    def time_group(group: list[tuple[str, int]], follow: Callable[[int, int], None] | None) -> dict[Any, np.ndarray]:
        arms = {DENSE: call(adapter.model, inputs)}
        arms |= {variant: call(narrowed_copy(adapter, *variant), inputs) for variant in group}
        clock: dict[str, Any] = {"settle_ms": settle_ms, "time_round": time_round}
        return measure_interleaved(arms, repeats=repeats, warmup=WARM_UP, seed=seed, progress=follow, **clock)

    for number, group in enumerate(groups):
        follow = progress and partial(_tell_of_all, progress, rounds * number, rounds * len(groups))
        samples = time_group(group, follow)
        dense.append(samples[DENSE])
        ms |= {variant: float(np.median(samples[variant])) for variant in group}
        saved |= {variant: float(np.median(dense[-1] - samples[variant])) / layers for variant in group}
    dense_ms, curves = float(np.median(np.concatenate(dense))), {}
    for kind, kept in widths.items():
        own = [(kind, width) for width in kept[:-1]]
        model_ms = [ms[variant] for variant in own] + [dense_ms]
        curves[kind] = WidthCurve(kind, list(kept), model_ms, monotone_savings([saved[variant] for variant in own]))
    return dense_ms, curves


def _tell_of_all(progress: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    """Tell of the rounds of all groups what one group tells of its own."""
    progress(before + done, total)
