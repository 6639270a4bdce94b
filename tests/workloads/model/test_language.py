"""The context of a language model: running text of domains, in blocks as long as the caller asks for."""

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from icd_lib.errors import ConfigError, MeasureError
from icd_lib.workloads.model.language import LanguageContext
from icd_lib.workloads.model.setup import describe
from tests.tiny_domains import WORDS


def small_mamba() -> MambaForCausalLM:
    """Over the vocabulary of the toy tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "pad_token_id": 0}
    return MambaForCausalLM(MambaConfig(vocab_size=len(WORDS) + 5, **sizes)).eval()


@pytest.fixture
def language(make):
    """Contexts of a language model in the toy world."""

    def context(*overrides, weights="trained"):
        given = make(*overrides)
        found = LanguageContext(given.run, given.progress)
        found.checkpoint, found._loaded = given.checkpoint, (small_mamba(), given.tokenizer)
        found.checkpoint.weights = weights
        return found

    return context


@pytest.fixture
def context(language):
    return language()


def test_domains_choose_and_judge_and_documents_of_seen_ones_are_held_out(language, absent):
    absent.add("glosses")
    context = language()
    assert (context.selecting, context.judging, context.judged) == ("selection", "unseen", ["unseen", "seen"])
    sizes = {split: {name: len(x) for name, x in found.items()} for split, found in context.suite.judged.items()}
    assert sizes["selection"] == {"manual": 30} and sizes["unseen"] == {"products": 60}, "validation_items, test_items"
    assert set(sizes["seen"]) == {"news", "films"} and 40 < sum(sizes["seen"].values()) <= 60
    for name, blocks in context.suite.judged["seen"].items():
        assert not set(blocks.cluster.ravel()) & set(context.data.calibrating[name].documents), name
    described = context.describe_data()
    groups = {"seen": ["news", "films"], "selection": ["manual"], "unseen": ["products", "glosses"]}
    assert described["groups"] == groups
    assert described["missing"] == {"glosses": "the text of glosses is missing"}
    assert described["judged"]["unseen"]["products"]["texts"] == 60 and described["block_tokens"] == 16
    assert described["provenance"].keys() == {"news", "films", "manual", "products"}
    result = context.dense_result("unseen")
    assert context.suite.compare(result, context.dense_result("unseen"))["own"]["drop_pp"] == 0.0


def test_parts_of_the_seen_domains_choose_where_the_budget_is_theirs(language):
    context = language("codesign.budget_on=seen", "data.selection=[]")
    assert (context.selecting, context.judging) == ("validation", "seen")
    for name in ("news", "films"):
        parts = [context.suite.judged[split][name].cluster for split in ("validation", "seen")]
        held = [set(part.ravel()) for part in parts]
        assert all(held) and not held[0] & held[1]
        assert not (held[0] | held[1]) & set(context.data.calibrating[name].documents)


def test_every_seen_domain_calibrates_alike(context):
    blocks = [row for batch in context.calibration(20, 64) for row in batch["input_ids"]]
    assert len(blocks) == 20 and len({tuple(row.tolist()) for row in blocks}) == 20
    for name in ("news", "films"):
        own = {tuple(row) for row in context._packed([name], 16).ids.tolist()}
        assert sum(tuple(row.tolist()) in own for row in blocks) == 10


def test_random_weights_load_no_domain_that_chooses_or_judges(language, absent):
    absent |= {"manual", "products", "glosses"}
    described = language(weights="random").describe_data()
    assert described["judged"] == described["missing"] == {} and described["calibration"].keys() == {"news", "films"}


def test_long_blocks_are_even_over_the_domains_and_of_several_documents(context):
    blocks = context.long_blocks("unseen", 12, 8, cure="ask for less")
    assert {name: item.ids.shape for name, item in blocks.items()} == {"products": (4, 12), "glosses": (4, 12)}
    assert all(len(np.unique(item.cluster)) >= 2 for item in blocks.values())
    assert len(context.long_blocks("unseen", 12, 2, cure="ask for less")) == 1, "two blocks of one, not one of two"


def test_text_that_is_too_short_is_refused_with_the_callers_cure(context):
    with pytest.raises(MeasureError, match="'selection' has 2 texts of 9999 tokens; ask for less"):
        context.long_blocks("selection", 9999, 8, cure="ask for less")


def test_a_labelled_set_is_no_running_text(language):
    with pytest.raises(ConfigError, match="data.name 'sst2' is no running text for a language model; use auto"):
        language("data.name=sst2").data  # noqa: B018


def test_a_model_without_such_a_cache_is_refused_by_setup(make):
    with pytest.raises(ConfigError, match="is no decoder of the Llama family.*leave the section kv out"):
        describe(make("kv.context=64", "measure.shapes=[[1, 16]]"))
