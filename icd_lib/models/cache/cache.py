"""A cache for Transformers' decoders that lies in pages, is written in place, and can lose tokens."""

import torch
from torch import nn
from transformers.cache_utils import Cache

from icd_lib.axes.kinds import PAGE
from icd_lib.errors import ConfigError
from icd_lib.models.cache.attention import PAGED
from icd_lib.models.cache.int8 import Int8Store
from icd_lib.models.cache.layer import Evictor, PagedLayer
from icd_lib.models.cache.shape import KvShape, decoder_layers, kv_shape
from icd_lib.models.cache.store import FloatStore

STORES = {"float": FloatStore, "int8": Int8Store}


class PagedCache(Cache):
    """Keys and values of every layer in pages, for `past_key_values` of a Llama-like decoder, also in `generate`.

        model = use_paged_attention(model)
        model.generate(**inputs, past_key_values=PagedCache(model))

    Buffers (B, KV heads, whole pages, d) are written in place and double when they are full; `room` is how many tokens
    they have room for from the start. store: "float", the model's dtype, or "int8" (`icd_lib.models.cache.int8`).
    evictor: what takes tokens out (`icd_lib.transforms.kv`); observed: last queries kept in any case. Positions go on
    from the number of tokens seen, whatever is left of them.

    Without an evictor and in float any attention of Transformers may read it; else it takes `use_paged_attention`.
    Raises `ConfigError` for a model that it cannot serve, another model's tokens, an empty prompt, more tokens than the
    model has positions, and rows that end in padding (padding is on the left).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        page: int = PAGE,
        room: int = 0,
        store: str = "float",
        evictor: Evictor | None = None,
        observed: int = 0,
    ):
        if store not in STORES:
            raise ConfigError(f"store '{store}' is unknown; a cache keeps its tokens as one of {sorted(STORES)}")
        if page < 1 or room < 0 or observed < 0:
            raise ConfigError(
                f"page is at least 1 token, room and observed are at least 0; got {page}, {room} and {observed}"
            )
        shape = kv_shape(model)
        self._begin(shape, decoder_layers(model)[1], page, store)
        self.layers += [
            PagedLayer(index, groups, STORES[store](page, room), observed, evictor)
            for index, groups in enumerate(shape.groups)
        ]

    @property
    def seen(self) -> int:
        """Tokens given so far: the next one's position."""
        return self.layers[0].seen

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs):
        self.shape.check(layer_idx, key_states, value_states)
        layer = self.layers[layer_idx]
        if layer_idx == 0:
            self._check_step(key_states.shape[2])
        plain = layer.is_plain and layer.evictor is None
        if not plain and self._config._attn_implementation != PAGED:
            raise ConfigError(
                f"attention '{self._config._attn_implementation}' would read evicted or rounded tokens wrongly; call "
                "use_paged_attention(model)"
            )
        return layer.update(key_states, value_states)

    def compressed(self, *, store: str = "float", evictor: Evictor | None = None) -> "PagedCache":
        """A copy as if `evictor` and `store` had been there from the start; for a cache that has only read a prompt.

        The evictor finds the last queries that this cache kept. Raises `ConfigError` when tokens are gone or rounded.
        """
        if any(layer.evictor is not None or type(layer.store) is not FloatStore for layer in self.layers):
            raise ConfigError("only a cache that has lost nothing can be compressed anew; start from PagedCache(model)")
        if evictor is not None and evictor.observed > self.layers[0].observed:
            raise ConfigError(
                f"the evictor looks at {evictor.observed} queries and the cache kept {self.layers[0].observed}; "
                f"make it with observed={evictor.observed}"
            )
        other = object.__new__(PagedCache)
        other._begin(self.shape, self._config, self.page, store)
        for layer in self.layers:
            spare = 0 if evictor is None else evictor.spare
            other.layers.append(layer.copied(STORES[store](self.page, layer.seen + spare), evictor))
        return other

    def activate_past_recording(self) -> None:
        """Called before assisted decoding; refused where tokens cannot be taken back."""
        if not self.is_croppable:
            raise ConfigError(
                "assisted decoding takes tokens back, which a cache that evicts or rounds cannot; decode without an "
                "assistant, or use PagedCache(model)"
            )

    def batch_repeat_interleave(self, repeats: int) -> None:
        for layer in self.layers:
            if layer.is_initialized:
                rows = torch.arange(layer.store.keys.shape[0], device=layer.device).repeat_interleave(repeats)
                layer.select(rows, "repeating rows")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for layer in self.layers:
            layer.select(indices, "choosing rows")

    def _begin(self, shape: KvShape, config, page: int, store: str) -> None:
        super().__init__(layers=[])
        self.shape, self._config, self.page, self.stored_as = shape, config, page, store

    def _check_step(self, new: int) -> None:
        """Raise `ConfigError` unless so many tokens can come next."""
        behind = [layer.index for layer in self.layers if layer.seen != self.seen]
        if behind:
            raise ConfigError(
                f"layer {behind[0]} of the cache has not been written by the last pass: it is of a model with more "
                "layers; make one with PagedCache(model)"
            )
        most = self.shape.positions
        if most is not None and self.seen + new > most:
            raise ConfigError(
                f"{self.seen + new} tokens are more than the model's {most} positions; shorten the prompt or decode "
                "fewer"
            )
