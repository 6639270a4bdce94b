"""A model in any runtime, judged like a model."""

from types import SimpleNamespace

import numpy as np
import torch

from icd_lib.runtimes.base import Prepared


class RuntimeEncoder:
    """A prepared model that is called with tensors (B, L); its output has `last_hidden_state` (B, L, D)."""

    def __init__(self, prepared: Prepared):
        self.prepared = prepared

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.from_numpy(np.array(self.prepared.run(inputs))))
