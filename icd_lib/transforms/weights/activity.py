"""How active the elements of shared axes are, summed over everything that reads them, before anything is rounded."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from icd_lib.models.families import find_adapter
from icd_lib.progress import DETAIL
from icd_lib.transforms.streams import ResidualStream
from icd_lib.transforms.weights.orders import Columns
from icd_lib.transforms.weights.readings import inputs_of, readings


@torch.inference_mode()
def column_activity(
    model: nn.Module, batches: list[dict], progress: Callable[[str], None] = lambda line: None
) -> dict[str, torch.Tensor]:
    """Name of every Linear of the blocks that is called → mean square of each column of its input, float64 (in,)."""
    adapter, found = find_adapter(model), {}
    names = {module: name for name, module in model.named_modules()}
    stream, row = ResidualStream(adapter, batches), ResidualStream.of_one_row(adapter, batches)
    for block in adapter.blocks():
        for linears in readings(block, row):
            squares = mean_squares(inputs_of(linears[0], block, stream))
            found |= {names[linear]: squares for linear in linears}
        inner = stream.inner(block)
        found[names[block.consumer]] = mean_squares(stream.flat(inner))
        stream.advance(block, stream.sums(block, inner))
        row.run(block)
        progress(f"{DETAIL}{block.axis}: activity read")
    return found


def linear_names(model: nn.Module, batches: list[dict]) -> list[str]:
    """The Linears of the blocks that are called, as `column_activity` has them."""
    adapter, found = find_adapter(model), []
    names = {module: name for name, module in model.named_modules()}
    row = ResidualStream.of_one_row(adapter, batches)
    for block in adapter.blocks():
        found += [names[linear] for linears in readings(block, row) for linear in linears]
        found.append(names[block.consumer])
        row.run(block)
    return found


def mean_squares(parts) -> torch.Tensor:
    """Mean square of each column of (tokens, n) parts, float64 (n,)."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for part in parts:
        total = total + part.square().sum(0).double()
        tokens += len(part)
    return total / max(tokens, 1)


def shared_activity(columns: Columns, activity: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Axis → (D,): activity of its elements, of mean 1 in every matrix that reads it, summed over them."""
    found: dict[str, np.ndarray] = {}
    for name, squares in activity.items():
        for axis, values in columns.evidence(name, squares).items():
            found[axis] = found[axis] + values if axis in found else values
    return found
