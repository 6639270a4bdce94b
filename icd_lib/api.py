"""The public functions that take a whole model: `find_axes`, `optimize` and `compact_masked`, one line in a script."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from icd_lib.axes.axis import Axis
from icd_lib.axes.verify import verify_axes
from icd_lib.codesign.evidence import Problem, gather
from icd_lib.codesign.inputs import Inputs, Judgement
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.codesign.loop import Solution, solve
from icd_lib.codesign.options import Settings
from icd_lib.codesign.zeros import count_zeros
from icd_lib.errors import ConfigError, MeasureError, TransformError
from icd_lib.experiment.arms import MODES
from icd_lib.measure.tables import measure_width_curves, widths_to_try
from icd_lib.models.check import check_model
from icd_lib.models.checkpoint.optimized import check_savable, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.precision import as_given, in_users_dtype, working_copy
from icd_lib.solver.cost import CostConfig
from icd_lib.solver.options import CostOptions
from icd_lib.transforms.masked.compact import remove_dead
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.sparsity.allocate import LatencyTable
from icd_lib.transforms.sparsity.sensitivity import measure_sensitivity


@dataclass(frozen=True)
class Optimized:
    """`model`: the smaller copy; `report`: strength, widths, predicted latency, quality lost, every attempt.

    `report["reached"]`: whether a latency that was asked for is predicted to be reached (None: none was asked for).
    """

    model: nn.Module
    report: dict

    def save_pretrained(self, folder, tokenizer=None, *, uniform: bool = False):
        """Write a folder that `icd.load_optimized` reads; with `uniform` plain transformers reads it too."""
        return save_optimized(self.model, tokenizer, folder, self.report, uniform=uniform)


def find_axes(model: nn.Module, example_inputs: dict) -> list[Axis]:
    """Every axis of the model, each verified with a random permutation in float64; `AxisError` if one is not."""
    axes = find_adapter(model).axes()
    verify_axes(model, axes, example_inputs)
    return axes


def optimize(
    model: nn.Module,
    calibration: Iterable[dict],
    *,
    quality: Callable[[nn.Module], float],
    budget_pp: float = 0.1,
    latency_target_rel: float | None = None,
    mode: str = "iterative",
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
    **settings,
) -> Optimized:
    """Smaller copy of `model` that loses at most `budget_pp` of `quality` (model → percent, higher is better).

    calibration: the model's own input dicts (unlabelled); latency tables are measured at the largest of them.
    `latency_target_rel` (e.g. -0.3) asks for a latency instead; where it is not reached, a `UserWarning` says so and
    `report["reached"]` is False. Further settings: fields of `icd_lib.codesign.options.Settings`, the options of a
    scenario's `transform` and `codesign`, with the same defaults. The given model is not changed. Raises `ConfigError`
    on bad arguments, `TransformError` on empty calibration, `MeasureError` when `quality` returns no finite number.
    """
    if mode not in MODES:
        raise ConfigError(f"mode takes one of {', '.join(MODES)}; got {mode!r}")
    batches = list(calibration)
    if not batches:
        raise TransformError("calibration is empty: pass at least one batch of the model's inputs")
    chosen = Settings(quality_budget_pp=budget_pp, latency_target_rel=latency_target_rel, seed=seed, **settings)
    check_savable(model)
    check_model(model, batches)
    dense, dtypes = working_copy(model)
    quality = as_given(quality, dtypes)
    inputs = Inputs(
        dense=dense,
        batches=batches,
        distill_batches=batches,
        example=_small(batches[0]),
        judge=_judge(quality, quality(dense)),
        settings=chosen,
        solver=SolverSettings(CostConfig(**dict(CostOptions(g=chosen.tile))), seed=seed),
        progress=progress,
    )
    observed = inputs.observe()
    solution = solve(Problem(inputs, gather(inputs, _measure_machine(observed, chosen), observed)), mode)
    report = _report(solution) | {"reached": solution.reached(latency_target_rel)}
    if report["reached"] is False:
        refused = [entry["reasons"][0] for entry in solution.attempts if entry["reasons"]] or ["no attempt fits"]
        warnings.warn(
            f"latency_target_rel={latency_target_rel:+.0%} was not reached: the tables predict "
            f"{report['predicted_latency_rel']:+.1%} for the best candidate ({refused[-1]})",
            stacklevel=2,
        )
    return Optimized(in_users_dtype(solution.best.model, dtypes), report)


def compact_masked(model: nn.Module, example: dict | Iterable[dict], *, tile: int = 16, look: bool = True) -> Optimized:
    """Copy of a model that was pruned elsewhere, without the neurons, heads or channels that its zeros made dead.

    example: the model's inputs, one dict or several; on them the copy gives the same outputs to 1e-5 relative, computed
    in float64 (`report["max_rel_error"]`). What is dead is gathered by a permutation and removed in whole tiles of
    `tile` elements; what a dead element still said, the same for every input, goes into a bias. Masks of
    `torch.nn.utils.prune` and parametrizations become plain weights. The given model is not changed.

    `report["axes"]`: axis, kind, size, dead, kept. `report["zeros"]` (with `look`): of every axis whose weights still
    have more than 5 % of zeros the share of tiles that hold anything else, `now`, as the solver orders them (`solved`),
    and `least`, which no order undercuts: zeros without structure save nothing. Raises `ConfigError` on a model of no
    family or a tile below 1, `TransformError` if the outputs differ.
    """
    batches = [dict(item) for item in ([example] if isinstance(example, Mapping) else example)]
    if not batches:
        raise ConfigError("example is empty: pass at least one dict of the model's inputs")
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise ConfigError(f"tile is a whole number of elements, 1 or more; got {tile!r}")
    smaller, removed, error = remove_dead(model, batches, tile)
    zeros = count_zeros(smaller, tile) if look else []
    report = {
        "mode": "masked",
        "tile": tile,
        "widths": {entry.axis: entry.kept for entry in removed},
        "axes": [entry.to_json() for entry in removed],
        "zeros": [entry.to_json() for entry in zeros],
        "max_rel_error": error,
    }
    return Optimized(smaller, report)


def _measure_machine(observed: Observed, settings: Settings) -> Findings:
    """Width → latency tables of this machine, and what an error in each axis does to the output."""
    sizes = {item.kind: item.elements for item in observed.adapter.prunable()}
    widths = {kind: widths_to_try(size, 8, settings.tiles[kind]) for kind, size in sizes.items()}
    largest = max(observed.batches, key=lambda batch: batch["input_ids"].numel())
    dense_ms, curves = measure_width_curves(observed.adapter, largest, widths, repeats=10, seed=settings.seed)
    tables = {kind: LatencyTable.of(kind, curve.kept, curve.saved_ms) for kind, curve in curves.items()}
    found = measure_sensitivity(
        observed.adapter, observed.moments, observed.element_paths, observed.ridge, observed.batches[:4]
    )
    return Findings(tables, dense_ms, {entry.axis: entry.rate for entry in found})


def _judge(quality: Callable[[nn.Module], float], reference: float) -> Callable[[nn.Module], Judgement]:
    if not math.isfinite(reference):
        raise MeasureError(f"quality returned {reference} for the dense model; it must return a finite percentage")

    def judge(model: nn.Module) -> Judgement:
        value = float(quality(model))
        if not math.isfinite(value):
            raise MeasureError(f"quality returned {value} for a candidate; it must return a finite percentage")
        return Judgement(reference - value, 0.0, {"quality_pct": value, "dense_quality_pct": reference})

    return judge


def _small(inputs: dict) -> dict:
    """The first rows of a batch: enough for an equality check."""
    return {name: value[:2] if torch.is_tensor(value) else value for name, value in inputs.items()}


def _report(solution: Solution) -> dict:
    best = solution.best
    return {
        "mode": solution.mode,
        "accepted_strength": best.strength,
        "widths": best.widths,
        "predicted_latency_rel": best.predicted_latency_rel,
        "validation": best.judgement.to_json() if best.judgement else None,
        "attempts": solution.attempts,
        "certificates": solution.certificates,
    }
