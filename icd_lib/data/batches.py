"""Token batches: length-sorted batches under a token budget, and batches of one exact shape for latency."""

from collections.abc import Iterator, Sequence

import torch

from icd_lib.errors import MeasureError


def encode(tokenizer, texts: Sequence[str], max_length: int = 128) -> list[list[int]]:
    """Token ids of each text, special tokens included, truncated to `max_length`, without padding."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return encoded["input_ids"]


def token_batches(
    sequences: Sequence[Sequence[int]], tokens_per_batch: int = 2048, pad_id: int = 0
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yield (indices, input_ids, attention_mask) over all sequences, shortest first, ties by index.

    Tensors are int64 (b, longest of the batch), b × longest ≤ tokens_per_batch unless one sequence alone is longer.
    """
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end - start + 1) * len(sequences[order[end]]) <= tokens_per_batch:
            end += 1
        indices = order[start:end]
        yield indices, *_pad([sequences[i] for i in indices], pad_id)
        start = end


def _pad(rows: list[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = len(rows[-1])
    input_ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows], dtype=torch.int64)
    lengths = torch.tensor([len(row) for row in rows])
    return input_ids, (torch.arange(longest) < lengths[:, None]).to(torch.int64)


def fixed_batch(tokenizer, texts: Sequence[str], batch: int, length: int) -> dict[str, torch.Tensor]:
    """Real text in exactly (batch, length) tokens, no padding: texts are joined, each row is [CLS] ... [SEP].

    Returns int64 `input_ids` and an all-ones `attention_mask`. Raises `MeasureError` when there is too little text.
    """
    empty = tokenizer("")["input_ids"]  # the special tokens alone: [CLS] [SEP] for BERT
    head, tail = empty[: (len(empty) + 1) // 2], empty[(len(empty) + 1) // 2 :]
    body = length - len(empty)
    if batch < 1 or body < 1:
        raise MeasureError(f"a batch of {batch} x {length} has no room for text beside {len(empty)} special tokens")
    stream: list[int] = []
    for text in texts:
        stream += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(stream) >= batch * body:
            break
    else:
        raise MeasureError(f"a batch of {batch} x {length} needs {batch * body} tokens of text, got {len(stream)}")
    rows = [head + stream[r * body : (r + 1) * body] + tail for r in range(batch)]
    input_ids = torch.tensor(rows, dtype=torch.int64)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
