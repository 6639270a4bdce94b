"""Running text for causal language models: documents, splits that share no verse, fixed blocks of tokens.

The embedded corpus again (`icd_lib.data.text`), this time as chapters, so that a model has context: a document is one
chapter in one translation. Chapters that share a normalised verse text, in either translation, are chained together,
and whole chains are dealt, both translations of a chapter always together: no verse of a split is in another one.
The split does not follow a run's seed, because embedded language models were trained on its train part.

Text of the other domains (`icd_lib.data.domains`) is made running text by joining their texts to documents.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from icd_lib.data.domains import DomainText, load_domain
from icd_lib.data.domains.groups import even_shares
from icd_lib.data.splits import group_by_text, split_groups
from icd_lib.data.text import Corpus, load_corpus
from icd_lib.data.tokens import encode
from icd_lib.errors import MeasureError, ResourceError

CHAPTERS = "verses"  # the domain that the embedded corpus is
LANGUAGE_SPLITS = ("test", "validation", "calibration", "train")
SPLIT_CHAPTERS = {"test": 180, "validation": 120, "calibration": 90}  # of 1,189; train takes the rest
SPLIT_SEED = 1  # the first that leaves the two long chains (57 and 30 chapters) in train: held-out text stays varied
_IDS_PER_CHAPTER = 1_000  # verse ids are BBCCCVVV


@dataclass(frozen=True)
class Blocks:
    """Text in blocks of one length: `ids` (n, L) int64 tokens, `cluster` (n, L) int64 chapter of each token.

    The first `opening` tokens of every block are the tokenizer's own (BOS), not text.
    """

    ids: np.ndarray
    cluster: np.ndarray
    opening: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sha256(self) -> str:
        """Identity of the tokens and of the documents they belong to."""
        digest = hashlib.sha256(f"{self.ids.shape} {self.opening}".encode())
        for array in (self.ids, self.cluster):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        return digest.hexdigest()

    def take(self, rows) -> "Blocks":
        """The blocks at `rows` (indices or slice)."""
        return Blocks(self.ids[rows], self.cluster[rows], self.opening)

    def spread(self, count: int | None) -> "Blocks":
        """At most `count` blocks, evenly spaced over all of them; None takes all."""
        if count is None or count >= len(self):
            return self
        return self.take(spread_rows(len(self), count))

    def sample(self, count: int, seed: int = 0) -> "Blocks":
        """`count` blocks drawn without replacement, in seeded order; a larger draw starts with the smaller one.

        Raises `ResourceError` when there are fewer.
        """
        if count > len(self):
            raise ResourceError(f"{count} blocks are wanted but the text has {len(self)}; ask for fewer")
        return self.take(np.random.default_rng(seed).permutation(len(self))[:count])

    def batches(self, tokens_per_batch: int = 4096) -> Iterator[dict[str, torch.Tensor]]:
        """Input dicts {"input_ids": (b, L) int64}, in order, b × L ≤ tokens_per_batch unless one block is longer."""
        step = max(1, tokens_per_batch // self.ids.shape[1])
        for start in range(0, len(self), step):
            yield {"input_ids": torch.from_numpy(self.ids[start : start + step])}


def spread_rows(size: int, count: int) -> np.ndarray:
    """At most `count` of `size` indices, evenly spaced and ascending.

    >>> spread_rows(10, 4).tolist(), spread_rows(2, 4).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    if count >= size:
        return np.arange(size)
    return np.linspace(0, size - 1, count).round().astype(int)


@dataclass(frozen=True)
class LanguageData:
    """Documents of running text: `documents` (n texts), `clusters` (n,) chapter of each, `splits` name -> indices."""

    name: str
    documents: list[str]
    clusters: np.ndarray
    splits: dict[str, np.ndarray]
    provenance: dict

    def texts(self, split: str) -> list[str]:
        """The documents of a split, in the corpus's order: one translation after the other."""
        return [self.documents[i] for i in self._indices(split)]

    def blocks(self, tokenizer, split: str, length: int = 256) -> Blocks:
        """The whole split in blocks of `length` tokens for any causal tokenizer: see `pack`."""
        return pack(tokenizer, self.texts(split), length, self.clusters[self._indices(split)])

    @cached_property
    def sha256(self) -> str:
        """Identity of the texts and of their splits."""
        digest = hashlib.sha256("\0".join(self.documents).encode())
        for name in sorted(self.splits):
            digest.update(name.encode() + np.ascontiguousarray(self.splits[name], "<i8").tobytes())
        return digest.hexdigest()

    def _indices(self, split: str) -> np.ndarray:
        if split not in self.splits:
            raise MeasureError(f"split '{split}' is not one of {sorted(self.splits)}")
        return self.splits[split]


def load_language_data(chapters: dict[str, int] | None = None) -> LanguageData:
    """The embedded corpus as running text; `chapters` gives other split sizes (test, validation, calibration).

    Other sizes deal other chapters: then embedded language models have seen held-out text. Raises `ConfigError` for
    sizes that do not fit, `ResourceError` without the text packages.
    """
    return split_chapters(load_corpus(), SPLIT_CHAPTERS if chapters is None else chapters)


def split_chapters(corpus: Corpus, chapters: dict[str, int]) -> LanguageData:
    """Join verses to chapters, one a line, and deal chains of chapters; sizes are exact, in chapters."""
    verse_chapter = corpus.ids // _IDS_PER_CHAPTER
    numbers, chapter = np.unique(verse_chapter, return_inverse=True)
    starts = np.searchsorted(verse_chapter, numbers)
    documents = [
        "\n".join(verses[a:b])
        for verses in (corpus.asv, corpus.kjv)
        for a, b in zip(starts, [*starts[1:], len(verses)], strict=True)
    ]
    chains = chain_chapters(chapter, group_by_text(corpus.asv, corpus.kjv))
    dealt = split_groups(chains, chapters, rest="train", seed=SPLIT_SEED)
    return LanguageData(
        name="bible",
        documents=documents,
        clusters=np.tile(numbers, 2),
        splits={name: np.concatenate([rows, rows + len(numbers)]) for name, rows in dealt.items()},
        provenance={**corpus.provenance, "split_seed": SPLIT_SEED, "split_chapters": dict(chapters)},
    )


def chain_chapters(chapter: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Chain of each chapter (C,): chapters that share an equal-text group of verses, directly or through others.

    chapter, group  (n,) chapter number 0..C-1 and equal-text group of each verse

    >>> chain_chapters(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 1]))
    array([0, 1, 0], dtype=int32)
    """
    shape = (int(chapter.max()) + 1, int(group.max()) + 1)
    holds = csr_array((np.ones(len(chapter)), (chapter, group)), shape=shape)
    return connected_components(holds @ holds.T, directed=False)[1]


def load_domains(names: list[str]) -> tuple[dict[str, DomainText], dict[str, str]]:
    """The domains by name, and why each of those is missing whose package is not there."""
    texts, missing = {}, {}
    for name in names:
        try:
            texts[name] = load_domain(name)
        except ResourceError as error:
            missing[name] = error.args[0]
    return texts, missing


def domain_blocks(tokenizer, domains: dict[str, DomainText], length: int, most: int) -> dict[str, Blocks]:
    """At most `most` blocks of the domains' running text, as evenly over them as can be, evenly spaced within each.

    Tokens are clustered by document. A domain of which no block is taken is left out.
    """
    whole = {}
    for name, text in domains.items():
        documents, numbers = running_text(text)
        whole[name] = pack(tokenizer, documents, length, numbers)
    shares = even_shares({name: len(blocks) for name, blocks in whole.items()}, most)
    return {name: blocks.spread(shares[name]) for name, blocks in whole.items() if shares[name]}


def join_blocks(texts: Iterable[Blocks]) -> Blocks:
    """Blocks of several texts, all of one length and opening, as one; documents are numbered anew.

    Raises `MeasureError` without blocks, and for blocks of different lengths or openings.
    """
    given = list(texts)
    forms = sorted({(blocks.ids.shape[1], blocks.opening) for blocks in given})
    if len(forms) != 1:
        raise MeasureError(f"blocks of one length and opening can be joined, got {forms}; pack all texts alike")
    labels, start = [], 0
    for blocks in given:
        numbers, codes = np.unique(blocks.cluster, return_inverse=True)
        labels.append(start + codes.reshape(blocks.cluster.shape))
        start += len(numbers)
    return Blocks(np.concatenate([blocks.ids for blocks in given]), np.concatenate(labels), forms[0][1])


def running_text(text: DomainText) -> tuple[list[str], np.ndarray]:
    """A domain's documents and the number of each, int64: the texts of one document in order, a space between two."""
    parts: dict[int, list[str]] = {}
    for document, part in zip(text.documents.tolist(), text.texts, strict=True):
        parts.setdefault(document, []).append(part)
    return [" ".join(found) for found in parts.values()], np.array(list(parts), dtype=np.int64)


def pack(tokenizer, documents: list[str], length: int, clusters: np.ndarray | None = None) -> Blocks:
    """Documents as one stream of tokens, each closed by the end-of-text token, cut into blocks of `length`.

    A tokenizer that opens every text with a token of its own (Llama's BOS) gets it at the start of every block; one
    without an end-of-text token gets no separator. What does not fill the last block is left out. `clusters` labels
    the documents (default: 0, 1, 2, ...). Raises `MeasureError` when the text does not fill one block.
    """
    head = list(tokenizer("")["input_ids"])
    separator = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if separator and head[-1:] == separator:  # a tokenizer that closes texts itself; ours is written below
        head = head[:-1]
    body = length - len(head)
    if body < 2:
        raise MeasureError(f"blocks of {length} tokens have no room for text beside {len(head)} special tokens")
    rows = [np.append(ids, np.array(separator, dtype=np.int64)) for ids in encode(tokenizer, documents)]
    stream = np.concatenate([np.empty(0, np.int64), *rows])
    count = len(stream) // body
    if not count:
        raise MeasureError(f"a block of {length} tokens needs {body} tokens of text, got {len(stream)}")
    labels = np.arange(len(documents)) if clusters is None else np.asarray(clusters, dtype=np.int64)
    cluster = np.repeat(labels, [len(row) for row in rows])[: count * body].reshape(count, body)
    ids = stream[: count * body].reshape(count, body)
    opening = np.tile(np.array(head, dtype=np.int64), (count, 1))
    opened = np.repeat(cluster[:, :1], len(head), axis=1)
    return Blocks(np.concatenate([opening, ids], axis=1), np.concatenate([opened, cluster], axis=1), len(head))
