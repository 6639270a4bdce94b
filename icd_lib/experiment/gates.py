"""Gates: smoke and strict verdicts, judged on the confidence bound and never on what was not measured."""

import difflib

from icd_lib.errors import ConfigError

# metric -> which side of its 95 % interval has to clear the threshold
DIRECTIONS = {
    "latency_rel": "at_most",
    "ept_rel": "at_most",
    "quality_drop_pp": "at_most",
    "l2_pp": "at_least",
    "delta_c_rel": "at_most",
    "delta_q": "at_least",
}
POINT_JUDGED = ("quality_drop_pp",)
EXACT = ("delta_c_rel", "delta_q")  # functions of two layouts and a graph: computed, not sampled


def judge(gates_cfg: dict[str, float], figures: dict[str, dict]) -> dict:
    """Judge each gated metric: {"status", "checks", "bounds", "reasons"}.

    gates_cfg  metric -> threshold (relative changes as fractions, `_pp` in percentage points); None leaves it out
    figures    metric -> figure (icd_lib.metric); one that is missing counts as not measured

    A check is "pass", "fail" or "not_measured". "At most" metrics are judged on the upper bound of `ci95`, "at least"
    metrics on the lower one. `quality_drop_pp` is judged on the point estimate, and `bounds` says whether its interval
    "excludes_budget", or only the estimate meets it ("point_estimate_only"), or not even that ("exceeds_budget").
    Simulated or modelled figures, and figures without an interval, never pass; `EXACT` metrics are the exception, they
    are computed and judged on their value. The status is "fail" if any check fails, else "partial" if any was not
    measured, else "pass". Raises ConfigError on an unknown metric.
    """
    checks, bounds, reasons = {}, {}, {}
    for metric, threshold in gates_cfg.items():
        direction = _direction(metric)
        if threshold is None:
            continue
        reason = _why_unjudged(metric, figures.get(metric))
        if reason:
            checks[metric], reasons[metric] = "not_measured", reason
            continue
        item = figures[metric]
        low, high = (item["value"],) * 2 if metric in EXACT else item["ci95"]
        bound = high if direction == "at_most" else low
        judged = item["value"] if metric in POINT_JUDGED else bound
        passed = judged <= threshold if direction == "at_most" else judged >= threshold
        checks[metric] = "pass" if passed else "fail"
        if metric in POINT_JUDGED:
            bounds[metric] = _bound_word(passed, bound <= threshold)
        if not passed:
            side = "value" if metric in EXACT else "estimate" if metric in POINT_JUDGED else "95 % bound"
            reasons[metric] = f"{side} {judged:+.4g} is not {direction.replace('_', ' ')} {threshold:+.4g}"
    return {"status": _status(checks), "checks": checks, "bounds": bounds, "reasons": reasons}


def _direction(metric: str) -> str:
    if metric not in DIRECTIONS:
        near = difflib.get_close_matches(metric, DIRECTIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no gate for {metric!r}, gates exist for {', '.join(sorted(DIRECTIONS))}{hint}")
    return DIRECTIONS[metric]


def _why_unjudged(metric: str, item: dict | None) -> str | None:
    """Why a figure cannot be judged, or None when it can."""
    if item is None:
        return f"no figure for {metric}"
    if item["kind"] == "not_measured":
        return item.get("reason") or "not measured"
    if metric in EXACT:
        return None
    if item["kind"] != "measured":
        return f"the figure is {item['kind']}, a gate takes measured figures only"
    if item.get("ci95") is None:
        return "the figure has no 95 % interval to be judged on"
    return None


def _bound_word(passed: bool, bound_passes: bool) -> str:
    if not passed:
        return "exceeds_budget"
    return "excludes_budget" if bound_passes else "point_estimate_only"


def _status(checks: dict[str, str]) -> str:
    states = set(checks.values())
    if "fail" in states:
        return "fail"
    return "partial" if "not_measured" in states or not states else "pass"
