"""The co-design loop: permute → for each transform: transform → re-permute → realise → judge → accept or roll back.

Three arms spend the same quality budget with the same transforms, kernels and data (`MODES`): linear transforms whole
tiles of the layout π₀; oneshot transforms single elements at one rate, once, in no layout; iterative transforms single
elements, lays what they became out anew, and repeats while it pays. The loop knows a transform by its effects only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import nn

from icd_lib.axes.expand import expand
from icd_lib.axes.kinds import SINGLE
from icd_lib.axes.permutation import invert_permutation
from icd_lib.codesign.candidate import Candidate, distilled, objections, record
from icd_lib.codesign.evidence import Problem
from icd_lib.codesign.ladder import Ladder, Rung
from icd_lib.codesign.layouts import (
    apply_layouts,
    check_layouts,
    compare_layouts,
    realise,
    repermute,
    solve_layouts,
    with_dropped,
)
from icd_lib.errors import NotFinite, TransformError
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import is_quantized, quantized_like
from icd_lib.records.attempts import Attempt
from icd_lib.records.reasons import Reason
from icd_lib.storage.record_json import as_json
from icd_lib.transforms.base import Known, Manner, Plan, Transform, join_plans
from icd_lib.transforms.effects import Effect, TransformMeta, untouched
from icd_lib.transforms.head_dim import reduce_head_dim

TARGET_TOLERANCE = 0.005  # of dense latency: widths come in whole tiles


@dataclass(frozen=True)
class Mode:
    """How an arm goes about it. permutes: it begins in π₀; by_tile: transforms act on whole tiles of that layout.

    repermutes: after every transform, and an attempt goes on from the best candidate so far; even: one rate for all
    layers.
    """

    permutes: bool = True
    by_tile: bool = False
    repermutes: bool = False
    even: bool = False


MODES = {
    "linear": Mode(by_tile=True),
    "oneshot": Mode(permutes=False, even=True),
    "iterative": Mode(repermutes=True),
}


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of one mode: the best accepted candidate, π₀ and its certificates, and what was tried, with its fate."""

    mode: str
    best: Candidate
    perms_before: dict[str, np.ndarray]
    solver_stats: dict[str, dict]
    certificates: list[dict]
    tried: list[Attempt]

    @property
    def attempts(self) -> list[dict]:
        """What was tried as objects of JSON: for files, and for the report of `icd.optimize`."""
        return as_json(self.tried)

    @property
    def present(self) -> dict[str, np.ndarray]:
        """Bool (D,) per axis, in the dense model's order: what is left."""
        return {axis: np.isin(np.arange(len(perm)), self.best.origin[axis]) for axis, perm in self.perms_before.items()}

    @property
    def perms_after(self) -> dict[str, np.ndarray]:
        """π₁ over all dense elements: what is left in its present order, then what was dropped, in π₀'s order."""
        return {axis: with_dropped(self.best.origin[axis], perm) for axis, perm in self.perms_before.items()}

    def reached(self, target: float | None) -> bool | None:
        """Whether the tables predict the latency that was asked for, within `TARGET_TOLERANCE`; None: none was."""
        return None if target is None else self.best.predicted_latency_rel <= target + TARGET_TOLERANCE


def solve(problem: Problem, mode: str) -> Solution:
    """Run one mode (`linear`, `oneshot` or `iterative`)."""
    way, certificates = MODES[mode], []
    perms, stats = first_layouts(problem) if way.permutes else (unpermuted(problem), {})
    model = start_model(problem)
    if way.permutes:
        model, certificates = apply_layouts(model, perms, problem.inputs.example)
    best = start = Candidate(model, dict(perms), effects=untouched_axes(problem))
    tries: list[Attempt] = []
    for each in problem.settings():
        best, more = search_arm(Arm(each, way, start))
        tries += more
        if best is not start:
            break
    return Solution(mode, best, perms, stats, certificates + best.certificates, tries)


def search_arm(arm: "Arm") -> tuple[Candidate, list[Attempt]]:
    """The strongest candidate of an arm that keeps the budget, and what was tried."""
    problem = arm.problem
    draft = arm.draft if arm.drafts and problem.inputs.settings.rate is None else None
    if problem.is_fixed:
        problem = problem.with_one_strength(arm.predicted_latency_rel)
    return search(problem, draft, arm.attempt, arm.start, decisive=arm.decisive, onward=arm.onward)


def start_model(problem: Problem) -> nn.Module:
    """The dense model, with smaller heads if the scenario asks for them (the same in every arm)."""
    inputs, kept = problem.inputs, problem.inputs.settings.head_dim
    if kept is None:
        return inputs.dense
    return reduce_head_dim(inputs.dense, inputs.dense, kept, inputs.batches, ridge=inputs.settings.ridge)[0]


def first_layouts(problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """π₀ of every axis: those the problem was given, or solved from the co-activation graphs.

    Of a model that comes transformed it is the stored order: nobody laid it out before, and its activations already
    show what is dead, so a solved π₀ would be the re-permutation itself.
    """
    graphs, perms = problem.evidence.graphs, problem.evidence.perms
    if perms is None and problem.is_given:
        return unpermuted(problem), {}
    if perms is None:
        return solve_layouts(graphs, problem.inputs.solver, problem.inputs.keep_layouts)
    return check_layouts(perms, graphs), {}


def unpermuted(problem: Problem) -> dict[str, np.ndarray]:
    """Every axis as the dense model has it."""
    return {axis: np.arange(size) for axis, size in problem.sizes.items()}


def untouched_axes(problem: Problem) -> dict[str, Effect]:
    """Every axis before a transform."""
    kinds = {axis.name: axis.kind for axis in problem.evidence.observed.adapter.axes()}
    return {axis: untouched(axis, kinds[axis], size) for axis, size in problem.sizes.items()}


@dataclass(frozen=True, eq=False)
class Arm:
    """One mode on a problem: `start` is the model in the layout from which it begins."""

    problem: Problem
    mode: Mode
    start: Candidate

    @cached_property
    def transforms(self) -> list[tuple[Transform, Known]]:
        """Every transform and what it knows."""
        tiles, orders = self.problem.inputs.settings.tiles, self.start.origin
        manner = Manner(tiles, orders) if self.mode.by_tile else Manner(even=self.mode.even)
        return [(item, item.evidence(self.problem.given(item, manner))) for item in self.problem.transforms]

    @property
    def drafts(self) -> bool:
        """Whether a candidate can be drafted."""
        return all(known.drafts for _, known in self.transforms)

    @property
    def decisive(self) -> bool:
        """Whether an attempt gives what its draft gave; distilled, it may be better."""
        return all(known.closed_form for _, known in self.transforms) and not self.problem.inputs.settings.distill_steps

    @property
    def onward(self) -> bool:
        """Whether an attempt goes on from the best candidate so far, and not from the start.

        Not where a transform puts weights on a grid: the next attempt would begin with rounded ones.
        """
        free = all(transform.trainable for transform, _ in self.transforms)
        return self.mode.repermutes and free and not self.transforms[0][1].closed_form

    @property
    def predicted_latency_rel(self) -> float:
        """What the tables predict of transforms that leave no choice."""
        plans = {item.name: item.plan(known, 0.0, self.start.widths) for item, known in self.transforms}
        return join_plans(plans).predicted_latency_rel or 0.0

    def draft(self, strength: float) -> Candidate:
        """The dense model transformed in closed form and judged; no layout is needed for that."""
        state, plans = Candidate(self.problem.inputs.dense, unpermuted(self.problem)), {}
        for transform, known in self.transforms:
            plan = plans[transform.name] = transform.plan(known, strength, state.widths)
            model, meta = transform.draft(known, plan, state.model)
            state = self.realised(replace(state, model=model), meta.touched, SINGLE)
        judgement = self.problem.inputs.judged(state.model)
        return replace(state, strength=strength, plan=join_plans(plans), judgement=judgement)

    def attempt(self, strength: float, best: Candidate) -> Candidate:
        """Transform, re-permute and realise, one transform after the other; distil while it can be done, and judge."""
        state = replace(best if self.onward else self.start, changes={}, unquantized=None, before_distill=None)
        distils = self.problem.inputs.settings.distill_steps > 0
        plans: dict[str, Plan] = {}
        metas: dict[str, TransformMeta] = {}
        # Without a layout there are no tiles to keep whole.
        tile = self.problem.inputs.settings.tiles if self.mode.permutes else SINGLE
        for transform, known in self.transforms:
            if distils and metas and not transform.trainable and state.before_distill is None:
                state = distilled(self.problem, state)
            plan = plans[transform.name] = transform.plan(known, strength, state.widths)
            model, meta = transform.apply(known, plan, state.model, state.origin)
            if metas and is_quantized(model) and not is_quantized(state.model):
                state = replace(state, unquantized=state.model)
            metas[transform.name] = meta
            state, effects = replace(state, model=model), meta.touched
            if self.mode.repermutes:
                state, effects = self.repermuted(state, effects)
            state = self.realised(state, effects, tile)
        if state.before_distill is None:
            state = distilled(self.problem, state)
        judgement = self.problem.inputs.judged(state.model)
        return replace(state, strength=strength, plan=join_plans(plans), metas=metas, judgement=judgement)

    def repermuted(self, state: Candidate, effects: dict[str, Effect]) -> tuple[Candidate, dict[str, Effect]]:
        """`state` in the layout that W′ of the effects asks for, and the effects in that layout."""
        inputs, orders, changes = self.problem.inputs, {}, {}
        for axis, effect in effects.items():
            W, origin = self.problem.evidence.graphs[axis], state.origin[axis]
            orders[axis] = repermute(effect, W[origin][:, origin], inputs.solver, inputs.settings.epsilon_j)
            left = origin[orders[axis]][: effect.kept]
            now = effect.spread(origin, W.shape[0]).graph(W)
            changes[axis] = compare_layouts(now, self.start.origin[axis], origin, left, inputs.solver)
        model, certificates = apply_layouts(state.model, orders, inputs.example)
        moved = replace(
            state,
            model=model,
            origin=state.origin | {axis: state.origin[axis][order] for axis, order in orders.items()},
            changes=state.changes | changes,
            certificates=state.certificates + certificates,
        )
        return moved, {axis: effect.permuted(orders[axis]) for axis, effect in effects.items()}

    def realised(self, state: Candidate, effects: dict[str, Effect], tile: dict[str, int]) -> Candidate:
        """`state` in which the effects' saving is real."""
        model, there = realise(state.model, effects, tile)
        origin = {axis: state.origin[axis][present] for axis, present in there.items()}
        settled = {
            axis: effect.settled(there[axis]).spread(state.origin[axis], self.problem.sizes[axis])
            for axis, effect in effects.items()
        }
        return replace(state, model=model, origin=state.origin | origin, effects=state.effects | settled)


def search(
    problem: Problem,
    draft: Callable[[float], Candidate] | None,
    attempt: Callable[[float, Candidate], Candidate],
    start: Candidate,
    *,
    decisive: bool = False,
    onward: bool = True,
) -> tuple[Candidate, list[Attempt]]:
    """The strongest candidate that keeps the budget, and what became of every draft and attempt on the ladder.

    An attempt gets the best candidate so far. A draft that is None leaves all to the attempts.
    """
    best, tries = start, []
    ladder = Ladder(problem.inputs.settings, drafts=draft is not None, decisive=decisive, onward=onward)
    rung = ladder.next()
    while rung is not None:
        if rung.what == "draft":
            candidate = tried(problem, rung, tries, None, lambda rung=rung: draft(rung.strength))
        else:
            candidate = tried(problem, rung, tries, best, lambda rung=rung, best=best: attempt(rung.strength, best))
            best = candidate or best
        rung = ladder.next(accepted=candidate is not None)
    return best, tries


def tried(
    problem: Problem, rung: Rung, tries: list[Attempt], best: Candidate | None, make: Callable[[], Candidate]
) -> Candidate | None:
    """Make a candidate, judge it, append what became of it to `tries`; returns it if it is accepted."""
    inputs = problem.inputs
    with_what = "".join(f", {path} {value:g}" for path, value in (problem.setting or {}).items())
    inputs.progress(f"{rung.what} {len(tries) + 1}: aiming at {rung.strength:+.1%} latency{with_what}")
    try:
        candidate = make()
        reasons = objections(inputs.settings, best, candidate)
    except (TransformError, NotFinite) as error:
        code = "not finite" if isinstance(error, NotFinite) else "transform"
        candidate, reasons = None, [Reason(code, str(error))]
    tries.append(record(candidate, rung, reasons, problem.setting))
    tell(problem, tries[-1])
    return None if reasons else candidate


def tell(problem: Problem, attempt: Attempt) -> None:
    """Say and log what became of a draft or an attempt."""
    say, validation = problem.inputs.progress, attempt.validation
    say(attempt.fate + (f" (loses {validation.drop_pp:+.3f} pp where strengths are chosen)" if validation else ""))
    if attempt.disagreement:
        say(attempt.disagreement)
    problem.inputs.log(attempt.what, **as_json(attempt))


def at_dense_shape(origin: dict[str, np.ndarray], model: nn.Module, dense: nn.Module, perms: dict) -> nn.Module:
    """The model's function at the dense shapes in the layout `perms`, zeros where elements were removed."""
    places = {axis: invert_permutation(perm)[origin[axis]] for axis, perm in perms.items()}
    whole = quantized_like(dense, model) if is_quantized(model) else dense
    return expand(model, whole, find_adapter(whole).axes(), places)
