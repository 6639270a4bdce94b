"""A metric as somebody else would write it: how many arms were timed."""

from icd_lib.experiment.metrics import AT_LEAST, METRICS, Metric
from icd_lib.metric import figure


def count_arms(run, report):
    timed = report.latency.first
    return figure(len(timed), "arms", "measured", n=1, method="counted", ci95=(len(timed), len(timed)))


METRICS.add("toy_arms", Metric("toy_arms", "arms that were timed", "arms", "arms", AT_LEAST, measure=count_arms))
