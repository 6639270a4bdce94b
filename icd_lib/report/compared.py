"""What is compared with what, and whether a gate's limit of latency is met: the same words on every page."""

from icd_lib.experiment.arms import MODES
from icd_lib.experiment.comparisons import COMPARISONS, Comparison, in_page_order
from icd_lib.experiment.gates import GATES
from icd_lib.experiment.metrics import PER_TOKEN
from icd_lib.metric import Figure
from icd_lib.records.verdict import Verdict
from icd_lib.report.results import Results

_STATES = {"pass": "met", "fail": "not met", "partial": "not decided", "not_measured": "not measured"}


def other_arm(results: Results, key: str) -> str:
    """What iterative is compared with in a section of the verdict."""
    return COMPARISONS[key].pairs[results.workload].words


def on_pages(results: Results) -> list[Comparison]:
    """The verdict's comparisons in the order of the pages, without those of an arm that nobody asked this run for.

    What the gates judge always stands there, and so does what was to be measured and was not, with its reason.
    """
    rows = [row for row in in_page_order(results.workload) if row.key in results.verdict.sections]
    return [row for row in rows if row.key == results.gates_comparison or not _unasked(results, row)]


def _unasked(results: Results, row: Comparison) -> bool:
    """Whether no shape has a figure, for want of an arm that this run was not to have."""
    if not all(item.is_missing for item in results.verdict.section(row.key).shapes.values()):
        return False
    timed = {arm for arms in results.shapes.values() for arm in arms}
    solved = {mode for mode in MODES if f"02_solve[{mode}]" in results.stages}
    return not {row.arm, row.pairs[results.workload].other} <= timed | solved


def compared(results: Results) -> str:
    """Whose figures the gates compare, of calls."""
    return f"iterative vs {other_arm(results, results.gates_comparison)}"


def judged(results: Results) -> str:
    """What the gates judge: that, or a decoder's time per token."""
    if not gates_a_prompt(results):
        return f"{PER_TOKEN} vs the dense model in PyTorch"
    return compared(results)


def gates_a_prompt(results: Results) -> bool:
    """Whether the gates judge the latency of a call; else it is a decoder's time per token."""
    checked = {check for gate in GATES for check in results.verdict.gate(gate).checks}
    return "latency_rel" in checked or "token_rel" not in checked


def state_text(state: str) -> str:
    """A gate's or check's state in words.

    >>> state_text("pass"), state_text("partial")
    ('met', 'not decided')
    """
    return _STATES.get(state, state)


def latency_states(results: Results) -> dict[str, dict[str, str]]:
    """Comparison → gate → state of the gate's limit of latency, for the gates that have one; theirs comes first."""
    verdict, key = results.verdict, results.gates_comparison
    own = {gate: verdict.gate(gate).checks.get("latency_rel") for gate in GATES}
    own = {gate: state for gate, state in own.items() if state}
    others = verdict.other_comparisons
    states = {
        row.key: {gate: others.get(row.key, {}).get(gate, "not_measured") for gate in own}
        for row in on_pages(results)
        if row.limited
    }
    return {key: own} | {other: by_gate for other, by_gate in states.items() if other != key}


def latency_of(verdict: Verdict, key: str) -> Figure:
    """The change of latency that a comparison states: at the first shape, which is judged."""
    section = verdict.section(key)
    return section.latency_rel or next(iter(section.shapes.values()))


def states_text(states: dict[str, str]) -> str:
    """The states of both gates in one line.

    >>> states_text({"smoke": "pass", "strict": "fail"})
    'smoke met, strict not met'
    """
    return ", ".join(f"{gate} {state_text(state)}" for gate, state in states.items())
