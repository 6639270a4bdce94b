"""Stage 04: the comparisons, controls, determinism and the gates."""

from collections.abc import Callable

from icd_lib.experiment.cost import cost_change, cost_figures
from icd_lib.experiment.verdict import gate_verdicts, judged_figures, latency_sections, outside_metrics
from icd_lib.records.measured import MEASURED, Measured
from icd_lib.records.verdict import VERDICT, Verdict
from icd_lib.run.artifacts import Run
from icd_lib.workloads import make_workload
from icd_lib.workloads.timing import stability


def run_stage(run: Run, progress: Callable[[str], None] = print) -> Verdict:
    """Write verdict.json; returns what it holds, as it is read back."""
    workload, gates = make_workload(run, progress), run.scenario.get("gates")
    report = run.read(Measured, MEASURED)
    samples = run.read_json("measure/samples.json")["shapes"]
    settings = {"seed": workload.get("seed"), "resamples": workload.get("measure.bootstrap")}
    sections = latency_sections(samples, workload.lays_out, **settings)
    workload.claim(sections, report)
    outside, cost = outside_metrics(run, report), cost_change(run)
    verdict = {
        "gates_comparison": gates["comparison"],
        **sections,
        **({"outside_metrics": outside} if outside else {}),
        "cost": cost,
        "stability": stability(samples, report.latency.clocks),
        "badges": run.read_json("setup/setup.json")["badges"],
        **workload.evidence(report),
    }
    lost = sections["vs_dense"]["quality_drop_pp"]
    judged = judged_figures(sections[gates["comparison"]], lost, cost_figures(cost), outside)
    verdicts = gate_verdicts(gates, judged)
    for gate, outcome in verdicts.items():
        progress(f"{gate}: {outcome.status} {outcome.checks}")
    run.write_json(VERDICT, verdict | verdicts | workload.closing(sections, judged))
    return run.read(Verdict, VERDICT)
