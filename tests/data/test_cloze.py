"""Cloze questions: the hidden word and the others occur before it; seeds decide; documents stay apart; refusals."""

import re

import numpy as np
import pytest

from icd_lib.data.cloze import make_cloze
from icd_lib.data.language import Blocks, join_blocks, pack
from icd_lib.errors import MeasureError
from tests.tiny_words import tiny_words

NOUNS = ["river", "garden", "window", "mountain", "letter", "captain", "winter", "market"]
TOKENIZER = tiny_words()
LENGTH = 400


def story(seed: int, sentences: int = 30) -> str:
    """Sentences over five nouns, the last of which is one of them."""
    rng = np.random.default_rng(seed)
    nouns = rng.permutation(NOUNS)[:5]
    drawn = [rng.permutation(nouns)[:2] for _ in range(sentences)]
    return " ".join(f"The {one} couldn't see any well-known {other}." for one, other in drawn)


STORIES = [story(seed) for seed in range(6)]
BLOCKS = pack(TOKENIZER, STORIES, LENGTH, np.arange(6) + 70)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w'-])[a-z]+(?![\w'-])", text.lower()))


@pytest.mark.parametrize("choices", [2, 4])
def test_the_hidden_word_and_the_others_occur_before_it(choices):
    made = make_cloze(TOKENIZER, BLOCKS, 8, choices=choices, seed=3)
    assert len(made) == 8
    for question in made:
        prompt = TOKENIZER.decode(question.prompt)
        assert len(question.words) == len(question.candidates) == choices
        assert len({word.casefold() for word in question.words}) == choices
        assert set(question.words) <= words_of(prompt) & {*NOUNS}
        assert prompt.endswith(" well-known") and 0 < len(question.prompt) <= LENGTH
        hidden = question.words[question.answer]
        assert f"{prompt} {hidden}." in STORIES[question.source - 70]
        for word, ids in zip(question.words, question.candidates, strict=True):
            assert ids.dtype == np.int64 and TOKENIZER.decode(ids) == f" {word}"
    assert len({question.answer for question in made}) > 1


def test_seeds_decide_and_larger_draws_begin_with_smaller_ones():
    one, same, other = (make_cloze(TOKENIZER, BLOCKS, 6, seed=seed) for seed in (1, 1, 2))
    told = [[(q.words, q.answer, q.source, q.prompt.tolist()) for q in made] for made in (one, same, other)]
    assert told[0] == told[1] != told[2]
    assert [q.words for q in make_cloze(TOKENIZER, BLOCKS, 3, seed=1)] == [q.words for q in one[:3]]


def test_no_passage_goes_over_the_end_of_a_document():
    short = [story(seed, 4) for seed in range(12)]
    blocks = pack(TOKENIZER, short, LENGTH)
    assert len(np.unique(blocks.cluster[0])) > 1
    for question in make_cloze(TOKENIZER, blocks, 8, choices=2):
        assert TOKENIZER.decode(question.prompt) in short[question.source]


def test_the_opening_stands_before_the_prompt():
    opened = Blocks(np.insert(BLOCKS.ids, 0, 1, axis=1), np.insert(BLOCKS.cluster, 0, 0, axis=1), 1)
    plain, with_opening = (make_cloze(TOKENIZER, blocks, 3)[0] for blocks in (BLOCKS, opened))
    assert with_opening.prompt.tolist() == [1, *plain.prompt.tolist()]


class Letters:
    """A tokenizer of one token a letter, two of which become one at the end of a text."""

    def __init__(self, joined: str):
        self.joined = joined

    def __call__(self, texts, **options):
        return {"input_ids": [[ord(letter) for letter in re.sub(self.joined, "~", text)] for text in texts]}

    def decode(self, ids, **options):
        return "".join(map(chr, ids))


def test_a_word_that_is_joined_with_what_is_before_it_is_not_asked_for():
    ids = np.array([[ord(letter) for letter in story(1)[:900]], [ord(letter) for letter in story(2)[:900]]])
    blocks = Blocks(ids, np.repeat([[0], [1]], 900, axis=1))
    assert len(make_cloze(Letters("@"), blocks, 2)) == 2
    with pytest.raises(MeasureError, match=r"2 cloze questions are wanted but 2 blocks of 900 tokens give 0"):
        make_cloze(Letters("n "), blocks, 2)


def test_refusals():
    with pytest.raises(MeasureError, match=r"99 cloze questions are wanted but \d+ blocks of 400 tokens give \d+; ask"):
        make_cloze(TOKENIZER, BLOCKS, 99)
    with pytest.raises(MeasureError, match="give 0"):
        make_cloze(TOKENIZER, BLOCKS, 1, choices=6)
    with pytest.raises(MeasureError, match="at least two choices, got 1"):
        make_cloze(TOKENIZER, BLOCKS, 1, choices=1)
    unsaid = pack(TOKENIZER, ["Nobody mentioned gardens, rivers, windows or letters before winter. " * 2], 60)
    with pytest.raises(MeasureError, match="give 0"):
        make_cloze(TOKENIZER, unsaid, 1)


def test_joined_blocks_keep_documents_of_different_texts_apart():
    other = pack(TOKENIZER, STORIES[:2], LENGTH, np.array([70, 5]))
    joined = join_blocks([BLOCKS, other])
    assert np.array_equal(joined.ids, np.concatenate([BLOCKS.ids, other.ids]))
    first, second = joined.cluster[: len(BLOCKS)], joined.cluster[len(BLOCKS) :]
    assert not {*first.ravel()} & {*second.ravel()}
    for found, given in ((first, BLOCKS.cluster), (second, other.cluster)):
        assert np.array_equal(found[..., None] == found.ravel(), given[..., None] == given.ravel())
    with pytest.raises(MeasureError, match="blocks of one length"):
        join_blocks([BLOCKS, pack(TOKENIZER, STORIES, 50)])
    with pytest.raises(MeasureError, match=r"got \[\]"):
        join_blocks([])
