"""Topics: what they tell apart, and that they are the same in every call."""

import numpy as np

from icd_lib.measure import topics
from icd_lib.measure.topics import topic_labels
from tests.tiny_domains import WORDS


def test_a_topic_tells_two_vocabularies_apart():
    rng = np.random.default_rng(0)
    side = rng.integers(2, size=40)
    texts = [" ".join(WORDS[w] for w in [*(20 * s + rng.choice(20, size=8)), 55, 56]) for s in side]
    first = topic_labels(texts)["topic 1"]
    assert max(np.mean(first == side), np.mean(first != side)) > 0.9
    assert topic_labels(["one two", "three four"]) == {}, "no word is in two texts"
    assert topic_labels(["the same", "the same"]) == {} and topic_labels([]) == {}


def test_topics_are_the_same_in_every_call_also_of_texts_that_share_few_words():
    texts = [f"{word} {word}s part{i % 3}" for i, word in enumerate("cat dog sun sea tree road song".split() * 4)]
    first = topic_labels(texts)
    assert first
    for _ in range(3):
        again = topic_labels(texts)
        assert again.keys() == first.keys() and all(np.array_equal(again[name], first[name]) for name in first)


def test_both_ways_to_decompose_find_the_same_topics(monkeypatch):
    generator = np.random.default_rng(0)
    texts = [" ".join(f"w{int(w)}" for w in generator.zipf(1.5, 12) % 60) for _ in range(200)]
    whole = topic_labels(texts)
    monkeypatch.setattr(topics, "_WHOLE", 0)
    iterated = topic_labels(texts)
    assert whole.keys() == iterated.keys()
    for name in list(whole)[:6]:  # signs are free
        agree = (whole[name] == iterated[name]).mean()
        assert max(agree, 1 - agree) > 0.98, name
