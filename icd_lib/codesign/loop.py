"""The co-design loop: permute → transform → re-permute → measure → accept or roll back.

Three arms spend the same quality budget with the same transform, kernels, compaction and data (design sections 3, 4):
linear prunes whole tiles of the layout π₀; oneshot prunes single elements at one rate, once; iterative prunes single
elements, re-permutes what is left into whole tiles, drops the dead ones, and repeats while it pays.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from icd_lib.axes.expand import expand
from icd_lib.axes.kinds import SINGLE
from icd_lib.axes.permutation import invert_permutation
from icd_lib.codesign.layouts import (
    Relayout,
    apply_layouts,
    check_layouts,
    compare_layouts,
    drop_dead_tiles,
    relayout,
    solve_layouts,
    with_dropped,
)
from icd_lib.codesign.problem import Judgement, Problem
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.transforms.base import AxisState, PrunePlan, TransformMeta
from icd_lib.transforms.distill import distill
from icd_lib.transforms.head_dim import reduce_head_dim
from icd_lib.transforms.sparsity.obs import Elimination
from icd_lib.transforms.sparsity.prune import prune, prune_closed_form

TARGET_TOLERANCE = 0.005  # of dense latency: widths come in whole tiles


@dataclass
class Candidate:
    """A model on the way: `origin[axis]` says which dense elements are left, in their present order."""

    model: nn.Module
    origin: dict[str, np.ndarray]
    strength: float = 0.0
    plan: PrunePlan | None = None
    meta: TransformMeta | None = None
    judgement: Judgement | None = None
    before_distill: nn.Module | None = None
    relayouts: dict[str, Relayout] = field(default_factory=dict)
    certificates: list[dict] = field(default_factory=list)

    @property
    def widths(self) -> dict[str, int]:
        return {axis: len(elements) for axis, elements in self.origin.items()}


@dataclass
class Solution:
    """Result of one mode: the best accepted candidate, π₀ and its certificates, and every attempt with its fate."""

    mode: str
    best: Candidate
    perms_before: dict[str, np.ndarray]
    solver_stats: dict[str, dict]
    certificates: list[dict]
    attempts: list[dict]

    @property
    def alive(self) -> dict[str, np.ndarray]:
        """Bool (D,) per axis, in the dense model's order."""
        return {axis: np.isin(np.arange(len(perm)), self.best.origin[axis]) for axis, perm in self.perms_before.items()}

    def reached(self, target: float | None) -> bool | None:
        """Whether the tables predict the latency that was asked for, within `TARGET_TOLERANCE`; None: none was."""
        return None if target is None else predicted_latency(self.best) <= target + TARGET_TOLERANCE

    @property
    def perms_after(self) -> dict[str, np.ndarray]:
        """π₁ over all dense elements: what is left in its present order, then what was dropped, in π₀'s order."""
        return {axis: with_dropped(self.best.origin[axis], perm) for axis, perm in self.perms_before.items()}


def solve(problem: Problem, mode: str) -> Solution:
    """Run one mode (`linear`, `oneshot` or `iterative`)."""
    return {"linear": solve_linear, "oneshot": solve_oneshot, "iterative": solve_iterative}[mode](problem)


def start_model(problem: Problem) -> nn.Module:
    """The dense model, with smaller heads if the scenario asks for them (the same in every arm)."""
    if problem.settings.head_dim is None:
        return problem.dense
    kept, ridge = problem.settings.head_dim, problem.settings.ridge
    return reduce_head_dim(problem.dense, problem.dense, kept, problem.batches, ridge=ridge)[0]


def first_layouts(problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """π₀ of every axis: those the problem was given, or solved from the co-activation graphs."""
    if problem.known_perms is None:
        return solve_layouts(problem.graphs, problem.solver, problem.keep_layouts)
    return check_layouts(problem.known_perms, problem.graphs), {}


def solve_linear(problem: Problem) -> Solution:
    """Permute by π₀, then prune whole tiles of that layout as far as the budget allows."""
    perms, stats = first_layouts(problem)
    permuted, certificates = apply_layouts(start_model(problem), perms, problem.example)
    paths, tiles = problem.tile_paths(perms), problem.settings.tiles
    curves = problem.curves(paths, tiles)

    def draft(strength: float) -> Candidate:
        plan = problem.plan(curves, strength)
        return drafted(problem, plan, paths, tiles, strength, perms)

    def attempt(strength: float, _best: Candidate) -> Candidate:
        plan = problem.plan(curves, strength)
        return finish(problem, permuted, dict(perms), plan, paths, tiles, strength, perms)

    best, attempts = search(problem, draft, attempt, Candidate(permuted, dict(perms)))
    return Solution("linear", best, perms, stats, certificates, attempts)


def solve_oneshot(problem: Problem) -> Solution:
    """Prune single FFN neurons at one rate in every layer, once, and remove them; no layout is solved."""
    identity = {axis: np.arange(graph.shape[0]) for axis, graph in problem.graphs.items()}
    start = start_model(problem)

    def draft(strength: float) -> Candidate:
        plan = problem.uniform_plan(problem.element_curves, strength)
        return drafted(problem, plan, problem.element_paths, SINGLE, strength)

    def attempt(strength: float, _best: Candidate) -> Candidate:
        plan = problem.uniform_plan(problem.element_curves, strength)
        return finish(problem, start, identity, plan, problem.element_paths, SINGLE, strength)

    best, attempts = search(problem, draft, attempt, Candidate(start, identity))
    return Solution("oneshot", best, identity, {}, [], attempts)


def solve_iterative(problem: Problem) -> Solution:
    """Permute by π₀; then transform, re-permute, compact and judge in rounds, keeping only what is accepted."""
    perms, stats = first_layouts(problem)
    permuted, certificates = apply_layouts(start_model(problem), perms, problem.example)

    def draft(strength: float) -> Candidate:
        plan = problem.plan(problem.element_curves, strength)
        return drafted(problem, plan, problem.element_paths, SINGLE, strength)

    def attempt(strength: float, best: Candidate) -> Candidate:
        return transform_and_relayout(problem, best, perms, strength)

    best, attempts = search(problem, draft, attempt, Candidate(permuted, dict(perms)))
    return Solution("iterative", best, perms, stats, certificates + best.certificates, attempts)


def search(
    problem: Problem,
    draft: Callable[[float], Candidate],
    attempt: Callable[[float, Candidate], Candidate],
    start: Candidate,
) -> tuple[Candidate, list[dict]]:
    """The strongest candidate that keeps the budget, the same way for every arm.

    Drafts (closed form, no pass over the calibration text) say how strong; whole attempts then go on from there:
    weaker until one is accepted, stronger from there until one is refused. An attempt gets the best candidate so far.
    A latency target is aimed at in two steps and nowhere else.
    """
    attempts: list[dict] = []
    settings, best = problem.settings, start
    if settings.latency_target_rel is not None:
        for strength in (settings.latency_target_rel / 2, settings.latency_target_rel):
            best = _tried(problem, attempt, strength, best, attempts)
        return best, attempts
    ladder = sorted(settings.strengths, reverse=True)
    rung, step, taken = first_rung(problem, ladder, draft, attempts), -1, 0
    # A draft that is neither refitted nor distilled is what an attempt gives: the strongest is only laid out.
    drafts_decide = problem.closed_form and not settings.distill_steps
    while 0 <= rung < len(ladder) and taken < settings.max_rounds:
        before, taken = best, taken + 1
        best = _tried(problem, attempt, ladder[rung], best, attempts)
        if best is not before:
            step = 1
        if step == 1 and (best is before or drafts_decide):
            break
        rung += step
    return best, attempts


def first_rung(problem: Problem, ladder: list[float], draft: Callable, attempts: list[dict]) -> int:
    """The strongest rung whose draft is accepted, looked for from the middle; the middle one where none is drafted."""
    rung, accepted, refused = middle(ladder), -1, len(ladder)
    if not problem.drafts:
        return rung
    while accepted < rung < refused:
        _tried(problem, lambda strength, _: draft(strength), ladder[rung], None, attempts, "draft")
        if attempts[-1]["accepted"]:
            rung, accepted = rung + 1, rung
        else:
            rung, refused = rung - 1, rung
    return max(accepted, 0)


def middle(ladder: list[float]) -> int:
    """The rung from which the search starts."""
    return (len(ladder) - 1) // 2


def _tried(
    problem: Problem,
    make: Callable[[float, Candidate | None], Candidate],
    strength: float,
    best: Candidate | None,
    attempts: list[dict],
    what: str = "attempt",
) -> Candidate | None:
    """Make a candidate, judge it, append what became of it to `attempts`; returns it if it is accepted, else `best`."""
    problem.progress(f"{what} {len(attempts) + 1}: aiming at {strength:+.1%} latency")
    try:
        candidate = make(strength, best)
        reasons = objections(problem, best, candidate)
    except TransformError as error:
        candidate, reasons = None, [str(error)]
    attempts.append(record(candidate, strength, reasons, what))
    report_attempt(problem, what, attempts[-1])
    return best if reasons else candidate


def drafted(
    problem: Problem,
    plan: PrunePlan,
    paths: dict[str, Elimination],
    tile: dict[str, int],
    strength: float,
    orders: dict[str, np.ndarray] | None = None,
) -> Candidate:
    """What `plan` leaves of the dense model in closed form, judged; no layout is needed for that."""
    masked, alive = prune_closed_form(
        problem.dense, plan, problem.moments, paths, tile=tile, ridge=problem.settings.ridge, orders=orders
    )
    smaller, _ = drop_dead_tiles(masked, alive, SINGLE)
    origin = {axis: np.flatnonzero(mask) for axis, mask in alive.items()}
    return Candidate(smaller, origin, strength, plan, judgement=problem.judge(smaller))


def transform_and_relayout(problem: Problem, state: Candidate, first: dict, strength: float) -> Candidate:
    """One round: prune single elements, solve W′ for π₁, pack what is alive into whole tiles, drop the rest."""
    if problem.closed_form:  # always from the dense model, in π₀
        state = Candidate(problem.dense, dict(first))
        plan = problem.plan(problem.element_curves, strength)
        masked, meta = prune_in_closed_form(problem, plan, problem.element_paths, SINGLE, first)
    else:
        plan = problem.plan(problem.element_curves, strength, state.widths)
        masked, meta = prune_in_sequence(problem, state.model, plan, SINGLE)
    perms, layouts = {}, {}
    for axis, axis_state in meta.axes.items():
        if not axis_state.alive.all():
            base = problem.graphs[axis][state.origin[axis]][:, state.origin[axis]]
            perms[axis] = relayout(axis_state.alive, base, problem.solver, problem.settings.epsilon_j)
            left = state.origin[axis][perms[axis]][: axis_state.kept]
            layouts[axis] = compare_layouts(problem.graphs[axis], first[axis], state.origin[axis], left, problem.solver)
    packed, certificates = apply_layouts(masked, perms, problem.example)
    alive = {axis: meta.axes[axis].alive[perm] for axis, perm in perms.items()}
    smaller, present = drop_dead_tiles(packed, alive, problem.settings.tiles)
    changed = {axis: state.origin[axis][perm][present[axis]] for axis, perm in perms.items()}
    origin = state.origin | changed
    certificates = state.certificates + certificates
    return judged(
        problem, Candidate(smaller, origin, strength, plan, meta, relayouts=layouts, certificates=certificates)
    )


def finish(
    problem: Problem,
    model: nn.Module,
    origin: dict,
    plan: PrunePlan,
    paths: dict[str, Elimination],
    tile: dict[str, int],
    strength: float,
    orders: dict[str, np.ndarray] | None = None,
) -> Candidate:
    """Prune at the given granularity in the layout `origin`, drop dead tiles, distil and judge.

    `orders`: the layout in which `paths` count their groups (default: the dense model's own).
    """
    if problem.closed_form:
        masked, meta = prune_in_closed_form(problem, plan, paths, tile, origin, orders)
    else:
        masked, meta = prune_in_sequence(problem, model, plan, tile)
    smaller, present = drop_dead_tiles(masked, {axis: state.alive for axis, state in meta.axes.items()}, tile)
    left = {axis: elements[present[axis]] for axis, elements in origin.items()}
    return judged(problem, Candidate(smaller, left, strength, plan, meta))


def prune_in_sequence(
    problem: Problem, model: nn.Module, plan: PrunePlan, tile: dict[str, int]
) -> tuple[nn.Module, TransformMeta]:
    """Block after block on the stream of the already pruned network, following the dense model's residual stream."""
    return prune(
        model,
        problem.dense,
        plan,
        problem.batches,
        tile=tile,
        ridge=problem.settings.ridge,
        goals=problem.goals,
        progress=problem.progress,
    )


def prune_in_closed_form(
    problem: Problem,
    plan: PrunePlan,
    paths: dict[str, Elimination],
    tile: dict[str, int],
    layout: dict[str, np.ndarray],
    orders: dict[str, np.ndarray] | None = None,
) -> tuple[nn.Module, TransformMeta]:
    """Every block alone, from the dense model's moments; the masked model and its axes are in `layout`.

    `orders`: the layout in which `paths` count their groups (default: the dense model's own).
    """
    ridge, moments = problem.settings.ridge, problem.moments
    masked, alive = prune_closed_form(problem.dense, plan, moments, paths, tile=tile, ridge=ridge, orders=orders)
    permuted, _ = apply_layouts(masked, layout, problem.example)
    meta = TransformMeta("sparsity", max(tile.values()), notes={"ridge": ridge, "closed_form": True})
    for block in problem.adapter.blocks():
        axis, granule = block.axis, tile[block.kind]
        perm, path = layout[axis], paths[axis]
        removed = int((~alive[axis]).sum()) // granule
        order = np.arange(block.elements) if orders is None else orders[axis]
        saliency = np.zeros(block.elements)
        groups = order[: block.elements // granule * granule].reshape(-1, granule)
        saliency[groups[path.order[:removed]]] = np.diff(path.loss[: removed + 1])[:, None]
        loss = path.loss[removed] / max(moments[axis].energy, 1e-12)
        meta.axes[axis] = AxisState(axis, block.kind, alive[axis][perm], saliency[perm], loss)
    return permuted, meta


def judged(problem: Problem, candidate: Candidate) -> Candidate:
    """Distil the candidate toward the dense model, the same for every arm, then judge it."""
    settings = problem.settings
    candidate.before_distill = candidate.model
    if settings.distill_steps:
        candidate.model = distill(
            candidate.model,
            problem.dense,
            problem.distill_batches,
            steps=settings.distill_steps,
            learning_rate=settings.distill_lr,
            seed=settings.seed,
            states=problem.teacher_states,
            progress=problem.progress,
        )
    candidate.judgement = problem.judge(candidate.model)
    return candidate


def objections(problem: Problem, best: Candidate | None, candidate: Candidate) -> list[str]:
    """Why the candidate is not accepted (empty: it is): its predicted latency must fall, and quality must hold.

    J and C have no say in this: they choose between the layouts of one transform (`layouts.relayout`).
    """
    reasons = []
    if best is not None and candidate.plan.predicted_latency_rel > predicted_latency(best):
        reasons.append("the tables predict a rise in latency")
    return reasons + problem.over_budget(candidate.judgement)


def predicted_latency(state: Candidate) -> float:
    return state.plan.predicted_latency_rel if state.plan else 0.0


def mean_change(layouts: dict[str, Relayout], term: str) -> float:
    """Mean over the axes that lost something of term(π₁) − term(before)."""
    if not layouts:
        return 0.0
    return float(np.mean([getattr(layout.after, term) - getattr(layout.before, term) for layout in layouts.values()]))


def record(candidate: Candidate | None, strength: float, reasons: list[str], what: str) -> dict:
    """One draft or attempt for the log and the report."""
    entry = {"what": what, "strength": strength, "accepted": not reasons, "reasons": reasons}
    if candidate is not None:
        entry |= {
            "widths": candidate.widths,
            "predicted_latency_rel": candidate.plan.predicted_latency_rel,
            "predicted_loss": candidate.plan.predicted_loss,
            "validation": candidate.judgement.to_json(),
        }
        if candidate.relayouts:
            entry["change"] = {term: mean_change(candidate.relayouts, term) for term in ("C", "Q", "J")}
            if entry["change"]["J"] > 0 > candidate.plan.predicted_latency_rel:
                entry["disagreement"] = (
                    f"J rose by {entry['change']['J']:.4f} (C by {entry['change']['C']:+.4f}), but fewer tiles are "
                    f"touched: the tables predict {candidate.plan.predicted_latency_rel:+.1%}; the clock decides"
                )
            entry["objective"] = {
                axis: {"before": vars(layout.before), "after": vars(layout.after)}
                for axis, layout in candidate.relayouts.items()
            }
    return entry


def report_attempt(problem: Problem, what: str, entry: dict) -> None:
    """Say and log what became of an attempt."""
    fate = "accepted" if entry["accepted"] else "rolled back: " + "; ".join(entry["reasons"])
    drop = entry.get("validation", {}).get("drop_pp")
    problem.progress(f"{fate}" + (f" (loses {drop:+.3f} pp where strengths are chosen)" if drop is not None else ""))
    if "disagreement" in entry:
        problem.progress(entry["disagreement"])
    problem.log(what, **entry)


def at_dense_shape(origin: dict[str, np.ndarray], model: nn.Module, dense: nn.Module, perms: dict) -> nn.Module:
    """The model's function at the dense shapes in the layout `perms`, zeros where elements were removed."""
    places = {axis: invert_permutation(perm)[origin[axis]] for axis, perm in perms.items()}
    return expand(model, dense, find_adapter(dense).axes(), places)
