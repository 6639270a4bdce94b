"""A pruned model in shapes that stock Transformers can describe, where its family has such shapes."""

from torch import nn

from icd_lib.errors import TransformError
from icd_lib.models.families import FAMILIES, family_of, labels
from icd_lib.models.quantized import is_quantized


def to_uniform(model: nn.Module) -> nn.Module:
    """A copy of `model` that computes the same in stock shapes; `TransformError` where its family has none."""
    family = family_of(model)
    if is_quantized(model):
        raise TransformError("a quantised model has no stock shape: a stock Linear rounds no input; leave uniform out")
    if family is None or family.make_uniform is None:
        able = labels(row for row in FAMILIES.values() if row.make_uniform is not None)
        raise TransformError(f"{type(model).__name__} cannot be made uniform; only {able} can")
    return family.make_uniform(model)
