"""The cache that a user's own text chooses, and the transforms that `icd.optimize` takes."""

import pytest
import torch

import icd_lib as icd
from icd_lib import api
from icd_lib.errors import ConfigError
from icd_lib.transforms.options import KvOptions
from icd_lib.workloads.model.cache import choose_cache, policy_of
from tests.tiny_decoders import VOCAB, tiny_decoder

SMALL = {"context": 64, "continued": 8, "keep": (0.75, 0.5), "page": 4, "sinks": 2, "window": 4}


def batches(count: int = 6, length: int = 60, seed: int = 0) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [{"input_ids": torch.randint(3, VOCAB, (2, length), generator=generator)} for _ in range(count)]


@pytest.fixture
def model():
    return tiny_decoder(dtype=torch.float32, max_position_embeddings=256)


def test_the_smallest_share_that_holds_is_taken(model):
    options = KvOptions(**SMALL)
    loose = choose_cache(model, batches(), options, most_ratio=99.0, z=1.0)
    assert loose.keep == 0.5 and [entry["keep"] for entry in loose.report] == [0.75, 0.5]
    tight = choose_cache(model, batches(), options, most_ratio=1e-9, z=1.0)
    assert tight.keep is None and len(tight.report) == 1


def test_the_cache_that_is_made_keeps_its_budget(model):
    choice = choose_cache(model, batches(), KvOptions(**SMALL), most_ratio=99.0, z=1.0)
    cache = choice.new_cache(model, 64)
    with torch.inference_mode():
        model(input_ids=batches(1, 64)[0]["input_ids"], past_key_values=cache)
    assert {layer.living for layer in cache.layers} == {policy_of(choice.options, 0.5, 64).budget} == {32}


def test_text_that_is_too_short_is_refused(model):
    with pytest.raises(ConfigError, match="240 tokens, and a cache is judged on 2 texts of 1153"):
        choose_cache(model, batches(2), KvOptions(), 1.01, 1.0)


@pytest.mark.parametrize(
    ("kind", "changes", "kv", "count", "says"),
    [
        ("mistral", {"sliding_window": 16}, {}, 6, "attends to a sliding window of 16 tokens.*use the stock cache"),
        ("llama", {}, {"context": 250}, 6, "judged after 258 tokens .*LlamaForCausalLM has 256 positions; lower"),
        ("llama", {}, {"pool": 4}, 6, "kv.pool is odd, as many neighbours on either side; got 4"),
        ("llama", {}, {"context": 240, "continued": 16}, 1, "has 120 tokens, and a cache is judged on 2 texts of 257"),
    ],
)
def test_what_no_cache_is_chosen_for_is_refused_before_anything_else(monkeypatch, kind, changes, kv, count, says):
    def solve(*given):
        raise AssertionError("the model was optimised first")

    monkeypatch.setattr(api, "solve", solve)
    monkeypatch.setattr(api, "_measure_machine", solve)
    model = tiny_decoder(kind, dtype=torch.float32, **({"max_position_embeddings": 256} | changes))
    with pytest.raises(ConfigError, match=says):
        icd.optimize(
            model, batches(count), quality=lambda m: 50.0, transforms=["sparsity", "kv"], kv=SMALL | kv, tile=4
        )


def test_the_models_attention_is_given_back(model):
    way = model.config._attn_implementation
    choose_cache(model, batches(), KvOptions(**SMALL), 99.0, 1.0)
    assert model.config._attn_implementation == way


@pytest.mark.wide
@pytest.mark.usefixtures("unsettled")
def test_all_three_transforms_in_one_call(model, tmp_path):
    opt = icd.optimize(
        model,
        batches(),
        quality=lambda model: 50.0,
        transforms=["sparsity", "quantization", "kv"],
        quantization={"precision": "int8_weights", "group": 8, "embeddings": "float"},
        kv=SMALL | {"max_perplexity_ratio": 99.0},
        tile=4,
        strengths=[-0.05],
        distill_steps=0,
        sequential=False,
    )
    assert opt.report["kv"]["keep"] == 0.5
    with torch.inference_mode():
        out = opt.model.generate(
            batches(1, 64)[0]["input_ids"], past_key_values=opt.new_cache(64), max_new_tokens=4, do_sample=False
        )
    assert out.shape == (2, 68)
    opt.save_pretrained(tmp_path / "m")
    assert icd.load_optimized(tmp_path / "m").config.model_type == "llama"


@pytest.mark.parametrize("given", [["kv"], ["sparsity", "sparsity"], ["sparsity", "pruning"]])
def test_unknown_transforms_are_refused(model, given):
    with pytest.raises(ConfigError, match="transforms takes"):
        icd.optimize(model, batches(), quality=lambda model: 50.0, transforms=given)


def test_options_of_a_transform_that_is_not_asked_for_are_refused(model):
    with pytest.raises(ConfigError, match="options of kv were given"):
        icd.optimize(model, batches(), quality=lambda model: 50.0, kv={"page": 4})
    with pytest.raises(ConfigError, match="kv.pages"):
        icd.optimize(model, batches(), quality=lambda model: 50.0, transforms=["sparsity", "kv"], kv={"pages": 4})
    with pytest.raises(ConfigError, match="no cache was chosen"):
        icd.api.Optimized(model, {}).new_cache(8)
