"""No model with a number that is none passes, whatever its quality is said to be: argmax of NaN still is a class."""

import torch
from torch import nn

from icd_lib.axes.verify import first_rows, model_outputs
from icd_lib.errors import AxisError, ConfigError
from icd_lib.models.precision import FLOATS, overflown, quantised
from icd_lib.storage.devices import device_of

MOST_BATCHES = 8


def find_not_finite(model: nn.Module, batches: list[dict]) -> str | None:
    """The parameter, buffer or output of the model that holds NaN or infinity, in words; None where all is finite.

    Outputs are looked at on the first rows of a few of the batches.
    """
    if (name := overflown(model)) is not None:
        return name
    with torch.inference_mode():
        for batch in batches[:: max(1, len(batches) // MOST_BATCHES)][:MOST_BATCHES]:
            for name, value in model_outputs(model, first_rows(batch)).items():
                if not bool(value.isfinite().all()):
                    return f"its output {name}"
    return None


def check_weights(model: nn.Module, *, anywhere: bool = False) -> None:
    """Raise `ConfigError` unless every parameter is finite and lies on the CPU, `AxisError` for one of eight bits.

    anywhere: they may lie on one other device, all of them
    """
    first = device_of(model)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype not in FLOATS:
            raise AxisError(quantised(name, parameter.dtype))
        if parameter.device.type != "cpu" and not anywhere:
            raise ConfigError(
                f"{name} lies on {parameter.device}, and the loop computes on the CPU; pass model.cpu(), or ask "
                "icd.optimize for a device"
            )
        if parameter.device != first:
            raise ConfigError(f"{name} lies on {parameter.device}, others on {first}; pass a model on one device")
    if (name := overflown(model)) is not None:
        raise ConfigError(f"{name} of the model holds NaN or infinity; mend the model, nothing can be learned from it")
