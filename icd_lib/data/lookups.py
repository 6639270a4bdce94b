"""Look-up tasks over long contexts made from running text: records lie in it, and one of them is asked for.

Perplexity hides what an eviction breaks: most next words follow from the last few dozen. A record " The code of Velmar
is 4821." follows from nothing but itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icd_lib.data.language import Blocks
from icd_lib.errors import ConfigError

ASKED = ("after", "before")
DIGITS = 4
_ONSETS, _MIDDLES, _ENDS = (
    ("Vel", "Bor", "Tan", "Kir", "Mol", "Dra"),
    ("a", "e", "i", "o"),
    ("mar", "dun", "sek", "lith"),
)


@dataclass(frozen=True)
class LookUp:
    """One question: `ids` int64 (L,); the first `context` are read before anything is evicted, the last `answer` asked.

    depth: where the record asked for begins, as a share of the text; source: number of the block the text is from.
    """

    ids: np.ndarray
    context: int
    answer: int
    depth: float
    source: int


def make_lookups(
    tokenizer, blocks: Blocks, *, count: int, records: int = 1, length: int = 1024, asked: str = "after", seed: int = 0
) -> list[LookUp]:
    """`count` questions over contexts of `length` tokens of text with `records` records in them.

    One record lies at a depth that differs from question to question, evenly over the text; several lie one after the
    other, as in a list, at such a depth. asked: "after" the cache is compressed, which then cannot know what will be
    asked; "before", as the prompt's end. Raises `ConfigError` when the text has no room for the records.
    """
    if asked not in ASKED:
        raise ConfigError(f"asked '{asked}' is unknown; a question comes one of {list(ASKED)} the cache is compressed")
    if not len(blocks):
        raise ConfigError("look-ups are made from text, got no block of it")
    if records > len(_names()):
        raise ConfigError(f"{records} records need as many names, there are {len(_names())}; ask for fewer")
    rng = np.random.default_rng(seed)
    return [_make(tokenizer, blocks, number, count, records, length, asked, rng) for number in range(count)]


def lookups_sha256(lookups: Sequence[LookUp]) -> str:
    """Identity of the questions."""
    digest = hashlib.sha256()
    for one in lookups:
        digest.update(f"{len(one.ids)} {one.context} {one.answer} {one.source} ".encode())
        digest.update(np.ascontiguousarray(one.ids, "<i8").tobytes())
    return digest.hexdigest()


def _make(tokenizer, blocks: Blocks, number: int, count: int, records: int, length: int, asked: str, rng) -> LookUp:
    names = [_names()[i] for i in rng.permutation(len(_names()))[:records]]
    codes = rng.permutation(np.arange(10 ** (DIGITS - 1), 10**DIGITS))[:records]
    pieces = [_record(tokenizer, name, int(code)) for name, code in zip(names, codes, strict=True)]
    target = int(rng.integers(records))
    question, answer, _ = pieces[target]
    lines = np.concatenate([np.concatenate(piece) for piece in pieces])
    source = number % len(blocks)
    room = length - len(lines) - (len(question) if asked == "before" else 0)
    text = blocks.ids[source][: max(0, room)]
    if len(text) < room or room <= blocks.opening:
        raise ConfigError(
            f"{records} records of {len(lines)} tokens do not fit into {length} tokens of context with blocks of "
            f"{len(blocks.ids[source])}; ask for fewer records or give longer blocks"
        )
    place = blocks.opening + round((len(text) - blocks.opening) * (number + 0.5) / count)
    context = np.concatenate([text[:place], lines, text[place:]])
    ids = np.concatenate([context, question, answer])
    read = len(context) if asked == "after" else len(context) + len(question) - 1
    before = sum(len(np.concatenate(piece)) for piece in pieces[:target])
    return LookUp(ids, read, len(answer), (place + before) / len(context), source)


def _record(tokenizer, name: str, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of the question, of its answer, and of what ends the record."""
    parts = (f" The code of {name} is", f" {code}", ".")
    found = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    question, answer, end = (np.array(ids, dtype=np.int64) for ids in found)
    return question, answer, end


def _names() -> list[str]:
    return [onset + middle + end for onset in _ONSETS for middle in _MIDDLES for end in _ENDS]
