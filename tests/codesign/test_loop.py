"""The loop: drafts say how strong, whole attempts go on from there, and only quality and latency refuse."""

import numpy as np
import pytest
import torch

from icd_lib.axes.permutation import hash_permutation
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign import problem as problem_module
from icd_lib.codesign.layouts import Relayout
from icd_lib.codesign.loop import (
    Candidate,
    Solution,
    at_dense_shape,
    mean_change,
    middle,
    objections,
    record,
    search,
    solve,
)
from icd_lib.codesign.problem import Judgement
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.solver.cost import CostReport
from icd_lib.transforms.base import PrunePlan
from tests.tiny_problems import assert_same_state, small_batches, small_model, small_problem, state_of

MODES = ("linear", "oneshot", "iterative")
LADDER = [-0.05 * step for step in range(1, 11)]


def parameters_of(model):
    return sum(p.numel() for p in model.parameters())


class FakeSearch:
    """Drafts and attempts that cost no model: the drop is so many times the latency gained; some cannot be reached."""

    def __init__(self, problem, draft=2.0, attempt=2.0, unreachable=-9.0):
        self.problem, self.per_draft, self.per_attempt, self.unreachable = problem, draft, attempt, unreachable
        self.drafted, self.attempted, self.given = [], [], []

    def draft(self, strength):
        self.drafted.append(strength)
        return self.candidate(strength, self.per_draft)

    def attempt(self, strength, best):
        self.attempted.append(strength)
        self.given.append(best)
        return self.candidate(strength, self.per_attempt)

    def candidate(self, strength, times):
        if strength <= self.unreachable:
            raise TransformError("out of reach")
        judgement = Judgement(-times * strength, 0.01)
        return Candidate(None, {"ffn.0": np.arange(3)}, strength, PrunePlan({}, strength, 0.1), judgement=judgement)

    def run(self):
        self.start = Candidate(None, {})
        best, self.entries = search(self.problem, self.draft, self.attempt, self.start)
        return best


def laddered(budget, **changes):
    return small_problem(**({"strengths": LADDER, "quality_budget_pp": budget, "max_rounds": 20} | changes))


def holding(budget, times):
    """The strengths of the ladder that keep the budget."""
    return [strength for strength in LADDER if -times * strength + 0.01 <= budget]


@pytest.mark.parametrize("attempt", [1.0, 1.6, 2.0, 2.5, 4.0])
@pytest.mark.parametrize("budget", [0.0, 0.12, 0.33, 0.57, 0.9, 1.2, 9.0])
def test_the_search_finds_the_strongest_that_holds(budget, attempt):
    """Whether whole attempts lose less than the drafts said or more."""
    fake = FakeSearch(laddered(budget), attempt=attempt)
    best, held = fake.run(), holding(budget, attempt)
    assert best.strength == (min(held) if held else 0.0) and (best is fake.start) == (not held)
    assert [entry["accepted"] for entry in fake.entries] == [
        *(strength in holding(budget, 2.0) for strength in fake.drafted),
        *(strength in held for strength in fake.attempted),
    ]
    assert [entry["what"] for entry in fake.entries] == ["draft"] * len(fake.drafted) + ["attempt"] * len(
        fake.attempted
    )
    assert all(bool(entry["reasons"]) != entry["accepted"] for entry in fake.entries)


@pytest.mark.parametrize("budget", [0.0, 0.12, 0.33, 0.57, 0.9, 1.2, 9.0])
def test_drafts_say_where_whole_attempts_begin(budget):
    fake = FakeSearch(laddered(budget))
    fake.run()
    held = holding(budget, 2.0)
    assert fake.attempted[0] == (min(held) if held else LADDER[0]), "the weakest rung if no draft is accepted"
    assert fake.drafted[0] == LADDER[4] and len(set(fake.drafted)) == len(fake.drafted)
    assert fake.drafted in (LADDER[4 : 4 + len(fake.drafted)], LADDER[4::-1][: len(fake.drafted)]), "one way only"


def test_a_whole_attempt_goes_weaker_until_one_is_accepted_and_then_stronger_from_it():
    fake = FakeSearch(laddered(0.81), draft=2.0, attempt=3.2)
    best = fake.run()
    assert fake.attempted == [LADDER[7], LADDER[6], LADDER[5], LADDER[4], LADDER[5]] and best.strength == LADDER[4]
    assert fake.given[:4] == [fake.start] * 4 and fake.given[4] is best, "an attempt gets the best so far"


def test_attempts_go_stronger_until_one_is_refused():
    fake = FakeSearch(laddered(0.51), draft=5.0, attempt=2.0)
    assert fake.run().strength == LADDER[4]
    assert fake.attempted == [LADDER[1], LADDER[2], LADDER[3], LADDER[4], LADDER[5]]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_rounds_are_whole_attempts_and_drafts_do_not_count(most):
    weaker = FakeSearch(laddered(0.81, max_rounds=most), draft=2.0, attempt=9.0)
    assert weaker.run() is weaker.start and weaker.attempted == LADDER[7 : 7 - most : -1] and len(weaker.drafted) == 5
    stronger = FakeSearch(laddered(9.0, max_rounds=most), draft=90.0)
    assert stronger.run().strength == LADDER[most - 1] and len(stronger.attempted) == most


def test_without_a_closed_form_attempts_begin_in_the_middle():
    problem = laddered(0.81)
    problem.drafts = False
    fake = FakeSearch(problem)
    assert fake.run().strength == min(holding(0.81, 2.0))
    assert fake.drafted == [] and fake.attempted[0] == LADDER[4]


def test_the_middle_of_a_ladder():
    assert [middle(LADDER[:count]) for count in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]


def test_the_search_passes_over_what_is_out_of_reach():
    fake = FakeSearch(laddered(9.0), unreachable=-0.32)
    assert fake.run().strength == pytest.approx(-0.3)
    refused = [entry for entry in fake.entries if not entry["accepted"]]
    assert {entry["what"] for entry in refused} == {"draft", "attempt"}
    assert all("out of reach" in entry["reasons"][0] and "widths" not in entry for entry in refused)


def test_a_latency_target_is_aimed_at_in_two_steps_and_quality_does_not_stop_it():
    fake = FakeSearch(laddered(0.0, latency_target_rel=-0.42, min_cosine=0.99, dropin_budget_pp=0.0))
    assert fake.run().strength == -0.42
    assert fake.attempted == [-0.21, -0.42] and fake.drafted == []
    assert [(entry["what"], entry["accepted"]) for entry in fake.entries] == [("attempt", True)] * 2
    halfway = FakeSearch(laddered(0.0, latency_target_rel=-0.42), unreachable=-0.3)
    assert halfway.run().strength == -0.21


def report(C=0.5, J=0.5):
    return CostReport(C=C, Q=0.1, R_align=0.2, R_stab=0.0, J=J)


def candidate(after=None, latency_rel=-0.2, drop_pp=0.0, se_pp=0.0):
    """A candidate on an axis whose layout had C = J = 0.5 before."""
    layouts = {} if after is None else {"ffn.0": Relayout(report(), after)}
    judgement, plan = Judgement(drop_pp, se_pp), PrunePlan({}, latency_rel, 0.1)
    return Candidate(None, {"ffn.0": np.arange(8)}, -0.2, plan, judgement=judgement, relayouts=layouts)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (candidate(), None),
        (candidate(report(C=0.4, J=0.4)), None),
        (candidate(report(C=0.5, J=0.5)), None),
        (candidate(report(C=0.6, J=0.7)), None),
        (candidate(latency_rel=-0.1), None),
        (candidate(latency_rel=-0.05), "a rise in latency"),
        (candidate(drop_pp=0.2), "exceeds the budget of 0.1 pp"),
        (candidate(drop_pp=0.05, se_pp=0.06), "with 1 standard errors that exceeds"),
        (candidate(drop_pp=0.05, se_pp=0.04), None),
    ],
)
def test_quality_and_latency_refuse_and_the_cost_of_a_layout_does_not(changed, reason):
    problem = small_problem(selection_z=1.0)
    state = Candidate(None, {}, -0.1, PrunePlan({}, -0.1, 0.05))
    reasons = objections(problem, state, changed)
    assert len(reasons) == (reason is not None)
    assert reason is None or reason in reasons[0]


def test_all_objections_are_told_at_once():
    state = Candidate(None, {}, -0.3, PrunePlan({}, -0.3, 0.05))
    assert len(objections(small_problem(), state, candidate(drop_pp=1.0))) == 2
    assert len(objections(small_problem(), None, candidate(drop_pp=1.0))) == 1, "a draft is compared with nothing"


def test_where_cost_and_tables_disagree_it_is_recorded():
    disagreeing = record(candidate(report(C=0.45, J=0.6)), -0.2, [], "attempt")
    assert disagreeing["accepted"] and disagreeing["change"] == pytest.approx({"C": -0.05, "Q": 0.0, "J": 0.1})
    assert "J rose by 0.1000 (C by -0.0500)" in disagreeing["disagreement"] and "-20.0%" in disagreeing["disagreement"]
    for agreeing in (candidate(report(C=0.45, J=0.4)), candidate(report(J=0.6), latency_rel=0.0), candidate()):
        assert "disagreement" not in record(agreeing, -0.2, [], "attempt")
    assert "change" not in record(candidate(), -0.2, [], "attempt"), "nothing was laid out anew"


def test_an_attempt_is_recorded_with_its_fate():
    entry = record(candidate(report(), drop_pp=0.3), -0.2, ["too much"], "draft")
    assert (entry["what"], entry["strength"], entry["accepted"], entry["reasons"]) == (
        "draft",
        -0.2,
        False,
        ["too much"],
    )
    assert entry["widths"] == {"ffn.0": 8} and entry["validation"] == {"drop_pp": 0.3, "se_pp": 0.0}
    assert entry["objective"]["ffn.0"]["before"] == vars(report())
    assert record(None, -0.9, ["out of reach"], "attempt").keys() == {"what", "strength", "accepted", "reasons"}


def test_a_change_is_the_mean_over_the_axes_that_lost_something():
    assert mean_change({}, "J") == 0.0
    layouts = {"a": Relayout(report(J=0.5), report(J=0.2)), "b": Relayout(report(J=0.4), report(J=0.5))}
    assert mean_change(layouts, "J") == pytest.approx(-0.1) and mean_change(layouts, "C") == 0.0


@pytest.mark.parametrize(
    ("predicted", "target", "reached"),
    [
        (-0.3, -0.3, True),
        (-0.296, -0.3, True),
        (-0.294, -0.3, False),
        (-0.4, -0.3, True),
        (None, -0.1, False),
        (-0.3, None, None),
    ],
)
def test_a_target_is_reached_within_half_a_point(predicted, target, reached):
    best = Candidate(None, {}, plan=None if predicted is None else PrunePlan({}, predicted, 0.1))
    assert Solution("linear", best, {}, {}, [], []).reached(target) is reached


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


@pytest.mark.parametrize("mode", MODES)
def test_of_models_judged_by_their_size_the_strongest_that_fits_is_found(mode):
    problem = small_problem(distill_steps=0, quality_budget_pp=26.0)
    whole = parameters_of(problem.dense)
    problem.judge = lambda model: Judgement(100 * (1 - parameters_of(model) / whole), 0.0)
    solution = solve(problem, mode)
    fates = [(entry["what"], entry["strength"], entry["accepted"]) for entry in solution.attempts]
    assert fates[:3] == [("draft", -0.2, True), ("draft", -0.3, True), ("draft", -0.4, False)]
    assert fates[3:] == [("attempt", -0.3, True), ("attempt", -0.4, False)] and solution.best.strength == -0.3
    drafted, made = solution.attempts[1], solution.attempts[3]
    for key in ("widths", "predicted_latency_rel", "validation"):  # a draft is as wide as what it stands for
        assert drafted[key] == made[key]


def test_an_unreachable_strength_is_a_draft_and_an_attempt_that_failed():
    solution = solve(small_problem(strengths=(-0.99,), max_rounds=1), "iterative")
    assert [(entry["what"], entry["accepted"]) for entry in solution.attempts] == [("draft", False), ("attempt", False)]
    assert all("out of reach" in entry["reasons"][0] for entry in solution.attempts)
    assert all(alive.all() for alive in solution.alive.values())


@pytest.mark.parametrize(("target", "reached"), [(-0.3, True), (-0.7, False)])
def test_a_solution_says_whether_the_latency_that_was_asked_for_is_predicted(target, reached):
    problem = small_problem(judge=lambda model: Judgement(50.0, 0.1), latency_target_rel=target, distill_steps=0)
    solution = solve(problem, "oneshot")
    assert solution.reached(target) is reached and solution.reached(None) is None
    assert [entry["strength"] for entry in solution.attempts] == [target / 2, target]
    assert solution.best.plan.predicted_latency_rel <= (target if reached else target / 2)


def test_where_solving_does_not_pay_the_present_order_is_packed():
    kept, solved = (
        solve(small_problem(axes=("ffn",), epsilon_j=epsilon, distill_steps=0, strengths=(-0.2,)), "iterative")
        for epsilon in (10.0, -10.0)
    )
    assert kept.attempts[-1]["accepted"], "a gain that is too small refuses no candidate"
    for axis in ("ffn.0", "ffn.1"):
        first = kept.perms_before[axis]
        assert np.array_equal(kept.best.origin[axis], first[kept.alive[axis][first]])
    assert any(not np.array_equal(kept.best.origin[axis], solved.best.origin[axis]) for axis in ("ffn.0", "ffn.1"))
    assert {axis: set(kept.best.origin[axis]) for axis in kept.best.origin} == {
        axis: set(solved.best.origin[axis]) for axis in solved.best.origin
    }, "the layout has no say in what is left"


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


@pytest.mark.parametrize(
    ("budget", "z", "drop", "se", "refused"),
    [
        (0.5, 1.0, 0.4, 0.09, False),
        (0.5, 1.0, 0.4, 0.11, True),
        (0.5, 0.0, 0.4, 0.11, False),
        (0.5, 2.0, 0.4, 0.06, True),
        (None, 2.0, 9.0, 0.1, False),
        (0.0, 0.0, 0.01, 0.0, True),
    ],
)
def test_the_drop_in_has_a_budget_of_its_own(budget, z, drop, se, refused):
    problem = small_problem(dropin_budget_pp=budget, selection_z=z)
    reasons = problem.over_budget(Judgement(-1.0, 0.0, {"dropin": {"drop_pp": drop, "se_pp": se}}))
    assert bool(reasons) == refused
    assert not refused or reasons[0].startswith(f"drop-in quality lost {drop:+.3f} ± {se:.3f} pp; with {z:g} standard")
    assert problem.over_budget(Judgement(-1.0, 0.0)) == [], "a judge that knows no drop-in is not asked for it"


@pytest.mark.parametrize(("z", "refused"), [(0.0, False), (0.9, False), (1.1, True)])
def test_a_strength_is_chosen_with_so_many_standard_errors_of_safety(z, refused):
    problem = small_problem(selection_z=z, quality_budget_pp=0.3)
    assert Judgement(0.2, 0.1).bound(z) == pytest.approx(0.2 + 0.1 * z)
    assert bool(problem.over_budget(Judgement(0.2, 0.1))) == refused
    both = problem.over_budget(Judgement(0.9, 0.1, {"cosine": 0.5, "dropin": {"drop_pp": 2.0, "se_pp": 0.1}}))
    assert len(both) == 1, "what has no budget is not judged"


def test_a_figure_that_is_no_number_keeps_no_budget():
    problem = small_problem(dropin_budget_pp=1.0, min_cosine=0.5, max_perplexity_ratio=1.1)
    nothing = float("nan")
    detail = {"dropin": {"drop_pp": nothing, "se_pp": 0.1}, "cosine": nothing, "perplexity_ratio": nothing}
    assert len(problem.over_budget(Judgement(nothing, 0.0, detail))) == 4
    assert len(problem.over_budget(Judgement(0.0, nothing))) == 1


def test_moments_are_kept_where_the_problem_says_and_taken_from_there(tmp_path, monkeypatch):
    first, again = small_problem(), small_problem()
    first.keep_moments = again.keep_moments = tmp_path / "moments.safetensors"
    computed = first.moments
    assert (tmp_path / "moments.safetensors").is_file()
    monkeypatch.setattr(problem_module, "consumer_moments", None)  # computing them again would fail
    assert all(torch.equal(again.moments[axis].gram, found.gram) for axis, found in computed.items())
    plans = [problem.plan(problem.element_curves, -0.3) for problem in (first, again)]
    assert plans[0] == plans[1]


def test_only_what_has_a_closed_form_is_drafted():
    assert small_problem().drafts and not small_problem(head_dim=4).drafts


def test_a_uniform_rate_without_the_ffn_is_refused_by_name():
    problem = small_problem(axes=("heads",))
    with pytest.raises(TransformError, match="add ffn or inner to transform.axes"):
        problem.uniform_plan(problem.element_curves, -0.1)


def closed(**changes):
    return small_problem(**({"sequential": False, "distill_steps": 0, "strengths": (-0.3,)} | changes))


@pytest.mark.parametrize("tile", [8, 1])
@pytest.mark.parametrize("mode", MODES)
def test_in_closed_form_an_attempt_computes_what_its_draft_computed(mode, tile):
    """Only the layout is another one, and what is left of dead tiles: the judge sees one function twice."""
    seen = []

    def judge(model):
        with torch.inference_mode():
            seen.append([model(**batch).last_hidden_state for batch in small_batches()])
        return Judgement(0.0, 0.0)

    problem = closed(judge=judge, tile=tile)
    state = state_of(problem.dense)
    solution = solve(problem, mode)
    assert_same_state(problem.dense, state)
    assert [entry["what"] for entry in solution.attempts] == ["draft", "attempt"] and len(seen) == 2
    for one, other in zip(*seen, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=2e-4)
    with torch.inference_mode():
        dense = [problem.dense(**batch).last_hidden_state for batch in small_batches()]
    assert not any(torch.allclose(one, other, rtol=0, atol=1e-2) for one, other in zip(dense, seen[0], strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_in_closed_form_widths_origin_and_layout_agree(mode):
    problem = closed()
    solution = solve(problem, mode)
    meta = solution.best.meta
    assert meta.notes["closed_form"] and solution.best.before_distill is solution.best.model
    sizes = {axis.name: axis.size for axis in find_adapter(solution.best.model).axes()}
    for axis, state in meta.axes.items():
        first, left = solution.perms_before[axis], solution.best.origin[axis]
        assert sizes[axis] == len(left) == state.kept
        assert set(left) == set(first[state.alive]), "what is alive is counted in the layout that was pruned in"
        assert (state.saliency[state.alive] == 0).all() and (state.saliency[~state.alive] > 0).all()
        energy = problem.moments[axis].energy
        granule = problem.settings.tiles[state.kind] if mode == "linear" else 1
        assert state.saliency.sum() / granule == pytest.approx(state.loss * energy, rel=1e-6)
    for layer, (small, whole) in enumerate(
        zip(solution.best.model.encoder.layer, problem.dense.encoder.layer, strict=True)
    ):
        left = torch.from_numpy(solution.best.origin[f"ffn.{layer}"])
        assert torch.equal(small.intermediate.dense.weight, whole.intermediate.dense.weight[left])


def test_in_closed_form_and_without_distillation_one_attempt_is_enough():
    problem = closed(strengths=(-0.1, -0.2, -0.3), max_rounds=9)
    assert problem.closed_form and not small_problem().closed_form and not closed(head_dim=4).closed_form
    whats = [entry["what"] for entry in solve(problem, "oneshot").attempts]
    assert whats == ["draft", "draft", "attempt"]
    for steps, attempts in ((0, LADDER[1:2]), (1, LADDER[1:6])):  # distilled, an attempt may be better than its draft
        fake = FakeSearch(laddered(0.51, sequential=False, distill_steps=steps), draft=5.0, attempt=2.0)
        fake.run()
        assert fake.attempted == attempts


def test_an_attempt_that_fails_where_its_draft_passed_is_followed_by_a_weaker_one():
    """Another layout sums in another order, and at the edge of a budget that decides."""
    problem = laddered(0.51, sequential=False, distill_steps=0)
    fake = FakeSearch(problem, draft=2.0, attempt=2.05)
    assert fake.run().strength == LADDER[3] and fake.attempted == [LADDER[4], LADDER[3]]
