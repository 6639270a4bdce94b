"""The cache simulator: against a plain reference, against cachegrind and pycachesim, and its invariants."""

import shutil
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.errors import ConfigError, MeasureError, ResourceError
from icd_lib.measure.cache_sim import TYPICAL_CACHES, CacheLevel, machine_caches, simulate_caches

WALK = Path(__file__).with_name("cachegrind_walk.c")
TABLE_BYTES = 1 << 22
SMALL = (CacheLevel("L1d", 32 * 1024, 64, 8), CacheLevel("L2", 1024 * 1024, 64, 16))
LARGE = (CacheLevel("L1d", 48 * 1024, 64, 12), CacheLevel("L2", 2048 * 1024, 64, 16))
# (levels, walk arguments, misses of both levels): what cachegrind of valgrind 3.19.0 counted on the line marked READ
# of cachegrind_walk.c, and pycachesim 0.3.1 on the same addresses. The tests below ask them again where they are
# installed.
RECORDED = [
    (SMALL, (1, 20000, 4096, 3000, 16), (11261, 4885)),
    (SMALL, (7, 60000, 1000, 500, 32), (37669, 30674)),
    (SMALL, (3, 50000, 64, 64, 64), (31481, 25730)),
    (LARGE, (1, 60000, 2048, 6000, 16), (5120, 4608)),
    (LARGE, (5, 80000, 8192, 20000, 64), (72618, 29866)),
]


def walk_addresses(seed: int, reads: int, rows: int, burst: int, row_bytes: int) -> list[int]:
    """The addresses that cachegrind_walk.c reads, from the start of its table."""
    addresses, state, block = [], seed, 0
    for n in range(reads):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        if n % burst == 0:
            block = (state >> 33) % (TABLE_BYTES // (rows * row_bytes))
        addresses.append((block * rows + (state >> 40) % rows) * row_bytes)
    return addresses


def simulate_ref(addresses, levels, access_bytes=1) -> list[tuple[int, int]]:
    """(hits, misses) of each level, from the definition: sets of ordered dictionaries, oldest first."""
    caches = [[OrderedDict() for _ in range(level.sets)] for level in levels]
    counts = [[0, 0] for _ in levels]
    for address in addresses:
        line_bytes = levels[0].line_bytes
        for touched in range(address // line_bytes, (address + access_bytes - 1) // line_bytes + 1):
            for level, sets, count in zip(levels, caches, counts, strict=True):
                line = touched * line_bytes // level.line_bytes
                places = sets[line % level.sets]
                hit = line in places
                places[line] = True
                places.move_to_end(line)
                if len(places) > level.ways:
                    places.popitem(last=False)
                count[0 if hit else 1] += 1
                if hit:
                    break
    return [tuple(count) for count in counts]


def counted(addresses, levels, **settings) -> list[tuple[int, int]]:
    return [(c.hits, c.misses) for c in simulate_caches(np.array(addresses, dtype=np.int64), levels, **settings)]


@st.composite
def hierarchies(draw):
    """One to three levels of any shape, line sizes not falling, numbers of sets not only powers of two."""
    levels, line = [], 8
    for name in ("L1d", "L2", "L3")[: draw(st.integers(1, 3))]:
        line *= draw(st.sampled_from([1, 2]))
        ways, sets = draw(st.integers(1, 5)), draw(st.integers(1, 7))
        levels.append(CacheLevel(name, line * ways * sets, line, ways))
    return levels


@settings(max_examples=150, deadline=None)
@given(
    levels=hierarchies(),
    addresses=st.lists(st.integers(0, 700), max_size=300),
    access_bytes=st.sampled_from([1, 4, 16, 40]),
)
def test_counts_are_those_of_the_reference(levels, addresses, access_bytes):
    assert counted(addresses, levels, access_bytes=access_bytes) == simulate_ref(addresses, levels, access_bytes)


@pytest.mark.parametrize(("levels", "arguments", "misses"), RECORDED)
def test_counts_are_those_cachegrind_recorded(levels, arguments, misses):
    first, second = simulate_caches(walk_addresses(*arguments), levels)
    assert (first.misses, second.misses) == misses
    assert first.accesses == arguments[1] and second.accesses == first.misses


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if shutil.which("valgrind") is None or compiler is None:
        pytest.skip("needs valgrind and a C compiler; the recorded counts are tested above")
    program = tmp_path_factory.mktemp("walk") / "walk"
    subprocess.run([compiler, "-g", "-O2", "-o", program, WALK], check=True)
    return program


@pytest.mark.parametrize(("levels", "arguments", "misses"), RECORDED)
def test_cachegrind_counts_the_same_here(walk, tmp_path, levels, arguments, misses):
    geometry = [f"{lv.size_bytes},{lv.ways},{lv.line_bytes}" for lv in levels]
    found = tmp_path / "cachegrind.out"
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", f"--cachegrind-out-file={found}"]
    subprocess.run(
        [*valgrind, f"--D1={geometry[0]}", f"--LL={geometry[1]}", walk, *map(str, arguments)],
        check=True,
        capture_output=True,
    )
    events = next(line for line in found.read_text().splitlines() if line.startswith("events:")).split()[1:]
    row = dict(zip(events, read_line_of_main(found.read_text()), strict=True))
    assert (row["Dr"], row["D1mr"], row["DLmr"]) == (arguments[1], *misses)


def read_line_of_main(text: str) -> list[int]:
    """What cachegrind counted on the line marked READ."""
    number = 1 + next(i for i, line in enumerate(WALK.read_text().splitlines()) if "/* READ */" in line)
    in_main = text.split("fn=main\n")[1].split("fl=")[0].splitlines()
    return [int(cell) for line in in_main for cell in line.split()[1:] if line.split()[0] == str(number)]


@pytest.mark.parametrize(("levels", "arguments", "misses"), RECORDED)
def test_pycachesim_counts_the_same_here(levels, arguments, misses):
    cachesim = pytest.importorskip("cachesim", reason="needs pycachesim; the recorded counts are tested above")
    memory, outer = cachesim.MainMemory(), None
    for level in reversed(levels):
        outer = cachesim.Cache(
            level.name, level.sets, level.ways, level.line_bytes, "LRU", store_to=outer, load_from=outer
        )
        if level is levels[-1]:
            memory.load_to(outer)
            memory.store_from(outer)
    simulator = cachesim.CacheSimulator(outer, memory)
    for address in walk_addresses(*arguments):
        simulator.load(address)
    assert tuple(level["MISS_count"] for level in list(simulator.stats())[:2]) == misses


@settings(max_examples=60, deadline=None)
@given(addresses=st.lists(st.integers(0, 4000), min_size=1, max_size=400), ways=st.integers(1, 40))
def test_a_larger_fully_associative_cache_never_has_fewer_hits(addresses, ways):
    smaller, larger = (counted(addresses, [CacheLevel("L1d", 64 * n, 64, n)])[0] for n in (ways, ways + 1))
    assert larger[0] >= smaller[0]
    assert sum(smaller) == sum(larger) == len(addresses)


def test_every_level_is_asked_for_the_misses_of_the_one_before():
    addresses = np.random.default_rng(0).integers(0, 4 << 20, size=50_000)
    levels = [*LARGE, CacheLevel("L3", 6000 * 16 * 64, 64, 16)]
    counts = simulate_caches(addresses, levels)
    assert [count.accesses for count in counts] == [50_000, counts[0].misses, counts[1].misses]
    assert counts[2].misses == len(np.unique(addresses // 64))  # larger than what is touched: only first touches miss


def test_a_read_over_two_lines_counts_for_both():
    assert counted([60], SMALL, access_bytes=8) == [(0, 2), (0, 2)]
    assert counted([60, 56], SMALL, access_bytes=8) == [(1, 2), (0, 2)]


def test_no_reads_are_no_counts():
    first, _ = simulate_caches(np.zeros(0, dtype=np.int64), SMALL)
    assert (first.hits, first.misses, first.hit_pct) == (0, 0, None)


def test_unusable_input_is_refused():
    with pytest.raises(MeasureError, match="address 1 is -64"):
        simulate_caches(np.array([0, -64]), SMALL)
    with pytest.raises(MeasureError, match="float64"):
        simulate_caches(np.array([0.5]), SMALL)
    with pytest.raises(ConfigError, match="at least one"):
        simulate_caches(np.array([0]), [])
    with pytest.raises(ConfigError, match="access_bytes"):
        simulate_caches(np.array([0]), SMALL, access_bytes=0)
    with pytest.raises(ConfigError, match=r"\[64, 32\]"):
        simulate_caches(np.array([0]), [CacheLevel("L1d", 1024, 64, 2), CacheLevel("L2", 2048, 32, 2)])


@pytest.mark.parametrize(
    ("geometry", "word"),
    [((1000, 64, 8), "1000 bytes"), ((1024, 48, 2), "power of two"), ((1024, 64, 0), "ways"), ((1e3, 64, 2), "1000.0")],
)
def test_an_impossible_cache_is_refused(geometry, word):
    with pytest.raises(ConfigError, match=word):
        CacheLevel("L1d", *geometry)


def make_sysfs(root: Path, caches: list[dict]) -> Path:
    for i, cache in enumerate(caches):
        folder = root / f"index{i}"
        folder.mkdir(parents=True)
        for name, value in cache.items():
            (folder / name).write_text(f"{value}\n")
    return root


def sysfs_cache(level, kind, size, ways, line=64) -> dict:
    return {"level": level, "type": kind, "size": size, "ways_of_associativity": ways, "coherency_line_size": line}


def test_the_machines_caches_come_from_sysfs(tmp_path):
    found = machine_caches(
        make_sysfs(
            tmp_path,
            [
                sysfs_cache(1, "Data", "48K", 12),
                sysfs_cache(1, "Instruction", "32K", 8),
                sysfs_cache(2, "Unified", "2048K", 16),
                sysfs_cache(3, "Unified", "480M", 0),
            ],
        )
    )
    assert found[:2] == list(LARGE)
    assert (found[2].sets, found[2].ways) == (1, 480 * 1024 * 1024 // 64)  # 0 ways stand for fully associative


def test_a_machine_that_hides_its_caches_says_so(tmp_path):
    with pytest.raises(ResourceError, match="hides its caches"):
        machine_caches(tmp_path)
    half = sysfs_cache(1, "Data", "48K", 12)
    del half["ways_of_associativity"]
    with pytest.raises(ResourceError, match="ways_of_associativity"):
        machine_caches(make_sysfs(tmp_path / "half", [half]))
    assert [level.name for level in TYPICAL_CACHES] == ["L1d", "L2"]
