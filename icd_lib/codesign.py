"""The co-design loop: permute → transform → re-permute → measure → accept or roll back.

Three arms spend the same quality budget with the same transform, kernels, compaction and data (design sections 3, 4):
linear prunes whole tiles of the layout π₀; oneshot prunes single elements at one rate, once; iterative prunes single
elements, re-permutes what is left into whole tiles, drops the dead ones, and repeats while it pays.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from icd_lib.axes.expand import expand
from icd_lib.axes.kinds import SINGLE
from icd_lib.axes.permutation import invert_permutation
from icd_lib.errors import TransformError
from icd_lib.layouts import (
    Relayout,
    apply_layouts,
    check_layouts,
    compare_layouts,
    drop_dead_tiles,
    relayout,
    solve_layouts,
    with_dropped,
)
from icd_lib.models.adapter import find_adapter
from icd_lib.problem import Judgement, Problem
from icd_lib.transforms.distill import distill
from icd_lib.transforms.head_dim import reduce_head_dim
from icd_lib.transforms.meta import PrunePlan, TransformMeta
from icd_lib.transforms.sparsity import prune

# One rate for every layer reaches its limit earlier than an uneven allocation: where oneshot's search starts, as a
# share of the others' first strength.
ONESHOT_SHARE = 0.8


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
    curves, tiles = problem.tile_curves(perms), problem.settings.tiles

    def attempt(strength: float) -> Candidate:
        plan = problem.plan(curves, strength)
        return finish(problem, permuted, dict(perms), plan, tiles, strength)

    best, attempts = strongest_within_budget(problem, attempt, Candidate(permuted, dict(perms)))
    return Solution("linear", best, perms, stats, certificates, attempts)


def solve_oneshot(problem: Problem) -> Solution:
    """Prune single FFN neurons at one rate in every layer, once, and remove them; no layout is solved."""
    identity = {axis: np.arange(graph.shape[0]) for axis, graph in problem.graphs.items()}
    start = start_model(problem)

    def attempt(strength: float) -> Candidate:
        plan = problem.uniform_plan(problem.element_curves, strength)
        return finish(problem, start, identity, plan, SINGLE, strength)

    best, attempts = strongest_within_budget(problem, attempt, Candidate(start, identity), ONESHOT_SHARE)
    return Solution("oneshot", best, identity, {}, [], attempts)


def solve_iterative(problem: Problem) -> Solution:
    """Permute by π₀; then transform, re-permute, compact and judge in rounds, keeping only what is accepted."""
    perms, stats = first_layouts(problem)
    permuted, certificates = apply_layouts(start_model(problem), perms, problem.example)
    best, attempts = Candidate(permuted, dict(perms)), []
    for strength in rounds(problem, attempts):
        problem.progress(f"round {len(attempts) + 1}: aiming at {strength:+.1%} latency")
        try:
            candidate = transform_and_relayout(problem, best, perms, strength)
            reasons = objections(problem, best, candidate)
        except TransformError as error:
            candidate, reasons = None, [str(error)]
        attempts.append(record(candidate, strength, reasons))
        report_attempt(problem, "iterative", attempts[-1])
        if not reasons:
            best = candidate
            certificates = certificates + candidate.meta.notes["certificates"]
    return Solution("iterative", best, perms, stats, certificates, attempts)


def rounds(problem: Problem, attempts: list[dict]) -> Iterator[float]:
    """Strengths that the loop aims at: rung by rung from the ladder's middle, or a latency target in two steps."""
    target = problem.settings.latency_target_rel
    aims = advance(problem.settings.strengths, attempts) if target is None else (target / 2, target)
    return itertools.islice(aims, problem.settings.max_rounds)


def advance(strengths: tuple[float, ...], attempts: list[dict]) -> Iterator[float]:
    """Weaker rungs until one of `attempts` is accepted, then stronger ones from there, until one is refused.

    A rung that was refused from the dense model is tried again from the accepted, already distilled one: pruning in
    small steps with recovery between them loses less than one large step (Zhu & Gupta 2017, section 3).
    """
    ladder = sorted(strengths, reverse=True)
    rung, step = middle(ladder), -1
    while 0 <= rung < len(ladder):
        yield ladder[rung]
        if attempts[-1]["accepted"]:
            step = 1
        elif step == 1:
            return
        rung += step


def middle(ladder: list[float]) -> int:
    """The rung from which the search starts."""
    return (len(ladder) - 1) // 2


def climb(strengths: tuple[float, ...], attempts: list[dict], share: float = 1.0) -> Iterator[float]:
    """A ladder of strengths from about `share` of its middle one: stronger while accepted, else weaker until one is."""
    ladder = sorted(strengths, reverse=True)
    first = share * ladder[middle(ladder)]
    rung, accepted, refused = min(range(len(ladder)), key=lambda i: abs(ladder[i] - first)), -1, len(ladder)
    while accepted < rung < refused:
        yield ladder[rung]
        if attempts[-1]["accepted"]:
            rung, accepted = rung + 1, rung
        else:
            rung, refused = rung - 1, rung


def transform_and_relayout(problem: Problem, state: Candidate, first: dict, strength: float) -> Candidate:
    """One round: prune single elements, solve W′ for π₁, pack what is alive into whole tiles, drop the rest."""
    plan = problem.plan(problem.element_curves, strength, state.widths)
    masked, meta = prune(
        state.model,
        problem.dense,
        plan,
        problem.batches,
        tile=SINGLE,
        ridge=problem.settings.ridge,
        goals=problem.goals,
        progress=problem.progress,
    )
    perms, layouts = {}, {}
    for axis, axis_state in meta.axes.items():
        if not axis_state.alive.all():
            base = problem.graphs[axis][state.origin[axis]][:, state.origin[axis]]
            perms[axis] = relayout(axis_state.alive, base, problem.solver)
            left = state.origin[axis][perms[axis]][: axis_state.kept]
            layouts[axis] = compare_layouts(problem.graphs[axis], first[axis], state.origin[axis], left, problem.solver)
    packed, certificates = apply_layouts(masked, perms, problem.example)
    alive = {axis: meta.axes[axis].alive[perm] for axis, perm in perms.items()}
    smaller, present = drop_dead_tiles(packed, alive, problem.settings.tiles)
    changed = {axis: state.origin[axis][perm][present[axis]] for axis, perm in perms.items()}
    origin = state.origin | changed
    meta.notes["certificates"] = certificates
    return judged(problem, Candidate(smaller, origin, strength, plan, meta, relayouts=layouts))


def finish(
    problem: Problem, model: nn.Module, origin: dict, plan: PrunePlan, tile: dict[str, int], strength: float
) -> Candidate:
    """Prune at the given granularity in the present layout, drop dead tiles, distil and judge."""
    masked, meta = prune(
        model,
        problem.dense,
        plan,
        problem.batches,
        tile=tile,
        ridge=problem.settings.ridge,
        goals=problem.goals,
        progress=problem.progress,
    )
    smaller, present = drop_dead_tiles(masked, {axis: state.alive for axis, state in meta.axes.items()}, tile)
    left = {axis: elements[present[axis]] for axis, elements in origin.items()}
    return judged(problem, Candidate(smaller, left, strength, plan, meta))


def judged(problem: Problem, candidate: Candidate) -> Candidate:
    """Distil the candidate toward the dense model (the same for every arm), then judge it on validation data."""
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


def objections(problem: Problem, state: Candidate, candidate: Candidate) -> list[str]:
    """Why the candidate is not accepted (empty: it is): J must fall, C and latency must not rise, quality must hold."""
    settings, reasons = problem.settings, []
    change_j = mean_change(candidate.relayouts, "J")
    change_c = mean_change(candidate.relayouts, "C")
    if change_j > -settings.epsilon_j:
        reasons.append(f"J changed by {change_j:+.4f}; it must fall by at least {settings.epsilon_j}")
    if change_c > 1e-9:
        reasons.append(f"J fell while C rose by {change_c:+.4f}; such a layout is never accepted on J alone")
    if candidate.plan.predicted_latency_rel > predicted_latency(state):
        reasons.append("the tables predict a rise in latency")
    return reasons + problem.over_budget(candidate.judgement)


def predicted_latency(state: Candidate) -> float:
    return state.plan.predicted_latency_rel if state.plan else 0.0


def mean_change(layouts: dict[str, Relayout], term: str) -> float:
    """Mean over the axes that lost something of term(π₁) − term(before)."""
    if not layouts:
        return 0.0
    return float(np.mean([getattr(layout.after, term) - getattr(layout.before, term) for layout in layouts.values()]))


def strongest_within_budget(
    problem: Problem, attempt: Callable[[float], Candidate], start: Candidate, share: float = 1.0
) -> tuple[Candidate, list[dict]]:
    """Look along the ladder for the strongest that validation data accepts; a latency target is the only attempt."""
    target = problem.settings.latency_target_rel
    best, attempts = start, []
    for strength in climb(problem.settings.strengths, attempts, share) if target is None else (target,):
        problem.progress(f"attempt {len(attempts) + 1}: aiming at {strength:+.1%} latency")
        try:
            candidate = attempt(strength)
            reasons = problem.over_budget(candidate.judgement)
        except TransformError as error:
            candidate, reasons = None, [str(error)]
        attempts.append(record(candidate, strength, reasons))
        report_attempt(problem, "search", attempts[-1])
        if not reasons:
            best = candidate
    return best, attempts


def record(candidate: Candidate | None, strength: float, reasons: list[str]) -> dict:
    """One attempt for the log and the report."""
    entry = {"strength": strength, "accepted": not reasons, "reasons": reasons}
    if candidate is not None:
        entry |= {
            "widths": candidate.widths,
            "predicted_latency_rel": candidate.plan.predicted_latency_rel,
            "predicted_loss": candidate.plan.predicted_loss,
            "validation": candidate.judgement.to_json(),
        }
        if candidate.relayouts:
            entry["change"] = {term: mean_change(candidate.relayouts, term) for term in ("C", "Q", "J")}
            entry["objective"] = {
                axis: {"before": vars(layout.before), "after": vars(layout.after)}
                for axis, layout in candidate.relayouts.items()
            }
    return entry


def report_attempt(problem: Problem, what: str, entry: dict) -> None:
    """Say and log what became of an attempt."""
    fate = "accepted" if entry["accepted"] else "rolled back: " + "; ".join(entry["reasons"])
    drop = entry.get("validation", {}).get("drop_pp")
    problem.progress(f"{fate}" + (f" (validation drop {drop:+.3f} pp)" if drop is not None else ""))
    problem.log(what, **entry)


def at_dense_shape(origin: dict[str, np.ndarray], model: nn.Module, dense: nn.Module, perms: dict) -> nn.Module:
    """The model's function at the dense shapes in the layout `perms`, zeros where elements were removed."""
    places = {axis: invert_permutation(perm)[origin[axis]] for axis, perm in perms.items()}
    return expand(model, dense, find_adapter(dense).axes(), places)
