"""Options of where a model is deployed: what it is planned, judged and timed for."""

from typing import Annotated, Literal

from icd_lib.options import OneOf, Section, Shape, option
from icd_lib.runtimes import BRIDGE, CUDA, CUDA_ENGINES, ENGINES, RUNTIMES

AUTO = "auto"


def _engines() -> list[str]:
    outside = (name.partition("_")[0] for name in RUNTIMES if name not in BRIDGE | CUDA)
    return [AUTO, *dict.fromkeys([*ENGINES, *outside]), *CUDA_ENGINES]


class DeployOptions(Section):
    """Where the models will run: width curves, plan, judgement and latency of every arm are those of this place."""

    runtime: Annotated[str, OneOf(_engines)] = option(
        "eager",
        "the engine; auto takes the fastest that is installed and whose quality holds for the dense model. With a GPU "
        "as device eager and compile are its own, and cuda_graph replays one",
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "fp16"] = option(
        "fp32", "what it computes in; auto as for runtime"
    )
    shapes: tuple[Shape, ...] | None = option(
        None, "batch and length of the calls that the plan is for, all alike; null takes the first of measure.shapes"
    )
