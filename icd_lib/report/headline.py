"""The result in plain sentences that never claim more than was measured."""

from icd_lib.report import calibration_figures
from icd_lib.report.results import Results
from icd_lib.report.words import interval_text, number, value_text

_GATE_WORDS = {
    "pass": "met: every check passed",
    "partial": "not decided: nothing failed, but not everything could be measured",
    "fail": "not met",
}
_PLAIN = {
    "latency_rel": "latency",
    "l2_pp": "L2 hit rate",
    "ept_rel": "energy per token",
    "quality_drop_pp": "quality",
    "delta_c_rel": "ΔC",
    "delta_q": "ΔQ",
}
_BOUNDS = {
    "excludes_budget": "the whole interval lies within the budget",
    "point_estimate_only": "only the point estimate meets the budget; the interval reaches beyond it",
    "exceeds_budget": "that exceeds the budget",
}


def headline(results: Results) -> list[str]:
    """Sentences, the most important first."""
    verdict = results.verdict
    if not verdict:
        return [_unfinished(results)]
    if verdict["vs_dense"]["latency_rel"]["kind"] == "not_measured":
        lines = [f"No result for iterative: {verdict['vs_dense']['latency_rel']['reason']}."]
        arms = next(iter(results.shapes.values()), {})
        others = [mode for mode in results.solves if mode in arms]
        lines += [_speed(mode, arms[mode]["vs_dense"], results.reference, results) for mode in others]
    elif results.is_table:
        lines = _table_lines(results)
    else:
        lines = [_speed("iterative", verdict["vs_dense"]["latency_rel"], "the dense model", results), _quality(results)]
        for key, other in (("same_quality", "linear"), ("vs_oneshot", "oneshot")):
            if verdict[key]["latency_rel"]["kind"] != "not_measured":
                lines.append(
                    _speed("iterative", verdict[key]["latency_rel"], f"{other} at the same quality budget", results)
                )
    lines += [
        _nothing_accepted(results, mode) for mode in results.solves if not results.solves[mode]["accepted_strength"]
    ]
    where = "of {} reads" if results.is_table else "at {}"
    lines += [
        f"The A/A control {where.format(shape)} excludes 0: timing differences of that size mean nothing in this run."
        for shape, holds in verdict["aa_control"]["contains_zero"].items()
        if not holds
    ]
    lines += [_gate(name, verdict[name]) for name in ("smoke", "strict")]
    return [line for line in lines if line]


def _unfinished(results: Results) -> str:
    failed = [
        f"{name} {record['status']}"
        for name, record in results.stages.items()
        if record.get("status") in ("failed", "interrupted")
    ]
    if failed:
        return f"This run is not complete: {', '.join(failed)}. What was finished is linked below; nothing was judged."
    return "This run has not been judged yet; what is finished so far is linked below."


def _speed(arm: str, item: dict, other: str, results: Results) -> str:
    low, high = item["ci95"]
    extent = f"95 % CI {interval_text(item)}, n = {item['n']}"
    shown = value_text(abs(item["value"]), "fraction", signed=False)
    if high < 0:
        return f"{arm.capitalize()} takes {shown} less time than {other} ({extent}; {results.first_shape})."
    if low > 0:
        return f"{arm.capitalize()} takes {shown} MORE time than {other} ({extent}; {results.first_shape})."
    return f"No difference in latency between {arm} and {other} was detected ({extent}; {results.first_shape})."


def _table_lines(results: Results) -> list[str]:
    """What a run on a table of rows found: against linear first, since dense also reads what the transform removed."""
    verdict = results.verdict
    others = {
        "same_transform": "linear, with the same transform",
        "vs_packed": "compaction alone (π₀'s order without the dead rows)",
        "vs_oneshot": "oneshot, the original order without the dead rows",
        "vs_dense": "the untouched table, which also reads the rows that died",
    }
    lines = [
        _speed("iterative", verdict[key]["latency_rel"], other, results)
        for key, other in others.items()
        if verdict[key]["latency_rel"]["kind"] != "not_measured"
    ]
    cost = verdict["cost"]
    if "reason" not in cost:
        change = f"C by {value_text(cost['delta_c_rel'], 'fraction')} and Q by {number(cost['delta_q'], True)}"
        lines.insert(1, f"On the accesses that survive, re-permuting changes {change} (computed).")
    lines.append("Every arm with the same living rows has the same checksum; quality is unchanged by construction.")
    if results.calibration:
        lines.append(calibration_figures.verdict(results))
    return lines


def _quality(results: Results) -> str:
    item = results.verdict["vs_dense"]["quality_drop_pp"]
    if item["kind"] == "not_measured":
        return f"Quality was not measured: {item['reason']}."
    bound = results.verdict["strict"].get("bounds", {}).get("quality_drop_pp")
    word = "loses" if item["value"] > 0 else "gains" if item["value"] < 0 else "changes by"
    budget = (
        f" The budget is {results.budget_pp:g} pp: {_BOUNDS[bound]}." if bound and results.budget_pp is not None else ""
    )
    shown = value_text(abs(item["value"]), "pp", signed=False)
    spread = f"SE {item['se_pp']:.3f} pp, " if item.get("se_pp") is not None else ""
    extent = f"{spread}95 % CI of the loss {interval_text(item)}, n = {item['n']:,}"
    return f"On test data it {word} {shown} of accuracy ({extent}).{budget}"


def _nothing_accepted(results: Results, mode: str) -> str:
    attempts = len(results.solves[mode]["attempts"])
    tried = f"{attempts} attempt was" if attempts == 1 else f"{attempts} attempts were"
    left = "the layout of linear" if results.is_table else "the dense model in another layout"
    return f"{mode.capitalize()} accepted nothing ({tried} rolled back): its result is {left}."


def _gate(name: str, found: dict) -> str:
    words = [f"{_PLAIN.get(metric, metric)} {word.replace('_', ' ')}" for metric, word in found["checks"].items()]
    return f"Gate {name}: {_GATE_WORDS[found['status']]} ({', '.join(words)})."
