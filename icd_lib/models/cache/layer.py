"""One layer of the cache: its slots, which of them are alive, and the attention over them."""

from typing import Protocol

import torch
from transformers.cache_utils import CacheLayerMixin

from icd_lib.errors import ConfigError
from icd_lib.models.cache.attend import attend_new, attend_past, attend_prompt
from icd_lib.models.cache.store import FloatStore

DEAD = -1  # the column of a slot that holds no living token
MARK = "_icd_layer"  # the attribute by which attention finds the layer that its keys come from


class Evictor(Protocol):
    """What takes tokens out of a layer. It is called after attention has read the newest ones.

    observed: last queries that a layer keeps for it; spare: tokens that are expected before it acts again.
    """

    observed: int
    spare: int

    def after(self, layer: "PagedLayer", new: int) -> None:
        """Look at a layer that was given `new` tokens, and call `layer.keep_slots` when some of them must go."""


class PagedLayer(CacheLayerMixin):
    """Keys and values of one layer in slots.

    seen: tokens it was given, padding and evicted ones too; the next position, whatever is left.
    columns: int32 (B, G, used), the place of a slot's token in the prompt and what was decoded, `DEAD` for a hole; None
    while slot i holds column i everywhere. bias: (B, G, 1, used), 0 or the most negative number; None without holes.
    start: int64 (B,), the first column of each row that is no padding; None when all are 0.
    """

    is_sliding = False
    supports_early_init = False  # buffers come with the first tokens

    def __init__(self, index: int, groups: int, store: FloatStore, observed: int = 0, evictor: Evictor | None = None):
        super().__init__()
        self.index, self.groups, self.store, self.evictor = index, groups, store, evictor
        self.observed = max(observed, evictor.observed if evictor else 0)
        self.seen = self.living = 0  # living: most tokens alive of any row and group
        self.start: torch.Tensor | None = None
        self._queries: list[torch.Tensor] = []  # the last ones, as they came: nothing is copied when a token comes
        self._spare = -self.observed  # queries there beyond those that are to be kept
        self.scaling: float | None = None
        self._columns: torch.Tensor | None = None  # (B, G, capacity)
        self._bias: torch.Tensor | None = None

    @property
    def page(self) -> int:
        return self.store.page

    @property
    def used(self) -> int:
        """Slots that attention reads."""
        return self.store.used

    @property
    def is_plain(self) -> bool:
        """Whether every token seen is alive, in float, in the order it came: any attention can read it."""
        return self._columns is None and not self.store.coded and type(self.store) is FloatStore

    @property
    def is_croppable(self) -> bool:
        return self.evictor is None and type(self.store) is FloatStore

    @property
    def queries(self) -> torch.Tensor | None:
        """The last queries that were kept, (B, H, w, d); None where none were."""
        if len(self._queries) > 1:
            self.queries = torch.cat(self._queries, 2)[:, :, -self.observed :]
        return self._queries[0] if self._queries else None

    @queries.setter
    def queries(self, kept: torch.Tensor | None) -> None:
        self._queries = [] if kept is None else [kept]
        self._spare = (0 if kept is None else kept.shape[2]) - self.observed

    @property
    def columns(self) -> torch.Tensor | None:
        return None if self._columns is None else self._columns[:, :, : self.used]

    @property
    def bias(self) -> torch.Tensor | None:
        return None if self._bias is None else self._bias[:, :, : self.used].unsqueeze(2)

    def all_columns(self) -> torch.Tensor:
        """`columns`, written out where they are None."""
        if self._columns is not None:
            return self.columns
        batch, groups = self.store.keys.shape[:2]
        order = torch.arange(self.used, dtype=torch.int32, device=self.store.keys.device)
        return order.expand(batch, groups, self.used)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Append (B, G, L, d); returns what attention takes, which knows this layer by `MARK`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._check(key_states)
        self.store.append(key_states, value_states)
        new = key_states.shape[2]
        self.seen += new
        self.living += new
        self._extend(new)
        keys, values = self.store.read() if self.is_plain else (key_states[:], value_states[:])
        setattr(keys, MARK, self)
        return keys, values

    def attend(self, query: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
        """Attention of the newest tokens' queries (B, H, L, d), rotated, over every living slot; (B, H, L, d).

        mask: bool (B, seen), which columns are no padding, or None. Evicts and rounds afterwards what is due.
        """
        new = query.shape[2]
        if mask is not None:
            self._mark_padding(mask, new)
        if new == 1:
            out = attend_new(query, self.store, self.bias, scaling)
        elif new == self.used and self._bias is None:
            out = attend_prompt(query, *self.store.read(), scaling)
        else:
            out = attend_past(query, *self.store.read(), self.bias, scaling)
        self._observe(query, scaling)
        if self.evictor is not None:
            self.evictor.after(self, new)
        self.settle()
        return out

    def settle(self) -> None:
        """Round what the store keeps in int8."""
        if self.store.is_due:
            self.store.settle(None if self._columns is None else self.columns == DEAD)

    def keep_slots(self, slots: torch.Tensor, alive: torch.Tensor, spare: int = 0) -> None:
        """Keep these slots, in this order, and give the others up.

        slots: int64 (B, G, n), slots to take; alive: bool (B, G, n), False for one that is only there because all rows
        and groups of a layer have one length. The last slot of every row and group must be its newest token.
        """
        keys, values = self.store.read()
        index = slots[..., None].expand(*slots.shape, keys.shape[3])
        gone = ~alive[..., None]
        columns = self.all_columns().gather(2, slots).masked_fill(~alive, DEAD)
        kept = [states.gather(2, index).masked_fill_(gone, 0) for states in (keys, values)]
        self.store.replace(*kept, spare)
        self.living = int((columns != DEAD).sum(2).max())
        self._set_columns(columns, kept[0].dtype)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.store = type(self.store)(self.page, self.store.room)
        self.seen = self.living = 0
        self.start = self.queries = self._columns = self._bias = None
        self.is_initialized = False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.select(beam_idx, "beam search")

    def select(self, rows: torch.Tensor, what: str) -> None:
        """Keep the batch's `rows`; `ConfigError` where evictions have made them different."""
        if self.evictor is not None:
            raise ConfigError(
                f"{what} moves rows of a cache whose rows have lost different tokens; decode by greedy search or "
                "sampling, or use PagedCache(model) without an evictor"
            )
        if not self.is_initialized:
            return
        self.store.select(rows)
        for name in ("start", "queries", "_columns", "_bias"):
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name).index_select(0, rows))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest |tokens_to_remove| tokens (the number is negative)."""
        if not tokens_to_remove or not self.is_initialized:
            return
        if not self.is_croppable:
            raise ConfigError(
                "assisted decoding takes tokens back, which a cache that evicts or rounds cannot; decode without an "
                "assistant, or use PagedCache(model)"
            )
        if tokens_to_remove > 0 or -tokens_to_remove > self.seen:
            raise ConfigError(
                f"crop takes minus the number of tokens to forget, at most {self.seen}; got {tokens_to_remove}"
            )
        self.store.drop_last(-tokens_to_remove)
        self.seen += tokens_to_remove
        self.living += tokens_to_remove
        if self._columns is not None:
            columns = self.columns.clone()
            self._set_columns(columns, self.store.keys.dtype)

    def copied(self, store: FloatStore, evictor: Evictor | None) -> "PagedLayer":
        """The same tokens in another store, as if just read; for a layer whose tokens are all in float."""
        layer = PagedLayer(self.index, self.groups, store, self.observed, evictor)
        keys, values = self.store.read()
        layer.lazy_initialization(keys, values)
        store.append(keys, values)
        for name in ("seen", "living", "start", "queries", "scaling", "_columns", "_bias"):
            setattr(layer, name, getattr(self, name))
        if evictor is not None:
            evictor.after(layer, self.seen)
        layer.settle()
        return layer

    def _check(self, keys: torch.Tensor) -> None:
        """Raise `ConfigError` for states with a gradient, or of another dtype or batch than the cache has."""
        if keys.requires_grad:
            raise ConfigError(
                "keys with a gradient would be written over by later tokens; call the model in torch.no_grad() or "
                "torch.inference_mode()"
            )
        if keys.dtype != self.dtype:
            raise ConfigError(
                f"layer {self.index} writes {keys.dtype} into a cache of {self.dtype}: it is another model's"
            )
        held = self.store.keys
        if held is not None and held.shape[0] != keys.shape[0]:
            raise ConfigError(
                f"a batch of {keys.shape[0]} goes on in a cache of {held.shape[0]} rows; give each batch its own cache"
            )

    def _observe(self, query: torch.Tensor, scaling: float) -> None:
        """Keep the last queries."""
        self.scaling = scaling
        if not self.observed:
            return
        recent = query[:, :, -self.observed :]
        self._queries.append(recent.clone() if recent.shape[2] < query.shape[2] else recent)
        self._spare += recent.shape[2]
        while self._spare >= self._queries[0].shape[2]:
            self._spare -= self._queries.pop(0).shape[2]

    def _mark_padding(self, mask: torch.Tensor, new: int) -> None:
        """Newest columns that the mask hides become holes; `ConfigError` where the last one is hidden."""
        if self.index == 0 and not mask[:, -1].all():
            row = int((~mask[:, -1]).int().argmax())
            raise ConfigError(
                f"row {row} of the batch ends in padding, or is nothing else; pad on the left "
                "(tokenizer.padding_side = 'left') and give every row a token"
            )
        hidden = ~mask[:, -new:]
        if new == 1 or not hidden.any():
            return
        columns = self.all_columns().clone()
        columns[:, :, self.used - new :] = columns[:, :, self.used - new :].masked_fill(hidden[:, None], DEAD)
        if self.start is None:
            self.start = mask.int().argmax(1)
        self.living = int((columns != DEAD).sum(2).max())
        self._set_columns(columns, self.store.keys.dtype)

    def _set_columns(self, columns: torch.Tensor, dtype: torch.dtype) -> None:
        """Take columns (B, G, used) for the present slots; those of the next tokens are written beforehand."""
        self._columns = columns
        dead = columns == DEAD
        self._bias = torch.zeros(columns.shape, dtype=dtype, device=columns.device) if dead.any() else None
        if self._bias is not None:
            self._bias.masked_fill_(dead, torch.finfo(dtype).min)
        self._extend(0)

    def _extend(self, new: int) -> None:
        """Columns and bias of slots up to the capacity: those behind the used ones are the columns to come."""
        if self._columns is None or self._columns.shape[2] >= self.used:
            return
        batch, groups, have = self._columns.shape
        room = max(2 * have, self.used)
        first = self.seen - (self.used - have)
        coming = torch.arange(first, first + room - have, dtype=torch.int32, device=self._columns.device)
        self._columns = torch.cat([self._columns, coming.expand(batch, groups, -1)], 2)
        if self._bias is not None:
            self._bias = torch.cat([self._bias, self._bias.new_zeros(batch, groups, room - have)], 2)
