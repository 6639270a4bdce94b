import copy
import pickle

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertModel
from transformers.models.mamba.modeling_mamba import MambaMixer

from icd_lib.axes.double import KeepDouble
from icd_lib.errors import ConfigError
from icd_lib.kernels import use_fast_scan, use_stock_scan
from icd_lib.kernels.mixer import FastMambaMixer
from tests.tiny_mambas import tiny_mamba, tokens


def relative_error(got, wanted):
    got, wanted = got.detach(), wanted.detach()
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def both(**changes):
    stock = tiny_mamba(**changes)
    return stock, use_fast_scan(copy.deepcopy(stock))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu"}, {"use_conv_bias": False, "use_bias": True}])
@torch.inference_mode()
def test_logits_are_those_of_the_stock_model(length, changes):
    stock, fast = both(**changes)
    with KeepDouble():
        assert relative_error(fast(tokens(length=length)).logits, stock(tokens(length=length)).logits) <= 1e-12


@torch.inference_mode()
def test_in_single_precision_it_is_as_near_to_the_truth_as_the_stock_model():
    stock, fast = both(dtype=torch.float32)
    with KeepDouble():
        truth = copy.deepcopy(stock).double()(tokens(length=200)).logits
    errors = [relative_error(model(tokens(length=200)).logits, truth) for model in (fast, stock)]
    assert errors[0] <= max(2 * errors[1], 1e-6)


@torch.inference_mode()
def test_bfloat16():
    stock, fast = both(dtype=torch.bfloat16)
    got, wanted = fast(tokens()).logits, stock.float()(tokens()).logits
    assert got.dtype == torch.float32 and relative_error(got, wanted) <= 3e-2


@torch.inference_mode()
def test_padding_is_masked_as_in_the_stock_model():
    stock, fast = both()
    mask = torch.ones(3, 17, dtype=torch.long)
    mask[0, :5] = 0
    with KeepDouble():
        wanted = stock(tokens(), attention_mask=mask).logits
        assert relative_error(fast(tokens(), attention_mask=mask).logits, wanted) <= 1e-12
        assert relative_error(stock(tokens()).logits, wanted) > 1e-3


@pytest.mark.parametrize("length", [1, 3, 12])
@torch.inference_mode()
def test_the_cache_holds_what_the_stock_model_s_cache_holds(length):
    caches = []
    with KeepDouble():
        for model in both():
            cache = model(tokens(length=length), use_cache=True).cache_params
            model(tokens(length=1, seed=8), cache_params=cache, use_cache=True)
            caches.append(cache)
        for layer in range(2):
            for read in ("get_conv_state", "get_recurrent_state"):
                stock, fast = (getattr(cache, read)(layer) for cache in caches)
                assert fast.shape == stock.shape and relative_error(fast, stock) <= 1e-12


@pytest.mark.parametrize("options", [{"do_sample": False}, {"num_beams": 3}, {"do_sample": True}])
def test_generation_is_the_same_token_for_token(options):
    generated = []
    for model in both(dtype=torch.float32):
        torch.manual_seed(5)
        generated.append(model.generate(tokens(2, 6), max_new_tokens=24, **options))
    assert torch.equal(*generated)


@torch.inference_mode()
def test_tokens_after_a_cache_continue_from_it():
    fast = use_fast_scan(tiny_mamba())
    ids = tokens(length=20)
    with KeepDouble():
        whole = fast(ids).logits
        cache = fast(ids[:, :6], use_cache=True).cache_params
        for part in (slice(6, 7), slice(7, 9), slice(9, 20)):
            got = fast(ids[:, part], cache_params=cache, use_cache=True).logits
            assert relative_error(got, whole[:, part]) <= 1e-12


def test_gradients_are_those_of_the_stock_model():
    gradients = []
    for model in both():
        model.train().requires_grad_(True)
        with KeepDouble():
            model(tokens(), labels=tokens()).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, wanted in gradients[0].items():
        assert relative_error(gradients[1][name], wanted) <= 1e-9, name


def test_only_this_model_changes_and_only_its_class():
    stock = tiny_mamba()
    state, other = stock.state_dict(), tiny_mamba()
    fast = use_fast_scan(stock)
    assert fast is stock and list(fast.state_dict()) == list(state)
    assert all(torch.equal(fast.state_dict()[name], tensor) for name, tensor in state.items())
    assert type(other.backbone.layers[0].mixer) is MambaMixer and "forward" not in vars(fast.backbone.layers[0].mixer)
    assert all(
        type(layer.mixer) is FastMambaMixer and isinstance(layer.mixer, MambaMixer) for layer in fast.backbone.layers
    )
    assert type(use_stock_scan(fast).backbone.layers[1].mixer) is MambaMixer


def test_copies_pickles_and_saved_models_keep_working(tmp_path):
    fast = use_fast_scan(tiny_mamba(dtype=torch.float32))
    wanted = fast(tokens()).logits
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(twin.backbone.layers[0].mixer) is FastMambaMixer
        assert torch.equal(twin(tokens()).logits, wanted)
        twin.backbone.layers[0].mixer.D.data.zero_()
    assert torch.equal(fast(tokens()).logits, wanted)
    fast.save_pretrained(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(reloaded.backbone.layers[0].mixer) is MambaMixer
    assert relative_error(reloaded(tokens()).logits, wanted) <= 1e-5


def test_a_recorded_graph_gets_the_stock_operators():
    fast = use_fast_scan(tiny_mamba(dtype=torch.float32))

    def logits(ids):
        return fast(ids, use_cache=False).logits

    traced = torch.jit.trace(logits, (tokens(2, 4),), check_trace=False)
    assert relative_error(traced(tokens(2, 4, seed=9)), logits(tokens(2, 4, seed=9))) <= 1e-5


def test_an_empty_prompt_and_a_foreign_model_are_refused():
    fast = use_fast_scan(tiny_mamba())
    with pytest.raises(ConfigError, match="the prompt is empty"):
        fast(torch.zeros(1, 0, dtype=torch.long))
    sizes = {
        "vocab_size": 9,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    with pytest.raises(ConfigError, match="BertModel has no Mamba mixer"):
        use_fast_scan(BertModel(BertConfig(**sizes)))
