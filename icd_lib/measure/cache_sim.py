"""Cache hits and misses of an address stream, simulated: set-associative LRU levels, one behind the other.

The semantics are those of valgrind's cachegrind: a line is looked up in the first level, on a miss in the next, and
fetched into every level on its way (inclusive, look-through); a level replaces its least recently used line; reads
only. Lines evicted from an outer level are not called back from an inner one, and there is no prefetcher.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from icd_lib.errors import ConfigError, MeasureError, ResourceError

_CPU0_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_SUFFIX = {"K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class CacheLevel:
    """One cache: `size_bytes` in lines of `line_bytes`, each of which has `ways` places it may be in."""

    name: str
    size_bytes: int
    line_bytes: int
    ways: int

    def __post_init__(self):
        for field in ("size_bytes", "line_bytes", "ways"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ConfigError(f"{field} of cache {self.name!r} is a whole number >= 1, got {value!r}")
        if self.line_bytes & (self.line_bytes - 1):
            raise ConfigError(f"line_bytes of cache {self.name!r} is a power of two, got {self.line_bytes}")
        if self.size_bytes % (self.line_bytes * self.ways):
            raise ConfigError(
                f"cache {self.name!r} of {self.size_bytes} bytes does not split into sets of {self.ways} lines of "
                f"{self.line_bytes} bytes"
            )

    @property
    def sets(self) -> int:
        """Number of sets; a line is in set (address // line_bytes) mod sets."""
        return self.size_bytes // (self.line_bytes * self.ways)


# A common core (32 KiB and 8 ways, 1 MiB and 16 ways), for machines that hide theirs; say so where it is used.
TYPICAL_CACHES = (CacheLevel("L1d", 32 * 1024, 64, 8), CacheLevel("L2", 1024 * 1024, 64, 16))


@dataclass(frozen=True)
class LevelCounts:
    """Look-ups of one level; the next level's hits + misses are this level's misses."""

    name: str
    hits: int
    misses: int

    @property
    def accesses(self) -> int:
        return self.hits + self.misses

    @property
    def hit_pct(self) -> float | None:
        """Hits in percent of this level's look-ups, None without any."""
        return 100 * self.hits / self.accesses if self.accesses else None


def machine_caches(root: Path = _CPU0_CACHE) -> list[CacheLevel]:
    """Data and unified caches of CPU 0, innermost first, from sysfs; `ResourceError` when the machine hides them."""
    levels = []
    try:
        for index in sorted(root.glob("index*")):
            kind = _text(index / "type")
            if kind not in ("Data", "Unified"):
                continue
            level = int(_text(index / "level"))
            line, ways = int(_text(index / "coherency_line_size")), int(_text(index / "ways_of_associativity"))
            size = _bytes(_text(index / "size"))
            # sysfs writes 0 ways for a fully associative cache.
            name = f"L{level}d" if kind == "Data" else f"L{level}"
            levels.append((level, CacheLevel(name, size, line, ways or size // line)))
    except (OSError, ValueError, ConfigError) as error:
        raise ResourceError(f"{root} does not describe CPU 0's caches ({error}); give the levels yourself") from error
    if not levels:
        raise ResourceError(f"this machine hides its caches: {root} lists none; give the levels yourself")
    return [cache for _, cache in sorted(levels, key=lambda pair: pair[0])]


def simulate_caches(addresses, levels, *, access_bytes: int = 1) -> list[LevelCounts]:
    """Hits and misses of each level for reads of `access_bytes` bytes at `addresses` (int64 (n,)), in order.

    levels: innermost first, line sizes not falling outwards. All start empty. A read counts once for every line of
    the first level it touches. Exact and deterministic; a few ten million reads a second.
    Raises `MeasureError` on bad addresses, `ConfigError` on bad levels.
    """
    stream, levels = _check_addresses(addresses), list(levels)
    if not levels:
        raise ConfigError("a simulation takes at least one cache level")
    if isinstance(access_bytes, bool) or not isinstance(access_bytes, int | np.integer) or access_bytes < 1:
        raise ConfigError(f"access_bytes is a whole number >= 1, got {access_bytes!r}")
    lines = [level.line_bytes for level in levels]
    if lines != sorted(lines):
        raise ConfigError(f"line sizes do not fall from the first level outwards, got {lines}")
    hits = np.zeros(len(levels), dtype=np.int64)
    misses = np.zeros(len(levels), dtype=np.int64)
    shifts, sets, ways = (
        np.array(column, dtype=np.int64)
        for column in zip(*((lv.line_bytes.bit_length() - 1, lv.sets, lv.ways) for lv in levels), strict=True)
    )
    starts = np.concatenate([[0], np.cumsum(sets * ways)])
    # Tag 0 is an empty place; untouched pages of a large outer level are never allocated.
    tags = np.zeros(int(starts[-1]), dtype=np.int64)
    _simulate(stream, int(access_bytes), shifts, sets, ways, starts, tags, hits, misses)
    return [LevelCounts(lv.name, int(h), int(m)) for lv, h, m in zip(levels, hits, misses, strict=True)]


@njit(cache=True)
def _simulate(addresses, access_bytes, shifts, sets, ways, starts, tags, hits, misses):
    """Walk the stream; the places of a set are kept in order of use, the latest first."""
    for n in range(len(addresses)):
        address = addresses[n]
        first, last = address >> shifts[0], (address + access_bytes - 1) >> shifts[0]
        for line in range(first, last + 1):
            byte = line << shifts[0]
            for level in range(len(shifts)):
                number = byte >> shifts[level]
                start = starts[level] + (number % sets[level]) * ways[level]
                if _touch(tags, start, ways[level], number + 1):
                    hits[level] += 1
                    break
                misses[level] += 1


@njit(cache=True)
def _touch(tags, start, ways, tag):
    """Move `tag` to the front of its set, pushing the others back; whether it was there."""
    carried = tags[start]
    if carried == tag:
        return True
    tags[start] = tag
    for place in range(start + 1, start + ways):
        following = tags[place]
        tags[place] = carried
        if following == tag:
            return True
        carried = following
    return False


def _check_addresses(addresses) -> np.ndarray:
    stream = np.asarray(addresses)
    if stream.ndim != 1 or not np.issubdtype(stream.dtype, np.integer):
        raise MeasureError(f"addresses are a 1-D integer array, got {stream.dtype} of shape {stream.shape}")
    stream = np.ascontiguousarray(stream, dtype=np.int64)
    if len(stream) and stream.min() < 0:
        at = int(np.argmax(stream < 0))
        raise MeasureError(f"address {at} is {int(stream[at])}; addresses are bytes from 0 on")
    return stream


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _bytes(text: str) -> int:
    """Bytes of a sysfs size such as "48K"."""
    return int(text[:-1]) * _SUFFIX[text[-1]] if text[-1:] in _SUFFIX else int(text)
