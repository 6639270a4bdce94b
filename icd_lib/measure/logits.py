"""Logits of a causal language model on blocks of text, a batch at a time; and the dense model's, from what is kept."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from icd_lib.data.language import Blocks
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.storage.devices import telling_of_memory
from icd_lib.storage.tensor_file import load_tensors, save_tensors

TOKENS_PER_BATCH = 4096
LOGITS_PER_BATCH = 1 << 25  # 128 MiB in float32; wide vocabularies get fewer tokens at a time
STATES = "states"


def predictions(model, blocks: Blocks, first: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield (rows, logits (b, S, V) float32, targets (b, S)) of a batch of blocks; the first target is at `first`.

    Raises `MeasureError` when a token id is out of range or the model has no logits per token.
    """
    device = next(model.parameters()).device
    vocabulary = model.config.vocab_size
    if int(blocks.ids.max()) >= vocabulary:
        raise MeasureError(
            f"token id {int(blocks.ids.max())} is out of the model's range of {vocabulary}; "
            "use the tokenizer the model was trained with"
        )
    start = 0
    for inputs in blocks.batches(min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // vocabulary)):
        input_ids = inputs["input_ids"].to(device)
        with telling_of_memory(f"a batch of {tuple(input_ids.shape)} tokens was judged", "lower data.max_length"):
            logits = getattr(model(input_ids=input_ids, use_cache=False), "logits", None)
        if logits is None or logits.shape[:2] != input_ids.shape:
            raise MeasureError(
                f"{type(model).__name__} gives no logits per token; quality needs a causal language model"
            )
        yield slice(start, start + len(input_ids)), logits[:, first - 1 : -1].float(), input_ids[:, first:]
        start += len(input_ids)


class DenseLogits:
    """The dense model's logits, again and again on the same blocks: what its head reads is kept, the head runs anew.

    model: a causal language model; file: name of a text → where the machine keeps its states (None: in memory alone).
    Where the logits are not the head's output alone (Gemma 2's are capped), the whole model runs every time.
    """

    def __init__(self, model: nn.Module, file: Callable[[str], Path] | None = None):
        self.model, self._file = model, file
        self._states: dict[tuple[str, int], torch.Tensor | None] = {}

    def of(self, blocks: Blocks, rows, first: int) -> torch.Tensor:
        """Logits of some rows of the blocks, float32 (rows, S, V); all rows' states are computed when first asked."""
        key = (blocks.sha256, first)
        if key not in self._states:
            self._states[key] = self._find_states(blocks, first)
        states = self._states[key]
        if states is None:
            return torch.cat([logits for _, logits, _ in predictions(self.model, blocks.take(rows), first)])
        head = self.model.get_output_embeddings()
        return head(states[torch.as_tensor(rows)].to(head.weight.device)).float()

    def _find_states(self, blocks: Blocks, first: int) -> torch.Tensor | None:
        path = None if self._file is None else self._file(f"{blocks.sha256}-{first}")
        if path is not None and path.is_file():
            try:
                return torch.from_numpy(load_tensors(path)[0][STATES])
            except (ArtifactError, KeyError):
                path.unlink(missing_ok=True)  # damaged: computed anew
        states = head_states(self.model, blocks, first)
        if path is not None and states is not None and states.dtype == torch.float32:
            try:
                save_tensors({STATES: states.numpy()}, path, {})
            except ArtifactError:
                self._file = None  # a cache that cannot be written costs time only
        return states


def head_states(model: nn.Module, blocks: Blocks, first: int) -> torch.Tensor | None:
    """What the head reads for every scored token, (n, S, H) on the CPU; None where the logits are not its output."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(head, nn.Linear):
        return None
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    found = []
    try:
        for _, logits, _ in predictions(model, blocks, first):
            state = seen.pop()[:, first - 1 : -1]
            seen.clear()
            if not found:
                again = head(state).float()
                seen.clear()
                if again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-4, atol=1e-4):
                    return None
            found.append(state.cpu())
    finally:
        hook.remove()
    return torch.cat(found)
