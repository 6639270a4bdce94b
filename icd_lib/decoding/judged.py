"""A decoder of some runtime as what judges of language models take."""

from types import SimpleNamespace
from typing import Protocol

import numpy as np
import torch
from torch import nn


class ReadsWhole(Protocol):
    def whole(self, ids: np.ndarray) -> np.ndarray:
        """Logits (B, L, V) at every token of ids (B, L)."""


class Judged:
    """What `model` is to its judge, with the logits that a runtime gives."""

    def __init__(self, decoder: ReadsWhole, model: nn.Module):
        self.decoder, self.config, self.parameters = decoder, model.config, model.parameters

    def __call__(self, input_ids: torch.Tensor, **_options) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.from_numpy(self.decoder.whole(input_ids.numpy())))
