"""How much the network loses where a single Linear is rounded, measured: which ones are to stay float."""

import torch
from torch import nn

from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import QuantizedLinear
from icd_lib.transforms.quantization.calibrate import readers_of
from icd_lib.transforms.quantization.ranges import input_grid, row_steps
from icd_lib.transforms.streams import ResidualStream


def fewer(batches: list[dict], tokens: int) -> list[dict]:
    """Every so manieth batch, so that they hold about `tokens` tokens, padding included; at least one.

    >>> [batch["input_ids"].shape[1] for batch in fewer([{"input_ids": torch.zeros(1, n)} for n in range(1, 9)], 18)]
    [1, 3, 5, 7]
    """
    total = sum(batch["input_ids"].numel() for batch in batches)
    count = min(len(batches), max(1, round(len(batches) * tokens / total)))
    return [batches[index * len(batches) // count] for index in range(count)]


@torch.inference_mode()
def lone_errors(model: nn.Module, batches: list[dict]) -> dict[str, float]:
    """Name of every Linear that can be rounded → relative squared error of the last hidden state where it alone is.

    Rounded plainly: the input between its extremes, the weight to the nearest point. The blocks behind run on.
    """
    adapter, errors = find_adapter(model), {}
    names = {module: name for name, module in model.named_modules()}
    blocks, stream = list(adapter.blocks()), ResidualStream(adapter, batches)
    states = [stream.hidden]
    for block in blocks:
        stream.run(block)
        states.append(stream.hidden)
    wanted = torch.cat(list(stream.flat(states[-1])))
    energy = float((wanted - wanted.mean(0)).double().square().sum())
    for place, block in enumerate(blocks):
        stream.hidden = states[place]
        for linear in (*readers_of(block, stream), block.consumer):
            handle = linear.register_forward_hook(plainly_rounded)
            try:
                stream.hidden = states[place]
                stream.run(block)
            finally:
                handle.remove()
            for later in blocks[place + 1 :]:
                stream.run(later)
            found = torch.cat(list(stream.flat(stream.hidden)))
            errors[names[linear]] = float((found - wanted).double().square().sum()) / max(energy, 1e-12)
    return errors


def plainly_rounded(linear: nn.Linear, args: tuple, _output: torch.Tensor) -> torch.Tensor:
    """A forward hook: what the Linear gives with its input rounded between its extremes, and its weight too."""
    grid = input_grid(float(args[0].min()), float(args[0].max()))
    made = QuantizedLinear.of(linear, row_steps(linear.weight), grid)
    return made(args[0])
