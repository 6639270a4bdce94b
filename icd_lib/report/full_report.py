"""report.html: every figure and table of a run on one page."""

from collections.abc import Callable, Iterable
from html import escape

from icd_lib.report import (
    bridge,
    calibration_figures,
    decoding,
    deployment_steps,
    generation,
    gpu_counters,
    graph_figures,
    loop_figures,
    measure_figures,
    measure_tables,
    setup_tables,
)
from icd_lib.report.headline import headline
from icd_lib.report.html import link, page, show
from icd_lib.report.picture import Picture
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing, badges


def draw_all(results: Results, panels: Iterable[Callable] = ()) -> dict[str, Picture | Missing]:
    """Every figure that this kind of run has, by its role; one without data is a `Missing` with its reason.

    panels: what draws the figures of transforms from outside, each called with the results.
    """
    modes = list(results.solves)
    drawn = {
        "domains": measure_figures.quality_domains(results),
        "frontier": measure_figures.quality_frontier(results),
        "latency": measure_figures.latency_distributions(results),
        "access": graph_figures.access_graph(results),
        "kept": loop_figures.kept_widths(results),
        "curves": graph_figures.width_curves(results),
        "sensitivity": graph_figures.sensitivity_map(results),
        "prediction": graph_figures.predicted_frontier(results),
        "predicted_measured": graph_figures.predicted_and_measured(results),
        "attribution": measure_figures.attribution(results),
        "ladder": measure_figures.runtime_ladder(results),
        "caches": measure_figures.cache_hits(results),
        "board": gpu_counters.board_over_time(results),
        "kv_cache": generation.cache_frontier(results),
        "decoding": generation.decode_times(results),
        "throughput": decoding.throughput(results),
        "calibration": calibration_figures.correlations(results),
    }
    drawn |= {f"path_{mode}": loop_figures.loop_path(results, mode) for mode in modes}
    drawn |= {f"panel_{number}": draw(results) for number, draw in enumerate(panels)}
    return {role: item for role, item in drawn.items() if not isinstance(item, DoesNotApply)}


def report_page(results: Results, drawn: dict) -> str:
    """All tables and figures on one page; what does not apply to this kind of run is left out."""
    sections = {
        "Result": [
            measure_tables.gates(results),
            measure_tables.comparisons(results),
            measure_tables.controls(results),
        ],
        "Latency": [
            drawn.get("latency"),
            *(measure_tables.latency(results, shape) for shape in results.shapes or [None]),
        ],
        "Quality": [
            measure_tables.quality(results),
            drawn.get("domains"),
            measure_tables.quality_by_domain(results),
            measure_tables.quality_by_task(results),
            drawn.get("frontier"),
        ],
        "Generating": [
            drawn.get("decoding"),
            generation.decode_table(results),
            drawn.get("throughput"),
            decoding.throughput_table(results),
            decoding.same_tokens_table(results),
            generation.deployed_table(results),
            drawn.get("kv_cache"),
            *(generation.cache_table(results, split) for split in (None, "seen", "selection")),
            generation.lookup_table(results),
            generation.cloze_table(results),
        ],
        "What the gain is made of": [
            drawn.get("attribution"),
            measure_tables.attribution(results),
            deployment_steps.table(results),
        ],
        "What a layout costs": [
            drawn.get("calibration"),
            calibration_figures.fit(results),
            calibration_figures.pilot_table(results),
        ],
        "Prediction": [drawn.get(role) for role in ("prediction", "predicted_measured", "curves", "sensitivity")],
        "Runtimes": [drawn.get("ladder"), measure_tables.ladder(results)],
        "Compilers": [bridge.compiled_table(results), bridge.passes_table(results), bridge.listings(results)],
        "Sizes": [drawn.get("kept"), setup_tables.widths(results), drawn.get("caches"), measure_tables.sizes(results)],
        "Counters": [drawn.get("board"), gpu_counters.counters(results)],
        "Layout": [drawn.get("access"), setup_tables.access_graphs(results)],
    }
    for mode in results.solves:
        sections[f"The path of {mode}"] = [
            drawn.get(f"path_{mode}"),
            setup_tables.attempts(results, mode),
            setup_tables.objective(results, mode),
            setup_tables.certificates(results.solves[mode].certificates, f"Equivalence certificates, {mode}"),
        ]
    sections["Transforms"] = [item for role, item in drawn.items() if role.startswith("panel_")]
    sections["Set-up"] = [
        setup_tables.machine(results),
        setup_tables.provenance(results),
        setup_tables.deployment(results),
    ]
    sections = {
        title: shown
        for title, items in sections.items()
        if (shown := [item for item in items if item is not None and not isinstance(item, DoesNotApply)])
    }
    body = [
        f"<h1>{escape(results.scenario)}: full report</h1>",
        f"<p>{link('index.html', '← all results of this run')}</p>",
    ]
    body.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in headline(results)) + "</ul>")
    body += [f"<h2>{escape(title)}</h2>" + "\n".join(map(show, items)) for title, items in sections.items()]
    return page(f"ICD report: {results.scenario}", "\n".join(body), badges(results))
