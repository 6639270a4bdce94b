"""Options of the transforms."""

from typing import Annotated

from icd_lib.axes.kinds import KINDS
from icd_lib.options import OneOf, Section, option


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


class TransformOptions(PruneOptions):
    """What changes the model or the table, and how."""

    distill_tokens: int = option(1024, "tokens per distillation step", unit="tokens", low=1)
    dead_share: float = option(0.5, "share of the table's rows that the transform removes", low=0, high=0.99)
    scatter: float = option(1.0, "spread of the rows' saliency around the logarithm of their accesses", low=0, high=100)
