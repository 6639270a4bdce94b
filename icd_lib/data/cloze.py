"""Cloze questions made from running text: the last word of a sentence is hidden among others to choose from.

The word occurs before in the same passage, and so do the others: whoever has read the passage has an advantage, whoever
only knows which words are frequent has none. Perplexity averages over all tokens and hides what of that is lost.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from icd_lib.data.language import Blocks
from icd_lib.data.tokens import encode
from icd_lib.errors import MeasureError

_NOT_INSIDE, _NOT_BEFORE = r"(?<![\w'’-])", r"(?![\w'’-])"  # no halves of "couldn't" or "well-known"
_ANY_WORD = re.compile(rf"{_NOT_INSIDE}[^\W\d_]+{_NOT_BEFORE}")
_WORD = re.compile(rf"{_NOT_INSIDE}[a-z]{{4,}}{_NOT_BEFORE}")
_LAST_WORD = re.compile(r"(?<=\S )[a-z]{4,}(?=[.!?;:][\"'”’)\]]*(?:\s|$))")


@dataclass(frozen=True)
class ClozeQuestion:
    """One question: tokens `prompt` int64 (L,) up to the hidden word, `candidates` int64 (m_i,) each, `words` as text.

    answer: index of the hidden word among the candidates; source: document of the passage.
    """

    prompt: np.ndarray
    candidates: tuple[np.ndarray, ...]
    words: tuple[str, ...]
    answer: int
    source: int


def make_cloze(tokenizer, blocks: Blocks, count: int, *, choices: int = 4, seed: int = 0) -> list[ClozeQuestion]:
    """`count` questions with `choices` candidates each, at most one from every document's part of a block.

    The hidden word ends a stretch of text (before one of . ! ? ; :), has at least four letters, all of them small ones,
    and occurs before in the passage. The others are such words too, of the text before it. Blocks, words and places
    are drawn by `seed`; a larger draw starts with the smaller one.
    Raises `MeasureError` for fewer than two choices, and when the text gives fewer questions.
    """
    if choices < 2:
        raise MeasureError(f"a cloze question has at least two choices, got {choices}; ask for 2 or more")
    rng = np.random.default_rng(seed)
    found: list[ClozeQuestion] = []
    for text, source in _passages(tokenizer, blocks, rng):
        if len(found) == count:
            break
        question = _ask(tokenizer, blocks, text, source, choices, rng)
        if question is not None:
            found.append(question)
    if len(found) < count:
        raise MeasureError(
            f"{count} cloze questions are wanted but {len(blocks)} blocks of {blocks.ids.shape[1]} tokens give "
            f"{len(found)}; ask for fewer, or give more or longer blocks"
        )
    return found


def cloze_sha256(questions: Sequence[ClozeQuestion]) -> str:
    """Identity of the questions."""
    digest = hashlib.sha256()
    for one in questions:
        arrays = (one.prompt, *one.candidates)
        digest.update(f"{[len(ids) for ids in arrays]} {one.answer} {one.source} ".encode())
        digest.update(np.concatenate(arrays).astype("<i8").tobytes())
    return digest.hexdigest()


def _passages(tokenizer, blocks: Blocks, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Text and document of every stretch of one document in a block, blocks in drawn order."""
    for row in rng.permutation(len(blocks)):
        ids, documents = blocks.ids[row, blocks.opening :], blocks.cluster[row, blocks.opening :]
        starts = np.flatnonzero(np.diff(documents, prepend=documents[0] - 1))
        for start, part in zip(starts, np.split(ids, starts[1:]), strict=True):
            text = tokenizer.decode(part.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            yield text.partition(" ")[2], int(documents[start])  # a block may begin inside a word


def _ask(tokenizer, blocks: Blocks, text: str, source: int, choices: int, rng) -> ClozeQuestion | None:
    """A question from one passage; None where no word of it can be hidden."""
    usable = []
    for match in _LAST_WORD.finditer(text):
        before = text[: match.start() - 1]
        others = sorted(set(_WORD.findall(before)) - {match.group()})
        read = {word.casefold() for word in _ANY_WORD.findall(before)}
        if match.group() in read and len(others) >= choices - 1:
            usable.append((before, match.group(), others))
    if not usable:
        return None
    before, hidden, others = usable[rng.integers(len(usable))]
    words = [others[i] for i in rng.permutation(len(others))[: choices - 1]]
    answer = int(rng.integers(choices))
    words.insert(answer, hidden)
    prompt, *continued = encode(tokenizer, [before, *(f"{before} {word}" for word in words)])
    if not all(len(ids) > len(prompt) and np.array_equal(ids[: len(prompt)], prompt) for ids in continued):
        return None  # the tokenizer joins the word with what is before it
    opening = blocks.ids[0, : blocks.opening]
    candidates = tuple(ids[len(prompt) :] for ids in continued)
    return ClozeQuestion(np.concatenate([opening, prompt]), candidates, tuple(words), answer, source)
