"""Whether a model can be made smaller at all: asked of every model, by every door, before anything is planned."""

from collections import defaultdict

from torch import nn

from icd_lib.axes.axis import check_axis, slot_tensor
from icd_lib.errors import FOREIGN, AxisError, ConfigError, TransformError
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter, supported
from icd_lib.models.precision import FLOATS, quantised
from icd_lib.models.replay import check_replay


def check_model(model: nn.Module, batches: list[dict]) -> None:
    """Raise unless `model` is one that can be made smaller on `batches` (dicts of its inputs); it is not changed.

    `AxisError`: layers that share tensors, weights that are not floating-point, nothing that could be removed, blocks
    that are not what the model computes (see `check_replay`). `ConfigError`: an architecture of no family, inputs
    longer than the model's positions. `TransformError`: the model does not run on the batches.
    """
    if not batches:
        raise TransformError("calibration is empty: pass at least one batch of the model's inputs")
    adapter = find_adapter(model)
    check_length(adapter, max(batch["input_ids"].shape[-1] for batch in batches), "the longest input", "cut inputs")
    try:
        _check_layers(adapter)
        _check_axes(adapter)
    except FOREIGN as error:
        raise AxisError(
            f"{type(model).__name__} is not built like the models of its family ({type(error).__name__}: {error}); "
            f"supported: {supported()}"
        ) from error
    check_replay(model, batches)


def check_length(adapter: Adapter, tokens: int, what: str, cure: str) -> None:
    """Raise `ConfigError` where `what` has more tokens than the model has positions; cure: what to do "to at most"."""
    most = adapter.max_tokens()
    if most is not None and tokens > most:
        raise ConfigError(
            f"{what} has {tokens} tokens but {type(adapter.model).__name__} has positions for {most}: {cure} to at "
            f"most {most}, or take a model with more positions"
        )


def _check_layers(adapter: Adapter) -> None:
    """No two layers may share a module or a tensor: what is removed from one would be gone from the other."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in adapter.trunk().named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    shared = next((found for found in names.values() if len(found) > 1), None)
    if shared:
        raise AxisError(
            f"layers of {type(adapter.model).__name__} share weights: {shared[0]!r} and {shared[1]!r} are one tensor, "
            "so nothing can be removed from one of them alone; give every layer its own with copy.deepcopy"
        )


def _check_axes(adapter: Adapter) -> None:
    axes = {axis.name: axis for axis in adapter.axes()}
    for axis in axes.values():
        check_axis(adapter.model, axis)
        for slot in axis.slots:
            dtype = slot_tensor(adapter.model, slot).dtype
            if dtype not in FLOATS:
                raise AxisError(quantised(slot.parameter, dtype))
    fixed = [axes[item.axis].fixed_because for item in adapter.prunable()]
    if None not in fixed:
        raise AxisError(
            f"nothing of {type(adapter.model).__name__} can be removed: {fixed[0] if fixed else 'it has no blocks'}; "
            "icd.find_axes lists what can be reordered"
        )
