"""What layouts of a table workload cost: time measured on this machine, hits simulated, energy modelled."""

from collections.abc import Callable, Sequence

import numpy as np

from icd_lib.errors import ConfigError
from icd_lib.measure.cache_sim import CacheLevel, simulate_caches
from icd_lib.measure.energy_model import modelled_energy_j
from icd_lib.measure.latency import measure_interleaved
from icd_lib.metric import Figure, figure
from icd_lib.workloads.rows.table import TableRunner, TableWorkload, address_stream, place_rows


def simulate_table(workload: TableWorkload, rows: np.ndarray, levels: Sequence[CacheLevel]) -> dict[str, Figure]:
    """Figures of one pass from empty caches: `<level>_hit_pct` of each level (simulated), `energy_j` (modelled).

    `<level>_hit_pct` (l1d_hit_pct, l2_hit_pct, ...) is the share of all reads of the table that this level or one
    before it served, so that it never falls when an inner level takes work off an outer one. The stream of row
    numbers, which is read once from end to end whatever the layout, is left out.
    Raises `ConfigError` when no access is left, and on bad levels.
    """
    if workload.events.accesses == 0:
        raise ConfigError("the workload has no access left; keep some elements alive or add events")
    counts = simulate_caches(address_stream(workload, rows), levels, access_bytes=workload.row_bytes)
    reads = counts[0].accesses
    figures = {
        f"{count.name.lower()}_hit_pct": figure(
            100 * (1 - count.misses / reads),
            "%",
            "simulated",
            n=reads,
            method=f"set-associative LRU from empty, {', '.join(_shape(level) for level in levels[: i + 1])}; share of "
            "all reads of the table served here or nearer",
        )
        for i, count in enumerate(counts)
    }
    return figures | {"energy_j": modelled_energy_j(counts, levels, access_bytes=workload.row_bytes)}


def measure_layouts(
    workload: TableWorkload,
    alive: np.ndarray,
    g: int,
    levels: Sequence[CacheLevel],
    *,
    repeats: int = 15,
    warmup: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Callable[[Sequence[np.ndarray]], list[dict]]:
    """The `measure` of `icd.calibrate` for a table: layouts -> what each costs.

    Accesses to dead elements are dropped, dead tiles of g too. latency_ms: `repeats` samples, all layouts interleaved;
    l1_hit_pct, l2_hit_pct: of the first two of `levels`, as in `simulate_table` (None with one); energy_j: of one pass.
    """
    left = workload.keep(np.asarray(alive))

    def measure(layouts: Sequence[np.ndarray]) -> list[dict]:
        rows = [place_rows(pi, alive, g)[0] for pi in layouts]
        arms = {i: TableRunner(left, row) for i, row in enumerate(rows)}
        samples = measure_interleaved(arms, repeats=repeats, warmup=warmup, seed=seed, progress=progress)
        measured = []
        for i, row in enumerate(rows):
            figures = simulate_table(left, row, levels)
            hits = [figures[f"{level.name.lower()}_hit_pct"].value for level in levels] + [None]
            measured.append(
                {
                    "latency_ms": samples[i].tolist(),
                    "l1_hit_pct": hits[0],
                    "l2_hit_pct": hits[1],
                    "energy_j": figures["energy_j"].value,
                }
            )
        return measured

    return measure


def _shape(level: CacheLevel) -> str:
    return f"{level.name} {level.size_bytes // 1024} KiB/{level.ways}-way"
