"""Layouts of all prunable axes of a model at once: solve them, apply them with certificates, solve them again.

Torch is imported only by what touches a model, so that scenarios without one start fast.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icd_lib.axes.permutation import check_permutation, hash_permutation
from icd_lib.errors import ArtifactError, AxisError
from icd_lib.paths import user_path
from icd_lib.run.files import check_shape
from icd_lib.solver.cache import solve_cached
from icd_lib.solver.cost import CostConfig, CostReport, evaluate_cost
from icd_lib.solver.options import SolverOptions
from icd_lib.solver.portfolio import fit_or_stop
from icd_lib.storage.json_text import read_text
from icd_lib.storage.machine import cache_folder

if TYPE_CHECKING:
    from torch import nn

    from icd_lib.transforms.effects import Effect


_DEFAULTS = SolverOptions()


@dataclass(frozen=True)
class SolverSettings:
    """How permutations are solved; `cost.g` is the tile of FFN axes."""

    cost: CostConfig
    method: str = _DEFAULTS.method
    time_budget_s: float = _DEFAULTS.time_budget_s
    refine_steps: int = _DEFAULTS.refine_steps
    seed: int = 0

    @classmethod
    def of(cls, solver: Mapping, cost: CostConfig, seed: int) -> SolverSettings:
        """Those of a scenario's section `solver`."""
        return cls(cost, seed=seed, **{key: solver[key] for key in cls.__dataclass_fields__ if key in solver})

    def cost_of(self, size: int) -> CostConfig:
        """The cost for an axis of `size` elements: small axes (heads) are their own tiles; h = 0 is half the axis."""
        fitted = vars(self.cost) | {"h": self.cost.h or size // 2}
        if size < 4 * self.cost.g:
            fitted |= {"g": 1, "v": 1}
        return CostConfig(**fitted)


def solve_layout(
    graph, settings: SolverSettings, initial=None, previous=None, keep: Path | None = None
) -> tuple[np.ndarray, dict]:
    """`fit_or_stop` with the project's settings: (perm, stats); from the folder `keep` where it was solved before."""
    given = {
        "cost": settings.cost_of(graph.shape[0]),
        "time_budget_s": settings.time_budget_s,
        "refine_steps": settings.refine_steps,
        "seed": settings.seed,
        "method": settings.method,
        "initial": initial,
        "pi_prev": previous,
    }
    return fit_or_stop(graph, **given) if keep is None else solve_cached(graph, keep, **given)


def layouts_folder(run_dir: Path, shared: bool) -> Path:
    """Where solved layouts are kept: in the run, for its other modes, or `shared` by all runs on this machine."""
    return (cache_folder() if shared else run_dir) / "layouts"


def solve_layouts(
    graphs: dict, settings: SolverSettings, keep: Path | None = None
) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """π₀ of every axis with a graph, and the solver's statistics; from the folder `keep` what was solved before."""
    solved = {axis: solve_layout(graph, settings, keep=keep) for axis, graph in graphs.items()}
    return {axis: perm for axis, (perm, _) in solved.items()}, {axis: stats for axis, (_, stats) in solved.items()}


def check_layouts(perms: dict[str, np.ndarray], graphs: dict) -> dict[str, np.ndarray]:
    """`perms` for exactly the axes of `graphs`, each a permutation of the right length; `AxisError` otherwise."""
    if perms.keys() != graphs.keys():
        odd = sorted(perms.keys() ^ graphs.keys())[0]
        raise AxisError(f"the given permutations and the model differ in axis {odd!r}; they belong to another model")
    return {axis: check_permutation(perms[axis], graph.shape[0], f"axis {axis!r}") for axis, graph in graphs.items()}


def apply_layouts(model: nn.Module, perms: dict[str, np.ndarray], example: dict) -> tuple[nn.Module, list[dict]]:
    """Permuted copy of the model and one equivalence certificate per axis (float64 error, hash)."""
    from icd_lib.axes.permute import permute
    from icd_lib.axes.verify import verify_axes
    from icd_lib.models.families import find_adapter

    permuted = copy.deepcopy(model)
    axes = {axis.name: axis for axis in find_adapter(permuted).axes()}
    chosen = [axes[name] for name in perms]
    certificates = verify_axes(permuted, chosen, example, perms=perms)
    for axis in chosen:
        permute(permuted, axis, perms[axis.name])
    return permuted, certificates


def repermute(effect: Effect, base, settings: SolverSettings, epsilon: float = 0.0) -> np.ndarray:
    """π₁ after a transform: the present order packed, or W′ solved and packed, whichever has the lower J.

    base: W of what was there before. The solved order must be better by more than `epsilon`, and its C must not be
    higher: J alone can be gamed.
    """
    identity = np.arange(effect.size)
    graph, cost = effect.graph(base), settings.cost_of(effect.size)
    packed = effect.packed(identity)
    solved = effect.packed(solve_layout(graph, settings, initial=identity, previous=identity)[0])
    before, after = (evaluate_cost(graph, order, cost, identity) for order in (packed, solved))
    return solved if after.J < before.J - epsilon and after.C <= before.C else packed


def with_dropped(left: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Layout of all dense elements: `left` in its order, then the dropped ones in the order of π₀ (`first`)."""
    return np.concatenate([left, first[~np.isin(first, left)]])


@dataclass(frozen=True)
class LayoutChange:
    """What an axis's layout cost before and after it was solved again, both over all dense elements, on W′."""

    before: CostReport
    after: CostReport


def compare_layouts(
    graph, first: np.ndarray, before: np.ndarray, after: np.ndarray, settings: SolverSettings
) -> LayoutChange:
    """J of the elements `after` (just solved) against the layout they had in `before`, on `graph`, the dense-sized W′.

    R_stab counts moves from π₀ (`first`) in both, so that a second round does not pay twice.
    """
    cost = settings.cost_of(graph.shape[0])
    return LayoutChange(
        evaluate_cost(graph, with_dropped(before, first), cost, first),
        evaluate_cost(graph, with_dropped(after, first), cost, first),
    )


def realise(
    model: nn.Module, effects: dict[str, Effect], tile: dict[str, int]
) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """Copy of the model in which the effects' saving is real, and which elements of each axis are still there.

    tile: elements that go together, per axis kind. The effects are in the model's present order.
    """
    from icd_lib.models.families import find_adapter

    smaller = copy.deepcopy(model)
    axes = {axis.name: axis for axis in find_adapter(model).axes()}
    return smaller, {
        name: effect.realise(smaller, axes[name], tile[axes[name].kind]) for name, effect in effects.items()
    }


def perm_record(perms: dict[str, np.ndarray], seed: int) -> dict:
    """Contents of perm_before.json and perm_after.json."""
    return {
        "tag": "icd/v1",
        "seed": seed,
        "axes": {
            axis: {"D": len(perm), "pi": perm.tolist(), "hash": hash_permutation(perm)} for axis, perm in perms.items()
        },
    }


def read_perm_record(path, mode: str) -> dict[str, np.ndarray]:
    """Permutations of a perm_before.json, or of a run folder's mode; `ArtifactError` unless every hash matches."""
    file = user_path(path)
    file = file / mode / "perm_before.json" if file.is_dir() else file
    try:
        record = read_text(file)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{file} holds no permutations ({error}); give a perm_before.json or a run folder"
        ) from error
    return perms_of(check_shape(record, f"{mode}/perm_before.json", f"{file} (a perm_before.json?)"), str(file))


def perms_of(record: dict, where: str) -> dict[str, np.ndarray]:
    """The permutations of a `perm_record` read back; `ArtifactError` unless every one matches its hash and its D."""
    perms = {}
    for axis, entry in record["axes"].items():
        try:
            perms[axis] = np.array(entry["pi"], dtype=np.int64)
        except OverflowError as error:
            raise ArtifactError(f"{where} holds no permutation of axis {axis!r} ({error}); make it again") from error
        if hash_permutation(perms[axis]) != entry["hash"] or len(perms[axis]) != entry["D"]:
            raise ArtifactError(f"the permutation of axis {axis!r} in {where} does not match its hash; it was changed")
    return perms
