"""A whole decoder rounded: sequentially, in every order, folded or gathered, and what each Linear reads on the way."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import ConfigError, TransformError
from icd_lib.models.families import find_adapter
from icd_lib.models.grouped import check_contiguous, grid_of, grouped_modules
from icd_lib.transforms.streams import ResidualStream
from icd_lib.transforms.weights.activity import column_activity, linear_names, shared_activity
from icd_lib.transforms.weights.fold import fold
from icd_lib.transforms.weights.gptq import round_in_groups
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.orders import Columns
from icd_lib.transforms.weights.readings import inputs_of, readings
from icd_lib.transforms.weights.rounding import Recipe, gather_moments, round_embeddings, round_weights
from icd_lib.transforms.weights.sensitivity import choices_of, lone_losses
from tests.tiny_grouped import batches, decoder, loss_of
from tests.tiny_problems import assert_same_state, small_batches, small_model, state_of

SPEC = Spec(4, 8)


def recipe(model, order="descending", folded=True, **changes):
    columns = Columns.in_model(find_adapter(model).axes())
    shared = shared_activity(columns, column_activity(model, batches()))
    shared = {axis: values for axis, values in shared.items() if axis == "residual"}
    return Recipe(**{"spec_of": lambda name: SPEC, "order": order, "folded": folded, "shared": shared} | changes)


def test_what_every_linear_reads_is_what_it_is_called_with():
    model, seen = decoder(), {}
    stream = ResidualStream(find_adapter(model), batches())
    handles = []
    for name, module in find_adapter(model).trunk().named_modules():
        if isinstance(module, nn.Linear):
            note = lambda _module, args, name=name: seen.setdefault(name, []).append(args[0])  # noqa: E731
            handles.append(module.register_forward_pre_hook(note))
    with torch.inference_mode():
        for inputs in batches():
            model(**inputs)
    for handle in handles:
        handle.remove()
    names = {module: name for name, module in find_adapter(model).trunk().named_modules()}
    stages = []
    for block in find_adapter(model).blocks():
        for linears in readings(block, stream):
            stages.append([names[linear] for linear in linears])
            for linear in linears:
                for found, wanted, mask in zip(
                    inputs_of(linear, block, stream), seen[names[linear]], stream.valid, strict=True
                ):
                    assert torch.allclose(found, wanted[mask], atol=1e-5)
        stream.advance(block, stream.sums(block, stream.inner(block)))
    assert stages[0] == [f"0.self_attn.{name}_proj" for name in "qkv"] and stages[3] == [
        "1.mlp.gate_proj",
        "1.mlp.up_proj",
    ]


def test_activity_is_the_mean_square_of_what_is_read():
    model = decoder()
    found = column_activity(model, batches())
    assert len(found) == 14 and linear_names(model, batches()) == list(found)
    read = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _m, args: read.append(args[0]))
    with torch.inference_mode():
        for inputs in batches():
            model(**inputs)
            read[-1] = read[-1][inputs["attention_mask"].bool()]
    handle.remove()
    wanted = torch.cat(read).double().square().mean(0)
    assert torch.allclose(found["model.layers.1.mlp.down_proj"], wanted, rtol=1e-5)
    columns = Columns.in_model(find_adapter(model).axes())
    shared = shared_activity(columns, found)["residual"]
    readers = [name for name in found if name.endswith(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"))]
    assert np.allclose(shared, sum((found[name] / found[name].mean()).numpy() for name in readers))


def test_every_matrix_is_rounded_on_what_the_rounded_model_gives():
    model = decoder()
    found = round_weights(model, batches(), Recipe(spec_of=lambda name: SPEC, order="stored"))
    assert len(found.done) == 14 and all(0 < item.error < 0.1 for item in found.done.values())
    read, name = [], "model.layers.1.mlp.down_proj"
    handle = found.model.get_submodule(name).register_forward_pre_hook(lambda _m, args: read.append(args[0]))
    with torch.inference_mode():
        for inputs in batches():
            found.model(**inputs)
            read[-1] = read[-1][inputs["attention_mask"].bool()]
    handle.remove()
    gram = gather_moments(read).gram
    wanted = round_in_groups(model.get_submodule(name).weight, gram, SPEC)
    held = found.model.get_submodule(name).weight.double()
    assert (held != wanted.values).double().mean() < 0.02, "up to the last digits of the moments"
    assert found.bits_per_weight == pytest.approx(4 + 16 / 8 + 4 / 8, abs=0.01)


@pytest.mark.parametrize("order", ["stored", "random", "descending"])
def test_a_folded_order_leaves_nothing_to_gather(order):
    model = decoder()
    state = state_of(model)
    found = round_weights(model, batches(), recipe(model, order))
    assert_same_state(model, state)
    folded = copy.deepcopy(found.model)
    fold(folded, found.perms, batches(1)[0])
    check_contiguous(folded)
    for inputs in batches(2, seed=9):
        assert outputs_error(model_outputs(folded, inputs), model_outputs(found.model, inputs)) <= 1e-5
    if order != "stored":
        with pytest.raises(TransformError, match="are not stretches of its columns"):
            check_contiguous(found.model)
        assert set(found.perms) == {"residual", "ffn.0", "ffn.1"} | {
            f"{kind}.{layer}.{group}" for kind in ("v", "q_heads") for layer in (0, 1) for group in (0, 1, 2)
        }
        free = round_weights(model, batches(), recipe(model, order, folded=False))
        assert not free.perms
        grids = [grid_of(module).group for module in grouped_modules(free.model).values()]
        assert len({tuple(group.tolist()) for group in grids}) > 4


def test_folded_then_rounded_in_stored_order_is_the_same():
    """Up to rounding: sums are taken in another order."""
    model = decoder(dtype=torch.float64)
    found = round_weights(model, batches(), recipe(model))
    fold(found.model, found.perms, batches(1)[0])
    first = copy.deepcopy(model)
    fold(first, found.perms, batches(1)[0])
    again = round_weights(first, batches(), Recipe(spec_of=lambda name: SPEC, order="stored"))
    assert grouped_modules(found.model)
    for name, module in grouped_modules(found.model).items():
        assert torch.equal(module.weight, again.model.get_submodule(name).weight), name


def test_gptq_in_the_folded_order_loses_less_than_nearest():
    losses = {}
    for seed in range(3):
        model = decoder(seed=seed)
        tried = {
            "nearest": recipe(model, "stored", compensate=False),
            "gptq": recipe(model, "stored"),
            "folded": recipe(model),
            "followed": recipe(model, follow=True),
        }
        for name, given in tried.items():
            losses.setdefault(name, []).append(loss_of(round_weights(model, batches(6), given).model, model))
    mean = {name: np.mean(values) for name, values in losses.items()}
    assert mean["gptq"] < 0.8 * mean["nearest"] and mean["folded"] < 0.8 * mean["nearest"]
    assert mean["followed"] < mean["nearest"]


def test_what_is_named_stays_float():
    model = decoder()
    kept = "model.layers.0.self_attn.q_proj"
    found = round_weights(model, batches(), Recipe(spec_of=lambda name: None if name == kept else SPEC))
    assert kept not in found.done and len(found.done) == 13 and type(found.model.get_submodule(kept)) is nn.Linear


def test_it_is_the_same_every_time_and_text_matters():
    model = decoder()
    first, second, other = (
        round_weights(model, given, recipe(model, "random")).model for given in (batches(), batches(), batches(seed=8))
    )
    assert_same_state(first, state_of(second))
    assert any(
        not torch.equal(first.get_submodule(n).weight, other.get_submodule(n).weight) for n in grouped_modules(first)
    )


def test_an_encoder_has_weights_too():
    model = small_model(dtype=torch.float32)
    found = round_weights(model, small_batches(), Recipe(spec_of=lambda name: SPEC))
    assert len(found.done) == 12
    fold(found.model, found.perms, small_batches()[0])
    check = [
        grid_of(module).is_contiguous for name, module in grouped_modules(found.model).items() if "output.dense" in name
    ]
    assert all(check) and len(check) == 4


def test_refusals():
    model = decoder()
    with pytest.raises(
        TransformError, match=r"48 columns of 'model.layers.0.self_attn.q_proj' do not fall into groups of 40"
    ):
        round_weights(model, batches(), Recipe(spec_of=lambda name: Spec(4, 40)))
    broken = decoder()
    with torch.no_grad():
        broken.model.embed_tokens.weight[5] = torch.inf
    with pytest.raises(TransformError, match=r"what 'model.layers.0.self_attn.q_proj' reads is not finite"):
        round_weights(broken, batches(), Recipe(spec_of=lambda name: SPEC))
    with pytest.raises(TransformError, match="calibration is empty"):
        round_weights(model, [], Recipe(spec_of=lambda name: SPEC))


def test_a_mixture_of_experts_is_refused_by_name():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    with pytest.raises(ConfigError, match="MixtralForCausalLM"):
        round_weights(MixtralForCausalLM(config), batches(), Recipe())


def test_lone_losses_are_those_of_the_whole_model():
    model, inputs = decoder(), batches(1)
    losses = lone_losses(model, inputs, SPEC)
    assert len(losses) == 14
    name, changed = "model.layers.0.mlp.up_proj", decoder()
    matrix = changed.get_submodule(name)
    matrix.weight.data = round_in_groups(matrix.weight, None, SPEC).values.float()
    mask = inputs[0]["attention_mask"].bool()
    log_p, log_q = (item(**inputs[0]).logits[mask].log_softmax(-1) for item in (model, changed))
    assert losses[name] == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()), rel=1e-2)
    bare = lone_losses(decoder("backbone"), inputs, SPEC)
    assert all(0 < value < 1 for value in bare.values())
    activity = column_activity(model, inputs)
    choices = choices_of(model, losses, activity, SPEC, [Spec(bits, 8) for bits in (3, 4, 8)])
    for name, (three, four, eight) in choices.items():
        assert three.loss > four.loss == losses[name] > eight.loss and three.bytes < four.bytes < eight.bytes


def test_embeddings_in_groups_are_nearer_and_rows_that_they_do_not_divide_get_one_scale():
    model = decoder()
    wanted = model.get_input_embeddings().weight.detach().clone()
    away = {}
    for group in (8, None, 7):
        made = copy.deepcopy(model)
        assert round_embeddings(made, Spec(8, group, searched=False))[0] == "model.embed_tokens"
        table = made.get_input_embeddings()
        away[group] = float((table.weight - wanted).norm())
        assert int(grid_of(table).group.max()) + 1 == (wanted.shape[1] // 8 if group == 8 else 1)
    assert away[8] < 0.8 * away[None] and away[7] == away[None]
