"""The quantization in the loop: both orders with sparsity, what stays float by element and by tile, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.double import Unrounded
from icd_lib.axes.kinds import granules
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.loop import at_dense_shape, solve
from icd_lib.errors import ConfigError, TransformError
from icd_lib.models.quantized import quantized_linears
from icd_lib.report.full_report import draw_all
from icd_lib.report.quantization_figures import channel_ranges, linear_errors
from icd_lib.report.results import Results
from icd_lib.run.scenario import load_scenario
from icd_lib.stages.report import further_panels
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.transforms import further_transforms, transforms_of
from icd_lib.transforms.base import Given, Manner
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from icd_lib.transforms.quantization.options import QuantizationOptions
from icd_lib.transforms.quantization.sensitivity import lone_errors, plainly_rounded
from icd_lib.transforms.quantization.transform import TRANSFORM
from icd_lib.workloads.model.solve import transform_record
from tests.report_factory import write_run
from tests.tiny_mambas import tiny_mamba
from tests.tiny_problems import assert_same_state, small_batches, small_model, small_problem, state_of

pytestmark = pytest.mark.wide


def options(**changes):
    return dict(QuantizationOptions(**changes))


def problem_of(order=("sparsity", "quantization"), sequential=False, **changes):
    """Sparsity and quantization of the tiny encoder, at one strength."""
    given = options(order=order, **changes)
    problem = small_problem(
        transforms=transforms_of({"quantization": given}), distill_steps=0, strengths=(-0.3,), sequential=sequential
    )
    return replace(problem, inputs=replace(problem.inputs, sections={"quantization": given}))


def evidence_of(manner=Manner(), **changes):  # noqa: B008 (frozen)
    model, batches = small_model(dtype=torch.float32), small_batches()
    return TRANSFORM.evidence(Given(Observed(model, batches, batches), Findings(), options(**changes), manner))


@pytest.mark.parametrize("order", [("sparsity", "quantization"), ("quantization", "sparsity")])
@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_both_orders_in_every_mode(mode, order):
    problem = problem_of(order)
    dense = state_of(problem.inputs.dense)
    solution = solve(problem, mode)
    best = solution.best
    assert_same_state(problem.inputs.dense, dense)
    assert list(best.metas) == list(order) and best.strength == -0.3
    assert len(quantized_linears(best.model)) == 12 and any(best.widths[axis] < 48 for axis in ("ffn.0", "ffn.1"))
    if order[0] == "sparsity":
        shapes = {name: tensor.shape for name, tensor in best.model.state_dict().items() if name.endswith("weight")}
        left = best.unquantized
        assert not quantized_linears(left) and all(left.state_dict()[name].shape == shapes[name] for name in shapes)
    else:
        assert best.unquantized is None, "nothing was done to it before it was rounded"
    for linear in quantized_linears(best.model).values():
        assert torch.allclose(linear.on_grid(linear.weight), linear.weight, atol=1e-6), "on its grid"
    assert all(certificate["max_rel_error"] <= 1e-6 for certificate in solution.certificates)
    whole = at_dense_shape(best.origin, best.model, problem.inputs.dense, solution.perms_before)
    with Unrounded():
        for batch in small_batches():
            wanted, got = (model_outputs(model, batch) for model in (best.model, whole))
            assert outputs_error(got, wanted) <= 1e-5
    for batch in small_batches():
        wanted, got = (model_outputs(model, batch)["last_hidden_state"] for model in (best.model, whole))
        assert torch.nn.functional.cosine_similarity(wanted.flatten(), got.flatten(), 0) > 0.999


def test_the_sequential_sparsity_of_a_quantised_model_stays_on_its_grid():
    best = solve(problem_of(("quantization", "sparsity"), sequential=True), "oneshot").best
    linears = quantized_linears(best.model)
    assert len(linears) == 12
    assert all(torch.allclose(item.on_grid(item.weight), item.weight, atol=1e-6) for item in linears.values())


def test_what_stays_float_is_gathered_by_iterative_and_costs_linear_whole_tiles():
    found = {}
    for mode in ("linear", "iterative"):
        problem = problem_of(outlier_share=0.1)
        solution = solve(problem, mode)
        best, counts = solution.best, {}
        for number, layer in enumerate(best.model.encoder.layer):
            places = np.flatnonzero(layer.output.dense.unrounded.numpy() > 0)
            groups = best.effects[f"ffn.{number}"].permuted(best.origin[f"ffn.{number}"]).groups
            assert np.array_equal(np.flatnonzero(groups == 1), places)
            counts[number] = len(places)
            tile = problem.inputs.settings.tiles["ffn"]
            if mode == "iterative":
                assert places[-1] - places[0] == len(places) - 1, "one stretch"
                wanted = round(0.1 * best.widths[f"ffn.{number}"])
                assert len(places) % tile == 0 and wanted <= len(places) < wanted + tile, "whole tiles of it"
            else:
                assert len(places) % tile == 0 and len(np.unique(places // tile)) == len(places) // tile
        found[mode] = counts
    assert all(found["linear"][number] >= found["iterative"][number] for number in (0, 1))
    assert sum(found["linear"].values()) > sum(found["iterative"].values())


def test_it_loses_less_than_rounding_plainly():
    model, batches = small_model(dtype=torch.float32), small_batches()
    with torch.no_grad():
        model.encoder.layer[0].output.LayerNorm.bias[3] += 25.0  # a channel that lies far out
        model.encoder.layer[0].output.LayerNorm.weight[5] *= 12.0
    wanted = model_outputs(model, batches[1])
    model.requires_grad_(True)  # as a loaded model has it
    errors = []
    for recipe in (Recipe(), Recipe(None, compensate=False)):
        rounded, done = quantize(model, batches, recipe)
        found = model_outputs(rounded, batches[1])["last_hidden_state"]
        errors.append(float((found - wanted["last_hidden_state"]).square().mean()))
        assert len(done) == 12 and all(0 <= item.error < 0.2 for item in done.values())
    assert errors[0] < 0.3 * errors[1]


def test_it_is_the_same_every_time():
    model, batches = small_model(dtype=torch.float32), small_batches()
    first, second = (quantize(model, batches, Recipe())[0] for _ in range(2))
    assert_same_state(first, state_of(second))


def test_the_most_sensitive_linears_stay_float():
    evidence = evidence_of(float_linears=3)
    plan = TRANSFORM.plan(evidence, -0.3, {})
    alone = evidence.sensitivities
    assert len(alone) == 12 and set(plan.kept) == set(sorted(alone, key=alone.get)[-3:])
    rounded, meta = TRANSFORM.draft(evidence, plan, evidence.given.observed.model)
    assert set(quantized_linears(rounded)) == set(alone) - set(plan.kept)
    assert plan.predicted_loss == pytest.approx(sum(value for name, value in alone.items() if name not in plan.kept))
    assert json.loads(json.dumps(meta.to_json()))["notes"]["float_linears"] == list(plan.kept)


def test_lone_errors_are_those_of_the_whole_model():
    model, batches = small_model(dtype=torch.float32), small_batches(1)
    errors = lone_errors(model, batches)
    mask, wanted = batches[0]["attention_mask"].bool(), model(**batches[0]).last_hidden_state
    name = "encoder.layer.0.output.dense"
    handle = model.get_submodule(name).register_forward_hook(plainly_rounded)
    found = model(**batches[0]).last_hidden_state[mask]
    handle.remove()
    energy = (wanted[mask] - wanted[mask].mean(0)).square().sum()
    assert errors[name] == pytest.approx(float((found - wanted[mask]).square().sum() / energy), rel=1e-3)


def test_weights_stored_in_fp8_leave_the_inputs_alone():
    evidence = evidence_of(precision="fp8_storage")
    model = evidence.given.observed.model
    made, meta = TRANSFORM.apply(evidence, TRANSFORM.plan(evidence, 0.0, {}), model, {})
    assert {item.codes for item in quantized_linears(made).values()} == {"fp8"} and len(quantized_linears(made)) == 12
    stored, dense = (model_outputs(item, small_batches()[0])["last_hidden_state"].flatten() for item in (made, model))
    assert not meta.delta_layout and torch.nn.functional.cosine_similarity(stored, dense, 0) > 0.99


def test_a_mamba_is_stored_in_fp8_too():
    model = tiny_mamba(dtype=torch.float32)
    batches = [{"input_ids": torch.arange(24).view(2, 12)}]
    evidence = TRANSFORM.evidence(
        Given(Observed(model, batches, batches), Findings(), options(precision="fp8_storage"))
    )
    made, _ = TRANSFORM.apply(evidence, TRANSFORM.plan(evidence, 0.0, {}), model, {})
    stored = quantized_linears(made)
    assert len(stored) == 8 and {item.codes for item in stored.values()} == {"fp8"}, "four of each of two layers"
    with torch.no_grad():
        logits, dense = (item(**batches[0]).logits for item in (made, model))
    error = (logits - dense).norm() / dense.norm()
    assert 1e-4 < error < 0.1


def test_whole_tiles_are_no_draft():
    orders = {f"ffn.{layer}": np.arange(48) for layer in (0, 1)}
    assert not evidence_of(Manner(granules(8), orders), outlier_share=0.1).drafts
    assert evidence_of(Manner(granules(8), orders)).drafts and evidence_of(outlier_share=0.1).drafts


def test_more_float_linears_than_there_are():
    with pytest.raises(TransformError, match="float_linears is 13, but the model has 12 Linears"):
        TRANSFORM.plan(evidence_of(float_linears=13), 0.0, {})


def test_a_family_that_no_runtime_computes_in_eight_bits():
    model = tiny_mamba()
    with pytest.raises(TransformError, match="is not quantised: ONNX has no selective scan"):
        TRANSFORM.evidence(Given(Observed(model, [], []), Findings(), options()))


def test_an_input_that_is_not_finite():
    model = small_model(dtype=torch.float32)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[5] = torch.inf
    with pytest.raises(TransformError, match="what block 'heads.0' reads is not finite"):
        quantize(model, small_batches(), Recipe(None))


def test_constant_channels_and_dead_neurons_stay_finite():
    model = small_model(dtype=torch.float32)
    with torch.no_grad():
        model.encoder.layer[0].intermediate.dense.weight[4] = 0.0
        model.encoder.layer[0].intermediate.dense.bias[4] = 0.0
        model.encoder.layer[0].output.dense.weight[:, 4] = 0.0
        model.encoder.layer[1].attention.self.query.weight.zero_()
    rounded, _ = quantize(model, small_batches(), Recipe())
    assert all(bool(parameter.isfinite().all()) for parameter in rounded.parameters())
    assert bool(model_outputs(rounded, small_batches()[0])["last_hidden_state"].isfinite().all())


def test_a_linear_that_is_never_called_stays_as_it_is():
    model = small_model(dtype=torch.float32)
    model.encoder.layer[0].attention.self.unused = torch.nn.Linear(32, 32)
    rounded, done = quantize(model, small_batches(), Recipe(None))
    assert len(done) == 12 and "encoder.layer.0.attention.self.unused" not in quantized_linears(rounded)


def test_the_order_names_both():
    with pytest.raises(ConfigError, match=r"names each transform once: .* got \['sparsity', 'sparsity'\]"):
        transforms_of({"quantization": options(order=("sparsity", "sparsity"))})


def test_a_scenario_without_the_section_is_what_it_was(tmp_path):
    assert "quantization" not in load_scenario("bert_domain").config
    assert [row.name for row in transforms_of(load_scenario("bert_domain").config)] == ["sparsity"]
    path = tmp_path / "mine.yaml"
    path.write_text("quantization: {}")
    config = load_scenario(path).config
    assert config["quantization"]["precision"] == "int8"
    assert [row.name for row in further_transforms(config)] == ["quantization"]


def test_its_figures_stand_in_the_report(tmp_path):
    problem = problem_of(outlier_share=0.1)
    folder = write_run(tmp_path / "run")
    solution = solve(problem, "iterative")
    atomic_write(folder / "iterative" / "transform_meta.json", to_json(transform_record(problem, solution)))
    results = Results.load(folder)
    assert further_panels(results) == []
    results = replace(results, lock={"scenario": "run", "config": problem.inputs.sections})
    assert further_panels(results)[:2] == [linear_errors, channel_ranges]
    drawn = draw_all(results, further_panels(results))
    names = [item.name for role, item in drawn.items() if role.startswith("panel")]
    assert names == ["quantization_errors", "quantization_ranges"]  # those of weights alone are left out
    effects = solution.best.metas["quantization"].axes
    counts = {name: int((effects[name].groups == 1).sum()) for name in ("ffn.0", "ffn.1")}
    assert any(f"of {name}; {count} stay float" in drawn["panel_1"].alt for name, count in counts.items())
