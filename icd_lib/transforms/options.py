"""Options of the transforms."""

from typing import Annotated, Literal

from pydantic import Field

from icd_lib.axes.kinds import KINDS, PAGE
from icd_lib.options import OMITTED, OneOf, Section, Shape, option


class PruneOptions(Section):
    """What the transforms of a model need to know."""

    axes: tuple[Annotated[str, OneOf(KINDS)], ...] = option(
        tuple(KINDS), "kinds of axes that are pruned, where the model has them", least=1
    )
    head_dim: int | None = option(None, "shrink Q/K and V/O inside every head to this many dimensions", low=1)
    tile: int = option(16, "widths are kept to multiples of this many neurons", low=1)
    ridge: float = option(0.01, "ridge of the Hessian, relative to its mean diagonal", above=0)
    sequential: bool = option(
        True, "refit block after block on the pruned network; false: every block alone, in closed form and in seconds"
    )
    uniform: bool = option(False, "pad all layers to one width, for plain transformers")
    distill_steps: int = option(140, "optimiser steps of label-free distillation; 0 leaves it out", low=0)
    distill_lr: float = option(4e-4, "learning rate of the distillation", above=0, high=1)
    distill_bf16: bool | None = option(
        OMITTED, "multiply in bf16 inside the blocks that are distilled, where the processor has instructions for it"
    )
    rate: float | None = option(
        OMITTED,
        "share of the FFN neurons or inner channels that goes, whatever is lost: quality is told and bounds nothing",
        unit="fraction",
        above=0,
        high=0.95,
    )


class TransformOptions(PruneOptions):
    """What changes the model or the table, and how."""

    distill_tokens: int = option(1024, "tokens per distillation step", unit="tokens", low=1)
    dead_share: float = option(0.5, "share of the table's rows that the transform removes", low=0, high=0.99)
    scatter: float = option(1.0, "spread of the rows' saliency around the logarithm of their accesses", low=0, high=100)


Share = Annotated[float, Field(gt=0, lt=1)]


class KvOptions(Section):
    """What a decoder's cache may lose, and where that is judged and timed; the section asks for it."""

    keep: tuple[Share, ...] = option(
        (0.75, 0.5, 0.25), "shares of a prompt's tokens that stay; the smallest is taken whose quality holds", least=1
    )
    page: int = option(PAGE, "tokens of a page, read whole or not at all", unit="tokens", low=1)
    score: Literal["attention", "key_norm", "recent", "random"] = option(
        "attention", "what decides which tokens stay: what the last queries paid them, or a simpler rule"
    )
    pool: int = option(
        7, "a token counts as the best of so many neighbours, itself in the middle: words stay whole; odd", low=1
    )
    sinks: int = option(4, "first tokens, which always stay", unit="tokens", low=0)
    window: int = option(32, "last tokens, which always stay", unit="tokens", low=1)
    every: int = option(64, "tokens that are decoded between two evictions", unit="tokens", low=1)
    store: Literal["float", "int8"] = option("float", "how keys and values are kept")
    max_perplexity_ratio: float | None = option(
        None, "most perplexity with the share that is taken; null: codesign.max_perplexity_ratio", above=1
    )
    context: int = option(1024, "tokens that are read before the first eviction", unit="tokens", low=64)
    continued: int = option(128, "tokens behind them on which quality is judged", unit="tokens", low=8)
    blocks: int = option(8, "texts of that length per split, evenly over its domains", low=1)
    questions: int = option(16, "look-ups in texts of that length that judge, and as many in seen ones", low=1)
    cloze: int = option(120, "cloze questions of the text that judges, and as many of seen text", low=2)
    clock: tuple[Shape, ...] = option(
        ((1, 128), (1, 1024), (8, 512)), "batch and prompt of every measurement of decoding", least=1
    )
    peers: tuple[Annotated[str, OneOf("icd_lib.decoding:IN_PROCESS")], ...] | None = option(
        None,
        "runtimes in which dense decodes beside the arms, and the result too (in OpenVINO as it is exported); "
        "null: OpenVINO in every precision",
    )
    rounds: int = option(3, "interleaved rounds of every prompt", low=1)
    steps: int = option(24, "decoded tokens of a round", unit="tokens", low=2)
