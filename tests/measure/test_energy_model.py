"""The energy model: the cited points, a stream added up by hand, and what it refuses."""

import pytest

from icd_lib.errors import ConfigError
from icd_lib.measure.cache_sim import CacheLevel, LevelCounts
from icd_lib.measure.energy_model import DRAM_PJ_PER_WORD, modelled_energy_j, read_pj

LEVELS = [CacheLevel("L1d", 32 * 1024, 64, 8), CacheLevel("L2", 1024 * 1024, 64, 16)]
COUNTS = [LevelCounts("L1d", 70, 30), LevelCounts("L2", 25, 5)]


def test_cited_sizes_cost_what_the_source_says():
    assert [read_pj(kb * 1024) for kb in (8, 32, 1024)] == pytest.approx([10, 20, 100])


def test_larger_caches_cost_more_but_never_more_than_dram():
    costs = [read_pj(1024 * 2**i) for i in range(20)]
    assert all(a < b or b == DRAM_PJ_PER_WORD for a, b in zip(costs, costs[1:], strict=False))
    assert costs[-1] == DRAM_PJ_PER_WORD


def test_energy_adds_up_by_hand():
    # 100 reads of two words from L1, 30 lines of eight words from L2, 5 from DRAM.
    picojoules = 100 * 2 * 20 + 30 * 8 * 100 + 5 * 8 * 1950
    found = modelled_energy_j(COUNTS, LEVELS, access_bytes=16)
    assert found.value == pytest.approx(picojoules * 1e-12)
    assert (found.kind, found.unit, found.n) == ("modelled", "J", 100)
    assert "Horowitz" in found.method


def test_a_read_of_several_lines_pays_each_line_once():
    wide = modelled_energy_j(COUNTS, LEVELS, access_bytes=256).value
    assert wide == modelled_energy_j(COUNTS, LEVELS, access_bytes=64).value


def test_a_miss_turned_into_a_hit_saves_energy():
    better = [LevelCounts("L1d", 71, 29), LevelCounts("L2", 24, 5)]
    saved = modelled_energy_j(COUNTS, LEVELS).value - modelled_energy_j(better, LEVELS).value
    assert saved == pytest.approx(8 * 100 * 1e-12)


def test_counts_of_other_levels_are_refused():
    with pytest.raises(ConfigError, match="do not belong"):
        modelled_energy_j(COUNTS[:1], LEVELS)
    with pytest.raises(ConfigError, match="do not belong"):
        modelled_energy_j([], [])
    with pytest.raises(ConfigError, match="access_bytes"):
        modelled_energy_j(COUNTS, LEVELS, access_bytes=0)
