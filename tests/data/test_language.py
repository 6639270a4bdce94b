"""Chapters whole, no verse in two splits, and blocks that are the text again."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from icd_lib.data import language
from icd_lib.data.batches import fixed_batch
from icd_lib.data.domains import DomainText
from icd_lib.data.language import (
    LANGUAGE_SPLITS,
    SPLIT_CHAPTERS,
    Blocks,
    LanguageData,
    chain_chapters,
    domain_blocks,
    load_domains,
    load_language_data,
    pack,
    running_text,
    split_chapters,
)
from icd_lib.data.language_ngram import NGram
from icd_lib.data.splits import normalise
from icd_lib.data.text import Corpus, load_corpus
from icd_lib.errors import ConfigError, MeasureError, ResourceError

WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture(scope="module")
def data():
    return load_language_data()


def build_tokenizer(bos=False, eos=True):
    """Word-level; special ids 0 <unk>, 1 <s>, 2 </s>; words from 3 on."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"unk_token": "<unk>", "bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def text(*numbers):
    return " ".join(f"w{i}" for i in numbers)


def test_no_verse_text_is_in_two_splits_in_either_translation(data):
    verses = {
        split: {normalise(line) for document in data.texts(split) for line in document.split("\n")}
        for split in LANGUAGE_SPLITS
    }
    for i, one in enumerate(LANGUAGE_SPLITS):
        for other in LANGUAGE_SPLITS[i + 1 :]:
            assert not verses[one] & verses[other], (one, other)
    corpus = load_corpus()
    assert set().union(*verses.values()) == {normalise(line) for line in corpus.asv + corpus.kjv}, "nothing is lost"


def test_a_chapter_is_in_one_split_in_both_translations(data):
    assert sum(map(len, data.splits.values())) == len(data.documents) == 2 * 1189
    for split, size in SPLIT_CHAPTERS.items():
        chapters, times = np.unique(data.clusters[data.splits[split]], return_counts=True)
        assert len(chapters) == size and (times == 2).all()
    first = data.documents[0].split("\n")
    assert first[0] == "In the beginning God created the heavens and the earth." and len(first) == 31
    assert data.clusters[0] == data.clusters[1189] == 1001


def test_the_split_is_fixed_and_named_by_its_hash(data):
    again = load_language_data()
    assert again.sha256 == data.sha256
    assert load_language_data({"test": 20, "validation": 20, "calibration": 20}).sha256 != data.sha256
    assert data.provenance["split_seed"] == 1 and data.provenance["licence"].startswith("public domain")
    assert len(data.provenance["sha256"]) == 64


def test_chains_join_chapters_through_shared_verses():
    chapter = np.array([0, 0, 1, 2, 3, 3])
    group = np.array([0, 1, 2, 1, 4, 2])
    assert chain_chapters(chapter, group).tolist() == [0, 1, 0, 1]


def test_chapters_that_share_a_verse_are_dealt_together():
    ids = np.array(
        [1_000_000 * book + 1_000 * chapter + v for book in (1, 2) for chapter in range(1, 9) for v in (1, 2)]
    )
    asv = [f"text {i}" for i in range(len(ids))]
    kjv = [f"other {i}" for i in range(len(ids))]
    kjv[31] = asv[0].upper() + "!"  # the last chapter quotes the first
    labels = np.zeros(len(ids), np.int64)
    data = split_chapters(Corpus(ids, asv, kjv, labels, labels, {}), {"test": 3, "validation": 3, "calibration": 3})
    where = {int(c): split for split, rows in data.splits.items() for c in data.clusters[rows]}
    assert where[1001] == where[2008]
    assert len(where) == 16


def test_sizes_and_splits_are_checked(data):
    with pytest.raises(ConfigError, match="1189"):
        load_language_data({"test": 1189})
    with pytest.raises(MeasureError, match="'dev' is not one of"):
        data.texts("dev")


def test_blocks_are_the_documents_with_separators():
    blocks = pack(build_tokenizer(), [text(0, 1, 2), text(3, 4), text(5, 6, 7)], 4, np.array([10, 20, 30]))
    assert blocks.ids.tolist() == [[3, 4, 5, 2], [6, 7, 2, 8]] and blocks.ids.dtype == np.int64
    assert blocks.cluster.tolist() == [[10, 10, 10, 10], [20, 20, 20, 30]]
    assert blocks.opening == 0


def test_a_tokenizer_with_bos_opens_every_block():
    blocks = pack(build_tokenizer(bos=True), [text(0, 1, 2), text(3, 4)], 4)
    assert blocks.ids.tolist() == [[1, 3, 4, 5], [1, 2, 6, 7]] and blocks.opening == 1
    assert blocks.cluster.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]


def test_a_tokenizer_without_end_of_text_needs_no_separator():
    assert pack(build_tokenizer(eos=False), [text(0, 1), text(2, 3)], 4).ids.tolist() == [[3, 4, 5, 6]]


def build_domain(name, documents, texts):
    return DomainText(name, texts, {}, np.array(documents))


def test_the_texts_of_a_document_are_joined_in_order():
    domain = build_domain("toy", [7, 7, 3, 7], [text(0, 1), text(2), text(3, 4), text(5)])
    documents, numbers = running_text(domain)
    assert documents == [text(0, 1, 2, 5), text(3, 4)] and numbers.tolist() == [7, 3]
    found = domain_blocks(build_tokenizer(), {"toy": domain}, 4, 9)["toy"]
    assert found.ids.tolist() == [[3, 4, 5, 8], [2, 6, 7, 2]]
    assert found.cluster.tolist() == [[7, 7, 7, 7], [7, 3, 3, 3]]


def test_blocks_are_dealt_evenly_over_domains_and_spread_within_each():
    domains = {
        name: build_domain(name, range(size), [text(*range(i, i + 3)) for i in range(size)])
        for name, size in (("long", 40), ("short", 2), ("other", 30))
    }
    tokenizer = build_tokenizer()
    found = domain_blocks(tokenizer, domains, 4, 12)
    assert {name: len(blocks) for name, blocks in found.items()} == {"long": 5, "short": 2, "other": 5}
    assert found["long"].cluster[:, 0].tolist() == [0, 10, 20, 29, 39]
    assert list(domain_blocks(tokenizer, domains, 4, 2)) == ["long", "other"], "no block is left for the short one"
    assert {name: len(blocks) for name, blocks in domain_blocks(tokenizer, domains, 4, 999).items()} == {
        "long": 40,
        "short": 2,
        "other": 30,
    }
    assert domain_blocks(tokenizer, {}, 4, 12) == {}


def test_a_missing_domain_is_named_and_the_others_are_loaded(monkeypatch):
    def load(name):
        if name == "news":
            raise ResourceError("gensim is not there")
        return name.upper()

    monkeypatch.setattr(language, "load_domain", load)
    assert load_domains(["films", "news"]) == ({"films": "FILMS"}, {"news": "gensim is not there"})


def test_blocks_are_known_by_tokens_documents_and_opening():
    ids = np.arange(8).reshape(2, 4)
    blocks = Blocks(ids, np.zeros((2, 4), np.int64))
    assert blocks.sha256 == Blocks(ids.copy(), np.zeros((2, 4), np.int64)).sha256
    others = [Blocks(ids + 1, blocks.cluster), Blocks(ids, blocks.cluster + 1), Blocks(ids, blocks.cluster, 1)]
    others += [blocks.take([0]), Blocks(ids.reshape(4, 2), blocks.cluster.reshape(4, 2))]
    assert len({x.sha256 for x in (blocks, *others)}) == 6


def test_too_little_text_or_room_is_refused():
    with pytest.raises(MeasureError, match="needs 9 tokens of text, got 3"):
        pack(build_tokenizer(), [text(0, 1)], 9)
    with pytest.raises(MeasureError, match="no room"):
        pack(build_tokenizer(bos=True), [text(0, 1)], 2)
    with pytest.raises(MeasureError, match="got 0"):
        pack(build_tokenizer(), [], 4)


def test_batches_spread_and_samples():
    blocks = Blocks(np.arange(40).reshape(10, 4), np.zeros((10, 4), np.int64), 1)
    batches = list(blocks.batches(12))
    assert [len(batch["input_ids"]) for batch in batches] == [3, 3, 3, 1]
    assert torch.equal(torch.cat([batch["input_ids"] for batch in batches]), torch.arange(40).reshape(10, 4))
    assert [len(b["input_ids"]) for b in blocks.batches(1)] == [1] * 10
    assert blocks.spread(3).ids[:, 0].tolist() == [0, 16, 36] and blocks.spread(3).opening == 1
    assert blocks.spread(None) is blocks and blocks.spread(99) is blocks
    drawn = blocks.sample(6, seed=3).ids[:, 0].tolist()
    assert drawn[:4] == blocks.sample(4, seed=3).ids[:, 0].tolist() and len(set(drawn)) == 6
    assert drawn != blocks.sample(6, seed=4).ids[:, 0].tolist()
    with pytest.raises(ResourceError, match="11 blocks"):
        blocks.sample(11)


def test_the_data_serves_inputs_of_one_shape():
    documents = [text(*range(i, i + 20)) for i in range(8)]
    data = LanguageData("toy", documents, np.arange(8), {"calibration": np.arange(4)}, {})
    inputs = fixed_batch(build_tokenizer(), data.texts("calibration"), 2, 16)
    assert inputs["input_ids"].shape == (2, 16)
    assert len(data.blocks(build_tokenizer(), "calibration", 8)) == 4 * 21 // 8


def test_an_ngram_by_hand():
    """Stream a b a b a c: after a come b (2) and c (1), so T(a) = 2 and p(b|a) = (2 + 2 p(b)) / (3 + 2)."""
    stream = np.array([0, 1, 0, 1, 0, 2])
    one, two = NGram(stream, 4, 1), NGram(stream, 4, 2)
    empty = np.empty((1, 0), np.int64)
    unigram = one.distributions(empty)[0]
    assert np.allclose(unigram, (np.array([3, 2, 1, 0]) + 3 / 4) / 9)
    after_a = two.distributions(np.array([[0]]))[0]
    assert np.allclose(after_a, (np.array([0, 2, 1, 0]) + 2 * unigram) / 5)
    assert np.allclose(two.distributions(np.array([[3]]))[0], unigram), "an unseen context tells nothing"


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngram_scores_agree_with_its_distributions(order):
    rng = np.random.default_rng(0)
    model = NGram(rng.integers(0, 12, 400), 12, order)
    ids = rng.integers(0, 12, (7, 9))
    log_probs, correct = model.score(ids)
    for row in range(7):
        for t in range(1, 9):
            p = model.distributions(ids[row : row + 1, max(0, t - order + 1) : t])[0]
            assert p.sum() == pytest.approx(1)
            assert log_probs[row, t - 1] == pytest.approx(np.log(p[ids[row, t]]))
            assert correct[row, t - 1] == (p.argmax() == ids[row, t])


def test_ngrams_refuse_what_they_cannot_count():
    with pytest.raises(MeasureError, match="order 1, 2 or 3, not 4"):
        NGram(np.arange(9), 9, 4)
    with pytest.raises(MeasureError, match="got 1"):
        NGram(np.array([0]), 2, 2)
