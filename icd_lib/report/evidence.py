"""Rows that tables of models and of tables of rows share: comparisons with their tests, stability and power."""

from icd_lib.experiment.comparisons import AA_CONTROL
from icd_lib.metric import Figure
from icd_lib.records.verdict import Unknown
from icd_lib.report.results import Results
from icd_lib.report.table import Verdict
from icd_lib.report.words import value_text

NOTE = (
    "brackets: 95 % CI; p: Wilcoxon signed-rank test over the rounds; r: "
    "rank-biserial effect, -1 = faster in every round; the A/A interval must contain 0 for the others to be believed"
)


def comparison_rows(
    groups: dict[str, dict[str, Figure]], shapes: list[str], what: str = ""
) -> tuple[list[str], list[list]]:
    """Columns and rows of a table of comparisons: per shape the change with its interval, and the test beside it."""
    rows = [
        [name, *(cell for shape in shapes for cell in (figures.get(shape), _test(figures.get(shape))))]
        for name, figures in groups.items()
    ]
    return ["comparison", *(name for shape in shapes for name in (f"{shape}{what}", "test"))], rows


def _test(item: Figure | None) -> str:
    if item is None or item.test is None:
        return "–"
    p = "p < 0.001" if item.test.p < 0.001 else f"p = {item.test.p:.3f}"
    return f"{p}, r = {item.test.effect:+.2f}".replace("-", "−")


def control_rows(results: Results, place: str, again: str) -> list[list]:
    """The A/A control by shape (`place`: where, of a shape), determinism (`again`: of W), stability, the objective."""
    verdict, rows = results.verdict, []
    for shape, holds in (verdict.section(AA_CONTROL).contains_zero or {}).items():
        words = "contains 0" if holds else "excludes 0: differences this small are not to be believed"
        name = f"A/A control{place.format(shape)}"
        rows.append([name, Verdict("pass" if holds else "fail"), f"the interval {words}"])
    determinism = verdict.determinism
    if isinstance(determinism, Unknown):
        rows.append(["determinism", Verdict("not_measured"), determinism.reason])
    else:
        for equal, name in ((determinism.pi_hash_equal, "π solved again"), (determinism.w_hash_equal, again)):
            rows.append([name, Verdict("pass" if equal else "fail"), "equal" if equal else "DIFFERS"])
        rows.append(["drift of J between the two solves", "", f"{determinism.max_metric_drift_rel:.1e} relative"])
    rows += stability_rows(results)
    cost = verdict.cost
    if not isinstance(cost, Unknown):
        change = f"ΔC {value_text(cost.delta_c_rel, 'fraction')}, ΔQ {cost.delta_q:+.4f}, ΔJ {cost.delta_j:+.4f}"
        rows.append(["objective, π₀ → π₁ on W′ (modelled)", "", change.replace("-", "−")])
    return rows


def stability_rows(results: Results) -> list[list]:
    """Drift of the dense arm within the run, and what the rounds could have detected."""
    rows, stability = [], results.verdict.stability
    if stability:
        fixed = f"fixed clocks, {stability.clocks.how}" if stability.clocks.how else "fixed clocks"
        clocks = fixed if stability.clocks.locked else f"unlocked, {stability.clocks.reason}"
        drift, allowed = value_text(stability.latency_drift_rel, "fraction"), 100 * stability.tolerance_rel
        words = f"{drift} between the halves of the rounds (≤ {allowed:.0f} %: {clocks})"
        rows.append(["drift of the dense arm", Verdict("pass" if stability.within else "fail"), words])
    for shape, taken in results.measure.latency.taken.items():
        power = taken.power
        smallest = max(power.detectable.values(), default=0.0)
        enough = power.needed <= power.rounds
        words = f"{power.rounds} rounds ({power.planned} planned, at most {power.cap}) detect {smallest:.1%}"
        words += f" with power {power.power:g}; {power.effect:.1%} asked for, which takes {power.needed}"
        rows.append([f"power at {shape}", Verdict("pass" if enough else "fail"), words])
    return rows
