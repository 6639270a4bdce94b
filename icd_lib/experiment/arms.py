"""The arms of an experiment, one row each: dense, what every mode made of it, and controls that keep a claim honest."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from icd_lib.registry import Registry

BASELINE, MODE, CONTROL = "baseline", "mode", "control"
MODEL, ROWS = "model", "rows"  # what is laid out: the axes of a model, or the rows of a table
DENSE = "dense"
MODES = ("linear", "oneshot", "iterative")  # in the order in which they are solved
RESULT = "iterative"  # the arm that a run is about
AS_DEPLOYED, IN_REFERENCE, IN_FP32 = "as deployed", "in the reference runtime", "in the deployed engine, fp32"


@dataclass(frozen=True)
class Arm:
    """words: workload → what the arm is there; a workload that is not named has no such arm.

    make: of a control, workload → function that makes it, or its place "module:attribute". For a model it takes the
    context and what 02_solve left of iterative, and returns a model (`icd_lib.workloads.model.arms`); for rows it takes
    the context and returns a layout with its mask (`icd_lib.workloads.rows.arms`). None: this run has no such arm.
    energy: whether its energy is measured too; runs_in: where it is timed, `AS_DEPLOYED`, `IN_REFERENCE` or `IN_FP32`.
    step: whether it is there to take the deployment apart alone: it is timed at the first shape, and left out of a run
    whose runtime refuses it. any_shape: compiled for inputs of any shape where the others are compiled for theirs.
    """

    name: str
    role: str
    words: Mapping[str, str]
    make: Mapping[str, Callable | str] = field(default_factory=dict)
    energy: bool = False
    runs_in: str = AS_DEPLOYED
    step: bool = False
    any_shape: bool = False

    def maker(self, workload: str) -> Callable:
        """The function that makes the arm for a workload."""
        made = self.make[workload]
        if isinstance(made, str):
            module, _, name = made.partition(":")
            return getattr(importlib.import_module(module), name)
        return made


def _control(name: str, words: Mapping[str, str], **more) -> Arm:
    places = {MODEL: "icd_lib.workloads.model.arms", ROWS: "icd_lib.workloads.rows.arms"}
    return Arm(name, CONTROL, words, {kind: f"{places[kind]}:{name}" for kind in words}, **more)


_OWN = (
    Arm(DENSE, BASELINE, {MODEL: "the dense model", ROWS: "the untouched table"}),
    Arm(
        "linear",
        MODE,
        {MODEL: "permute, then transform", ROWS: "the mask in layout π₀; only wholly dead tiles dropped"},
    ),
    Arm(
        "oneshot",
        MODE,
        {MODEL: "transform at one rate, once", ROWS: "the mask, dead rows removed, original order"},
    ),
    Arm(
        RESULT,
        MODE,
        {
            MODEL: "permute, transform, re-permute while it pays",
            ROWS: "the mask, W′ solved for π₁, dead rows removed",
        },
    ),
    _control(
        "dense_again",
        {
            MODEL: "A/A control: the dense model a second time",
            ROWS: "A/A control: the untouched table a second time",
        },
    ),
    _control(
        "dense_eager",
        {MODEL: "the dense model in PyTorch eager, fp32, where the others are deployed elsewhere"},
        runs_in=IN_REFERENCE,
    ),
    _control(
        "any_shape",
        {MODEL: "iterative compiled for inputs of any shape, not for the one that is timed"},
        any_shape=True,
    ),
    _control(
        "same_transform",
        {MODEL: "iterative's mask in linear's layout π₀; only wholly dead tiles dropped"},
        energy=True,
    ),
    _control(
        "placebo",
        {
            MODEL: "iterative's mask in a random layout; only wholly dead tiles dropped",
            ROWS: "the mask in a random layout; only wholly dead tiles dropped",
        },
    ),
    _control(
        "permuted",
        {
            MODEL: "the dense model in layout π₁, nothing removed",
            ROWS: "the whole table in layout π₀, nothing removed",
        },
    ),
    _control("unrounded", {MODEL: "iterative with every tiled axis seven elements narrower: off the tile grid"}),
    _control(
        "dense_fp32",
        {MODEL: "the dense model in the deployed engine at fp32, where it is deployed at fewer bits"},
        runs_in=IN_FP32,
        step=True,
    ),
    _control(
        "iterative_fp32",
        {MODEL: "iterative before anything is rounded, in the deployed engine at fp32"},
        runs_in=IN_FP32,
        step=True,
    ),
    _control("dense_quantized", {MODEL: "the dense model quantised as iterative is, nothing removed"}, step=True),
    _control(
        "scattered",
        {MODEL: "iterative with what is left in the order of π₀: columns that stay float lie scattered"},
        step=True,
    ),
    _control("masked", {ROWS: "the mask in the original order; only wholly dead tiles dropped"}),
    _control("packed", {ROWS: "the mask in layout π₀, dead rows removed, not solved again: compaction alone"}),
)
ARMS = Registry("arms", {arm.name: arm for arm in _OWN})


def controls_of(workload: str) -> list[Arm]:
    """The controls that a workload has."""
    return [arm for arm in ARMS.values() if arm.role == CONTROL and workload in arm.words]


def workload_of(config: Mapping) -> str:
    """What a run's configuration lays out: `MODEL` or `ROWS`."""
    return MODEL if config.get("workload", {}).get("kind", "model") == "model" else ROWS
