"""Transformers as it is, module by module, with whatever cache it is given: what the others are compared with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache

from icd_lib.decoding.base import Decoder, DecodeRuntime, check_decoder, positions_of
from icd_lib.decoding.bytes import cache_bytes_of, state_bytes_of, weight_bytes_of
from icd_lib.decoding.prompt import Prompt
from icd_lib.models.families.mamba.adapter import find_backbone
from icd_lib.runtimes.eager import in_bf16
from icd_lib.storage.devices import device_of


class EagerDecoder(Decoder):
    """new_cache: called for every prefill, a cache of Transformers or one that behaves so."""

    def __init__(self, model: nn.Module, new_cache: Callable[[], Cache]):
        super().__init__()
        self.model, self._new_cache = model, new_cache
        self.cache: Cache | None = None
        self.positions, dtype = positions_of(model), next(model.parameters()).dtype
        self.weight_bytes, self.cache_bytes = weight_bytes_of(model), cache_bytes_of(model, dtype.itemsize)
        self.state_bytes = state_bytes_of(model, dtype.itemsize)
        self.has_state = find_backbone(model) is not None  # what was padded is in no state, and no position counts
        self._device = device_of(model)

    def _prefill(self, prompt: Prompt) -> np.ndarray:
        self.cache = self._new_cache()
        return self._run(prompt.ids, prompt.positions, prompt.mask)

    def _step(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        assert self.cache is not None, "a step follows a prefill"
        mask = None
        if self._padded is not None and not self.has_state:
            mask = self.mask_of(self.cache.get_seq_length() + 1)
        return self._run(ids[:, None], positions[:, None], mask)

    def _run(self, ids: np.ndarray, positions: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        # Without padding no mask is passed: attention then need not expand grouped heads to read one.
        past: dict = {"cache_params": self.cache}
        if not self.has_state:
            past = {
                "past_key_values": self.cache,
                "position_ids": self._there(np.array(positions)),
            }
        with torch.inference_mode():
            found = self.call(
                input_ids=self._there(ids),
                attention_mask=None if mask is None else self._there(mask),
                use_cache=True,
                logits_to_keep=1,
                **past,
            )
        return found.logits[:, -1].float().cpu().numpy()

    def _there(self, array: np.ndarray) -> torch.Tensor:
        """Where the model is."""
        return torch.from_numpy(array).to(self._device)

    def call(self, **inputs):
        """The model's own call."""
        return self.model(**inputs)

    def _forget(self) -> None:
        self.cache = None

    def close(self) -> None:
        super().close()
        self.model = None


class Eager(DecodeRuntime):
    def prepare(
        self, model: nn.Module, *, threads: int | None = None, new_cache: Callable[[], Cache] | None = None, **_
    ) -> EagerDecoder:
        """new_cache: makes an empty cache (default: Transformers' own, which copies the past at every token)."""
        check_decoder(model)
        model = self.form(model)
        return EagerDecoder(model, new_cache or (lambda: DynamicCache(config=model.config)))

    def form(self, model: nn.Module) -> nn.Module:
        """What is run."""
        return model.eval()


class EagerBf16(Eager):
    def form(self, model: nn.Module) -> nn.Module:
        return in_bf16(model)


RUNTIME = Eager("eager", "Transformers eager, fp32")
BF16 = EagerBf16("eager_bf16", "Transformers eager, bf16 weights", precision="bf16", tolerance=0.1)
