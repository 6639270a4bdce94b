"""Options of the quantization."""

from typing import Annotated, Literal

from pydantic import Field

from icd_lib.options import OneOf, Section, option

ALPHA = 0.9  # measured: 0.7 to 1.0 were tried (docs/QUANTIZATION.md)
ORDERED = ("sparsity", "quantization")
Bits = Annotated[float, Field(ge=3, le=16)]


class QuantizationOptions(Section):
    """Eight bits: what of the model is rounded, and how. A scenario that has the section is quantised."""

    precision: Literal["int8", "fp8_storage", "int8_weights", "int4_weights", "mixed_weights"] = option(
        "int8",
        "int8: weights and inputs, which runtimes compute as such; fp8_storage: weights only, as they are stored; "
        "int8_weights, int4_weights: weights only, in groups; mixed_weights: 4 or 8 bits for each matrix",
    )
    only_in: Literal["int8"] | None = option(
        None, "quantise only where the models are deployed in this precision; null: wherever they are"
    )
    alpha: float | None = option(
        ALPHA,
        "exponent of the factors that even out an input's channels, which are centred too; null: neither",
        low=0,
        high=1,
    )
    compensate: bool = option(True, "round weights in view of the inputs' moments; false: each to its nearest point")
    outlier_share: float = option(
        0.0,
        "share of an FFN's neurons, those that stick out most, rounded up to whole tiles, whose columns stay float",
        low=0,
        high=0.5,
    )
    float_linears: int = option(0, "so many of the most sensitive Linears stay float", low=0)
    tokens: int = option(16384, "calibration tokens that ranges and moments are taken from", unit="tokens", low=64)
    group: int = option(64, "columns of a matrix that share a scale, where weights alone are rounded", low=8)
    bits: int | None = option(
        None, "bits of int4_weights or int8_weights, if not as many as their names say: 3, 4 or 8", low=3, high=8
    )
    symmetric: bool = option(False, "scales without zeros, where weights alone are rounded in groups")
    follow: bool = option(
        False,
        "fit every weight, where weights alone are rounded, to what the unrounded model gives there before rounding it",
    )
    mean_bits: float = option(
        5.0, "bits per weight, scales included, that mixed_weights may take on average", low=3, high=16
    )
    bits_ladder: tuple[Bits, ...] | None = option(
        None,
        "values of mean_bits that are tried, the least first; the first whose result keeps the quality is taken; null: "
        "mean_bits alone",
        least=1,
    )
    embeddings: Literal["int8", "float"] = option(
        "int8", "token embeddings and head where weights alone are rounded: 8 bits in the same groups, or as they are"
    )
    order: tuple[Annotated[str, OneOf(ORDERED)], ...] = option(ORDERED, "which of the two comes first", least=2)
