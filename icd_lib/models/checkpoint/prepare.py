"""What every loaded model gets before anybody times it, whichever arm it belongs to."""

from torch import nn

from icd_lib.models.families import family_of


def prepare(model: nn.Module) -> nn.Module:
    """Give a model what its family needs (Mamba: the fast scan and a check of its token ids), in place."""
    family = family_of(model)
    if family is not None and family.prepare is not None:
        family.prepare(model)
    return model
