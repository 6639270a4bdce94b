import copy

import numpy as np
import torch

from icd_lib.axes.compact import compact
from icd_lib.axes.expand import expand
from icd_lib.models.families import find_adapter
from tests.tiny_problems import small_model


def test_removed_elements_are_exact_zeros():
    model = small_model()
    small, kept = copy.deepcopy(model), np.arange(48) % 3 > 0
    compact(small, find_adapter(model).axis("ffn.0"), kept)
    whole = expand(small, model, find_adapter(model).axes(), {"ffn.0": np.flatnonzero(kept)})
    weight = whole.encoder.layer[0].output.dense.weight
    assert (weight[:, torch.from_numpy(~kept)] == 0).all()
    assert torch.equal(
        weight[:, torch.from_numpy(kept)], model.encoder.layer[0].output.dense.weight[:, torch.from_numpy(kept)]
    )
