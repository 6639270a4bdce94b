"""The result in plain sentences that never claim more than was measured."""

from icd_lib.experiment.arms import RESULT, ROWS
from icd_lib.experiment.comparisons import AA_CONTROL, in_page_order
from icd_lib.experiment.gates import GATES
from icd_lib.experiment.metrics import METRICS
from icd_lib.metric import Figure
from icd_lib.records.attempts import Attempt
from icd_lib.records.verdict import Unknown
from icd_lib.report import calibration_figures, decoding, generation, masked, weights_figures
from icd_lib.report.compared import judged, latency_of, latency_states, other_arm, states_text
from icd_lib.report.losses import NEARNESS, domains_above, is_above, is_outside, readings
from icd_lib.report.results import Results
from icd_lib.report.words import interval_text, number, value_text

_GATE_WORDS = {
    "pass": "met: every check passed",
    "partial": "not decided: nothing failed, but not everything could be measured",
    "fail": "not met",
}
_BOUNDS = {
    "excludes_budget": "the whole interval lies within that",
    "point_estimate_only": "only the point estimate lies within that, the interval reaches beyond it",
    "exceeds_budget": "the loss exceeds that",
}


def headline(results: Results) -> list[str]:
    """Sentences, the most important first."""
    verdict = results.verdict
    if not verdict:
        return [_unfinished(results)]
    if (change := latency_of(verdict, "vs_dense")).is_missing:
        lines = [f"No result for iterative: {change.reason}."]
        arms = next(iter(results.shapes.values()), {})
        others = [mode for mode in results.solves if mode in arms]
        lines += [_speed(mode, arms[mode].vs_dense, results.reference, results) for mode in others]
    elif results.is_table:
        lines = _table_lines(results)
    else:
        lines = _model_lines(results)
    lines += [line for mode in results.solves for line in (_target(results, mode), _disagreement(results, mode))]
    lines += [_nothing_accepted(results, mode) for mode in results.solves if not results.is_changed(mode)]
    where = "of {} reads" if results.is_table else "at {}"
    lines += [
        f"The A/A control {where.format(shape)} excludes 0: timing differences of that size mean nothing in this run."
        for shape, holds in (verdict.section(AA_CONTROL).contains_zero or {}).items()
        if not holds
    ]
    lines += [_gate(results, name) for name in GATES]
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


def _speed(arm: str, item: Figure, other: str, results: Results) -> str:
    low, high = item.ci95
    extent = f"95 % CI {interval_text(item.ci95, item.unit)}, n = {item.n}"
    shown = value_text(abs(item.value), "fraction", signed=False)
    if high < 0:
        return f"{arm[:1].upper()}{arm[1:]} takes {shown} less time than {other} ({extent}; {results.first_shape})."
    if low > 0:
        return f"{arm[:1].upper()}{arm[1:]} takes {shown} MORE time than {other} ({extent}; {results.first_shape})."
    return f"No difference in latency between {arm} and {other} was detected ({extent}; {results.first_shape})."


def _table_lines(results: Results) -> list[str]:
    """What a run on a table of rows found: against linear first, since dense also reads what the transform removed."""
    verdict = results.verdict
    others: dict[str, Figure] = {}
    for row in in_page_order(ROWS):
        if row.arm == RESULT and not row.plain and row.key in verdict.sections:
            # The same transform and the same quality are one comparison here, in the same words.
            others.setdefault(row.pairs[ROWS].words, latency_of(verdict, row.key))
    lines = [_speed(RESULT, item, other, results) for other, item in others.items() if not item.is_missing]
    cost = verdict.cost
    if not isinstance(cost, Unknown):
        change = f"C by {value_text(cost.delta_c_rel, 'fraction')} and Q by {number(cost.delta_q, True)}"
        lines.insert(1, f"On the accesses that survive, re-permuting changes {change} (computed).")
    lines.append("Every arm with the same living rows has the same checksum; quality is unchanged by construction.")
    if results.calibration:
        lines.append(calibration_figures.verdict(results))
    return lines


def _model_lines(results: Results) -> list[str]:
    """Against dense with what is lost, then what the gates compare, then the other comparisons with their verdicts."""
    verdict, quality = results.verdict, results.verdict.quality
    dense = f"the dense model, both in {results.deployed}" if results.deployed else "the dense model"
    first = _speed("iterative", latency_of(verdict, "vs_dense"), dense, results)
    if isinstance(quality, Unknown):
        lines = [first, f"Quality was not measured: {quality.reason}."]
    else:
        splits = [split for split in results.splits if split in quality]
        lines = [f"{first.removesuffix('.')}; {_lost_briefly(results, splits)}."]
        lines += [_lost_on(results, split) for split in splits] + _above_budget(results)
    lines += masked.lines(results) + weights_figures.lines(results) + generation.lines(results)
    lines += decoding.lines(results)
    lines += _against_eager(results)
    for key, states in latency_states(results).items():
        if not (change := latency_of(verdict, key)).is_missing:
            line = _speed("iterative", change, other_arm(results, key), results)
            own = key == results.gates_comparison or not states
            limits = "" if own else f"; put to the gates' limits of latency: {states_text(states)}"
            lines.append(f"{line.removesuffix('.')}{limits}.")
    return lines


def _against_eager(results: Results) -> list[str]:
    """What deployment and optimisation save together, where the arms were not timed in PyTorch as it is."""
    shapes = results.verdict.section("vs_eager").shapes if not results.in_eager else {}
    item = next(iter(shapes.values()), None)
    if item is None or item.is_missing:
        return []
    return [_speed(f"iterative in {results.deployed}", item, f"the dense model in {results.eager}", results)]


def _lost_briefly(results: Results, splits: list[str]) -> str:
    """Own and drop-in loss on every split in half a sentence."""
    words = readings(results)
    parts = [
        f"{words[key]} lost: {' and '.join(texts)}"
        for key in ("own", "dropin")
        if key in words and (texts := [text for split in splits if (text := _lost_text(results, split, key))])
    ]
    return "; ".join(parts)


def _lost_text(results: Results, split: str, reading: str) -> str:
    item = results.verdict.quality[split].reading(reading)
    return "" if item.is_missing else f"{value_text(item.value, 'pp')} on {split} text"


def _lost_on(results: Results, split: str) -> str:
    """What iterative loses on a split: own with its interval and the budget's verdict, drop-in, the worst domain."""
    quality = results.verdict.quality[split]
    item, dropin = quality.own_pp, quality.dropin_pp
    word = "loses" if item.value > 0 else "gains" if item.value < 0 else "changes by"
    shown = value_text(abs(item.value), "pp", signed=False)
    spread = f"SE {item.se_pp:.3f} pp, 95 % CI of the loss {interval_text(item.ci95, item.unit)}, n = {item.n:,}"
    parts = [f"On {split} text it {word} {shown} of {readings(results)['own']} ({spread})"]
    if not dropin.is_missing:
        extent = f"95 % CI {interval_text(dropin.ci95, dropin.unit)}"
        parts.append(f"the drop-in loss is {value_text(dropin.value, 'pp')} ({extent})")
    near = {words: quality.nearness(key) for key, words in NEARNESS.items()}
    parts += [f"{words} {item.value:.4f}" for words, item in near.items() if item]
    parts.append(f"it loses most on {quality.worst_domain}")
    return f"{'; '.join(parts)}.{_allowed(results, split)}"


def _allowed(results: Results, split: str) -> str:
    """Whether the strict gate's limit of quality is met on the text that it is for."""
    limit = results.config.get("gates", {}).get("strict", {}).get("quality_drop_pp")
    bound = results.verdict.strict.bounds.get("quality_drop_pp")
    if split != results.judging or bound not in _BOUNDS or limit is None:
        return ""
    return f" The strict gate allows {limit:g} pp: {_BOUNDS[bound]}."


def _above_budget(results: Results) -> list[str]:
    """What is above the budget: text outside the budget's domain as a whole, and every single domain, by name."""
    lines = []
    for split, quality in results.verdict.quality.items():
        if is_outside(results, split) and is_above(results, quality.own_pp):
            shown = value_text(quality.own_pp.value, "pp")
            whose = f"the budget of {results.budget_pp:g} pp, which holds for {results.judging} text only"
            lines.append(f"Outside its domain, on {split} text, it loses {shown}: above {whose}.")
    above = [f"{name} ({split}) {value_text(item.value, 'pp')}" for split, name, item in domains_above(results)]
    if above:
        lines.append(f"Domains above the budget of {results.budget_pp:g} pp by themselves: {', '.join(above)}.")
    return lines


def _target(results: Results, mode: str) -> str:
    """Said where a latency was asked for and the tables do not even predict it."""
    solve = results.solves[mode]
    if solve.reached is not False:
        return ""
    target = value_text(solve.latency_target_rel, "fraction")
    predicted = value_text(solve.plan.predicted_latency_rel, "fraction") if solve.plan else "no change"
    return f"The latency target of {target} was NOT reached by {mode}: the tables predict {predicted}."


def _disagreement(results: Results, mode: str) -> str:
    """Said where the clock and J disagree about the attempt that became the result."""
    attempt = results.accepted(mode)
    told = attempt.disagreement if isinstance(attempt, Attempt) else None
    return f"J and the clock disagree ({mode}): {told}." if told else ""


def _nothing_accepted(results: Results, mode: str) -> str:
    attempts = len(results.whole(mode))
    tried = f"{attempts} attempt was" if attempts == 1 else f"{attempts} attempts were"
    left = "the layout of linear" if results.is_table else "the dense model in another layout"
    return f"{mode.capitalize()} accepted nothing ({tried} rolled back): its result is {left}."


def _gate(results: Results, name: str) -> str:
    gate = results.verdict.gate(name)
    words = [f"{METRICS[metric].words} {word.replace('_', ' ')}" for metric, word in gate.checks.items()]
    return f"Gate {name} ({judged(results)}): {_GATE_WORDS[gate.status]} ({', '.join(words)})."
