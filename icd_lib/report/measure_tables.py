"""Tables of what was measured and judged: latency, quality, sizes, controls, attribution, runtimes, gates."""

from icd_lib.axes.kinds import KINDS
from icd_lib.experiment.arms import RESULT
from icd_lib.experiment.comparisons import COMPARISONS
from icd_lib.experiment.gates import GATES
from icd_lib.experiment.metrics import AT_MOST, COMPARED, EXACT, LOST, METRICS, Metric, metrics_of
from icd_lib.records.attempts import Validation
from icd_lib.report import quality_tables, workload_tables
from icd_lib.report.compared import compared, gates_a_prompt, judged, latency_states, on_pages, state_text
from icd_lib.report.evidence import NOTE, comparison_rows, control_rows
from icd_lib.report.kinds import for_tables, models_only
from icd_lib.report.losses import NEARNESS, lost_in, stated
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Table, Verdict, badged
from icd_lib.report.words import bytes_text

_BOUNDS = {
    "excludes_budget": "the whole 95 % interval meets the budget",
    "point_estimate_only": "only the point estimate meets the budget, the interval reaches beyond it",
    "exceeds_budget": "the point estimate exceeds the budget",
}

NOT_JUDGED = Validation(reason="not judged")
NO_QUALITY = "every arm has the same transform: the checksums above prove it"
quality = badged("model")(for_tables(workload_tables.checksums)(quality_tables.side_by_side))
quality_by_domain = badged("model")(models_only("Quality by domain", NO_QUALITY)(quality_tables.by_domain))
quality_by_task = badged("model")(models_only("Quality by task", NO_QUALITY)(quality_tables.by_task))


@badged("timing", "layout")
@for_tables(workload_tables.latency)
def latency(results: Results, shape: str | None = None) -> Table | Missing:
    """Latency, percentiles, throughput and change against dense of every arm at one shape."""
    if not results.shapes:
        return Missing("Latency", "03_measure has not finished")
    shape = shape or next(iter(results.shapes))
    rows = []
    for arm, entry in results.shapes[shape].items():
        ms = entry.latency_ms
        tails = f"{ms.p50:.1f} / {ms.p95:.1f} / {ms.p99:.1f}"
        against = "the reference" if arm == "dense" else entry.vs_dense
        rows.append([arm, ms, tails, against, entry.throughput_tokens_per_s, results.measure.controls.get(arm, "")])
    columns = ["arm", "median latency", "p50 / p95 / p99, ms", "against dense", "throughput", "what it is"]
    note = f"all arms interleaved in one process, {results.measure.latency.threads} threads; brackets: 95 % CI"
    where = results.deployed or "eager fp32"
    return Table(f"Latency at {shape} (batch × tokens), {where}", columns, rows, note)


@badged()
@for_tables(workload_tables.caches)
def sizes(results: Results) -> Table | Missing:
    """Parameters, work, tiles and memory of every arm, energy and L2 or why not."""
    if not results.measure:
        return Missing("Sizes", "03_measure has not finished")
    kinds = list(next(iter(results.measure.sizes.values())).tiles)
    rows = [
        [
            arm,
            bytes_text(entry.parameter_bytes),
            f"{entry.flops / 1e9:.2f} GFLOP",
            *(f"{entry.tiles[kind]:,}" for kind in kinds),
            entry.peak_memory_mb,
            results.measure.energy.get(arm),
            results.measure.hits_of(arm),
        ]
        for arm, entry in results.measure.sizes.items()
    ]
    columns = [
        "arm",
        "parameters",
        "work per batch",
        *(f"{KINDS[kind].words}, tiles" if KINDS[kind].tiled else KINDS[kind].words for kind in kinds),
        "peak memory",
        "energy per token",
        "L2 hit rate",
    ]
    return Table("Sizes, memory and energy", columns, rows, "parameters, work and tiles are counted, not timed")


@badged("timing", "layout")
@for_tables(workload_tables.comparisons)
def comparisons(results: Results) -> Table | Missing:
    """Every comparison of the verdict at every shape, and whether it meets the gates' limits of latency."""
    verdict = results.verdict
    if not verdict:
        return Missing("Comparisons", "04_validate has not finished")
    states = latency_states(results)
    rest = [row.key for row in on_pages(results) if row.key not in states]
    titles = {key: COMPARISONS[key].pairs[results.workload].title for key in (*states, *rest)}
    if gates_a_prompt(results):
        titles[results.gates_comparison] += " (the gates judge this one)"
    groups = {title: verdict.section(key).shapes for key, title in titles.items()}
    shapes = list(verdict.section("vs_dense").shapes)
    columns, rows = comparison_rows(groups, shapes)
    limits = _latency_limits(results)
    for row, key in zip(rows, titles, strict=True):
        row += [_met(states.get(key, {}).get(gate)) for gate in limits]
    columns += [f"{gate}: {limit} at {shapes[0]}" for gate, limit in limits.items()]
    note = f"change of latency, negative = faster; a limit is met when the whole 95 % CI meets it; {NOTE}"
    return Table("Comparisons of latency", columns, rows, note)


def _latency_limits(results: Results) -> dict[str, str]:
    """Gate → its limit of latency in words."""
    limits = {gate: results.config.get("gates", {}).get(gate, {}).get("latency_rel") for gate in GATES}
    return {gate: f"≤ {_threshold(limit, 'fraction')}" for gate, limit in limits.items() if limit is not None}


def _met(state: str | None) -> Verdict | str:
    return Verdict(state, state_text(state)) if state else "–"


@badged("model", "timing", "layout")
def gates(results: Results) -> Table | Missing:
    """Each gate's checks with threshold, figure, verdict and reason."""
    verdict = results.verdict
    if not verdict:
        return Missing("Gates", "04_validate has not finished")
    figures = dict(verdict.section(results.gates_comparison).metrics)
    figures |= {row.key: verdict.section("vs_dense").lost for row in metrics_of(LOST)}
    figures |= verdict.judged | verdict.outside_metrics
    thresholds = results.config.get("gates", {})
    rows = []
    for gate in GATES:
        outcome = verdict.gate(gate)
        rows.append([gate, "all checks", "", "", Verdict(outcome.status), ""])
        for metric, word in outcome.checks.items():
            limit = thresholds.get(gate, {}).get(metric)
            row = METRICS[metric]
            sign = "≤" if row.direction == AT_MOST else "≥"
            why = outcome.reasons.get(metric) or _BOUNDS.get(outcome.bounds.get(metric), "")
            shown = "–" if limit is None else f"{sign} {_threshold(limit, row.unit)}"
            rows.append([gate, _check_name(results, row), shown, figures.get(metric), Verdict(word), why])
    note = f"compared: {judged(results)}; judged on the confidence bound, quality on the point estimate; "
    note += "what was not measured never passes"
    if any(METRICS[metric].judged == EXACT for gate in GATES for metric in verdict.gate(gate).checks):
        note += "; C and Q are computed exactly and judged on their value"
    return Table("Gates", ["gate", "check", "threshold", "figure", "verdict", "why"], rows, note)


def _check_name(results: Results, row: Metric) -> str:
    """What is checked, and between which two or on which text."""
    if row.figure_of == COMPARED:
        return f"{row.title}, {compared(results)}"
    return f"{row.title}, {results.judging} text" if row.figure_of == LOST and not results.is_table else row.title


def _threshold(limit: float, unit: str) -> str:
    if limit == 0:
        return f"0 {'%' if unit == 'fraction' else unit.removeprefix('1')}".strip()
    shown = f"{100 * limit:+g} %" if unit == "fraction" else f"{limit:+g} {unit.removeprefix('1')}".strip()
    return shown.replace("-", "−")


@badged("timing", "layout")
@for_tables(workload_tables.controls)
def controls(results: Results) -> Table | Missing:
    """Equality of functions, determinism and the change of the objective."""
    verdict = results.verdict
    if not verdict:
        return Missing("Controls", "04_validate has not finished")
    errors = verdict.section("same_transform").max_rel_error
    rows = _equality_rows("same transform, two layouts", errors if isinstance(errors, dict) else {}, 1e-10)
    if isinstance(kept := verdict.section("vs_dense").max_rel_error, dict):
        rows += _equality_rows("every arm, the masked model", kept, 1e-5)
    rows += control_rows(results, " at {}", "W built again")
    return Table("Controls", ["control", "verdict", "found"], rows)


def _equality_rows(what: str, errors: dict[str, float], allowed: float) -> list[list]:
    """A row per precision; allowed: in float64."""
    rows = []
    for precision, most in (("float32", 1e-5), ("float64", allowed)):
        error, name = errors.get(precision), f"{what}, {precision}"
        if error is None:
            rows.append([name, Verdict("not_measured"), "no iterative arm"])
        else:
            word = Verdict("pass" if error <= most else "fail")
            rows.append([name, word, f"largest relative error {error:.1e} (≤ {most:.0e})"])
    return rows


@badged("timing", "layout")
@for_tables(workload_tables.attribution)
def attribution(results: Results) -> Table | Missing:
    """Latency and quality after each step from dense to iterative."""
    steps = results.measure.attribution if results.measure else None
    if not steps:
        return Missing("Attribution", "the run has no measured iterative arm")
    rows, kind = [], "perplexity_ratio" if results.is_language else "cosine"
    for step in steps:
        validation = step.validation or NOT_JUDGED
        nearness = validation.perplexity_ratio if results.is_language else validation.cosine
        shown = "–" if nearness is None else f"{nearness:.4f}"
        rows.append([step.step, step.latency_rel, stated(validation) or validation.reason, shown, step.note])
    columns = ["step", "latency against dense", "lost where strengths are chosen", NEARNESS[kind], "note"]
    return Table(
        "What the gain is made of",
        columns,
        rows,
        "compensation and distillation change weights, not shapes: same latency",
    )


@badged("timing")
@models_only("Runtime ladder", "the pass over the table is one compiled loop")
def ladder(results: Results) -> Table | Missing:
    """Every runtime: latency, gain over dense in the same runtime, and distance to eager's output."""
    if not results.ladder:
        return Missing("Runtime ladder", "it was not measured in this run (measure.ladder)")
    rows = []
    for name, entry in results.ladder.runtimes.items():
        if not entry.is_measured:
            rows.append([entry.label, "–", "–", Verdict("not_measured"), entry.reason, "–", "–"])
            continue
        for shape, at_shape in entry.shapes.items():
            for arm, figures in at_shape.arms.items():
                gain, eager = figures.get("vs_baseline", "the reference"), figures.get("vs_eager")
                error = f"{figures['max_abs_error'].value:.1e}"
                taken = results.ladder.at(shape)
                is_fastest = arm == RESULT and taken is not None and taken.runtime == name
                told = f"{arm}, fastest here that holds" if is_fastest else arm
                rows.append([entry.label, shape, told, figures["latency_ms"], gain, eager, error])
    base = results.ladder.baseline
    columns = ["runtime", "shape", "arm", "latency", f"against {base}, same runtime", f"against {base} in eager"]
    note = f"{results.ladder.threads} threads everywhere; error: largest absolute difference to eager fp32, same arm"
    found = results.fastest_by_shape
    for shape, fastest in found.items():
        if fastest:
            where = f" at {shape}" if len(found) > 1 else ""
            note += f"; iterative is fastest{where} in {fastest.label}: {lost_in(results, fastest)}"
    for name, why in results.ladder.refused.items():
        note += f"; faster, but passed over: {name}, {why} (on the text that chooses)"
    return Table("Runtime ladder", [*columns, "output error"], rows, note)
