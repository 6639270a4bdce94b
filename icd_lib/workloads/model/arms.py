"""The models that the measurement compares: dense, the modes' results, and the controls that keep the claim honest."""

import copy
from dataclasses import dataclass

import numpy as np
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.axes.kinds import KINDS, granules
from icd_lib.axes.permutation import invert_permutation
from icd_lib.axes.permute import permute
from icd_lib.codesign.layouts import perms_of, realise
from icd_lib.codesign.loop import at_dense_shape
from icd_lib.experiment.arms import MODEL, MODES, RESULT, controls_of
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import as_float, is_quantized, quantized_linears
from icd_lib.run.artifacts import Run
from icd_lib.transforms.effects import Alive
from icd_lib.transforms.head_dim import reduce_head_dim
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.solve import UNDISTILLED, UNQUANTIZED, load_problem

OFF_GRID = 7


@dataclass
class Saved:
    """What 02_solve left of one mode: the model, and which dense elements each axis still has, in order."""

    mode: str
    model: nn.Module
    origin: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]

    @property
    def alive(self) -> dict[str, np.ndarray]:
        return {axis: np.isin(np.arange(len(perm)), self.origin[axis]) for axis, perm in self.after.items()}


def solved_modes(run: Run) -> list[str]:
    """Modes whose solve stage has finished in this run."""
    return [mode for mode in MODES if (run.dir / mode / "solve.json").is_file()]


def load_saved(run: Run, mode: str) -> Saved:
    """Read a mode's result back from disk; hashes are checked by the loader."""
    perms = {
        name: perms_of(run.read_json(f"{mode}/{name}.json"), f"{mode}/{name}.json")
        for name in ("perm_before", "perm_after")
    }
    widths = run.read_json(f"{mode}/solve.json")["widths"]
    origin = {axis: perm[: widths[axis]] for axis, perm in perms["perm_after"].items()}
    return Saved(mode, load_optimized(run.dir / mode / "model"), origin, perms["perm_before"], perms["perm_after"])


def undistilled(context: Context) -> nn.Module | None:
    """Iterative's model before it was distilled; None where none was, or no attempt was accepted."""
    return _left_of(context, UNDISTILLED)


def unquantized(context: Context, solved: Saved) -> nn.Module | None:
    """Iterative's model before its weights were put on a grid; None where that was done to it first."""
    return _left_of(context, UNQUANTIZED) if is_quantized(solved.model) else solved.model


def _left_of(context: Context, name: str) -> nn.Module | None:
    folder = context.run.dir / RESULT / name
    return load_optimized(folder) if folder.is_dir() else None


def is_rounded(context: Context, solved: Saved) -> bool:
    """Whether iterative, as it is deployed, computes with fewer bits than the dense model has."""
    return context.rounds or is_quantized(solved.model)


def skeleton(context: Context) -> nn.Module:
    """A model of the dense widths, with the scenario's head size: shapes only matter."""
    kept = context.get("transform.head_dim")
    if kept is None:
        return context.model
    return reduce_head_dim(context.model, context.model, kept, [context.example])[0]


def in_layout(context: Context, saved: Saved, perms: dict[str, np.ndarray]) -> nn.Module:
    """The mode's function in another layout of the dense axes, without the tiles that are wholly dead there."""
    whole = at_dense_shape(saved.origin, saved.model, skeleton(context), perms)
    kinds = {item.name: item.kind for item in find_adapter(whole).axes()}
    dead = {axis: Alive.of(axis, kinds[axis], saved.alive[axis][perm]) for axis, perm in perms.items()}
    return realise(whole, dead, granules(context.get("transform.tile")))[0]


def random_layout(saved: Saved, seed: int) -> dict[str, np.ndarray]:
    """A random permutation of every axis: what a re-permutation without thought would be worth."""
    generator = np.random.default_rng(seed)
    return {axis: generator.permutation(len(perm)) for axis, perm in saved.after.items()}


def off_the_grid(model: nn.Module) -> nn.Module:
    """Copy with every tiled axis `OFF_GRID` elements narrower (latency only; shows what rounding to tiles is worth)."""
    narrow = copy.deepcopy(model)
    for axis in find_adapter(narrow).axes():
        if axis.kind in KINDS and KINDS[axis.kind].tiled and axis.size > OFF_GRID:
            compact(narrow, axis, np.arange(axis.size) < axis.size - OFF_GRID)
    return narrow


def controls(context: Context, solved: Saved) -> dict[str, nn.Module]:
    """Every control that this run can have, made of what 02_solve left of iterative."""
    made = {arm.name: arm.maker(MODEL)(context, solved) for arm in controls_of(MODEL)}
    return {name: model for name, model in made.items() if model is not None}


def dense_again(context: Context, solved: Saved | None = None) -> nn.Module:
    """The dense model."""
    return context.model


def dense_eager(context: Context, solved: Saved | None = None) -> nn.Module | None:
    """The dense model, which is timed in the reference runtime; None where all are."""
    return None if context.target.is_reference else context.model


def any_shape(context: Context, solved: Saved) -> nn.Module | None:
    """Iterative's model; None where the runtime compiles nothing for a shape."""
    return solved.model if context.target.row.fits_shapes else None


def same_transform(context: Context, solved: Saved) -> nn.Module:
    """The mask in π₀."""
    return in_layout(context, solved, solved.before)


def placebo(context: Context, solved: Saved) -> nn.Module:
    """The mask in a random layout."""
    return in_layout(context, solved, random_layout(solved, context.get("seed")))


def permuted(context: Context, solved: Saved) -> nn.Module:
    """The dense model in π₁."""
    full = {axis: np.arange(len(perm)) for axis, perm in solved.after.items()}
    return at_dense_shape(full, context.model, context.model, solved.after)


def unrounded(context: Context, solved: Saved) -> nn.Module:
    """Off the tile grid."""
    return off_the_grid(solved.model)


def dense_fp32(context: Context, solved: Saved) -> nn.Module | None:
    """The dense model; None where fp32 is what is deployed, or where its engine is the reference's."""
    plain = context.plain_target
    is_other = plain is not None and not plain.is_reference
    return context.model if context.rounds and is_other else None


def iterative_fp32(context: Context, solved: Saved) -> nn.Module | None:
    """Iterative's model with nothing rounded, at least none of its inputs; None where it is deployed so."""
    if context.target.is_reference or context.plain_target is None or not is_rounded(context, solved):
        return None
    model = unquantized(context, solved)
    return as_float(solved.model) if model is None else model


def dense_quantized(context: Context, solved: Saved) -> nn.Module | None:
    """The dense model with the scenario's quantization and nothing else; None where iterative has none."""
    if context.target.is_reference or not is_quantized(solved.model):
        return None
    problem = load_problem(context, RESULT)
    transform = next(row for row in problem.transforms if row.name == "quantization")
    context.progress("dense is quantised alone")
    known = transform.evidence(problem.given(transform))
    return transform.draft(known, transform.plan(known, 0.0, problem.sizes), context.model)[0]


def scattered(context: Context, solved: Saved) -> nn.Module | None:
    """Iterative's model in π₀'s order; None where no column stays float, since runtimes then see no difference."""
    if context.target.is_reference or all(item.unrounded is None for item in quantized_linears(solved.model).values()):
        return None
    model = copy.deepcopy(solved.model)
    for axis in find_adapter(model).axes():
        if axis.name in solved.origin:
            places = invert_permutation(solved.before[axis.name])[solved.origin[axis.name]]
            permute(model, axis, np.argsort(places))
    return model
