"""What generates: a row that prepares a model, and the decoder that reads prompts and goes on token by token."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from icd_lib.decoding.prompt import Prompt, read_prompt
from icd_lib.errors import ConfigError
from icd_lib.optional import load_optional


class Decoder(ABC):
    """A model that is ready to generate, with the cache of the texts it is in the middle of.

    positions: how many tokens a text may have, None: any number
    weight_bytes: bytes of weights that one step reads, whatever the batch; None where the runtime does not say
    cache_bytes: bytes of one token of one text in the cache; None where the runtime does not say
    state_bytes: bytes of one text's state, which does not grow with it
    """

    positions: int | None = None
    weight_bytes: int | None = None
    cache_bytes: float | None = None
    state_bytes: float = 0.0

    def __init__(self) -> None:
        self._lengths: np.ndarray | None = None
        self._padded: np.ndarray | None = None

    def prefill(self, ids, mask=None) -> np.ndarray:
        """Read prompts, from the beginning: logits of the token after each, float32 (B, V).

        ids, mask: (B, L) as `read_prompt` takes them, which says what is refused
        """
        prompt = read_prompt(ids, mask, self.positions)
        self.reset()
        self._lengths, self._padded = prompt.lengths, None if prompt.mask is None else prompt.mask == 0
        return self._prefill(prompt)

    def step(self, ids) -> np.ndarray:
        """Append one token to every text: logits of the one after it, float32 (B, V). ids: (B,)"""
        if self._lengths is None:
            raise ConfigError("there is no text to go on with; call prefill first")
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        if len(ids) != len(self._lengths):
            raise ConfigError(f"{len(ids)} tokens were given for {len(self._lengths)} texts; give one for each")
        if self.positions is not None and int(self._lengths.max()) >= self.positions:
            raise ConfigError(f"a text has reached the model's {self.positions} positions; begin another with prefill")
        positions, self._lengths = self._lengths, self._lengths + 1
        return self._step(ids, positions)

    def warm(self, ids) -> None:  # noqa: B027, a hook that few need
        """Do what is done once for prompts of this shape, (B, L); `ResourceError` where the runtime cannot."""

    def greedy(self, ids, tokens: int, mask=None, stop: tuple[int, ...] = ()) -> np.ndarray:
        """The likeliest next `tokens` tokens of every prompt, int64 (B, N); N is less where all texts met a `stop`."""
        logits = self.prefill(ids, mask)
        found = [logits.argmax(-1)]
        ended = np.isin(found[0], stop)
        while len(found) < tokens and not ended.all():
            found.append(self.step(found[-1]).argmax(-1))
            ended |= np.isin(found[-1], stop)
        return np.stack(found, axis=1)

    def reset(self) -> None:
        """Forget all texts."""
        self._lengths = self._padded = None
        self._forget()

    def close(self) -> None:
        """Give back what is held; the decoder cannot be used any more."""
        self.reset()

    def mask_of(self, tokens: int) -> np.ndarray | None:
        """int64 (B, `tokens`) of all places up to now, 0 where a prompt was padded; None where none was."""
        if self._padded is None:
            return None
        mask = np.ones((len(self._padded), tokens), dtype=np.int64)
        mask[:, : self._padded.shape[1]][self._padded] = 0
        return mask

    @abstractmethod
    def _prefill(self, prompt: Prompt) -> np.ndarray:
        """Logits (B, V) after the prompts; there are no other texts."""

    @abstractmethod
    def _step(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Logits (B, V) after one more token of each text, at these positions, both (B,)."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop the cache."""


@dataclass(frozen=True)
class DecodeRuntime(ABC):
    """A row of `icd_lib.decoding.DECODERS`.

    label: what it is called on pages; precision: of its weights or, where those are whole, of its arithmetic
    needs: packages that it imports and that the project can do without, and `extra`, which brings them
    tolerance: largest absolute difference of logits to eager fp32 that is rounding, relative to their largest
    """

    name: str
    label: str
    precision: str = "fp32"
    needs: tuple[str, ...] = ()
    extra: str | None = None
    tolerance: float = 1e-4

    @property
    def engine(self) -> str:
        """What computes, in whatever precision: the name's first part."""
        return self.name.partition("_")[0]

    def check(self) -> None:
        """Raise `ResourceError` with the cure where a package or a tool is missing."""
        for package in self.needs:
            load_optional(package, self.extra)

    def reset(self) -> None:  # noqa: B027, a hook that few need
        """Forget what earlier models left in the process; called before models that are compared are prepared."""

    @abstractmethod
    def prepare(self, model: nn.Module, *, threads: int | None = None, **options: Any) -> Decoder:
        """Make a causal language model of Transformers, in evaluation mode from now on, ready to generate.

        threads: CPU threads (default: torch's); torch's own runtimes take those of the process. options: of the row.
        Raises `ResourceError` where the runtime is missing or cannot run the model.
        """


def check_decoder(model: nn.Module) -> None:
    """Raise `ConfigError` for what does not generate: a model without a language head."""
    if not hasattr(model, "lm_head"):
        raise ConfigError(
            f"{type(model).__name__} has no language head (lm_head), so it generates nothing; load it as a …ForCausalLM"
        )


def positions_of(model: nn.Module) -> int | None:
    """Tokens that the model's config knows positions for."""
    return getattr(model.config, "max_position_embeddings", None)
