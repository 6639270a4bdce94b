"""report.csv: one row per figure."""

import csv
import io

from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS
from icd_lib.experiment.metrics import LAYOUT, METRICS
from icd_lib.metric import Figure, Kind, not_measured
from icd_lib.records.losses import DomainLoss, SplitLoss
from icd_lib.records.measured import Timing
from icd_lib.records.verdict import Unknown, Verdict
from icd_lib.report import deployment_steps, generation_rows
from icd_lib.report.compared import latency_of, latency_states, on_pages, other_arm, states_text
from icd_lib.report.losses import METHOD, NEARNESS, READINGS, flagged, lost, lost_in, near, readings
from icd_lib.report.results import Results
from icd_lib.report.table import Flagged
from icd_lib.report.words import bytes_text

COLUMNS = "scenario arm shape metric value unit kind n ci_low ci_high method reason badges".split()
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a text that begins so


def report_csv(results: Results) -> str:
    """Every figure of the measurement, the ladder and the verdict as CSV text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    badges = "; ".join(results.badges)
    for arm, shape, metric, item in figures_of(results):
        low, high = item.ci95 or (None, None)
        row = [results.scenario, arm, shape, metric, item.value, item.unit, item.kind, item.n, low, high]
        writer.writerow([csv_cell(cell) for cell in [*row, item.method, item.reason, badges]])
    return buffer.getvalue()


def csv_cell(value):
    """Nothing for None, and a text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def figures_of(results: Results) -> list[tuple[str, str, str, Figure]]:
    """(arm, shape, metric, figure) of everything measured; arm "a|b" compares a with b."""
    rows = []
    for shape, arms in results.shapes.items():
        for arm, entry in arms.items():
            rows += [(arm, shape, metric, item) for metric, item in _timing(entry).items()]
    if results.measure:
        rows += (_table_sizes(results) if results.is_table else _sizes(results)) + _quality(results)
        rows += deployment_steps.figures(results) + generation_rows.figures(results)
    rows += _calibration(results.calibration or {})
    rows += _ladder(results)
    return rows + (_verdict(results.verdict) if results.verdict else [])


def _timing(entry: Timing) -> dict[str, Figure]:
    return {
        "latency_ms": entry.latency_ms,
        "throughput_tokens_per_s": entry.throughput_tokens_per_s,
        "latency_rel_vs_dense": entry.vs_dense,
    }


def _sizes(results: Results) -> list:
    first = next(iter(results.shapes))
    rows = []
    for arm, entry in results.measure.sizes.items():
        rows.append((arm, first, "peak_memory_mb", entry.peak_memory_mb))
        rows.append((arm, first, "flops", _plain(entry.flops, "FLOP", "counted from shapes", kind="modelled")))
        rows.append((arm, first, "parameter_bytes", _plain(entry.parameter_bytes, "B", "counted")))
        rows += [(arm, first, f"{kind}_tiles", _plain(n, "tiles", "counted")) for kind, n in entry.tiles.items()]
        if arm in results.measure.energy:
            rows.append((arm, first, "energy_j_per_token", results.measure.energy[arm]))
    hits = results.measure.l2_hit_pct
    if isinstance(hits, dict):
        return rows + [(arm, first, "l2_hit_pct", item) for arm, item in hits.items()] + _board(results, first)
    return [*rows, ("all", first, "l2_hit_pct", hits)]


def _board(results: Results, shape: str) -> list:
    """What else a GPU's counters said: bytes of the profiles, idle power, the A/A control of energy."""
    rows = []
    for arm, entry in results.counted.arms.items() if results.counted else ():
        rows += [(arm, shape, key, item) for key, item in entry.figures.items() if key != "l2_hit_pct"]
    if energy := results.board_energy:
        rows += [("all", f"idle {when}", "power_w", item) for when, item in energy.idle_w.items()]
        rows += [("dense_again|dense", shape, "energy_rel", energy.aa_control)] if energy.aa_control else []
    return rows


def _table_sizes(results: Results) -> list:
    """Sizes of every arm's table, and on each stream its simulated hits, counted lines and modelled energy."""
    rows = []
    for arm, entry in results.measure.sizes.items():
        for key, count, unit in (
            ("rows", entry.rows, "rows"),
            ("living_rows", entry.living_rows, "rows"),
            ("dead_rows_kept", entry.dead_rows_kept, "rows"),
            ("tiles", entry.tiles, "tiles"),
            ("parameter_bytes", entry.parameter_bytes, "B"),
        ):
            rows.append((arm, "", key, _plain(count, unit, "counted")))
        rows.append((arm, "", "peak_memory_mb", entry.peak_memory_mb))
    for stream, arms in results.measure.caches.items():
        for arm, figures in arms.items():
            rows += [(arm, f"{stream} events", key, item) for key, item in figures.items()]
    return rows


def _calibration(calibration: dict) -> list:
    """R² and slopes of each target; the pilots themselves are in graph/calibration.json."""
    rows, n = [], len(calibration.get("pilots", ()))
    for target, r2 in calibration.get("r2", {}).items():
        if r2 is None:
            missing = not_measured("1", "it did not vary over the pilots")
            rows.append(("pilots", "", f"r2.{target}", missing))
            continue
        rows.append(("pilots", "", f"r2.{target}", _plain(r2, "1", "ridge, leave-one-out", n, "modelled")))
        rows += [
            ("pilots", "", f"slope.{target}.{term}", _plain(slope, "1", "ridge over the pilots", n, "modelled"))
            for term, slope in calibration["slopes"][target].items()
        ]
    return rows


def _quality(results: Results) -> list:
    """Own quality of every arm and split, and what it loses of every reading: as a whole and in every domain."""
    if results.quality_reason:
        missing = not_measured("%", results.quality_reason)
        return [(arm, "", "quality_pct", missing) for arm in results.arms]
    rows = []
    for split in results.splits:
        dense = results.measure.quality.dense[split]
        whole = _plain(dense.quality_pct, "%", METHOD, dense.n_items)
        rows.append(("dense", "", f"quality_pct.{split}", whole))
        for name, part in dense.domains.items():
            rows.append(("dense", "", f"quality_pct.{split}.{name}", _plain(part.quality_pct, "%", METHOD, part.n)))
    for arm in results.arms:
        for split, entry in results.lost(arm).items():
            own = _plain(entry.own.pct, "%", METHOD, entry.n_items)
            rows += [(arm, "", f"quality_pct.{split}", own), *_losses(arm, split, entry, entry.n_items)]
            for name, part in entry.domains.items():
                rows += _losses(arm, f"{split}.{name}", part, part.n)
    return rows


def _losses(arm: str, where: str, entry: SplitLoss | DomainLoss, n: int) -> list:
    """Rows of one comparison with dense: every reading, and every figure of nearness that there is."""
    items = {f"{reading}_drop_pp.{where}": lost(entry.reading(reading), n) for reading in READINGS}
    items |= {f"{kind}_to_dense.{where}": near(entry, kind, n) for kind in NEARNESS}
    return [(arm, "", metric, item) for metric, item in items.items() if item]


def _ladder(results: Results) -> list:
    if results.ladder is None:
        return []
    rows = []
    for runtime, entry in results.ladder.runtimes.items():
        if not entry.is_measured:
            rows.append(("all", "", f"{runtime}.latency_ms", not_measured("ms", entry.reason)))
            continue
        for shape, part in entry.shapes.items():
            for arm, figures in part.arms.items():
                rows += [(arm, shape, f"{runtime}.{key}", item) for key, item in figures.items()]
    return rows + _rounded(results)


def _rounded(results: Results) -> list:
    """What the arms lose in the fastest runtimes, where they compute with fewer bits and were judged for that."""
    rows = []
    for name, found in results.ladder.judged.items():
        for arm, entry in (found.quality or {}).items():
            rows += _losses(arm, f"{results.judging}.{name}", entry, entry.n_items)
        for split, entry in found.more.items():
            rows += _losses(RESULT, f"{split}.{name}", entry, entry.n_items)
    return rows


def _verdict(verdict: Verdict) -> list:
    rows, present = [], [row for row in COMPARISONS.values() if row.key in verdict.sections]
    for row in present:
        arm = DENSE if row.key == AA_CONTROL else row.arm
        rows += [
            (f"{arm}|{row.other_in_rows}", shape, f"{row.key}.latency_rel", item)
            for shape, item in verdict.sections[row.key].shapes.items()
        ]
    for row in present:
        stated = verdict.sections[row.key].metrics
        rows += [
            (f"{row.arm}|{row.other_in_rows}", "", f"{row.key}.{key}", item)
            for key, item in stated.items()
            if key != "latency_rel"
        ]
    rows += [(RESULT, "", key, item) for key, item in verdict.outside_metrics.items()]
    computed = {key: item for key, item in verdict.judged.items() if METRICS[key].figure_of == LAYOUT}
    return rows + [("π₁|π₀", "", f"cost.{key}", item) for key, item in computed.items()]


def _plain(value, unit: str, method: str, n: int | None = None, kind: Kind = "measured") -> Figure:
    return Figure(value=value, unit=unit, kind=kind, n=n, method=method)


def key_numbers(results: Results) -> list[tuple[str, Figure, str]]:
    """(what, figure, remark) for the index: the few numbers a visitor came for."""
    verdict = results.verdict
    if not verdict:
        return []
    if results.is_table:
        return _table_numbers(results)
    chosen: list[tuple[str, Figure | None, str]]
    chosen = [("latency, iterative vs dense", latency_of(verdict, "vs_dense"), "the untouched model")]
    chosen += _quality_numbers(results)
    for key, states in latency_states(results).items():
        whose = "what the gates judge" if key == results.gates_comparison else "put to the gates' limits"
        remark = f"{whose}: {states_text(states)}" if states else "no gate limits it"
        chosen.append((f"latency, iterative vs {other_arm(results, key)}", latency_of(verdict, key), remark))
    if results.fastest:
        remark = f"against dense in eager; {lost_in(results, results.fastest)}"
        chosen.append((f"fastest here: iterative in {results.fastest.label}", results.fastest.vs_eager, remark))
    sizes = results.measure.sizes if results.measure else {}
    if "iterative" in sizes:
        share = sizes["iterative"].parameter_bytes / sizes["dense"].parameter_bytes - 1
        left, full = (bytes_text(sizes[arm].parameter_bytes) for arm in ("iterative", "dense"))
        chosen.append(("parameters, iterative vs dense", _plain(share, "fraction", "counted"), f"{left} of {full}"))
    return [(what, item, remark) for what, item, remark in chosen if item]


def _quality_numbers(results: Results) -> list[tuple[str, Figure | None, str]]:
    """Own and drop-in loss of iterative on every split, and whether that is outside what the budget is for."""
    quality = results.verdict.quality
    if isinstance(quality, Unknown):
        return [("quality lost against dense", results.verdict.section("vs_dense").lost, "")]
    words, numbers = readings(results), []
    for split in (split for split in results.splits if split in quality):
        for reading in (reading for reading in ("own", "dropin") if reading in words):
            item = quality[split].reading(reading)
            flag = flagged(results, split, reading, item)
            remark = flag.words if isinstance(flag, Flagged) else "positive = worse"
            numbers.append((f"{words[reading]} lost, {split} text", item, remark))
    return numbers


def _table_numbers(results: Results) -> list[tuple[str, Figure, str]]:
    verdict, same = results.verdict, "same_quality"
    linear, packed, oneshot = (verdict.section(key) for key in (same, "vs_packed", "vs_oneshot"))
    chosen = [
        (same, "latency, iterative vs linear", linear.latency_rel, "one transform, unseen events"),
        ("vs_packed", "latency, iterative vs compaction alone", packed.latency_rel, "what π₁ adds to packing"),
        ("vs_oneshot", "latency, iterative vs oneshot", oneshot.latency_rel, "removal in the original order"),
        ("", "C, π₁ vs π₀", verdict.judged.get("delta_c_rel"), "on the surviving accesses, computed"),
        (same, "L2 hit rate, iterative vs linear", linear.l2_pp, "this machine's caches"),
        (same, "energy, iterative vs linear", linear.ept_rel, "from the simulated hits"),
    ]
    left_out = verdict.sections.keys() - {row.key for row in on_pages(results)}
    return [(what, item, remark) for key, what, item, remark in chosen if item and key not in left_out]
