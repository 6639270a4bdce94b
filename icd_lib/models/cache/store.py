"""Where the keys and values of one layer lie: slots in whole pages, written in place."""

import torch


def whole_pages(tokens: int, page: int) -> int:
    """Tokens that the pages holding so many have room for.

    >>> whole_pages(17, 16)
    32
    """
    return -(-tokens // page) * page


class FloatStore:
    """Keys and values in the model's own dtype, (B, G, capacity, d) each, capacity in whole pages of `page` tokens.

    The first `used` slots are taken. What lies behind them is zero, so that a masked slot can never spoil a sum.
    room: tokens that the first buffer has room for, so that a length known beforehand never has to grow.
    """

    def __init__(self, page: int, room: int = 0):
        self.page, self.room = page, room
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.held = 0  # slots of the buffers that are taken

    @property
    def used(self) -> int:
        """Slots that are taken."""
        return self.held

    @property
    def coded(self) -> int:
        """Slots, the first ones, that are kept in int8."""
        return 0

    @property
    def capacity(self) -> int:
        """Slots of the float buffers."""
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write (B, G, L, d) behind what is there; a buffer that is full grows to twice its pages."""
        start, stop = self.held, self.held + keys.shape[2]
        self._reserve(stop, keys)
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        self.held = stop

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all slots, (B, G, used, d); views where they lie in float."""
        return self.keys[:, :, : self.held], self.values[:, :, : self.held]

    def scores(self, query: torch.Tensor) -> torch.Tensor:
        """Products of grouped queries (B, G, r, d) with the keys of every slot, (B, G, r, used)."""
        return query @ self.keys[:, :, : self.held].transpose(-1, -2)

    def mix(self, weights: torch.Tensor) -> torch.Tensor:
        """Sum of the values of every slot by weights (B, G, r, used), (B, G, r, d)."""
        return weights @ self.values[:, :, : self.held]

    def replace(self, keys: torch.Tensor, values: torch.Tensor, spare: int = 0) -> None:
        """Hold these (B, G, n, d) instead, in buffers with room for `spare` more tokens."""
        self.keys = self.values = None
        self.held, self.room = 0, keys.shape[2] + spare
        self.append(keys, values)

    @property
    def is_due(self) -> bool:
        """Whether there is something to `settle`."""
        return False

    def settle(self, dead: torch.Tensor | None) -> None:
        """Called when due, after attention has read the newest slots; dead: bool (B, G, used), what nothing reads."""

    def select(self, rows: torch.Tensor) -> None:
        """Keep the batch's `rows` (int64), in that order."""
        if self.keys is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    def drop_last(self, tokens: int) -> None:
        """Free the newest slots."""
        self.keys[:, :, self.held - tokens : self.held] = 0
        self.values[:, :, self.held - tokens : self.held] = 0
        self.held -= tokens

    def page_bytes(self, coded: bool) -> float:
        """Bytes of one page's keys and values of one KV group."""
        return 2.0 * self.page * self.keys.shape[3] * self.keys.element_size()

    def allocated_bytes(self) -> int:
        """Bytes of all buffers, free slots too."""
        return 0 if self.keys is None else 2 * self.keys.numel() * self.keys.element_size()

    def _reserve(self, slots: int, like: torch.Tensor) -> None:
        """Room for so many slots in the float buffers."""
        if self.keys is not None and self.capacity >= slots:
            return
        batch, groups, _, size = like.shape
        capacity = whole_pages(max(slots, 2 * self.capacity, self.room, 1), self.page)
        for name in ("keys", "values"):
            grown, old = like.new_zeros(batch, groups, capacity, size), getattr(self, name)
            if self.held:
                grown[:, :, : self.held] = old[:, :, : self.held]
            setattr(self, name, grown)
