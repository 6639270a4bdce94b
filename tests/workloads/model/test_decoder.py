"""The context of a decoder: running text of domains, in blocks as long as the caller asks for."""

import numpy as np
import pytest

from icd_lib.errors import ConfigError, MeasureError
from icd_lib.workloads.model.decoder import DecoderContext
from icd_lib.workloads.model.setup import describe


@pytest.fixture
def context(make):
    given = make()
    found = DecoderContext(given.run, given.progress)
    found.checkpoint, found._loaded = given.checkpoint, given._loaded
    return found


def test_long_blocks_are_even_over_the_domains_and_of_several_documents(context):
    blocks = context.long_blocks("unseen", 12, 8, cure="ask for less")
    assert {name: item.ids.shape for name, item in blocks.items()} == {"products": (4, 12), "glosses": (4, 12)}
    assert all(len(np.unique(item.cluster)) >= 2 for item in blocks.values())
    assert len(context.long_blocks("unseen", 12, 2, cure="ask for less")) == 1, "two blocks of one, not one of two"


def test_text_that_is_too_short_is_refused_with_the_callers_cure(context):
    with pytest.raises(MeasureError, match="'selection' has 2 texts of 9999 tokens; ask for less"):
        context.long_blocks("selection", 9999, 8, cure="ask for less")


def test_a_model_without_such_a_cache_is_refused_by_setup(make):
    with pytest.raises(ConfigError, match="is no decoder of the Llama family.*leave the section kv out"):
        describe(make("kv.context=64", "measure.shapes=[[1, 16]]"))
