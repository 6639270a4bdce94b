"""torch.compile (Inductor): one graph of a step over a cache of fixed length; prompts are read in eager."""

import math

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import StaticCache

from icd_lib.decoding.base import check_decoder
from icd_lib.decoding.eager import Eager, EagerDecoder
from icd_lib.decoding.prompt import Prompt
from icd_lib.errors import ConfigError
from icd_lib.runtimes.compile import APART, compiling
from icd_lib.runtimes.compile import RUNTIME as COMPILE

PAGE = 64  # a cache has a multiple of so many places, so that prompts of about one length share a graph


class CompiledDecoder(EagerDecoder):
    """room: tokens that can be generated after a prompt; attention reads the places of the whole cache."""

    def __init__(self, model: nn.Module, room: int):
        super().__init__(model, lambda: StaticCache(config=model.config, max_cache_len=self._capacity))
        self._room, self._capacity, self._used = room, 0, 0
        self._compiled = torch.compile(model, dynamic=False, **APART)

    def warm(self, ids) -> None:
        """Compile the step that follows such prompts."""
        self.step(self.prefill(ids).argmax(-1))
        self.reset()

    def _prefill(self, prompt: Prompt) -> np.ndarray:
        self._used = prompt.ids.shape[1]
        self._capacity = PAGE * math.ceil((self._used + self._room) / PAGE)
        return super()._prefill(prompt)

    def _step(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        if self._used >= self._capacity and not self.has_state:
            raise ConfigError(
                f"the cache of the compiled step has {self._capacity} places and all are used; prepare with a larger "
                f"room than {self._room}"
            )
        self._used += 1
        # Places behind the text are hidden by causality, so that the mask keeps one shape.
        mask = None if self._padded is None or self.has_state else self.mask_of(self._capacity)
        with compiling():
            return self._run(ids[:, None], positions[:, None], mask)

    def call(self, **inputs):
        return (self._compiled if inputs["input_ids"].shape[1] == 1 and self._used > 1 else self.model)(**inputs)

    def close(self) -> None:
        super().close()
        self._compiled = None


class Compiled(Eager):
    def check(self) -> None:
        COMPILE.check()

    def reset(self) -> None:
        COMPILE.reset()

    def prepare(self, model: nn.Module, *, threads: int | None = None, room: int = 128, **_) -> CompiledDecoder:
        """room: tokens that can be generated after a prompt."""
        self.check()
        check_decoder(model)
        return CompiledDecoder(model.eval(), room)


RUNTIME = Compiled("compile", "torch.compile (Inductor), fp32, one graph of a step; prompts in eager")
