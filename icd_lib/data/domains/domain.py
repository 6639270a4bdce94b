"""One domain of text: its texts, what is known of each, and which of them belong together."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import numpy as np

from icd_lib.data.splits import normalise

MIN_CHARACTERS, MAX_CHARACTERS = 12, 500


@dataclass(frozen=True)
class DomainText:
    """n distinct texts of one domain.

    `labels`: task -> int64 (n,), every text has one. `documents`: (n,) int64, the document that a text is
    part of. `pairs`: int64 (m, 2), text i asks and text j answers (another wording, a reply); None without such tasks.
    `same_document`: whether finding another text of the same document is a task. `head_classes`: a classifier with so
    many classes is judged by its own logits (0: none is).
    """

    name: str
    texts: list[str]
    labels: dict[str, np.ndarray]
    documents: np.ndarray
    pairs: np.ndarray | None = None
    same_document: bool = False
    provenance: dict = field(default_factory=dict)
    head_classes: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def sha256(self) -> str:
        """Identity of the texts and of everything that is known of them."""
        digest = hashlib.sha256("\0".join(self.texts).encode())
        digest.update(np.ascontiguousarray(self.documents, "<i8").tobytes())
        for task in sorted(self.labels):
            digest.update(task.encode() + np.ascontiguousarray(self.labels[task], "<i8").tobytes())
        if self.pairs is not None:
            digest.update(np.ascontiguousarray(self.pairs, "<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def forms(self) -> list[str]:
        """The normalised form of every text."""
        return [normalise(text) for text in self.texts]

    def take(self, rows: np.ndarray) -> "DomainText":
        """The texts at `rows` (ascending indices); pairs stay where both of their texts do."""
        rows = np.asarray(rows, dtype=np.int64)
        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        pairs = self.pairs
        if pairs is not None:
            moved = place[pairs]
            pairs = moved[(moved >= 0).all(axis=1)]
        return replace(
            self,
            texts=[self.texts[i] for i in rows],
            labels={task: values[rows] for task, values in self.labels.items()},
            documents=self.documents[rows],
            pairs=pairs,
        )

    def without(self, forms: set[str]) -> "DomainText":
        """Less the texts whose normalised form is in `forms`."""
        return self.take(np.flatnonzero([form not in forms for form in self.forms]))


@dataclass(frozen=True)
class Domain:
    """A row of the registry: what the text is, what its labels say and who gave them, and how it is read.

    `words`, `labelled`: for people, in a few words. `package`: whose fetched files it needs
    (None: installed with the project). `read()` returns the `DomainText`, `ResourceError` where its files are missing;
    `identity()` changes when it would read something else.
    """

    name: str
    words: str
    labelled: str
    read: Callable[[], DomainText]
    identity: Callable[[], object]
    package: str | None = None


def distinct(
    name: str,
    rows: list[tuple[str, int, dict[str, int]]],
    *,
    tasks: tuple[str, ...] = (),
    same_document: bool = False,
    provenance: dict | None = None,
) -> DomainText:
    """A domain of (text, document, labels) rows; equal normalised texts stay once, very short and long ones go."""
    kept: dict[str, tuple[str, int, dict[str, int]]] = {}
    for text, document, labels in rows:
        text = " ".join(text.split())
        if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
            kept.setdefault(normalise(text), (text, document, labels))
    found = list(kept.values())
    labels = {task: np.array([row[2][task] for row in found], dtype=np.int64) for task in tasks}
    documents = np.array([row[1] for row in found], dtype=np.int64)
    texts = [row[0] for row in found]
    return DomainText(name, texts, labels, documents, None, same_document, provenance or {})


def to_json(text: DomainText) -> dict:
    """A domain's text as plain values."""
    return {
        **{name.name: getattr(text, name.name) for name in fields(text)},
        "labels": {task: labels.tolist() for task, labels in text.labels.items()},
        "documents": text.documents.tolist(),
        "pairs": None if text.pairs is None else text.pairs.tolist(),
    }


def from_json(entry: dict) -> DomainText:
    """What `to_json` gave."""
    return DomainText(
        **entry
        | {
            "labels": {task: np.array(labels, dtype=np.int64) for task, labels in entry["labels"].items()},
            "documents": np.array(entry["documents"], dtype=np.int64),
            "pairs": None if entry["pairs"] is None else np.array(entry["pairs"], dtype=np.int64).reshape(-1, 2),
        }
    )
