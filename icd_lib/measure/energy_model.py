"""Energy of an access stream, modelled from simulated hits and misses; never a measurement.

Source of the picojoules: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, pp.
10-14, doi:10.1109/ISSCC.2014.6757323: rough energy in 45 nm at 0.9 V of a 64-bit read from a cache of 8 KB (10 pJ),
32 KB (20 pJ) and 1 MB (100 pJ), and from DRAM (1.3-2.6 nJ). These caches follow the square root of the size within
12 %, and so do other sizes here. The absolute value is that of an old chip without its wires; what the model is for is
the ratio between two layouts of one workload.
"""

import math
from collections.abc import Sequence

import numpy as np

from icd_lib.errors import ConfigError
from icd_lib.measure.cache_sim import CacheLevel, LevelCounts
from icd_lib.metric import Figure, figure

WORD_BYTES = 8
CACHE_BYTES = (8 * 1024, 32 * 1024, 1024 * 1024)
CACHE_PJ_PER_WORD = (10.0, 20.0, 100.0)
DRAM_PJ_PER_WORD = 1950.0  # the middle of 1.3-2.6 nJ
METHOD = "reads and line fills of simulated caches times pJ per 64 bits (Horowitz, ISSCC 2014, 45 nm)"


def read_pj(size_bytes: int) -> float:
    """Picojoules of a 64-bit read from a cache of this size: through the cited points on straight lines in log-log,
    outside them along the square root of the size, never more than DRAM.

    >>> [round(read_pj(1024 * size), 6) for size in (2, 8, 32, 1024, 4096, 1024**2)]
    [5.0, 10.0, 20.0, 100.0, 200.0, 1950.0]
    """
    nearest = min(max(size_bytes, CACHE_BYTES[0]), CACHE_BYTES[-1])
    inside = math.exp(np.interp(math.log(nearest), np.log(CACHE_BYTES), np.log(CACHE_PJ_PER_WORD)))
    return min(inside * math.sqrt(size_bytes / nearest), DRAM_PJ_PER_WORD)


def modelled_energy_j(
    counts: Sequence[LevelCounts], levels: Sequence[CacheLevel], *, access_bytes: int = WORD_BYTES
) -> Figure:
    """Figure (J, modelled) of the reads behind `counts`, the result of `simulate_caches` on `levels`.

    Every read takes its `access_bytes` from the first level; every miss of a level fetches one of its lines from the
    next level, or from DRAM: E = a_1 e_1 words + sum_i m_i e_(i+1) line_i / 8. Words count in full. Neither
    instructions nor leakage are in it. Raises `ConfigError` when counts and levels do not belong together.
    """
    names, expected = [count.name for count in counts], [level.name for level in levels]
    if not names or names != expected:
        raise ConfigError(f"counts of {names} do not belong to cache levels {expected}")
    if isinstance(access_bytes, bool) or not isinstance(access_bytes, int | np.integer) or access_bytes < 1:
        raise ConfigError(f"access_bytes is a whole number >= 1, got {access_bytes!r}")
    per_word = [read_pj(level.size_bytes) for level in levels] + [DRAM_PJ_PER_WORD]
    # A read wider than a line was counted once for each of its lines.
    read_words = -(-min(access_bytes, levels[0].line_bytes) // WORD_BYTES)
    picojoules = counts[0].accesses * read_words * per_word[0]
    for count, level, next_pj in zip(counts, levels, per_word[1:], strict=True):
        picojoules += count.misses * -(-level.line_bytes // WORD_BYTES) * next_pj
    return figure(picojoules * 1e-12, "J", "modelled", n=counts[0].accesses, method=METHOD)
