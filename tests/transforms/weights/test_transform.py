"""Weights in groups in the loop: what each arm's order is, that the loop's re-permutation folds it, and refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.kinds import granules
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.evidence import Problem, gather
from icd_lib.codesign.inputs import Inputs, Judgement
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.codesign.loop import at_dense_shape, solve
from icd_lib.codesign.options import Settings
from icd_lib.errors import TransformError
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.grouped import check_contiguous, grid_of, grouped_modules
from icd_lib.report import Results, weights_figures
from icd_lib.report.full_report import draw_all
from icd_lib.report.table import DoesNotApply
from icd_lib.solver.cost import CostConfig
from icd_lib.stages.report import further_panels
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.transforms import transforms_of
from icd_lib.transforms.base import Given, Manner
from icd_lib.transforms.effects import Groups, TransformMeta
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.quantization.options import QuantizationOptions
from icd_lib.transforms.quantization.transform import TRANSFORM
from icd_lib.transforms.sparsity.allocate import LatencyTable
from icd_lib.transforms.weights import transform as weights_transform
from icd_lib.workloads.model.solve import transform_record
from tests.report_factory import write_run
from tests.tiny_grouped import batches, decoder, loss_of
from tests.tiny_problems import assert_same_state, state_of

LADDERED = {"precision": "mixed_weights", "bits_ladder": (11.5, 7.0, 9.0)}
pytestmark = pytest.mark.wide


def options(**changes):
    return dict(QuantizationOptions(**{"precision": "int4_weights", "group": 8} | changes))


def problem(order=("sparsity", "quantization"), model=None, **changes):
    """Sparsity and quantization of the tiny decoder, at one strength."""
    given, text = options(order=order, **changes), batches()
    ffn, groups = np.arange(8, 81, 8), np.arange(1, 4)
    tables = {
        "ffn": LatencyTable("ffn", ffn, 4.8 * (1 - ffn / 80) ** 0.9),
        "kv_groups": LatencyTable("kv_groups", groups, 2.6 * (1 - groups / 3) ** 0.9),
    }
    settings = Settings(
        axes=("ffn",), tile=8, distill_steps=0, strengths=(-0.2,), max_rounds=1, sequential=False, head_dim=None
    )
    inputs = Inputs(
        dense=decoder() if model is None else model,
        batches=text,
        distill_batches=text,
        example=text[0],
        judge=lambda model: Judgement(0.0, 0.0),
        settings=settings,
        solver=SolverSettings(CostConfig(g=8, v=8, h=24), refine_steps=60),
        sections={"quantization": given},
    )
    rates = {f"{kind}.{layer}": 1.0 for kind in ("ffn", "kv_groups") for layer in (0, 1)}
    evidence = gather(inputs, Findings(tables, 20.0, rates))
    return Problem(inputs, evidence, transforms_of({"quantization": given}))


def evidence_of(manner=Manner(), model=None, **changes):  # noqa: B008 (frozen)
    given = Given(Observed(model or decoder(), batches(), batches()), Findings(), options(**changes), manner)
    return TRANSFORM.evidence(given)


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_every_arm_ends_contiguous(mode, tmp_path):
    given = problem()
    dense = state_of(given.inputs.dense)
    solution = solve(given, mode)
    assert_same_state(given.inputs.dense, dense)
    best = solution.best
    assert list(best.metas) == ["sparsity", "quantization"] and best.strength == -0.2
    check_contiguous(best.model)
    blocks = {name: module for name, module in grouped_modules(best.model).items() if "layers" in name}
    assert len(blocks) == 14 and {int(module.code_bits) for module in blocks.values()} == {4}
    for name, module in blocks.items():
        assert torch.equal(module.on_grid(module.weight), module.weight), name
    meta = best.metas["quantization"]
    effect = meta.axes["ffn.0"]
    assert isinstance(effect, Groups) and meta.delta_layout and effect.size == best.widths["ffn.0"] < 80
    in_stretches = np.array_equal(effect.groups, np.arange(effect.size) // 8)
    assert in_stretches == (mode != "iterative")
    assert bool(meta.notes["folded"]["axes"]) == (mode == "iterative")
    if mode == "iterative":
        assert {"residual", "v.0.0", "q_heads.1.2"} <= set(meta.notes["folded"]["axes"])
        assert meta.notes["folded"]["max_rel_error"] <= 1e-6 and best.changes.keys() == {"ffn.0", "ffn.1"}
    assert all(certificate["max_rel_error"] <= 1e-6 for certificate in solution.certificates)
    whole = at_dense_shape(best.origin, best.model, given.inputs.dense, solution.perms_before)
    loaded = load_optimized(save_optimized(best.model, None, tmp_path / "model"))
    for inputs in batches(2, seed=7):
        wanted = model_outputs(best.model, inputs)
        assert outputs_error(model_outputs(whole, inputs), wanted) <= 1e-5
        assert outputs_error(model_outputs(loaded, inputs), wanted) == 0
    read = TransformMeta.from_json(json.loads(json.dumps(meta.to_json())))
    assert np.array_equal(read.axes["ffn.1"].groups, meta.axes["ffn.1"].groups)


def test_its_figures_compare_orders(tmp_path):
    given, folder = problem(), write_run(tmp_path / "run")
    for mode in ("linear", "iterative"):
        solution = solve(given, mode)
        atomic_write(folder / mode / "transform_meta.json", to_json(transform_record(given, solution)))
    config = {"quantization": options()}
    results = replace(Results.load(folder), lock={"scenario": "run", "config": config})
    drawn = draw_all(results, further_panels(results))
    shown = {item.name: item for role, item in drawn.items() if role.startswith("panel")}
    assert list(shown) == ["weights_orders", "weights_errors"]
    linears = solution.best.metas["quantization"].notes["linears"]
    tried = {name for name, entry in linears.items() if entry["orders"]}
    assert tried == {name for name in linears if ".layers.1." in name}
    for name in tried:
        orders = linears[name]["orders"]
        assert orders.keys() == {"nearest", "stored", "random", "descending"}
        assert 0 < min(orders.values()) and linears[name]["error"] < orders["nearest"]
    assert "of the error that the checkpoint's order leaves" in shown["weights_orders"].alt
    assert weights_figures.lines(results) == [shown["weights_orders"].alt]


def test_quantization_first_and_pruned_afterwards_stays_on_its_grid():
    best = solve(problem(("quantization", "sparsity")), "oneshot").best
    for name, module in grouped_modules(best.model).items():
        assert torch.equal(module.weight, grid_of(module).weight_of(grid_of(module).codes_of(module.weight))), name


def test_only_the_arm_that_lays_out_anew_rounds_in_the_order_of_the_evidence():
    orders = {f"ffn.{layer}": np.arange(80) for layer in (0, 1)}
    linear, oneshot = evidence_of(Manner(granules(8), orders)), evidence_of(Manner(even=True))
    assert evidence_of().folds and not linear.folds and not oneshot.folds
    assert not any(item.drafts or not item.closed_form for item in (linear, oneshot, evidence_of()))
    model = linear.given.observed.model
    made, meta = TRANSFORM.apply(linear, TRANSFORM.plan(linear, 0.0, {}), model, orders)
    check_contiguous(made)
    assert meta.notes["folded"] == {"axes": [], "max_rel_error": 0.0} and meta.notes["embeddings"] == [
        "model.embed_tokens"
    ]


@pytest.mark.parametrize("precision, bits", [("int8_weights", 8), ("int4_weights", 4)])
def test_one_number_of_bits(precision, bits):
    evidence = evidence_of(precision=precision, embeddings="float")
    plan = TRANSFORM.plan(evidence, 0.0, {})
    made, meta = TRANSFORM.apply(evidence, plan, evidence.given.observed.model, {})
    assert len(grouped_modules(made)) == 14 and {int(m.code_bits) for m in grouped_modules(made).values()} == {bits}
    assert meta.notes["bits_per_weight"] == pytest.approx(bits + (16 + bits) / 8, abs=0.01)
    assert plan.to_json() == {"precision": precision, "float_linears": []} and plan.predicted_loss is None


def test_mixed_bits_keep_their_budget_and_lose_less_than_one_number():
    evidence = evidence_of(precision="mixed_weights", mean_bits=7.2)
    plan = TRANSFORM.plan(evidence, 0.0, {})
    made, meta = TRANSFORM.apply(evidence, plan, evidence.given.observed.model, {})
    assert len(set(plan.bits.values())) > 1 and meta.notes["bits_per_weight"] <= 7.2
    assert plan.predicted_loss < sum(evidence.losses.values())
    assert {name: int(made.get_submodule(name).code_bits) for name in plan.bits} == plan.bits
    with pytest.raises(TransformError, match="raise quantization.mean_bits"):
        TRANSFORM.plan(evidence_of(precision="mixed_weights", mean_bits=4.0), 0.0, {})


def test_the_fewest_bits_of_the_ladder_that_keep_the_quality_are_taken(tmp_path):
    """What is judged is the real loss of each rung; the budget lies between those of two rungs."""
    given = problem(**LADDERED)
    dense = given.inputs.dense
    judged = replace(given.inputs, judge=lambda model: Judgement(100 * loss_of(model, dense), 0.0))
    given = replace(given, inputs=judged)
    free = judged.settings.but(quality_budget_pp=1e-9)
    refused = solve(replace(given, inputs=replace(judged, settings=free)), "iterative")
    assert [entry.setting for entry in refused.tried] == [{"quantization.mean_bits": b} for b in (7.0, 9.0, 11.5)]
    lost = [entry.validation.drop_pp for entry in refused.tried]
    assert lost == sorted(lost, reverse=True) and refused.best.judgement is None
    between = judged.settings.but(quality_budget_pp=(lost[0] + lost[1]) / 2)
    found = solve(replace(given, inputs=replace(judged, settings=between)), "iterative")
    assert [entry.accepted for entry in found.tried] == [False, True]
    assert found.best.judgement.drop_pp == lost[1]
    folder = write_run(tmp_path / "run")
    solved = json.loads((folder / "iterative" / "solve.json").read_text())
    atomic_write(folder / "iterative" / "solve.json", to_json(solved | {"attempts": found.attempts}))
    results = replace(Results.load(folder), lock={"scenario": "run", "config": {"quantization": options(**LADDERED)}})
    told = weights_figures.bits_tried(results).alt
    assert "iterative at 7: rolled back" in told and "iterative at 9: accepted" in told
    assert isinstance(weights_figures.bits_tried(replace(results, lock={"config": {}})), DoesNotApply)


def test_a_ladder_is_for_mixed_weights():
    with pytest.raises(TransformError, match="bits_ladder is .* and quantization.precision is int4_weights"):
        list(problem(bits_ladder=(5.0,)).settings())


def test_the_most_sensitive_stay_float():
    evidence = evidence_of(float_linears=2)
    plan = TRANSFORM.plan(evidence, 0.0, {})
    worst = sorted(evidence.losses, key=evidence.losses.get)[-2:]
    assert {name for name, bits in plan.bits.items() if not bits} == set(worst)
    made, _ = TRANSFORM.apply(evidence, plan, evidence.given.observed.model, {})
    assert not set(worst) & set(grouped_modules(made))


def test_sensitivities_are_kept_for_the_same_model_text_and_tokens(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path))
    computed = []
    lone_losses = weights_transform.lone_losses
    monkeypatch.setattr(weights_transform, "lone_losses", lambda *given: computed.append(given) or lone_losses(*given))

    def losses(moments="moments-of-a-model-on-a-text", **changes):
        kept = None if moments is None else tmp_path / f"{moments}.safetensors"
        observed = Observed(decoder(), batches(), batches(), keep_moments=kept)
        return TRANSFORM.evidence(Given(observed, Findings(), options(**changes))).losses

    first = losses()
    assert first and losses() == first and len(computed) == 1, "the second call reads"
    (file,) = tmp_path.glob("losses-*.json")
    others = [{"moments": "of-another"}, {"tokens": 64}, {"group": 16}, {"symmetric": True}]
    for changes in others:
        assert losses(**changes) == losses(**changes)
    assert len(computed) == 1 + len(others)
    file.write_text("damaged")
    assert losses() == first == losses() and len(computed) == 2 + len(others)
    kept = sorted(tmp_path.iterdir())
    assert losses(moments=None) == first and len(computed) == 3 + len(others) and sorted(tmp_path.iterdir()) == kept


def test_bits_and_symmetry_are_the_options():
    evidence = evidence_of(bits=3, symmetric=True)
    made, _ = TRANSFORM.apply(evidence, TRANSFORM.plan(evidence, 0.0, {}), evidence.given.observed.model, {})
    blocks = [module for name, module in grouped_modules(made).items() if "layers" in name]
    assert all(int(module.code_bits) == 3 and grid_of(module).is_symmetric for module in blocks)


def test_following_the_dense_stream_is_the_option():
    """On text that did not calibrate; at 3 bits, where the rounded stream is far from the dense one."""
    losses = {False: [], True: []}
    for seed in range(3):
        model = decoder(seed=seed)
        for follow, found in losses.items():
            chosen = options(bits=3, follow=follow, embeddings="float")
            evidence = TRANSFORM.evidence(Given(Observed(model, batches(8), batches(1)), Findings(), chosen, Manner()))
            made, _ = TRANSFORM.apply(evidence, TRANSFORM.plan(evidence, 0.0, {}), model, {})
            found.append(loss_of(made, model))
    assert all(followed < plain for plain, followed in zip(*losses.values(), strict=True)), losses


def test_refusals():
    for changes, words in (
        ({"bits": 5}, "codes have 3, 4 or 8 bits, got 5"),
        ({"group": 40}, r"48 columns of 'model.layers.0.self_attn.q_proj' do not fall into groups of 40"),
    ):
        evidence = evidence_of(**changes)
        with pytest.raises(TransformError, match=words):
            TRANSFORM.apply(evidence, TRANSFORM.plan(evidence, 0.0, {}), evidence.given.observed.model, {})
    with pytest.raises(TransformError, match="quantization.outlier_share is 0.1, which is for rounded inputs"):
        evidence_of(outlier_share=0.1)
    with pytest.raises(TransformError, match="quantization.follow is true and quantization.compensate is false"):
        evidence_of(follow=True, compensate=False)
    with pytest.raises(TransformError, match="float_linears is 15, but the model has 14 Linears"):
        TRANSFORM.plan(evidence_of(float_linears=15), 0.0, {})
    with pytest.raises(TransformError, match="Linear is of no family"):
        evidence_of(model=torch.nn.Linear(3, 3))
    with pytest.raises(TransformError, match="is not quantised"):
        TRANSFORM.evidence(replace(evidence_of().given, options=options(precision="int8")))
