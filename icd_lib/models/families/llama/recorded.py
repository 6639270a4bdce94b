"""What a decoder gives its layers before the first of them runs: embeddings, masks, rotary angles."""

import copy

import torch
from torch import nn

_NAMES = ("input_ids", "attention_mask", "position_ids")
_PASSED = ("attention_mask", "position_ids", "position_embeddings")


class _Recorder(nn.Module):
    """A layer that notes what it is called with and passes the hidden state on."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", None)
        self.found: tuple[torch.Tensor, dict] | None = None

    def forward(self, hidden: torch.Tensor, **given) -> torch.Tensor:
        self.found = hidden, {name: given[name] for name in _PASSED if name in given}
        return hidden


class Recorded:
    """A decoder's own preparation, run without its layers: each family scales and masks in its own way.

    decoder: with `layers`; it is left as it is
    """

    def __init__(self, decoder: nn.Module):
        self._recorders = [_Recorder(layer) for layer in decoder.layers]
        self._shell = copy.copy(decoder)
        self._shell.__dict__["_modules"] = {**decoder._modules, "layers": nn.ModuleList(self._recorders)}

    def run(self, inputs: dict) -> tuple[torch.Tensor, list[dict]]:
        """Hidden state before the first layer, (B, L, D), and the keywords of each layer's attention."""
        self._shell(**{name: inputs[name] for name in _NAMES if inputs.get(name) is not None}, use_cache=False)
        found = [recorder.found for recorder in self._recorders]
        return found[0][0], [given for _, given in found]
