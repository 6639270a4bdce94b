"""Tokens of large texts are kept, and read back as they were."""

import numpy as np
import pytest

from icd_lib.data import tokens


class Tokenizer:
    """A token for every character; counts how often it was asked."""

    class backend_tokenizer:  # noqa: N801 (as Transformers calls it)
        name = "one"

        @classmethod
        def to_str(cls) -> str:
            return cls.name

    asked = 0

    def __call__(self, texts, **options):
        type(self).asked += 1
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


@pytest.fixture
def tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tokens, "LEAST", 5)
    monkeypatch.setattr(Tokenizer, "asked", 0)
    monkeypatch.setattr(Tokenizer.backend_tokenizer, "name", "one")
    return Tokenizer()


def test_large_texts_are_encoded_once(tokenizer, tmp_path, monkeypatch):
    texts = ["abc", "", "defg"]
    first, again = tokens.encode(tokenizer, texts), tokens.encode(tokenizer, texts)
    assert tokenizer.asked == 1 and len(first) == len(again) == 3
    for one, other, text in zip(first, again, texts, strict=True):
        assert one.dtype == other.dtype == np.int64
        assert one.tolist() == other.tolist() == [ord(letter) for letter in text]
    tokens.encode(tokenizer, ["abcdef", "g"])  # the same letters, divided otherwise
    monkeypatch.setattr(Tokenizer.backend_tokenizer, "name", "two")
    tokens.encode(tokenizer, texts)
    assert tokenizer.asked == 3
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    assert tokens.encode(tokenizer, texts)[2].tolist() == [100, 101, 102, 103]


def test_small_texts_leave_nothing(tokenizer, tmp_path):
    assert tokens.encode(tokenizer, ["abc"])[0].tolist() == [97, 98, 99] and not list(tmp_path.iterdir())
    assert tokens.encode(tokenizer, []) == []
