"""What is compared with what: one row a comparison, in the order of the pages."""

from collections.abc import Mapping
from dataclasses import dataclass

from icd_lib.experiment.arms import DENSE, MODEL, RESULT, ROWS
from icd_lib.registry import Registry


@dataclass(frozen=True)
class Pair:
    """The other arm of a comparison, in a table's row (`title`: of both) and in a sentence (`words`)."""

    other: str
    title: str
    words: str


@dataclass(frozen=True)
class Comparison:
    """A section of verdict.json: the latency of `arm` relative to the other arm, at every shape.

    pairs: workload → the other arm; a workload that is not named has no such comparison
    other_in_rows: the other arm in report.csv
    judged: whether `gates.comparison` may name it; limited: whether it is put to the gates' limits of latency beside
    what they judge; plain: whether its section is the shapes alone, without what belongs to a claim
    """

    key: str
    pairs: Mapping[str, Pair]
    other_in_rows: str
    arm: str = RESULT
    judged: bool = False
    limited: bool = False
    plain: bool = False


_OWN = (
    Comparison(
        "same_transform",
        {
            MODEL: Pair(
                "same_transform",
                "iterative vs the same transform in linear's layout",
                "the same transform in linear's layout",
            ),
            ROWS: Pair("linear", "iterative vs linear, same transform", "linear, with the same transform"),
        },
        "linear's layout",
        judged=True,
        limited=True,
    ),
    Comparison(
        "same_quality",
        {
            MODEL: Pair(
                "linear", "iterative vs linear at the same quality budget", "linear at the same quality budget"
            ),
            ROWS: Pair("linear", "iterative vs linear, same transform", "linear, with the same transform"),
        },
        "linear",
        judged=True,
        limited=True,
    ),
    Comparison(
        "vs_packed",
        {
            ROWS: Pair(
                "packed",
                "iterative vs compaction alone (packed)",
                "compaction alone (π₀'s order without the dead rows)",
            )
        },
        "packed",
    ),
    Comparison(
        "vs_oneshot",
        {
            MODEL: Pair(
                "oneshot", "iterative vs oneshot at the same quality budget", "oneshot at the same quality budget"
            ),
            ROWS: Pair("oneshot", "iterative vs oneshot", "oneshot, the original order without the dead rows"),
        },
        "oneshot",
        limited=True,
    ),
    Comparison(
        "vs_dense",
        {
            MODEL: Pair(DENSE, "iterative vs dense", "the dense model"),
            ROWS: Pair(DENSE, "iterative vs dense", "the untouched table, which also reads the rows that died"),
        },
        DENSE,
    ),
    Comparison(
        "placebo",
        {
            MODEL: Pair("placebo", "iterative vs the same mask in a random layout (placebo)", "a random layout"),
            ROWS: Pair("placebo", "iterative vs random layout (placebo)", "a random layout"),
        },
        "placebo",
        plain=True,
    ),
    Comparison(
        "aa_control",
        {kind: Pair(DENSE, "dense vs dense (A/A control)", "dense") for kind in (MODEL, ROWS)},
        DENSE,
        arm="dense_again",
    ),
)
COMPARISONS = Registry("comparisons", {row.key: row for row in _OWN})
AA_CONTROL = "aa_control"
# (arm, other) whose difference the rounds of a measurement have to be enough for.
ROUNDS_FOR = ((RESULT, DENSE), (RESULT, "linear"), (RESULT, "oneshot"), ("linear", DENSE), ("dense_again", DENSE))


def comparisons_of(workload: str) -> list[Comparison]:
    """The comparisons that a workload has, in the order of its pages."""
    return [row for row in COMPARISONS.values() if workload in row.pairs]


def judged_names() -> list[str]:
    """What `gates.comparison` takes."""
    return [row.key for row in COMPARISONS.values() if row.judged]
