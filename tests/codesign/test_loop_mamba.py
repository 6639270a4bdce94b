"""Pruning and the loop on a Mamba: channels with their readers, state dimensions with their factors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.kinds import SINGLE
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.evidence import Problem, gather
from icd_lib.codesign.inputs import Inputs, Judgement
from icd_lib.codesign.layouts import SolverSettings, realise
from icd_lib.codesign.loop import at_dense_shape, solve
from icd_lib.codesign.options import Settings
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.grouped import check_contiguous, grouped_modules
from icd_lib.solver.cost import CostConfig
from icd_lib.transforms import TRANSFORMS, transforms_of
from icd_lib.transforms.distill import distill
from icd_lib.transforms.observed import Findings
from icd_lib.transforms.quantization.options import QuantizationOptions
from icd_lib.transforms.sparsity.allocate import LatencyTable, PrunePlan
from icd_lib.transforms.sparsity.prune import consumer_moments, prune
from icd_lib.transforms.sparsity.sensitivity import eliminations, measure_sensitivity
from tests.tiny_mambas import LAYERS, STATES, tiny_mamba, tokens

INNER = 48


@pytest.fixture(scope="module")
def model():
    return tiny_mamba(dtype=torch.float32, hidden_size=24)


def batches(count=2):
    return [{"input_ids": tokens(4, 16, seed), "use_cache": False} for seed in range(count)]


def lost(candidate, model):
    return sum(float((candidate(**b).logits - model(**b).logits).square().sum()) for b in batches())


def pruned(model, plan, **changes):
    return prune(model, model, PrunePlan(plan), batches(), tile=SINGLE, **changes)


def half(kind, size):
    return {f"{kind}.{layer}": size // 2 for layer in range(LAYERS)}


@pytest.mark.parametrize(("kind", "size"), [("inner", INNER), ("state", STATES)])
def test_compensation_keeps_the_function_closer(model, kind, size):
    with_it, meta = pruned(model, half(kind, size))
    without, _ = pruned(model, half(kind, size), compensate=False)
    assert lost(with_it, model) < 0.9 * lost(without, model)
    assert all(meta.axes[axis].kept == kept for axis, kept in half(kind, size).items())


@pytest.mark.parametrize(("kind", "size"), [("inner", INNER), ("state", STATES)])
def test_what_was_removed_can_be_dropped_physically(model, kind, size):
    masked, meta = pruned(model, half(kind, size))
    smaller, _ = realise(masked, meta.axes, SINGLE)
    sizes = {axis.name: axis.size for axis in find_adapter(smaller).axes()}
    assert all(sizes[axis] == kept for axis, kept in half(kind, size).items())
    for inputs in batches():
        assert torch.allclose(smaller(**inputs).logits, masked(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_the_model_given_is_untouched(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned(model, half("inner", INNER) | half("state", STATES))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_moments_of_the_states_say_what_removal_costs(model):
    adapter = find_adapter(model)
    moments = consumer_moments(adapter, batches())
    block = next(adapter.blocks())
    (terms,) = block.terms
    hidden, context = adapter.embed(batches()[0])
    parts = torch.stack(list(terms.parts(hidden, context)))
    out = parts @ block.consumer.weight.T
    others = consumer_moments(adapter, batches()[:1])[terms.axis]
    assert others.energy == pytest.approx(float(out.sum(0).double().square().sum()), rel=1e-4)
    assert float(others.gram[1, 3]) == pytest.approx(
        float((out[1].double() * out[3].double()).sum()), rel=1e-4, abs=1e-4
    )
    assert set(moments) == {f"{kind}.{layer}" for kind in ("inner", "state") for layer in range(LAYERS)}


@pytest.mark.parametrize(("most", "tokens_read"), [(64, 64), (128, 128), (8192, 256)])
def test_moments_of_the_states_are_of_batches_evenly_over_the_text(model, monkeypatch, most, tokens_read):
    monkeypatch.setattr("icd_lib.transforms.sparsity.prune.TERM_TOKENS", most)
    found = consumer_moments(find_adapter(model), batches(4))
    assert found["state.1"].tokens == tokens_read and found["inner.1"].tokens == 256
    evenly = consumer_moments(find_adapter(model), batches(4)[:: 256 // tokens_read])
    assert torch.equal(found["state.1"].gram, evenly["state.1"].gram)


def test_every_axis_has_a_sensitivity(model):
    adapter = find_adapter(model)
    moments = consumer_moments(adapter, batches())
    paths = eliminations(adapter, moments, SINGLE, 0.01, {})
    found = measure_sensitivity(adapter, moments, paths, 0.01, batches()[:1])
    assert [entry.axis for entry in found] == ["state.0", "inner.0", "state.1", "inner.1"]
    assert all(0 < entry.output_error < 10 and entry.block_loss >= 0 for entry in found)


def small_problem(model, judge=lambda candidate: Judgement(0.0, 0.0), **changes):
    inner, states = np.arange(8, INNER + 1, 8), np.arange(1, STATES + 1)
    adapter = find_adapter(model)
    settings = {"tile": 8, "distill_steps": 2, "strengths": (-0.1, -0.2, -0.3), "max_rounds": 2}
    inputs = Inputs(
        dense=model,
        batches=batches(),
        distill_batches=batches(),
        example=batches()[0],
        judge=judge,
        settings=Settings(**(settings | changes)),
        solver=SolverSettings(CostConfig(g=8, v=8, h=24), refine_steps=60),
    )
    tables = {
        "inner": LatencyTable("inner", inner, 5.0 * (1 - inner / INNER)),
        "state": LatencyTable("state", states, 3.0 * (1 - states / STATES)),
    }
    rates = {item.axis: 1.0 for item in adapter.prunable()}
    return Problem(inputs, gather(inputs, Findings(tables, 20.0, rates)))


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_every_mode_makes_a_smaller_model(model, mode):
    solution = solve(small_problem(model), mode)
    # Its blocks have readers and terms, so nothing is drafted: attempts begin in the middle of the ladder.
    assert [(entry["what"], entry["strength"]) for entry in solution.attempts] == [("attempt", -0.2), ("attempt", -0.3)]
    assert all(entry["accepted"] for entry in solution.attempts) and solution.best.strength == -0.3
    best = solution.best.model
    assert sum(p.numel() for p in best.parameters()) < sum(p.numel() for p in model.parameters())
    sizes = {axis.name: axis.size for axis in find_adapter(best).axes() if axis.name in solution.best.widths}
    assert sizes == solution.best.widths
    grown = at_dense_shape(solution.best.origin, best, model, solution.perms_before)
    error = outputs_error(model_outputs(grown, batches()[0]), model_outputs(best, batches()[0]))
    assert error < 1e-4


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_what_is_pruned_is_rounded_in_groups_that_lie_together(model, mode, tmp_path):
    options = dict(QuantizationOptions(precision="int4_weights", group=8))
    problem = small_problem(model, distill_steps=0, strengths=(-0.2,), max_rounds=1)
    inputs = replace(problem.inputs, sections={"quantization": options})
    solution = solve(replace(problem, inputs=inputs, transforms=transforms_of({"quantization": options})), mode)
    best = solution.best
    assert list(best.metas) == ["sparsity", "quantization"] and best.strength == -0.2
    check_contiguous(best.model)
    assert len(grouped_modules(best.model)) == 3 * LAYERS + 1, "three projections of a layer, and the embedding"
    assert best.metas["quantization"].notes["folded"]["axes"] == (["residual"] if mode == "iterative" else [])
    assert all(certificate["max_rel_error"] <= 1e-6 for certificate in solution.certificates)
    whole = at_dense_shape(best.origin, best.model, model, solution.perms_before)
    loaded = load_optimized(save_optimized(best.model, None, tmp_path / "model"))
    for inputs in batches():
        wanted = model_outputs(best.model, inputs)
        assert outputs_error(model_outputs(whole, inputs), wanted) <= 1e-4
        assert outputs_error(model_outputs(loaded, inputs), wanted) <= 1e-5


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_it_is_distilled_before_it_is_rounded_and_every_attempt_begins_with_float_weights(model, mode):
    options = dict(QuantizationOptions(precision="int8_weights", group=8))
    problem = small_problem(model)
    inputs = replace(problem.inputs, sections={"quantization": options})
    solution = solve(replace(problem, inputs=inputs, transforms=transforms_of({"quantization": options})), mode)
    assert [(entry["strength"], entry["accepted"]) for entry in solution.attempts] == [(-0.2, True), (-0.3, True)]
    best = solution.best
    assert len(grouped_modules(best.model)) == 3 * LAYERS + 1
    assert not grouped_modules(best.before_distill) and not grouped_modules(best.unquantized)
    inputs = batches()[0]
    before, unrounded, after = (
        model_outputs(item, inputs) for item in (best.before_distill, best.unquantized, best.model)
    )
    assert outputs_error(before, unrounded) > 1e-4, "distilled in between"
    assert 0 < outputs_error(after, unrounded) < 0.02, "rounded to eight bits, not trained again"


def test_the_budget_of_perplexity_is_kept(model):
    judge = lambda candidate: Judgement(0.0, 0.0, {"perplexity_ratio": 1.02})  # noqa: E731
    problem = small_problem(model, judge, max_perplexity_ratio=1.01, distill_steps=0)
    solution = solve(problem, "oneshot")
    assert solution.best.model is model
    assert [entry["strength"] for entry in solution.attempts] == [-0.2, -0.1], "weaker, since the first was refused"
    assert "perplexity is 1.0200 times" in solution.attempts[0]["reasons"][0]


def test_distillation_follows_the_next_token_distribution(model):
    student, _ = pruned(model, half("inner", INNER))
    lines = []
    learner = distill(student, model, batches(), steps=30, learning_rate=3e-3, seed=0, progress=lines.append)
    assert "KL to dense" in lines[0]
    assert lost(learner, model) < lost(student, model)


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_what_came_masked_leaves_and_the_function_stays(mode):
    model, masked = tiny_mamba(dtype=torch.float32, hidden_size=24), TRANSFORMS["masked"]
    dead = np.arange(1, INNER, 2)  # every second channel: no tile of eight is wholly dead
    for block in find_adapter(model).blocks():
        with torch.no_grad():
            for linear in (block.consumer, *(reader.linear for reader in block.readers)):
                linear.weight[:, dead] = 0
    problem = replace(small_problem(model, distill_steps=0), transforms=(masked,))
    solution = solve(replace(problem, inputs=replace(problem.inputs, sections={"masked": {}})), mode)
    assert solution.best.widths["inner.0"] == (INNER if mode == "linear" else INNER // 2)
    assert solution.attempts[0]["accepted"] == (mode != "linear")
    error = outputs_error(model_outputs(solution.best.model, batches()[0]), model_outputs(model, batches()[0]))
    assert error < 1e-5
