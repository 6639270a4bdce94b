"""Gates: smoke and strict verdicts, judged on the confidence bound and never on what was not measured."""

from collections.abc import Mapping

from icd_lib.experiment.metrics import AT_MOST, ESTIMATE, EXACT, METRICS, Metric
from icd_lib.metric import Figure
from icd_lib.records.verdict import GateVerdict, State, Status

GATES = ("smoke", "strict")


def judge(gates_cfg: Mapping[str, float | None], figures: Mapping[str, Figure]) -> GateVerdict:
    """Judge each gated metric.

    gates_cfg  metric -> threshold (relative changes as fractions, `_pp` in percentage points); None leaves it out
    figures    metric -> figure (icd_lib.metric); one that is missing counts as not measured

    A check is "pass", "fail" or "not_measured". "At most" metrics are judged on the upper bound of `ci95`, "at least"
    metrics on the lower one. Where the estimate is judged (`quality_drop_pp`), `bounds` says whether its interval
    "excludes_budget", or only the estimate meets it ("point_estimate_only"), or not even that ("exceeds_budget").
    Simulated or modelled figures, and figures without an interval, never pass; exact metrics are the exception, they
    are computed and judged on their value. The status is "fail" if any check fails, else "partial" if any was not
    measured, else "pass". Raises `ConfigError` on an unknown metric.
    """
    checks: dict[str, State] = {}
    bounds, reasons = {}, {}
    for key, threshold in gates_cfg.items():
        metric = METRICS[key]
        if threshold is None:
            continue
        reason = _why_unjudged(metric, figures.get(key))
        if reason:
            checks[key], reasons[key] = "not_measured", reason
            continue
        item, at_most = figures[key], metric.direction == AT_MOST
        low, high = (item.value, item.value) if metric.judged == EXACT else item.ci95
        bound = high if at_most else low
        judged = item.value if metric.judged == ESTIMATE else bound
        passed = judged <= threshold if at_most else judged >= threshold
        checks[key] = "pass" if passed else "fail"
        if metric.judged == ESTIMATE:
            bounds[key] = _bound_word(passed, bound <= threshold)
        if not passed:
            side = {EXACT: "value", ESTIMATE: "estimate"}.get(metric.judged, "95 % bound")
            reasons[key] = f"{side} {judged:+.4g} is not {metric.direction.replace('_', ' ')} {threshold:+.4g}"
    return GateVerdict(status=_status(checks), checks=checks, bounds=bounds, reasons=reasons)


def _why_unjudged(metric: Metric, item: Figure | None) -> str | None:
    """Why a figure cannot be judged, or None when it can."""
    if item is None:
        return f"no figure for {metric.key}"
    if item.is_missing:
        return item.reason
    if metric.judged == EXACT:
        return None
    if item.kind != "measured":
        return f"the figure is {item.kind}, a gate takes measured figures only"
    if item.ci95 is None:
        return "the figure has no 95 % interval to be judged on"
    return None


def _bound_word(passed: bool, bound_passes: bool) -> str:
    if not passed:
        return "exceeds_budget"
    return "excludes_budget" if bound_passes else "point_estimate_only"


def _status(checks: dict[str, State]) -> Status:
    states = set(checks.values())
    if "fail" in states:
        return "fail"
    return "partial" if "not_measured" in states or not states else "pass"
