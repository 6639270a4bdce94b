"""What is read and what is not, how domains are mixed, and the blocks of every step."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from language_recipes import RECIPES
from language_text import (
    Batches,
    arrange,
    load_text,
    mix,
    streams_of,
    tokenizer_texts,
    train_tokenizer,
    without_lines,
)

from icd_lib.data.domains import group_domains
from icd_lib.data.language import CHAPTERS, load_language_data
from icd_lib.data.splits import normalise
from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.run.scenario import load_scenario

UNSEEN = {"products", "editorials", "glosses"}


def forms_of(texts) -> set[str]:
    return {normalise(text) for text in texts}


def test_what_judges_is_not_read(text, groups, chapters):
    assert set(text.seen) == {"news", "films", CHAPTERS} and set(text.unread) == {"manual", "glosses"}
    read = " ".join(normalise(document) for document in text.train_texts())
    for split in ("seen", "selection", "unseen"):
        for name, domain in groups.judged[split].items():
            if name != CHAPTERS:
                assert not any(normalise(line) in read for line in domain.texts), name
    assert text.seen[CHAPTERS].texts("train") == chapters.texts("train")
    for data in text.seen.values():
        parts = [set(data.splits[split].tolist()) for split in ("train", "validation", "test")]
        assert all(parts) and sum(map(len, parts)) == len(set.union(*parts))


def test_whole_documents_validate(text, groups):
    news = text.seen["news"]
    numbers = {split: set(news.clusters[rows].tolist()) for split, rows in news.splits.items()}
    assert not numbers["train"] & numbers["validation"] and min(numbers["train"]) >= 10 > max(numbers["test"])
    count = sum(document.count(" news ") + 1 for document in news.texts("validation"))
    assert count == 18, "a fifth of 90 texts"
    again = arrange(groups, text.seen[CHAPTERS], 0.2)
    assert again.seen["news"].sha256 == news.sha256, "dealt alike at any time"


def test_a_verse_that_judges_elsewhere_is_left_out_of_its_chapter(chapters):
    first, second = chapters.texts("train")[0].split("\n")[:2]
    held = chapters.texts("test")[0]
    found = without_lines(chapters, {normalise(first), normalise(held.split("\n")[0])})
    assert found.texts("train")[0].startswith(second) and first not in found.texts("train")[0].split("\n")
    assert found.texts("test") == chapters.texts("test"), "what is judged stays as it is"


@pytest.fixture(scope="module")
def real():
    try:
        return load_text(RECIPES["llama"].held_out)
    except ResourceError as error:
        pytest.skip(error.args[0])


@pytest.mark.wide
@pytest.mark.parametrize("scenario", ["smollm2", "mamba"])
def test_no_text_is_read_that_a_scenario_of_language_models_judges(real, scenario):
    get = load_scenario(scenario).get
    given = [get(f"data.{group}") for group in ("seen", "selection", "unseen")]
    assert UNSEEN >= set(given[2]) and not UNSEEN & set(real.seen)
    assert scenario == "smollm2" or not set(given[1]) & set(real.seen)
    dealt = group_domains(*given, test_items=10**9, validation_items=10**9, seed=get("data.split_seed"))
    chapters = load_language_data()
    judged = {
        form
        for split in ("seen", "selection", "unseen")
        for name, domain in dealt.judged[split].items()
        if name != CHAPTERS
        for form in forms_of(domain.texts)
    }
    for split in ("test", "validation", "calibration"):
        judged |= forms_of(line for chapter in chapters.texts(split) for line in chapter.split("\n"))
    assert len(judged) > 100_000
    read = forms_of(line for chapter in real.seen[CHAPTERS].texts("train") for line in chapter.split("\n"))
    documents = {name: set() for name in dealt.calibrating}
    for name, domain in dealt.calibrating.items():
        kept = set(real.seen[name].clusters[real.seen[name].splits["train"]].tolist())
        documents[name] = kept
        read |= forms_of(text for text, number in zip(domain.texts, domain.documents, strict=True) if number in kept)
    assert not read & judged
    for name, domain in dealt.judged["seen"].items():
        assert documents[name] and not documents[name] & set(domain.documents.tolist())


def test_a_domain_that_is_not_here_is_refused(monkeypatch):
    from icd_lib.data.domains import groups as dealing

    def load(name):
        raise ResourceError(f"the text of {name} is missing; run: make fetch_data")

    monkeypatch.setattr(dealing, "load_domain", load)
    with pytest.raises(ResourceError, match="make fetch_data"):
        load_text(0.05)


def test_the_tokenizer_encodes_every_text_and_survives_the_disk(tokenizer, text, tmp_path):
    again = train_tokenizer(tokenizer_texts(text, 0.2), 300)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    tokenizer.save_pretrained(tmp_path)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for words in ("In the beginning", "naïve 漢字 \n\t😀", text.unread["glosses"].texts("test")[0]):
        ids = read(words)["input_ids"]
        assert read.decode(ids) == words and ids == tokenizer(words)["input_ids"]
    assert len(read) == 300 and read.eos_token_id == 0 and read("")["input_ids"] == []


def test_chapters_are_a_minority_for_the_tokenizer(text):
    texts, chapters = tokenizer_texts(text, 0.5), set(text.seen[CHAPTERS].texts("train"))
    others = [words for words in texts if words not in chapters]
    assert len(others) == sum(len(data.texts("train")) for name, data in text.seen.items() if name != CHAPTERS)
    assert 0 < sum(map(len, texts)) - sum(map(len, others)) <= sum(map(len, others))
    assert tokenizer_texts(text, 0.9)[len(others) :] == list(text.seen[CHAPTERS].texts("train"))
    assert len(tokenizer_texts(text, 1e-6)) == len(others)


def test_small_domains_are_read_at_most_so_often_and_the_others_take_the_rest():
    recipe = dataclasses.replace(RECIPES["llama"], steps=500, batch=4, length=100, verses=0.2, exponent=0.5)
    sizes = {"large": 160_000, "middle": 40_000, "small": 400, CHAPTERS: 100_000}
    counts = mix(sizes, recipe)
    assert sum(counts.values()) == 500 * 4
    tokens = {name: count * recipe.length for name, count in counts.items()}
    assert tokens["small"] == 8 * 400
    assert tokens["large"] / tokens["middle"] == pytest.approx(2, rel=0.01)
    assert tokens[CHAPTERS] == pytest.approx(0.2 * 200_000, abs=300)
    even = mix(sizes, dataclasses.replace(recipe, exponent=0.0, steps=60))
    assert abs(even["large"] - even["middle"]) <= 1 and even["small"] == 32 < even["large"]
    with pytest.raises(ArtifactError, match=r"20000 steps of 4 x 100.*more than 8 times; take fewer steps"):
        mix(sizes, dataclasses.replace(recipe, steps=20_000))


def test_every_pass_reads_a_domain_once_and_cuts_it_elsewhere():
    recipe = dataclasses.replace(RECIPES["llama"], steps=40, batch=4, length=16, verses=0.5)
    streams = {"news": np.arange(400), CHAPTERS: 10_000 + np.arange(900)}
    batches = Batches(streams, recipe)
    rows = torch.cat([batches.at(step) for step in range(recipe.steps)])
    assert rows.shape == (160, 17) and (rows[:, 1:] - rows[:, :-1] == 1).all(), "consecutive tokens"
    starts = rows[rows[:, 0] < 10_000, 0].tolist()
    assert len(starts) == batches.counts["news"] == 80
    per_pass = (400 - 16) // 16
    offsets = []
    for i in range(3):
        one = starts[i * per_pass : (i + 1) * per_pass]
        assert len({start % 16 for start in one}) == 1 and len(set(one)) == len(one) and one != sorted(one)
        offsets.append(one[0] % 16)
    assert len(set(offsets)) > 1
    chapters = (rows[:, 0] >= 10_000).double()
    assert 0.3 < chapters[:80].mean() < 0.7, "domains are spread over the whole training"
    assert torch.equal(batches.at(7), Batches(streams, recipe).at(7))
    assert not torch.equal(batches.at(7), Batches(streams, dataclasses.replace(recipe, seed=1)).at(7))
    with pytest.raises(ArtifactError, match="news has 20 in all"):
        Batches({"news": np.arange(20), CHAPTERS: streams[CHAPTERS]}, recipe)


def test_streams_close_every_document(text, tokenizer):
    streams = streams_of(text, tokenizer)
    assert list(streams) == list(text.seen)
    for name, stream in streams.items():
        documents = text.seen[name].texts("train")
        assert len(documents) - 1 <= (stream == tokenizer.eos_token_id).sum() <= len(documents)
        assert tokenizer.decode(stream).split(tokenizer.eos_token)[0] == documents[0]
