"""What is compared with what: one row a comparison, in the order of the verdict's sections."""

from collections.abc import Mapping
from dataclasses import dataclass

from icd_lib.experiment.arms import ARMS, DENSE, MODEL, RESULT, ROWS
from icd_lib.registry import Registry


@dataclass(frozen=True)
class Pair:
    """The other arm of a comparison, in a table's row (`title`: of both) and in a sentence (`words`).

    place: where it stands among the others on a page, small numbers first
    """

    other: str
    title: str
    words: str
    place: int = 80


@dataclass(frozen=True)
class Comparison:
    """A section of verdict.json: the latency of `arm` relative to the other arm, at every shape.

    pairs: workload → the other arm; a workload that is not named has no such comparison
    other_in_rows: the other arm in report.csv
    judged: whether `gates.comparison` may name it; limited: whether it is put to the gates' limits of latency beside
    what they judge; seen: whether rounds are taken until a difference would be seen; plain: whether its section is the
    shapes alone, without what belongs to a claim
    """

    key: str
    pairs: Mapping[str, Pair]
    other_in_rows: str
    arm: str = RESULT
    judged: bool = False
    limited: bool = False
    seen: bool = False
    plain: bool = False


_OWN = (
    Comparison(
        "same_transform",
        {
            MODEL: Pair(
                "same_transform",
                "iterative vs the same transform in linear's layout",
                "the same transform in linear's layout",
                place=10,
            ),
            ROWS: Pair("linear", "iterative vs linear, same transform", "linear, with the same transform", place=10),
        },
        "linear's layout",
        judged=True,
        limited=True,
    ),
    Comparison(
        "same_quality",
        {
            MODEL: Pair(
                "linear",
                "iterative vs linear at the same quality budget",
                "linear at the same quality budget",
                place=20,
            ),
            ROWS: Pair("linear", "iterative vs linear, same transform", "linear, with the same transform", place=20),
        },
        "linear",
        judged=True,
        limited=True,
        seen=True,
    ),
    Comparison(
        "vs_dense",
        {
            MODEL: Pair(DENSE, "iterative vs dense", "the dense model", place=50),
            # Last of the arms: it also does the work that the others were spared.
            ROWS: Pair(
                DENSE, "iterative vs dense", "the untouched table, which also reads the rows that died", place=70
            ),
        },
        DENSE,
        seen=True,
    ),
    Comparison(
        "vs_eager",
        {
            MODEL: Pair(
                "dense_eager",
                "iterative, deployed, vs the dense model in PyTorch eager",
                "the dense model in PyTorch eager, fp32",
                place=55,
            )
        },
        "dense in eager",
        plain=True,
    ),
    Comparison(
        "any_shape_vs_eager",
        {
            MODEL: Pair(
                "dense_eager",
                "iterative, deployed for inputs of any shape, vs the dense model in PyTorch eager",
                "the dense model in PyTorch eager, fp32",
                place=56,
            )
        },
        "dense in eager",
        arm="any_shape",
        plain=True,
    ),
    Comparison(
        "vs_oneshot",
        {
            MODEL: Pair(
                "oneshot",
                "iterative vs oneshot at the same quality budget",
                "oneshot at the same quality budget",
                place=40,
            ),
            ROWS: Pair(
                "oneshot", "iterative vs oneshot", "oneshot, the original order without the dead rows", place=40
            ),
        },
        "oneshot",
        limited=True,
        seen=True,
    ),
    Comparison(
        "vs_packed",
        {
            ROWS: Pair(
                "packed",
                "iterative vs compaction alone (packed)",
                "compaction alone (π₀'s order without the dead rows)",
                place=30,
            )
        },
        "packed",
    ),
    Comparison(
        "placebo",
        {
            MODEL: Pair(
                "placebo", "iterative vs the same mask in a random layout (placebo)", "random layout", place=60
            ),
            ROWS: Pair("placebo", "iterative vs random layout (placebo)", "random layout", place=60),
        },
        "placebo",
        plain=True,
    ),
    Comparison(
        "aa_control",
        {kind: Pair(DENSE, "dense vs dense (A/A control)", "dense", place=90) for kind in (MODEL, ROWS)},
        DENSE,
        arm="dense_again",
        seen=True,
    ),
)
COMPARISONS = Registry("comparisons", {row.key: row for row in _OWN})
AA_CONTROL = "aa_control"
_SEEN_TOO = (("linear", DENSE),)  # no section of the verdict, but linear's metrics.json states it


def comparisons_of(workload: str) -> list[Comparison]:
    """The comparisons that a workload has, in the order of the verdict's sections."""
    return [row for row in COMPARISONS.values() if workload in row.pairs]


def in_page_order(workload: str) -> list[Comparison]:
    """The comparisons that a workload has, in the order of its pages."""
    return sorted(comparisons_of(workload), key=lambda row: row.pairs[workload].place)


def pairs_to_see(workload: str) -> list[tuple[str, str]]:
    """(arm, other) whose difference the rounds of a measurement have to be enough for: the result's first."""
    pairs = [(row.arm, row.pairs[workload].other) for row in comparisons_of(workload) if row.seen]
    arms = list(ARMS)
    return sorted({*pairs, *_SEEN_TOO}, key=lambda pair: (pair[0] != RESULT, *map(arms.index, pair)))


def judged_names() -> list[str]:
    """What `gates.comparison` takes."""
    return [row.key for row in COMPARISONS.values() if row.judged]
