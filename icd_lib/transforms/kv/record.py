"""What a compressed cache holds: living tokens, pages before and after, bytes that a token's attention reads."""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from icd_lib.models.cache.cache import PagedCache
from icd_lib.models.cache.layer import DEAD, PagedLayer
from icd_lib.models.cache.store import whole_pages
from icd_lib.transforms.effects import Alive, TransformMeta
from icd_lib.transforms.kv.layout import count_pages
from icd_lib.transforms.kv.policy import KvPolicy


@dataclass(frozen=True)
class LayerRecord:
    """One layer after an eviction; pages are summed over rows and KV groups.

    seen: tokens that it was given; living: mean living tokens of each KV group over the rows; pages_before: as if
    nothing had gone; pages: with a living token; pages_read: what is read, because all rows and groups of a layer have
    one length. bytes_full, bytes_needed and bytes_read: of these three by one decoded token, keys, values, scales and
    the mask of holes, modelled; bytes_full is in the model's dtype.
    """

    layer: int
    seen: int
    living: tuple[float, ...]
    pages_before: int
    pages: int
    pages_read: int
    bytes_full: float
    bytes_needed: float
    bytes_read: float


@dataclass(frozen=True)
class KvRecord:
    """A whole cache, with the sums over its layers."""

    policy: dict | None
    page: int
    store: str
    batch: int
    layers: tuple[LayerRecord, ...]

    def total(self, name: str) -> float:
        """Sum of a field over the layers."""
        return sum(getattr(layer, name) for layer in self.layers)

    def to_json(self) -> dict:
        sums = ("pages_before", "pages", "pages_read", "bytes_full", "bytes_needed", "bytes_read")
        return {**asdict(self), "totals": {name: self.total(name) for name in sums}}


def record_cache(cache: PagedCache, policy: KvPolicy | None = None) -> KvRecord:
    """The record of a cache that has read something."""
    layers = tuple(_record_layer(layer) for layer in cache.layers)
    stored = None if policy is None else policy.to_json()
    return KvRecord(stored, cache.page, cache.stored_as, cache.layers[0].store.keys.shape[0], layers)


def living_tokens(layer: PagedLayer) -> np.ndarray:
    """Which tokens of a layer are alive, by column: bool (B, G, seen)."""
    columns = layer.all_columns().long()
    alive = torch.zeros(*columns.shape[:2], layer.seen + 1, dtype=torch.bool, device=columns.device)
    alive.scatter_(2, columns.masked_fill(columns == DEAD, layer.seen), True)
    return alive[:, :, : layer.seen].cpu().numpy()


def token_meta(cache: PagedCache, row: int = 0) -> TransformMeta:
    """What happened to the token axes of one row, `tokens.<layer>.<group>`: the form of every transform."""
    axes = {}
    for layer in cache.layers:
        for group, alive in enumerate(living_tokens(layer)[row]):
            name = f"tokens.{layer.index}.{group}"
            axes[name] = Alive.of(name, "tokens", alive)
    return TransformMeta("kv", cache.page, axes)


def _record_layer(layer: PagedLayer) -> LayerRecord:
    store, alive = layer.store, layer.all_columns() != DEAD
    batch, groups = alive.shape[:2]
    coded = int(count_pages(alive[:, :, : store.coded], layer.page).sum()) if store.coded else 0
    floats = int(count_pages(alive[:, :, store.coded :], layer.page).sum()) if store.held else 0
    coded_read = batch * groups * (store.coded // layer.page)
    floats_read = batch * groups * (whole_pages(store.held, layer.page) // layer.page)
    before = batch * groups * (whole_pages(layer.seen, layer.page) // layer.page)
    hole_bytes = 0 if layer.bias is None else store.keys.element_size() * layer.page
    of_coded, of_float = (store.page_bytes(is_coded) + hole_bytes for is_coded in (True, False))
    return LayerRecord(
        layer=layer.index,
        seen=layer.seen,
        living=tuple(alive.sum(2).double().mean(0).tolist()),
        pages_before=before,
        pages=coded + floats,
        pages_read=coded_read + floats_read,
        bytes_full=before * (2.0 * layer.page * store.keys.shape[3] * store.keys.element_size()),
        bytes_needed=coded * of_coded + floats * of_float,
        bytes_read=coded_read * of_coded + floats_read * of_float,
    )
