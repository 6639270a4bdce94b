"""What every loaded model gets before anybody times it, whichever arm it belongs to."""

from torch import nn


def prepare(model: nn.Module) -> nn.Module:
    """Give a Mamba model the fast scan and a check of its token ids, in place; any other model is left as it is."""
    if any("mamba" in type(module).__module__ for module in model.modules()):
        from icd_lib.models.families.mamba import prepare_mamba  # imports a model family that others do not need

        prepare_mamba(model)
    return model
