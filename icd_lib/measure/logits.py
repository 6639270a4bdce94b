"""Logits of a causal language model on blocks of text, a batch at a time; and the dense model's, from what is kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
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

    @contextmanager
    def reading(self, blocks: Blocks, first: int) -> Iterator["HeadStates | None"]:
        """While the dense model is judged: a reader that is shown the rows of `blocks`, so that `of` need not run it.

        None where their states are known.
        """
        key, path = (blocks.sha256, first), self._path(blocks, first)
        if key in self._states or (path is not None and path.is_file()):
            yield None
            return
        with HeadStates(self.model, first) as reader:
            yield reader
        if len(reader) == len(blocks):
            self._states[key] = self._keep(reader.states, blocks, first)

    def _path(self, blocks: Blocks, first: int) -> Path | None:
        return None if self._file is None else self._file(f"{blocks.sha256}-{first}")

    def _find_states(self, blocks: Blocks, first: int) -> torch.Tensor | None:
        path = self._path(blocks, first)
        if path is not None and path.is_file():
            try:
                return torch.from_numpy(load_tensors(path)[0][STATES])
            except (ArtifactError, KeyError):
                path.unlink(missing_ok=True)  # damaged: computed anew
        with HeadStates(self.model, first) as reader:
            for _, logits, _ in predictions(self.model, blocks, first):
                reader.take(np.arange(len(logits)), logits)
                if not len(reader):
                    break
        return self._keep(reader.states, blocks, first)

    def _keep(self, states: torch.Tensor | None, blocks: Blocks, first: int) -> torch.Tensor | None:
        """`states`, kept by the machine where it can."""
        path = self._path(blocks, first)
        if path is not None and states is not None and states.dtype == torch.float32:
            try:
                save_tensors({STATES: states.numpy()}, path, {})
            except ArtifactError:
                self._file = None  # a cache that cannot be written costs time only
        return states


class HeadStates:
    """What a model's head reads for every scored token while the model predicts.

    states: (rows so far, S, H) on the CPU; None where the logits are not the head's output alone.
    """

    def __init__(self, model: nn.Module, first: int):
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        self._head = head if isinstance(head, nn.Linear) else None
        self._first = first
        self._seen: list[torch.Tensor] = []
        self._found: list[torch.Tensor] = []

    def __enter__(self) -> "HeadStates":
        if self._head is not None:
            self._hook = self._head.register_forward_pre_hook(lambda module, inputs: self._seen.append(inputs[0]))
        return self

    def __exit__(self, *error: object) -> None:
        if self._head is not None:
            self._hook.remove()

    def __len__(self) -> int:
        return sum(map(len, self._found))

    @property
    def states(self) -> torch.Tensor | None:
        return torch.cat(self._found) if self._found else None

    def take(self, rows: np.ndarray, logits: torch.Tensor) -> None:
        """Keep the states of some rows of the batch that was predicted last, whose logits are (b, S, V)."""
        if self._head is None or not self._seen:
            return
        state = self._seen.pop()[:, self._first - 1 : -1]
        self._seen.clear()
        if not len(rows):
            return
        if not self._found:
            again = self._head(state).float()
            self._seen.clear()
            if again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-4, atol=1e-4):
                self._hook.remove()
                self._head = None
                return
        self._found.append(state[torch.as_tensor(rows)].cpu())
