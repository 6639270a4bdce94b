"""An arm as somebody else would write it: iterative's model once more, and how it compares with itself."""

import copy

from icd_lib.experiment.arms import ARMS, CONTROL, MODEL, Arm
from icd_lib.experiment.comparisons import COMPARISONS, Comparison, Pair


def make_copy(context, solved):
    return copy.deepcopy(solved.model)


ARMS.add("toy", Arm("toy", CONTROL, {MODEL: "a copy of iterative"}, {MODEL: make_copy}))
PAIR = Pair("toy", "iterative vs its copy", "its copy")
COMPARISONS.add("vs_toy", Comparison("vs_toy", {MODEL: PAIR}, "toy", limited=True))
