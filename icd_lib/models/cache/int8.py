"""Keys and values in int8: keys by channel over the tokens of a page, values by token (Liu et al. 2024, KIVI).

Channels of keys differ by their scale, tokens of values do. A page is rounded when it is full and has been read; the
newest tokens, fewer than a page of them, stay in float. Scales are float16, and numbers are rounded by the scale that
is kept. A decoded token's attention reads the codes themselves (`icd_lib.kernels.cached`).
"""

import torch

from icd_lib.kernels.cached import int8_mix, int8_scores
from icd_lib.models.cache.store import FloatStore

LARGEST = 127  # int8 without −128: the grid is symmetric
SCALE_BYTES = 2
_SMALLEST = 2.0**-14  # the least normal float16


def round_keys(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 (..., page, d) and scales float16 (..., 1, d) of whole pages of keys (..., page, d)."""
    return _round(keys, -2)


def round_values(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 (..., page, d) and scales float16 (..., page, 1) of whole pages of values (..., page, d)."""
    return _round(values, -1)


def _round(states: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    wide = states.double() if states.dtype == torch.float64 else states.float()
    scale = (wide.abs().amax(dim, keepdim=True) / LARGEST).clamp(_SMALLEST, torch.finfo(torch.float16).max).half()
    codes = (wide / scale.to(wide.dtype)).round().clamp(-LARGEST, LARGEST)
    return codes.to(torch.int8), scale


class Int8Store(FloatStore):
    """A `FloatStore` whose full pages are int8; the slots of its float buffers come behind them."""

    def __init__(self, page: int, room: int = 0):
        super().__init__(page, room)
        self.pages, self._expected = 0, room // page
        self._key_codes: torch.Tensor | None = None  # (B, G, capacity, page, d)
        self._key_scales: torch.Tensor | None = None  # (B, G, capacity, 1, d)
        self._value_codes: torch.Tensor | None = None
        self._value_scales: torch.Tensor | None = None  # (B, G, capacity, page, 1)

    @property
    def used(self) -> int:
        return self.coded + self.held

    @property
    def coded(self) -> int:
        return self.pages * self.page

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().read()
        if not self.pages:
            return keys, values
        parts = [self._floats(0, self.pages, keys.dtype)]
        return tuple(torch.cat([old, new], 2) for old, new in zip(parts[0], (keys, values), strict=True))

    def scores(self, query: torch.Tensor) -> torch.Tensor:
        if not self.pages:
            return super().scores(query)
        found = int8_scores(query, self._key_codes, self._key_scales, self.pages, self.used)
        found[..., self.coded :] = super().scores(query)
        return found

    def mix(self, weights: torch.Tensor) -> torch.Tensor:
        mixed = super().mix(weights[..., self.coded :])
        if not self.pages:
            return mixed
        return mixed + int8_mix(weights, self._value_codes, self._value_scales, self.pages)

    def replace(self, keys: torch.Tensor, values: torch.Tensor, spare: int = 0) -> None:
        self.pages, self._expected = 0, (keys.shape[2] + spare) // self.page
        super().replace(keys, values, spare)

    @property
    def is_due(self) -> bool:
        return self.held >= self.page

    def settle(self, dead: torch.Tensor | None) -> None:
        """Round the pages that are full; dead slots count as zero, so that they widen no grid."""
        full = self.held // self.page
        stop = full * self.page
        batch, groups, _, size = self.keys.shape
        keys, values = self.keys[:, :, :stop], self.values[:, :, :stop]
        if dead is not None:
            gone = dead[:, :, self.coded : self.coded + stop, None]
            keys, values = keys.masked_fill(gone, 0), values.masked_fill(gone, 0)
        paged = batch, groups, full, self.page, size
        rounded = (*round_keys(keys.reshape(paged)), *round_values(values.reshape(paged)))
        self._write(rounded)
        rest = self.keys[:, :, stop : self.held].clone(), self.values[:, :, stop : self.held].clone()
        self._hold(*rest)

    def select(self, rows: torch.Tensor) -> None:
        super().select(rows)
        for name in _BUFFERS:
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name).index_select(0, rows))

    def page_bytes(self, coded: bool) -> float:
        if not coded:
            return super().page_bytes(False)
        size = self.keys.shape[3]
        return 2.0 * self.page * size + SCALE_BYTES * (size + self.page)

    def allocated_bytes(self) -> int:
        codes = [getattr(self, name) for name in _BUFFERS if getattr(self, name) is not None]
        return super().allocated_bytes() + sum(tensor.numel() * tensor.element_size() for tensor in codes)

    def _hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """The float buffers hold these few; long ones from a prompt are given back."""
        if self.capacity > 2 * self.page:
            self.keys = self.values = None
        else:
            self.keys[:, :, : self.held] = 0
            self.values[:, :, : self.held] = 0
        self.held, self.room = 0, 2 * self.page
        self.append(keys, values)

    def _write(self, rounded: tuple[torch.Tensor, ...]) -> None:
        """Append whole pages: codes and scales of keys, then of values."""
        new = rounded[0].shape[2]
        for name, states in zip(_BUFFERS, rounded, strict=True):
            old = getattr(self, name)
            if not self.pages or old.shape[2] < self.pages + new:
                capacity = max(2 * self.pages, self.pages + new, self._expected)
                grown = states.new_zeros(*states.shape[:2], capacity, *states.shape[3:])
                if self.pages:
                    grown[:, :, : self.pages] = old[:, :, : self.pages]
                setattr(self, name, grown)
            getattr(self, name)[:, :, self.pages : self.pages + new] = states
        self.pages += new

    def _floats(self, first: int, last: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        keys = self._key_codes[:, :, first:last] * self._key_scales[:, :, first:last].to(dtype)
        values = self._value_codes[:, :, first:last] * self._value_scales[:, :, first:last].to(dtype)
        return keys.flatten(2, 3), values.flatten(2, 3)


_BUFFERS = ("_key_codes", "_key_scales", "_value_codes", "_value_scales")
