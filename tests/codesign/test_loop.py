"""The loop: drafts say how strong, whole attempts go on from there, and only quality and latency refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.permutation import hash_permutation
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.candidate import Candidate
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.loop import Solution, at_dense_shape, search, solve
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.transforms.effects import Pages
from icd_lib.transforms.sparsity.allocate import PrunePlan
from icd_lib.transforms.sparsity.transform import Sparsity
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

    def run(self, drafts=True, decisive=False):
        self.start = Candidate(None, {})
        draft = self.draft if drafts else None
        best, self.entries = search(self.problem, draft, self.attempt, self.start, decisive=decisive)
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
    assert [entry.accepted for entry in fake.entries] == [
        *(strength in holding(budget, 2.0) for strength in fake.drafted),
        *(strength in held for strength in fake.attempted),
    ]
    assert [entry.what for entry in fake.entries] == ["draft"] * len(fake.drafted) + ["attempt"] * len(fake.attempted)
    assert all(bool(entry.reasons) != entry.accepted for entry in fake.entries)


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
    fake = FakeSearch(laddered(0.81))
    assert fake.run(drafts=False).strength == min(holding(0.81, 2.0))
    assert fake.drafted == [] and fake.attempted[0] == LADDER[4]


def test_the_search_passes_over_what_is_out_of_reach():
    fake = FakeSearch(laddered(9.0), unreachable=-0.32)
    assert fake.run().strength == pytest.approx(-0.3)
    refused = [entry for entry in fake.entries if not entry.accepted]
    assert {entry.what for entry in refused} == {"draft", "attempt"}
    assert all("out of reach" in entry.reasons[0].text and entry.widths is None for entry in refused)


def test_a_latency_target_is_aimed_at_in_two_steps_and_quality_does_not_stop_it():
    fake = FakeSearch(laddered(0.0, latency_target_rel=-0.42, min_cosine=0.99, dropin_budget_pp=0.0))
    assert fake.run().strength == -0.42
    assert fake.attempted == [-0.21, -0.42] and fake.drafted == []
    assert [(entry.what, entry.accepted) for entry in fake.entries] == [("attempt", True)] * 2
    halfway = FakeSearch(laddered(0.0, latency_target_rel=-0.42), unreachable=-0.3)
    assert halfway.run().strength == -0.21


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
    state = state_of(problems[0].inputs.dense)
    solutions = [solve(problem, request.param) for problem in problems]
    assert_same_state(problems[0].inputs.dense, state)
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
    assert parameters_of(solution.best.model) < parameters_of(problem.inputs.dense)


def test_widths_origin_and_model_agree(solved):
    problem, solution, _ = solved
    sizes = {axis.name: axis.size for axis in find_adapter(solution.best.model).axes()}
    for axis, elements in solution.best.origin.items():
        dense = len(solution.perms_before[axis])
        assert sizes[axis] == len(elements) == solution.best.widths[axis]
        assert len(set(elements.tolist())) == len(elements)
        assert sorted(solution.perms_after[axis]) == list(range(dense))
        assert np.array_equal(solution.perms_after[axis][: len(elements)], elements)
        assert np.array_equal(np.flatnonzero(solution.present[axis]), np.sort(elements))
        if solution.mode != "oneshot" and axis.startswith("ffn"):
            assert len(elements) % problem.inputs.settings.tile == 0


@pytest.mark.parametrize("mode", MODES)
def test_origin_names_the_dense_elements_in_their_present_order(mode):
    problem = small_problem(distill_steps=0)
    best = solve(problem, mode).best
    for index, (small, whole) in enumerate(
        zip(best.model.encoder.layer, problem.inputs.dense.encoder.layer, strict=True)
    ):
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
        tiles = solution.present[axis][solution.perms_before[axis]].reshape(-1, 8)
        assert (tiles.all(1) | ~tiles.any(1)).all()
        assert not tiles.all()


def test_the_result_at_dense_shape_computes_the_same(solved):
    problem, solution, _ = solved
    for perms in (solution.perms_before, solution.perms_after):
        whole = at_dense_shape(solution.best.origin, solution.best.model, problem.inputs.dense, perms)
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
    state = state_of(problem.inputs.dense)
    solution = solve(problem, mode)
    assert_same_state(problem.inputs.dense, state)
    assert solution.attempts and not any(a["accepted"] for a in solution.attempts)
    assert all("exceeds the budget" in a["reasons"][-1] for a in solution.attempts)
    assert [m["accepted"] for m in logged] == [False] * len(solution.attempts)
    assert parameters_of(solution.best.model) == parameters_of(problem.inputs.dense)
    assert all(alive.all() for alive in solution.present.values())
    wanted = model_outputs(problem.inputs.dense, problem.inputs.example)
    assert outputs_error(model_outputs(solution.best.model, problem.inputs.example), wanted) <= 1e-5
    for axis, perm in solution.perms_before.items():
        assert np.array_equal(solution.perms_after[axis], perm)


def test_a_later_refusal_rolls_back_to_the_accepted_round():
    dense_size = parameters_of(small_model())

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
    whole = parameters_of(small_model())
    problem = small_problem(
        judge=lambda model: Judgement(100 * (1 - parameters_of(model) / whole), 0.0),
        distill_steps=0,
        quality_budget_pp=26.0,
    )
    solution = solve(problem, mode)
    fates = [(entry["what"], entry["strength"], entry["accepted"]) for entry in solution.attempts]
    assert fates[:3] == [("draft", -0.2, True), ("draft", -0.3, True), ("draft", -0.4, False)]
    assert fates[3:] == [("attempt", -0.3, True), ("attempt", -0.4, False)] and solution.best.strength == -0.3
    drafted, made = solution.attempts[1], solution.attempts[3]
    for key in ("widths", "predicted_latency_rel", "validation"):  # a draft is as wide as what it stands for
        assert drafted[key] == made[key]


def test_an_unreachable_strength_is_a_draft_and_an_attempt_that_failed():
    solution = solve(small_problem(strengths=(-0.95,), max_rounds=1), "iterative")
    assert [(entry["what"], entry["accepted"]) for entry in solution.attempts] == [("draft", False), ("attempt", False)]
    assert all("out of reach" in entry["reasons"][0] for entry in solution.attempts)
    assert all(alive.all() for alive in solution.present.values())


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
        for epsilon in (10.0, 0.0)
    )
    assert kept.attempts[-1]["accepted"], "a gain that is too small refuses no candidate"
    for axis in ("ffn.0", "ffn.1"):
        first = kept.perms_before[axis]
        assert np.array_equal(kept.best.origin[axis], first[kept.present[axis][first]])
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
    assert solution.best.model(**problem.inputs.example).logits.shape == (6, 2)


class Paged(Sparsity):
    """Sparsity that tells of its dead elements as evicted from the only page."""

    def draft(self, evidence, plan, model):
        return self.told(*super().draft(evidence, plan, model))

    def apply(self, evidence, plan, model, origin):
        return self.told(*super().apply(evidence, plan, model, origin))

    def told(self, model, meta):
        pages = {axis: np.where(effect.values, 0, -1) for axis, effect in meta.axes.items()}
        axes = {
            axis: Pages(axis, effect.kind, pages[axis], effect.saliency, effect.loss)
            for axis, effect in meta.axes.items()
        }
        return model, replace(meta, axes=axes)


@pytest.mark.parametrize("mode", MODES)
def test_the_loop_asks_an_effect_and_not_what_it_is(mode):
    """What is evicted is laid out, dropped and rolled back as what is dead, by the same code."""
    changes = {"distill_steps": 0, "strengths": (-0.1, -0.2)}
    one = solve(small_problem(**changes), mode)
    other = solve(small_problem(transforms=(Paged(),), **changes), mode)
    assert one.attempts == other.attempts and one.certificates == other.certificates
    assert_same_state(one.best.model, state_of(other.best.model))


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
    state = state_of(problem.inputs.dense)
    solution = solve(problem, mode)
    assert_same_state(problem.inputs.dense, state)
    assert [entry["what"] for entry in solution.attempts] == ["draft", "attempt"] and len(seen) == 2
    for one, other in zip(*seen, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=2e-4)
    with torch.inference_mode():
        dense = [problem.inputs.dense(**batch).last_hidden_state for batch in small_batches()]
    assert not any(torch.allclose(one, other, rtol=0, atol=1e-2) for one, other in zip(dense, seen[0], strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_in_closed_form_widths_origin_and_layout_agree(mode):
    problem = closed()
    solution = solve(problem, mode)
    meta = solution.best.metas["sparsity"]
    assert meta.notes["closed_form"] and solution.best.before_distill is solution.best.model
    sizes = {axis.name: axis.size for axis in find_adapter(solution.best.model).axes()}
    for axis, state in meta.axes.items():
        first, left = solution.perms_before[axis], solution.best.origin[axis]
        assert sizes[axis] == len(left) == state.kept
        assert set(left) == set(first[state.alive]), "what is alive is counted in the layout that was pruned in"
        assert (state.saliency[state.alive] == 0).all() and (state.saliency[~state.alive] > 0).all()
        energy = problem.evidence.observed.moments[axis].energy
        granule = problem.inputs.settings.tiles[state.kind] if mode == "linear" else 1
        assert state.saliency.sum() / granule == pytest.approx(state.loss * energy, rel=1e-6)
    for layer, (small, whole) in enumerate(
        zip(solution.best.model.encoder.layer, problem.inputs.dense.encoder.layer, strict=True)
    ):
        left = torch.from_numpy(solution.best.origin[f"ffn.{layer}"])
        assert torch.equal(small.intermediate.dense.weight, whole.intermediate.dense.weight[left])


def test_in_closed_form_and_without_distillation_one_attempt_is_enough():
    problem = closed(strengths=(-0.1, -0.2, -0.3), max_rounds=9)
    whats = [entry["what"] for entry in solve(problem, "oneshot").attempts]
    assert whats == ["draft", "draft", "attempt"]
    whats = [entry["what"] for entry in solve(closed(strengths=(-0.1, -0.2), distill_steps=1), "oneshot").attempts]
    assert whats == ["draft", "draft", "attempt"], "distilled, it may be better than its draft, but is the strongest"
    for decisive, attempts in ((True, LADDER[1:2]), (False, LADDER[1:6])):
        fake = FakeSearch(laddered(0.51), draft=5.0, attempt=2.0)
        fake.run(decisive=decisive)
        assert fake.attempted == attempts


def test_an_attempt_that_fails_where_its_draft_passed_is_followed_by_a_weaker_one():
    """Another layout sums in another order, and at the edge of a budget that decides."""
    fake = FakeSearch(laddered(0.51), draft=2.0, attempt=2.05)
    assert fake.run(decisive=True).strength == LADDER[3] and fake.attempted == [LADDER[4], LADDER[3]]


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_rate_is_one_attempt_that_no_loss_of_quality_refuses(mode, sequential):
    judged = []

    def ruined(model):
        judged.append(model)
        return Judgement(99.0, 0.1)

    solution = solve(small_problem(ruined, rate=0.5, sequential=sequential, distill_steps=0), mode)
    assert [(entry.what, entry.accepted) for entry in solution.tried] == [("attempt", True)] and len(judged) == 1
    widths = solution.best.widths
    assert widths["ffn.0"] + widths["ffn.1"] == 48 and widths["heads.0"] == widths["heads.1"] == 4
    assert solution.best.strength == solution.best.predicted_latency_rel < 0
