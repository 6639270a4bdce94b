"""One kernel for a mixer's token: what four calls give, whatever the sizes, and where it steps back."""

import copy
from unittest import mock

import pytest
import torch
from torch.nn.functional import linear

from icd_lib.kernels import cpu, mixer, use_fast_scan
from icd_lib.kernels.reference import causal_conv1d_ref, selective_scan_ref
from tests.tiny_mambas import make_uneven, tiny_mamba, tokens

SIZES = [(1, 50, 5, 3, 4), (3, 33, 1, 1, 2), (5, 512, 16, 16, 4), (40, 96, 7, 6, 3), (1, 7, 3, 2, 4)]
BOUNDS = {torch.float32: 2e-6, torch.float64: 1e-12}


def given(sequences, width, states, rank, taps, kind, bias=True):
    """recent, state, x, z and the weights of a mixer."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, by=1.0):
        return (by * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(kind)

    both = normal(sequences, 2 * width)
    weights = (
        normal(width, taps, by=0.5),
        normal(width) if bias else None,
        normal(rank + 2 * states, width, by=width**-0.5),
        normal(width, rank, by=rank**-0.5),
        normal(width),
        normal(width, states),
        normal(width),
    )
    return normal(sequences, width, taps), normal(sequences, width, states), *both.chunk(2, -1), weights


def reference(recent, state, x, z, weights):
    """The same in float64: (output, last inputs, state)."""
    recent, state, x, z = (tensor.double() for tensor in (recent, state, x, z))
    conv, bias, select, step, step_bias, log_rates, skip = (None if w is None else w.double() for w in weights)
    u = causal_conv1d_ref(x[..., None], conv, bias, "silu", recent[..., 1:])[..., 0]
    states = state.shape[2]
    time, enters, leaves = linear(u, select).split([step.shape[1], states, states], -1)
    columns = (tensor[..., None] for tensor in (u, linear(time, step)))
    out, last = selective_scan_ref(
        *columns,
        -torch.exp(log_rates),
        enters[..., None],
        leaves[..., None],
        skip,
        z[..., None],
        step_bias,
        True,
        state,
        True,
    )
    return out[..., 0], torch.cat([recent[..., 1:], x[..., None]], -1), last


def apart(found, wanted):
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_the_reference(sizes, kind, bias):
    recent, state, x, z, weights = given(*sizes, kind, bias)
    wanted = reference(recent, state, x, z, weights)
    assert cpu.is_whole((x, z), (recent, state, *weights))
    out = cpu.mixer_step(recent, state, x, z, *weights)
    for found, expected in zip((out, recent, state), wanted, strict=True):
        assert found.dtype == kind and apart(found, expected) <= BOUNDS[kind]


def test_every_number_of_threads_gives_the_same_bytes():
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        recent, state, x, z, weights = given(40, 96, 7, 6, 3, torch.float32)
        found.append((cpu.mixer_step(recent, state, x, z, *weights), recent, state))
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for others in found[1:] for one, other in zip(found[0], others, strict=True))


@pytest.mark.parametrize("make", [tiny_mamba, lambda **given: make_uneven(tiny_mamba(**given))])
@torch.inference_mode()
def test_a_model_says_the_same_with_one_kernel_and_with_four_calls(make):
    model = use_fast_scan(make(dtype=torch.float32))
    texts = []
    with mock.patch.object(mixer, "mixer_step", wraps=mixer.mixer_step) as used:
        texts.append(model.generate(tokens(2, 6), max_new_tokens=16, do_sample=False))
    assert used.call_count == 2 * 15, "a layer and a token each"
    with mock.patch.object(mixer, "mixer_step", lambda *given: None):
        texts.append(model.generate(tokens(2, 6), max_new_tokens=16, do_sample=False))
    assert torch.equal(*texts)


def read_by(model):
    """Inputs of the first x_proj while one token is decoded."""
    seen = []
    handle = model.backbone.layers[0].mixer.x_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.inference_mode():
        cache = model(tokens(2, 6), use_cache=True).cache_params
        seen.clear()
        logits = model(tokens(2, 1, seed=8), cache_params=cache, use_cache=True).logits
    handle.remove()
    return seen, logits


@torch.inference_mode()
def test_who_looks_on_still_sees_what_is_read():
    model = use_fast_scan(tiny_mamba(dtype=torch.float32))
    seen, logits = read_by(model)
    assert len(seen) == 1 and seen[0].shape == (2, 50)
    cache = model(tokens(2, 6), use_cache=True).cache_params
    alone = model(tokens(2, 1, seed=8), cache_params=cache, use_cache=True).logits
    assert float((alone - logits).abs().max() / logits.abs().max()) <= 1e-5


@pytest.mark.parametrize("changes", [{"hidden_act": "gelu"}, {"dtype": torch.bfloat16}])
@torch.inference_mode()
def test_it_steps_back_where_it_computes_something_else(changes):
    model = use_fast_scan(tiny_mamba(**{"dtype": torch.float32} | changes))
    twin = copy.deepcopy(model)
    with mock.patch.object(cpu, "mixer_step", side_effect=AssertionError("not for this model")):
        found = model.generate(tokens(2, 6), max_new_tokens=4, do_sample=False)
    assert torch.equal(found, twin.generate(tokens(2, 6), max_new_tokens=4, do_sample=False))


def test_what_it_does_not_take():
    recent, state, x, z, weights = given(2, 12, 3, 2, 4, torch.float32)
    assert not cpu.is_whole((x, z), (recent, state.double(), *weights))
    assert not cpu.is_whole((x.half(), z.half()), (recent, state, *weights))
    assert not cpu.is_whole((x, z), (recent, state.transpose(1, 2), *weights))
    assert not cpu.is_whole((x.T.contiguous().T, z), (recent, state, *weights))
