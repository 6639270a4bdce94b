import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.axis import check_axis
from icd_lib.axes.compact import compact
from icd_lib.axes.double import KeepDouble
from icd_lib.axes.expand import expand
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error, verify_axes
from icd_lib.errors import AxisError, ConfigError
from icd_lib.kernels.mixer import FastMambaMixer
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.checkpoint.prepare import prepare
from icd_lib.models.families import find_adapter
from icd_lib.models.families.mamba import MambaAdapter
from tests.tiny_mambas import (
    HIDDEN,
    INNER,
    RANK,
    STATES,
    VOCAB,
    make_uneven,
    random_alive,
    tiny_mamba,
    tiny_mamba2,
    tokens,
)
from tests.tiny_problems import assert_same_state, state_of, three_cycle

INPUTS = {"input_ids": tokens()}
REMOVABLE = ("inner", "state", "dt_rank")


def exact_outputs(model, inputs=INPUTS):
    with KeepDouble():
        return model_outputs(model, inputs)


def test_axes_by_name_and_size():
    sizes = {axis.name: axis.size for axis in find_adapter(tiny_mamba()).axes()}
    layer = {"inner": INNER, "state": STATES, "dt_rank": RANK}
    wanted = {f"{kind}.{index}": size for index in range(2) for kind, size in layer.items()}
    assert sizes == wanted | {"residual": HIDDEN, "vocab": VOCAB}


@pytest.mark.parametrize("changes", [{"use_bias": True, "use_conv_bias": False}, {"tie_word_embeddings": False}])
def test_every_slot_matters(changes):
    """Leave out one slot after the other: the axis must be refused and the model stay as it is."""
    model = tiny_mamba(**changes)
    state = state_of(model)
    for name in ("inner.0", "state.1", "dt_rank.0", "residual", "vocab"):
        axis = find_adapter(model).axis(name)
        for i in range(len(axis.slots)):
            wrong = replace(axis, slots=axis.slots[:i] + axis.slots[i + 1 :])
            with pytest.raises(AxisError, match=f"axis '{name}' changes the outputs.*refused"):
                verify_axes(model, [wrong], INPUTS, perms={name: three_cycle(axis.size)})
    assert_same_state(model, state)


def test_single_precision_models_are_certified_to_the_last_digits_too():
    certificates = verify_axes(tiny_mamba(dtype=torch.float32), find_adapter(tiny_mamba()).axes(), INPUTS)
    assert max(c["max_rel_error"] for c in certificates) <= 1e-12


def test_weights_and_metadata_shrink_together():
    model = make_uneven(tiny_mamba())
    for layer in model.backbone.layers:
        mixer = layer.mixer
        inner, states, rank = mixer.out_proj.in_features, mixer.A_log.shape[1], mixer.dt_proj.in_features
        assert (mixer.intermediate_size, mixer.ssm_state_size, mixer.time_step_rank) == (inner, states, rank)
        assert mixer.in_proj.out_features == 2 * inner == 2 * mixer.dt_proj.out_features
        assert (mixer.x_proj.in_features, mixer.x_proj.out_features) == (inner, rank + 2 * states)
        conv = mixer.conv1d
        assert (conv.in_channels, conv.out_channels, conv.groups) == (inner,) * 3 == (len(conv.weight),) * 3
        assert mixer.A_log.shape == (inner, states) and mixer.D.shape == (inner,)
        x = torch.randn(1, inner, 9, dtype=torch.float64)
        assert conv(x).shape == (1, inner, 12)


def test_a_stale_axis_is_refused():
    model = tiny_mamba()
    stale = find_adapter(model).axis("state.0")
    compact(model, find_adapter(model).axis("dt_rank.0"), np.array([True, False, True]))
    with pytest.raises(AxisError, match="find_axes again"):
        check_axis(model, stale)


def generate(model):
    return model.generate(tokens(2, 6), max_new_tokens=24, do_sample=False)


@pytest.mark.parametrize("ready", [prepare, lambda model: model])
def test_generation_is_the_same_after_permuting_every_axis(ready):
    model = ready(tiny_mamba(dtype=torch.float32))
    wanted, rng = generate(model), np.random.default_rng(0)
    for axis in find_adapter(model).axes():
        permute(model, axis, rng.permutation(axis.size))
    assert torch.equal(generate(model), wanted)


@pytest.mark.parametrize("ready", [prepare, lambda model: model])
def test_generation_is_the_same_at_the_dense_shape_and_compacted(ready):
    """One transform, two layouts: the states of decoding shrink with the model, and mean the same."""
    dense = tiny_mamba(dtype=torch.float32)
    small, places = copy.deepcopy(dense), {}
    for place, axis in enumerate(find_adapter(dense).axes()):
        if axis.kind in REMOVABLE:
            alive = random_alive(axis.size, max(1, axis.size - 1 - place), place)
            places[axis.name] = np.flatnonzero(alive)
            compact(small, find_adapter(small).axis(axis.name), alive)
    whole = expand(small, dense, find_adapter(dense).axes(), places)
    assert [p.shape for p in whole.parameters()] == [p.shape for p in dense.parameters()]
    assert outputs_error(model_outputs(whole, INPUTS), model_outputs(small, INPUTS)) <= 1e-5
    assert torch.equal(generate(ready(whole)), generate(ready(small)))
    assert not torch.equal(generate(small), generate(dense))
    cache = small(**INPUTS, use_cache=True).cache_params
    assert [cache.get_recurrent_state(i).shape[1:] for i in range(2)] == [
        layer.mixer.A_log.shape for layer in small.backbone.layers
    ]


def test_uneven_models_reload_bit_for_bit_with_the_fast_scan(tmp_path):
    model = prepare(make_uneven(tiny_mamba(dtype=torch.float32)))
    permute(model, find_adapter(model).axis("vocab"), np.random.default_rng(1).permutation(VOCAB))
    loaded = load_optimized(save_optimized(model, None, tmp_path / "m"))
    assert type(loaded.backbone.layers[1].mixer) is FastMambaMixer
    assert loaded.lm_head.weight is loaded.backbone.embeddings.weight
    assert torch.equal(loaded(**INPUTS).logits, model(**INPUTS).logits)
    assert torch.equal(generate(loaded), generate(model))
    assert {a.name: a.size for a in find_adapter(loaded).axes()} == {a.name: a.size for a in find_adapter(model).axes()}


@torch.inference_mode()
def test_readers_get_what_x_proj_reads():
    model, caught = tiny_mamba(), []
    adapter = find_adapter(model)
    for layer in model.backbone.layers:
        layer.mixer.x_proj.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    with KeepDouble():
        model(**INPUTS)
        wanted, (hidden, context) = list(caught), adapter.embed(INPUTS)
        for block, x in zip(adapter.blocks(), wanted, strict=True):
            (reader,) = block.readers
            assert torch.allclose(reader.inputs(hidden, context), x, rtol=0, atol=1e-12)
            assert reader.linear is model.backbone.layers[block.layer].mixer.x_proj
            hidden = block.forward(hidden, context)


@torch.inference_mode()
def test_state_terms_and_the_skip_make_the_whole():
    model = tiny_mamba()
    adapter = find_adapter(model)
    hidden, context = adapter.embed(INPUTS)
    (block, _), mixer = list(adapter.blocks()), model.backbone.layers[0].mixer
    with KeepDouble():
        whole = block.inner(hidden, context)
        terms = list(adapter.state_terms(0, hidden, context))
        assert len(terms) == STATES
        mixer.x_proj.weight[RANK:] = 0  # B and C: nothing but the skip is left
        skip = block.inner(hidden, context)
        assert torch.allclose(sum(terms) + skip, whole, rtol=0, atol=1e-12)
    assert min(float(term.abs().max()) for term in terms) > 1e-3


def test_one_token_and_one_state():
    model = prepare(tiny_mamba(state_size=1, dtype=torch.float32))
    assert model(tokens(1, 1)).logits.shape == (1, 1, VOCAB)
    assert generate(model).shape == (2, 30)


def test_prepare_leaves_other_models_alone_and_can_be_called_twice():
    model = prepare(prepare(tiny_mamba()))
    assert len(model.backbone._forward_pre_hooks) == 1
    assert len(copy.deepcopy(model).backbone._forward_pre_hooks) == 1
    assert prepare(torch.nn.Linear(2, 2)).weight.shape == (2, 2)
    assert not prepare(tiny_mamba2()).backbone._forward_pre_hooks


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (torch.zeros(1, 0, dtype=torch.long), "the prompt is empty"),
        (torch.tensor([[3, VOCAB]]), f"token id {VOCAB} is outside 0..{VOCAB - 1}"),
        (torch.tensor([[-1, 3]]), "token id -1 is outside"),
    ],
)
def test_bad_token_ids_are_refused(ids, complaint):
    model = prepare(tiny_mamba())
    for call in (
        lambda: model(ids),
        lambda: model(input_ids=ids),
        lambda: find_adapter(model).embed({"input_ids": ids}),
    ):
        with pytest.raises(ConfigError, match=complaint):
            call()


def test_a_mamba2_model_is_refused_by_the_mamba_adapter():
    with pytest.raises(ConfigError, match="Mamba2ForCausalLM has no layers with a MambaMixer"):
        MambaAdapter(tiny_mamba2())
