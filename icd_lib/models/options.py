"""Options of the model: where it comes from, and how it is loaded."""

from typing import Annotated, Literal

from icd_lib.models.families import DEFAULT_FAMILY, FAMILIES
from icd_lib.models.shapes import SHAPES
from icd_lib.options import OneOf, Section, option


class ModelOptions(Section):
    """The model, where it comes from, and how it is loaded."""

    checkpoint: str | None = option(None, "path or hub id; null takes the embedded model")
    revision: str | None = option(None, "revision of a hub checkpoint")
    family: Annotated[str, OneOf(FAMILIES)] = option(DEFAULT_FAMILY, "which adapter reads the model")
    weights: Literal["trained", "random"] = option("trained", "random weights are for latency only")
    dtype: Literal["float32", "bfloat16", "auto"] = option("float32", "of the weights; auto is the wider one that fits")
    shape: Annotated[str, OneOf(SHAPES)] | None = option(None, "shape of a model of random weights")
