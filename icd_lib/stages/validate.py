"""Stage 04: the comparisons, controls, determinism and the gates."""

from collections.abc import Callable

from icd_lib.experiment.cost import cost_change, cost_figures
from icd_lib.experiment.gates import GATES
from icd_lib.experiment.verdict import gate_verdicts, judged_figures, latency_sections, outside_metrics
from icd_lib.run.artifacts import Run
from icd_lib.workloads import make_workload
from icd_lib.workloads.timing import stability


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write verdict.json and return it."""
    workload, gates = make_workload(run, progress), run.scenario.get("gates")
    report = run.read_json("measure/measure.json")
    samples = run.read_json("measure/samples.json")["shapes"]
    settings = {"seed": workload.get("seed"), "resamples": workload.get("measure.bootstrap")}
    sections = latency_sections(samples, workload.lays_out, **settings)
    workload.claim(sections, report)
    verdict = {
        "gates_comparison": gates["comparison"],
        **sections,
        **outside_metrics(run, report),
        "cost": cost_change(run),
        "stability": stability(samples, report["latency"]["clocks"]),
        "badges": run.read_json("setup/setup.json")["badges"],
        **workload.evidence(report),
    }
    judged = judged_figures(verdict, sections["vs_dense"]["quality_drop_pp"], cost_figures(verdict["cost"]))
    verdict |= gate_verdicts(gates, judged)
    for gate in GATES:
        progress(f"{gate}: {verdict[gate]['status']} {verdict[gate]['checks']}")
    verdict |= workload.closing(verdict, judged)
    run.write_json("verdict.json", verdict)
    return verdict
