"""A table laid out by a permutation, its access stream, and one compiled pass over both."""

import contextlib
import mmap
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from icd_lib.axes.permutation import check_permutation
from icd_lib.errors import AxisError, ConfigError
from icd_lib.graph.events import Events

WORD_BYTES = 8
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: a bijection modulo 2^64


@dataclass(frozen=True)
class TableWorkload:
    """A table of `events.size` rows of `row_bytes` bytes, read by `events`: each gathers its rows and adds them up.

    chained: a read begins when the one before it is done, as in a walk over linked records or a chain of look-ups,
    so its latency shows. Otherwise the processor overlaps reads, and a row in the second level costs hardly more
    than one in the first.
    """

    events: Events
    row_bytes: int = 16
    chained: bool = True

    def __post_init__(self):
        wrong = isinstance(self.row_bytes, bool) or not isinstance(self.row_bytes, int | np.integer)
        if wrong or self.row_bytes < WORD_BYTES or self.row_bytes % WORD_BYTES:
            raise ConfigError(f"row_bytes is a positive multiple of {WORD_BYTES}, got {self.row_bytes!r}")
        if not isinstance(self.chained, bool):
            raise ConfigError(f"chained is true or false, got {self.chained!r}")

    def keep(self, alive: np.ndarray) -> "TableWorkload":
        """The same workload without the accesses to dead elements: what is left to do after a transform."""
        return replace(self, events=self.events.keep(alive))


def place_rows(pi, alive, g: int) -> tuple[np.ndarray, int]:
    """Row of each old element in the compacted table (int64 (D,), -1 = removed), and the number of rows.

    pi int (D,), pi[new_position] = old_index; alive bool (D,) in old order. Elements keep pi's order; tiles of g
    positions that are wholly dead are dropped, dead elements of a surviving tile keep their place.
    Raises `AxisError` on a bad permutation or mask, `ConfigError` on a bad g.

    >>> place_rows(np.array([3, 2, 1, 0]), np.array([True, False, False, False]), 2)
    (array([ 1,  0, -1, -1]), 2)
    """
    mask = np.asarray(alive)
    if mask.ndim != 1 or mask.dtype != bool:
        raise AxisError(f"alive is a 1-D bool array, got {mask.dtype} of shape {mask.shape}")
    if isinstance(g, bool) or not isinstance(g, int | np.integer) or g < 1:
        raise ConfigError(f"g, the elements per tile, is a whole number >= 1, got {g!r}")
    order = check_permutation(pi, len(mask))
    by_position = mask[order]
    tiles = np.add.reduceat(by_position, np.arange(0, len(order), g)) > 0 if len(order) else np.zeros(0, dtype=bool)
    present = np.repeat(tiles, g)[: len(order)]
    rows = np.full(len(order), -1, dtype=np.int64)
    rows[order[present]] = np.arange(np.count_nonzero(present))
    return rows, int(np.count_nonzero(present))


def row_stream(workload: TableWorkload, rows: np.ndarray) -> np.ndarray:
    """Row number of every access, int64 (n,); `AxisError` when an access is to an element without a row."""
    rows = np.asarray(rows)
    if rows.shape != (workload.events.size,) or not np.issubdtype(rows.dtype, np.integer):
        raise AxisError(
            f"rows are {workload.events.size} whole numbers, one per element, got {rows.dtype} of shape {rows.shape}; "
            "make them with place_rows"
        )
    stream = rows[workload.events.ids].astype(np.int64, copy=False)
    if len(stream) and stream.min() < 0:
        lost = int(workload.events.ids[np.argmax(stream < 0)])
        raise AxisError(f"element {lost} is accessed but has no row; drop its accesses first with workload.keep(alive)")
    return stream


def address_stream(workload: TableWorkload, rows: np.ndarray) -> np.ndarray:
    """Byte address of every access, int64 (n,), in order; the table begins at address 0, the start of a line."""
    return row_stream(workload, rows) * workload.row_bytes


class TableRunner:
    """The table of a layout in memory and one compiled pass over it.

    `runner()` reads every row of every event and returns a checksum that depends on the workload alone, not on the
    layout, exactly: all arithmetic is on whole numbers modulo 2^64.
    """

    def __init__(self, workload: TableWorkload, rows: np.ndarray):
        """rows int (D,): row of each element, -1 = none (from `place_rows`). Raises `AxisError` on unusable rows."""
        stream = row_stream(workload, rows)
        rows = np.asarray(rows, dtype=np.int64)
        words = workload.row_bytes // WORD_BYTES
        self.rows = int(rows.max(initial=-1)) + 1
        self.table_bytes = self.rows * workload.row_bytes
        table = _own_pages(self.rows * words)
        present = np.flatnonzero(rows >= 0)
        table.reshape(self.rows, words)[rows[present]] = row_contents(present, words)
        self._pass = walk_rows if workload.chained else gather_rows
        self._arguments = (table, np.uint64(words), stream.astype(np.uint32), workload.events.offsets, np.uint64(0))
        self()  # compiles, and touches every page

    def __call__(self) -> float:
        # 53 bits are what a float holds exactly.
        return float(int(self._pass(*self._arguments)) >> 11)


def row_contents(elements: np.ndarray, words: int) -> np.ndarray:
    """What the rows of these elements hold, uint64 (len(elements), words): splitmix64 of (element, word)."""
    mixed = elements.astype(np.uint64)[:, None] * np.uint64(words) + np.arange(1, words + 1, dtype=np.uint64)
    mixed = mixed * MIX
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@njit(cache=True)
def gather_rows(table, words, stream, offsets, zero):
    """Add up the rows of each event and mix the sums in order: a checksum, uint64. `zero` is not used.

    table uint64 (rows * words,); stream uint32, the row of every access; offsets int64, where the events begin.
    """
    checksum = np.uint64(0)
    for event in range(len(offsets) - 1):
        total = checksum
        for access in range(offsets[event], offsets[event + 1]):
            start = stream[access] * words
            row = np.uint64(0)
            for word in range(words):
                row += table[start + word]
            total += row
        checksum = total * MIX
    return checksum


@njit(cache=True)
def walk_rows(table, words, stream, offsets, zero):
    """`gather_rows`, the same checksum, each address waiting for the read before it.

    zero: 0. The compiler does not know, so the sum so far, masked by it, is a part of every address.
    """
    checksum = np.uint64(0)
    for event in range(len(offsets) - 1):
        total = checksum
        for access in range(offsets[event], offsets[event + 1]):
            start = stream[access] * words + (total & zero)
            row = np.uint64(0)
            for word in range(words):
                row += table[start + word]
            total += row
        checksum = total * MIX
    return checksum


def _own_pages(count: int) -> np.ndarray:
    """uint64 zeros (count,) in ordinary pages of their own, from the start of one: tiles of the layout are cache lines.

    Huge pages are declined: an allocator hands them out by size and by luck, so that one layout's table would get
    them and another's not.
    """
    pages = mmap.mmap(-1, max(1, count) * WORD_BYTES)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # EINVAL where the kernel has no huge pages to decline.
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=np.uint64)[:count]
