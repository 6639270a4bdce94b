"""Look-ups: the record asked for is in the context, once; the question ends before its answer; refusals."""

import numpy as np
import pytest

from icd_lib.data.language import Blocks
from icd_lib.data.lookups import make_lookups
from icd_lib.errors import ConfigError


class Letters:
    """A tokenizer of one token a letter."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(letter) for letter in text]}


BLOCKS = Blocks(np.full((3, 1000), ord("~")), np.zeros((3, 1000), int))


def text_of(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize("records", [1, 12])
@pytest.mark.parametrize("asked", ["after", "before"])
def test_the_answer_is_in_the_context_once(records, asked):
    made = make_lookups(Letters(), BLOCKS, count=8, records=records, length=800, asked=asked, seed=1)
    depths = [lookup.depth for lookup in made]
    assert 0 < min(depths) < 0.2 and 0.7 < max(depths) <= 1
    for lookup in made:
        whole, answer = text_of(lookup.ids), text_of(lookup.ids[-lookup.answer :])
        question = whole[-lookup.answer - 25 : -lookup.answer].split("~")[-1]
        question = question[question.index(" The code of") :]
        context = whole[: -lookup.answer - len(question)]
        assert context.count(question + answer + ".") == 1 and context.count(" The code of") == records
        assert context.index(question + answer) / len(context) == pytest.approx(lookup.depth, abs=1e-9)
        assert len(context) + (len(question) if asked == "before" else 0) == 800
        read = len(context) if asked == "after" else len(context) + len(question) - 1
        assert lookup.context == read and lookup.answer == 5


def test_seeds_decide():
    one, same, other = (make_lookups(Letters(), BLOCKS, count=2, length=300, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.ids, b.ids) for a, b in zip(one, other, strict=True))


def test_refusals():
    for options, words in (
        ({"asked": "never"}, "asked 'never' is unknown"),
        ({"records": 12, "length": 100}, "12 records of .* tokens do not fit into 100 tokens"),
        ({"length": 2000}, "do not fit into 2000 tokens of context with blocks of 1000"),
        ({"records": 1000}, "1000 records need as many names"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_lookups(Letters(), BLOCKS, count=1, **options)
    with pytest.raises(ConfigError, match="got no block"):
        make_lookups(Letters(), BLOCKS.take(slice(0, 0)), count=1)
