"""What the network loses where a single matrix is rounded, measured: which ones are to have more bits."""

import torch
from torch import nn
from torch.nn.functional import linear as product

from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.transforms.streams import ResidualStream
from icd_lib.transforms.weights.allocate import Choice
from icd_lib.transforms.weights.gptq import round_in_groups
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.readings import readings


@torch.inference_mode()
def lone_losses(model: nn.Module, batches: list[dict], spec: Spec) -> dict[str, float]:
    """Name of every Linear of the blocks → what the network loses where it alone is rounded to nearest points.

    That is the mean KL(dense ‖ rounded) of the next token in nats where the model has logits, else the relative squared
    error of the last hidden state. The blocks behind run on.
    """
    adapter, found = find_adapter(model), {}
    names = {module: name for name, module in model.named_modules()}
    blocks, stream = list(adapter.blocks()), ResidualStream(adapter, batches)
    states = [stream.hidden]
    for block in blocks:
        stream.run(block)
        states.append(stream.hidden)
    judge = _Judge(adapter, torch.cat(list(stream.flat(states[-1]))))
    for place, block in enumerate(blocks):
        stream.hidden = states[place]
        for matrix in [*(item for stage in readings(block, stream) for item in stage), block.consumer]:
            values = round_in_groups(matrix.weight, None, spec, name=names[matrix]).values.to(matrix.weight.dtype)
            handle = matrix.register_forward_hook(
                lambda module, args, _output, values=values: product(args[0], values, module.bias)
            )
            try:
                stream.hidden = states[place]
                stream.run(block)
            finally:
                handle.remove()
            for later in blocks[place + 1 :]:
                stream.run(later)
            found[names[matrix]] = judge.loss(torch.cat(list(stream.flat(stream.hidden))))
    return found


class _Judge:
    """wanted: the dense model's last hidden states (tokens, D)."""

    def __init__(self, adapter: Adapter, wanted: torch.Tensor):
        self.adapter, self.wanted = adapter, wanted
        logits = adapter.logits(wanted[None])
        self.log_p = None if logits is None else logits[0].log_softmax(-1)
        self.energy = max(float((wanted - wanted.mean(0)).double().square().sum()), 1e-12)

    def loss(self, found: torch.Tensor) -> float:
        if self.log_p is None:
            return float((found - self.wanted).double().square().sum()) / self.energy
        logits = self.adapter.logits(found[None])
        assert logits is not None
        log_q = logits[0].log_softmax(-1)
        return max(float((self.log_p.exp() * (self.log_p - log_q)).sum(-1).double().mean()), 0.0)


@torch.no_grad()
def choices_of(
    model: nn.Module, losses: dict[str, float], activity: dict[str, torch.Tensor], measured: Spec, specs: list[Spec]
) -> dict[str, list[Choice]]:
    """The ways to hold every matrix of `losses`, which are those of `measured`.

    The loss of another spec is taken to grow with the squared error of the matrix's output, Σ_j a_j ‖v_j − w_j‖² with
    the `activity` a of its columns: to second order that is what KL does.
    """
    found = {}
    for name, loss in losses.items():
        weight = model.get_submodule(name).weight.detach().double()
        base, items = _error(weight, measured, activity[name], name)[0], []
        for spec in specs:
            error, size = _error(weight, spec, activity[name], name)
            items.append(Choice(spec.bits, size, loss * (error / base) if base else 0.0))
        found[name] = items
    return found


def _error(weight: torch.Tensor, spec: Spec, activity: torch.Tensor, name: str) -> tuple[float, int]:
    """Squared error of the output where every weight goes to its nearest point, and the bytes in a file."""
    result = round_in_groups(weight, None, spec, name=name)
    return float((result.values - weight).square().sum(0) @ activity), result.grid.packed_bytes
