"""Rows that tables of models and of tables of rows share: comparisons with their tests, stability and power."""

from icd_lib.report.results import Results
from icd_lib.report.table import Verdict
from icd_lib.report.words import value_text

NOTE = (
    "brackets: 95 % CI; p: Wilcoxon signed-rank test over the rounds; r: "
    "rank-biserial effect, -1 = faster in every round; the A/A interval must contain 0 for the others to be believed"
)


def comparison_rows(groups: dict[str, dict], shapes: list[str], what: str = "") -> tuple[list[str], list[list]]:
    """Columns and rows of a table of comparisons: per shape the change with its interval, and the test beside it."""
    rows = [
        [name, *(cell for shape in shapes for cell in (found.get(shape), _test(found.get(shape))))]
        for name, found in groups.items()
    ]
    return ["comparison", *(name for shape in shapes for name in (f"{shape}{what}", "test"))], rows


def _test(item: dict | None) -> str:
    found = (item or {}).get("test")
    if not found:
        return "–"
    p = "p < 0.001" if found["p"] < 0.001 else f"p = {found['p']:.3f}"
    return f"{p}, r = {found['effect']:+.2f}".replace("-", "−")


def stability_rows(results: Results) -> list[list]:
    """Drift of the dense arm within the run, and what the rounds could have detected."""
    rows, found = [], results.verdict.get("stability")
    if found:
        clocks = "fixed clocks" if found["clocks"]["locked"] else f"unlocked, {found['clocks']['reason']}"
        drift, allowed = value_text(found["latency_drift_rel"], "fraction"), 100 * found["tolerance_rel"]
        words = f"{drift} between the halves of the rounds (≤ {allowed:.0f} %: {clocks})"
        rows.append(["drift of the dense arm", Verdict("pass" if found["within"] else "fail"), words])
    for shape, taken in results.measure["latency"].get("taken", {}).items():
        power = taken["power"]
        smallest = max(power["detectable"].values(), default=0.0)
        enough = power["needed"] <= power["rounds"]
        words = f"{power['rounds']} rounds ({power['planned']} planned, at most {power['cap']}) detect {smallest:.1%}"
        words += f" with power {power['power']:g}; {power['effect']:.1%} asked for, which takes {power['needed']}"
        rows.append([f"power at {shape}", Verdict("pass" if enough else "fail"), words])
    return rows
