"""What gates compare of a GPU's counters: changes between iterative and another arm, from what gave the arms' means."""

from icd_lib.experiment.arms import RESULT
from icd_lib.measure.comparison import relative
from icd_lib.measure.statistics import mean_difference, ratio_of_means
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.records.measured import Measured

HITS, JOULES = "l2_hit_pct", "energy_j_per_token"


def hit_change(report: Measured, other: str) -> Figure:
    """L2 hit rate that iterative gains over another arm, percentage points, or why it was not measured."""
    for arm in (RESULT, other):
        if (item := report.hits_of(arm)).is_missing:
            return not_measured("pp", item.reason)
    found = mean_difference(report.rounds_of(HITS, RESULT), report.rounds_of(HITS, other))
    method = f"ncu, {found['method']} of profiles"
    return figure(found["value"], "pp", "measured", n=found["n"], method=method, ci95=found["ci95"])


def energy_by_windows(report: Measured, other: str) -> Figure | None:
    """EpT of iterative relative to another arm by windows that are pairs; None where they are not kept."""
    pair = [report.rounds_of(JOULES, arm) for arm in (RESULT, other)]
    return relative(ratio_of_means(*pair)) if all(pair) else None
