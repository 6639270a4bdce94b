from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.permutation import hash_permutation
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign import (
    Candidate,
    at_dense_shape,
    mean_change,
    objections,
    rounds,
    solve,
    strongest_within_budget,
)
from icd_lib.errors import TransformError
from icd_lib.layouts import Relayout
from icd_lib.models.adapter import find_adapter
from icd_lib.problem import Judgement
from icd_lib.solver.cost import CostReport
from icd_lib.transforms.meta import PrunePlan
from tests.tiny_problems import assert_same_state, small_batches, small_model, small_problem, state_of

MODES = ("linear", "oneshot", "iterative")
LADDER = [-0.05 * step for step in range(1, 11)]


def parameters_of(model):
    return sum(p.numel() for p in model.parameters())


def tried(problem, verdicts):
    """Strengths that `rounds` yields when attempt i is accepted as `verdicts[i]` says."""
    attempts, strengths = [], []
    for strength in rounds(problem, attempts):
        strengths.append(strength)
        attempts.append({"accepted": verdicts[len(strengths) - 1]})
    return strengths


def test_rounds_climb_the_ladder_from_its_middle_while_accepted():
    assert tried(small_problem(), [True] * 9) == [-0.2, -0.3, -0.4]
    assert tried(small_problem(), [True, False]) == [-0.2, -0.3]


def test_rounds_go_down_until_one_is_accepted():
    assert tried(small_problem(), [False] * 9) == [-0.2, -0.1]
    assert tried(small_problem(strengths=LADDER, max_rounds=9), [False, False, True, False]) == [
        *LADDER[4:1:-1],
        LADDER[3],
    ]


def test_rounds_try_a_refused_strength_again_from_what_was_accepted():
    tries = tried(small_problem(strengths=LADDER, max_rounds=9), [False, True, True, True, False])
    assert tries == [LADDER[4], LADDER[3], LADDER[4], LADDER[5], LADDER[6]]


def test_rounds_stop_at_the_most_rounds():
    assert tried(small_problem(max_rounds=2), [True] * 9) == [-0.2, -0.3]
    assert len(tried(small_problem(strengths=LADDER, max_rounds=3), [False] * 9)) == 3


def test_rounds_reach_a_latency_target_in_two_steps():
    problem = small_problem(latency_target_rel=-0.36)
    assert tried(problem, [True] * 9) == [-0.18, -0.36]
    assert tried(problem, [True, False, True])[:2] == [-0.18, -0.36]


class FakeSearch:
    """Attempts that cost no model: the drop is twice the latency gained, and some strengths cannot be reached."""

    def __init__(self, problem, unreachable=-9.0):
        self.problem, self.unreachable, self.asked = problem, unreachable, []

    def __call__(self, strength):
        self.asked.append(strength)
        if strength <= self.unreachable:
            raise TransformError("out of reach")
        judgement = Judgement(-2 * strength, 0.01)
        return Candidate(None, {"ffn.0": np.arange(3)}, strength, PrunePlan({}, strength, 0.1), judgement=judgement)


@pytest.mark.parametrize("share", [1.0, 0.75, 0.0])
@pytest.mark.parametrize("budget", [0.0, 0.12, 0.33, 0.57, 0.9, 1.2])
def test_the_search_finds_the_strongest_that_holds(budget, share):
    problem = small_problem(strengths=LADDER, quality_budget_pp=budget, selection_z=1.0)
    fake, start = FakeSearch(problem), Candidate(None, {})
    best, attempts = strongest_within_budget(problem, fake, start, share)
    holding = [s for s in LADDER if -2 * s + 0.01 <= budget]
    assert best.strength == (min(holding) if holding else 0.0)
    assert (best is start) == (not holding)
    assert len(attempts) == len(fake.asked) <= len(LADDER)
    first = share * sorted(LADDER, reverse=True)[(len(LADDER) - 1) // 2]
    assert abs(fake.asked[0] - first) == min(abs(s - first) for s in LADDER)
    assert [a["accepted"] for a in attempts] == [s in holding for s in fake.asked]
    assert all(bool(a["reasons"]) != a["accepted"] for a in attempts)


def test_the_search_passes_over_what_is_out_of_reach():
    problem = small_problem(strengths=LADDER, quality_budget_pp=9.0)
    best, attempts = strongest_within_budget(problem, FakeSearch(problem, unreachable=-0.32), Candidate(None, {}))
    assert best.strength == pytest.approx(-0.3)
    refused = [a for a in attempts if not a["accepted"]]
    assert refused and all("out of reach" in a["reasons"][0] and "widths" not in a for a in refused)


def test_a_latency_target_is_the_only_attempt_and_quality_does_not_stop_it():
    problem = small_problem(strengths=LADDER, quality_budget_pp=0.0, latency_target_rel=-0.42)
    best, attempts = strongest_within_budget(problem, FakeSearch(problem), Candidate(None, {}))
    assert best.strength == -0.42
    assert [a["strength"] for a in attempts] == [-0.42]


def report(C=0.5, J=0.5):
    return CostReport(C=C, Q=0.1, R_align=0.2, R_stab=0.0, J=J)


def candidate(after, latency_rel=-0.2, drop_pp=0.0, se_pp=0.0):
    return Candidate(
        None,
        {},
        -0.2,
        PrunePlan({}, latency_rel, 0.1),
        judgement=Judgement(drop_pp, se_pp),
        relayouts={"ffn.0": Relayout(report(), after)},
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (candidate(report(C=0.4, J=0.4)), None),
        (candidate(report(C=0.4, J=0.4999)), "J changed by -0.0001; it must fall by at least 0.001"),
        (candidate(report(C=0.6, J=0.4)), "J fell while C rose by"),
        (candidate(report(C=0.4, J=0.4), latency_rel=-0.05), "a rise in latency"),
        (candidate(report(C=0.4, J=0.4), drop_pp=0.2), "exceeds the budget of 0.1 pp"),
        (candidate(report(C=0.4, J=0.4), drop_pp=0.05, se_pp=0.06), "with 1 standard errors that exceeds"),
    ],
)
def test_each_objection_has_its_reason(changed, reason):
    problem = small_problem(epsilon_j=1e-3, selection_z=1.0)
    state = Candidate(None, {}, -0.1, PrunePlan({}, -0.1, 0.05))
    reasons = objections(problem, state, changed)
    assert len(reasons) == (reason is not None)
    assert reason is None or reason in reasons[0]


def test_all_objections_are_told_at_once():
    problem = small_problem(epsilon_j=1e-3, selection_z=1.0)
    state = Candidate(None, {}, -0.3, PrunePlan({}, -0.3, 0.05))
    assert len(objections(problem, state, candidate(report(C=0.6, J=0.6), drop_pp=1.0))) == 4


def test_a_round_that_removed_nothing_is_no_progress():
    problem, nothing = small_problem(epsilon_j=1e-3), candidate(report())
    assert mean_change({}, "J") == 0.0
    assert "J changed" in objections(problem, Candidate(None, {}), replace(nothing, relayouts={}))[0]


@pytest.fixture(scope="module", params=MODES)
def solved(request):
    """Each mode solved twice on equal problems whose judge accepts everything."""
    problems = [small_problem(), small_problem()]
    state = state_of(problems[0].dense)
    solutions = [solve(problem, request.param) for problem in problems]
    assert_same_state(problems[0].dense, state)
    return problems[0], *solutions


def test_the_same_problem_gives_the_same_model_bit_for_bit(solved):
    _, first, second = solved
    for kind in ("perms_before", "perms_after"):
        one, two = getattr(first, kind), getattr(second, kind)
        assert {a: hash_permutation(p) for a, p in one.items()} == {a: hash_permutation(p) for a, p in two.items()}
    assert_same_state(first.best.model, state_of(second.best.model))
    assert first.attempts == second.attempts


def test_an_accepting_judge_lets_every_mode_shrink_the_model(solved):
    problem, solution, _ = solved
    assert solution.attempts[-1]["accepted"]
    assert solution.best.strength == -0.4
    assert solution.best.plan.predicted_latency_rel <= -0.4
    assert parameters_of(solution.best.model) < parameters_of(problem.dense)


def test_widths_origin_and_model_agree(solved):
    problem, solution, _ = solved
    sizes = {axis.name: axis.size for axis in find_adapter(solution.best.model).axes()}
    for axis, elements in solution.best.origin.items():
        dense = len(solution.perms_before[axis])
        assert sizes[axis] == len(elements) == solution.best.widths[axis]
        assert len(set(elements.tolist())) == len(elements)
        assert sorted(solution.perms_after[axis]) == list(range(dense))
        assert np.array_equal(solution.perms_after[axis][: len(elements)], elements)
        assert np.array_equal(np.flatnonzero(solution.alive[axis]), np.sort(elements))
        if solution.mode != "oneshot" and axis.startswith("ffn"):
            assert len(elements) % problem.settings.tile == 0


@pytest.mark.parametrize("mode", MODES)
def test_origin_names_the_dense_elements_in_their_present_order(mode):
    problem = small_problem(distill_steps=0)
    best = solve(problem, mode).best
    for index, (small, whole) in enumerate(zip(best.model.encoder.layer, problem.dense.encoder.layer, strict=True)):
        origin = torch.from_numpy(best.origin[f"ffn.{index}"])
        # Pruning compensates in the consumer; the rows that produce an element are only moved.
        assert len(origin) < 48
        assert torch.equal(small.intermediate.dense.weight, whole.intermediate.dense.weight[origin])
        heads = torch.from_numpy(best.origin[f"heads.{index}"])
        rows = (heads[:, None] * 8 + torch.arange(8)).reshape(-1)
        assert torch.equal(small.attention.self.value.weight, whole.attention.self.value.weight[rows])


def test_linear_drops_whole_tiles_of_its_layout():
    solution = solve(small_problem(distill_steps=0, strengths=(-0.3,)), "linear")
    for axis in ("ffn.0", "ffn.1"):
        tiles = solution.alive[axis][solution.perms_before[axis]].reshape(-1, 8)
        assert (tiles.all(1) | ~tiles.any(1)).all()
        assert not tiles.all()


def test_the_result_at_dense_shape_computes_the_same(solved):
    problem, solution, _ = solved
    for perms in (solution.perms_before, solution.perms_after):
        whole = at_dense_shape(solution.best.origin, solution.best.model, problem.dense, perms)
        for batch in small_batches():
            wanted, got = (model_outputs(m.double(), batch) for m in (solution.best.model, whole))
            assert outputs_error(got, wanted) <= 1e-10
        solution.best.model.float()


def test_layouts_come_with_certificates(solved):
    _, solution, _ = solved
    if solution.mode == "oneshot":
        assert solution.certificates == [] and solution.solver_stats == {}
        assert all(np.array_equal(perm, np.arange(len(perm))) for perm in solution.perms_before.values())
        return
    hashes = [c["perm_hash"] for c in solution.certificates]
    assert all(hash_permutation(perm) in hashes for perm in solution.perms_before.values())
    assert max(c["max_rel_error"] for c in solution.certificates) <= 1e-6
    assert set(solution.solver_stats) == set(solution.perms_before)


@pytest.mark.parametrize("mode", MODES)
def test_a_judge_that_always_refuses_gets_the_dense_function_back(mode):
    logged = []
    problem = small_problem(
        judge=lambda model: Judgement(5.0, 0.1),
        log=lambda event, **meta: logged.append(meta),
        distill_steps=0,
        max_rounds=2,
    )
    state = state_of(problem.dense)
    solution = solve(problem, mode)
    assert_same_state(problem.dense, state)
    assert solution.attempts and not any(a["accepted"] for a in solution.attempts)
    assert all("exceeds the budget" in a["reasons"][-1] for a in solution.attempts)
    assert [m["accepted"] for m in logged] == [False] * len(solution.attempts)
    assert parameters_of(solution.best.model) == parameters_of(problem.dense)
    assert all(alive.all() for alive in solution.alive.values())
    wanted = model_outputs(problem.dense, problem.example)
    assert outputs_error(model_outputs(solution.best.model, problem.example), wanted) <= 1e-5
    for axis, perm in solution.perms_before.items():
        assert np.array_equal(solution.perms_after[axis], perm)


def test_a_later_refusal_rolls_back_to_the_accepted_round():
    dense_size = parameters_of(small_problem().dense)

    def judge(model):
        return Judgement(0.0 if parameters_of(model) > 0.75 * dense_size else 3.0, 0.0)

    problem = small_problem(judge=judge, distill_steps=0, max_rounds=4)
    solution = solve(problem, "iterative")
    fates = [a["accepted"] for a in solution.attempts]
    assert True in fates and False in fates
    accepted = [a for a in solution.attempts if a["accepted"]][-1]
    assert solution.best.widths == accepted["widths"]
    assert judge(solution.best.model).drop_pp == 0.0


def test_an_unreachable_strength_is_an_attempt_that_failed():
    problem = small_problem(strengths=(-0.99,), max_rounds=1)
    solution = solve(problem, "iterative")
    assert [a["accepted"] for a in solution.attempts] == [False]
    assert "out of reach" in solution.attempts[0]["reasons"][0]
    assert all(alive.all() for alive in solution.alive.values())


def test_a_layout_gain_too_small_is_refused():
    solution = solve(small_problem(epsilon_j=10.0, distill_steps=0, max_rounds=1), "iterative")
    assert "J changed by" in solution.attempts[0]["reasons"][0]
    assert solution.best.widths == {"heads.0": 4, "heads.1": 4, "ffn.0": 48, "ffn.1": 48}


def test_only_the_axes_of_the_settings_are_pruned():
    solution = solve(small_problem(axes=("ffn",), distill_steps=0, max_rounds=1), "iterative")
    assert solution.best.widths["heads.0"] == solution.best.widths["heads.1"] == 4
    assert solution.best.widths["ffn.0"] < 48


def test_uniform_gives_every_layer_one_width():
    solution = solve(small_problem(uniform=True, distill_steps=0, max_rounds=1), "iterative")
    widths = solution.best.widths
    assert widths["ffn.0"] == widths["ffn.1"] < 48
    assert widths["heads.0"] == widths["heads.1"] == 4


def test_the_loop_works_in_a_model_with_a_head_on_top():
    problem = small_problem(model=small_model("sequence", dtype=torch.float32), distill_steps=2, strengths=(-0.3,))
    solution = solve(problem, "iterative")
    assert solution.attempts[0]["accepted"]
    assert solution.best.model(**problem.example).logits.shape == (6, 2)


@pytest.mark.parametrize(("cosine", "refused"), [(0.949, True), (0.951, False), (None, False)])
def test_fidelity_is_part_of_the_budget(cosine, refused):
    problem = small_problem(min_cosine=0.95)
    reasons = problem.over_budget(Judgement(-1.0, 0.1, {} if cosine is None else {"cosine": cosine}))
    assert bool(reasons) == refused
    assert not refused or "0.9490 is below 0.95" in reasons[0]


def test_a_uniform_rate_without_the_ffn_is_refused_by_name():
    problem = small_problem(axes=("heads",))
    with pytest.raises(TransformError, match="add ffn or inner to transform.axes"):
        problem.uniform_plan(problem.element_curves, -0.1)
