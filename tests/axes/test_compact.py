import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.errors import AxisError
from icd_lib.models.families import find_adapter
from tests.tiny_problems import HEADS, assert_same_state, small_model, state_of


def random_alive(size, kept, seed):
    return np.isin(np.arange(size), np.random.default_rng(seed).permutation(size)[:kept])


def test_weights_and_metadata_shrink_together():
    model = small_model()
    compact(model, find_adapter(model).axis("ffn.0"), random_alive(48, 20, 0))
    compact(model, find_adapter(model).axis("heads.1"), random_alive(HEADS, 3, 0))
    layer, attention = model.encoder.layer[0], model.encoder.layer[1].attention
    assert (layer.intermediate.dense.out_features, layer.output.dense.in_features) == (20, 20)
    assert layer.intermediate.dense.bias.shape == (20,)
    assert (attention.self.num_attention_heads, attention.self.all_head_size) == (3, 24)
    assert attention.self.query.out_features == attention.output.dense.in_features == 24
    assert {axis.name: axis.size for axis in find_adapter(model).axes() if axis.kind in ("ffn", "heads")} == {
        "ffn.0": 20,
        "heads.0": 4,
        "ffn.1": 48,
        "heads.1": 3,
    }


def test_kept_elements_stay_in_order():
    model, alive = small_model(), random_alive(48, 20, 4)
    old = model.encoder.layer[0].output.dense.weight.clone()
    compact(model, find_adapter(model).axis("ffn.0"), alive)
    assert torch.equal(model.encoder.layer[0].output.dense.weight, old[:, torch.from_numpy(alive)])


@pytest.mark.parametrize(
    ("alive", "complaint"),
    [
        (np.ones(47, dtype=bool), r"shape \(48,\)"),
        (np.ones(48), "bool array"),
        (np.zeros(48, dtype=bool), "nothing is alive"),
    ],
)
def test_bad_masks_are_refused(alive, complaint):
    model = small_model()
    state = state_of(model)
    with pytest.raises(AxisError, match=complaint):
        compact(model, find_adapter(model).axis("ffn.0"), alive)
    assert_same_state(model, state)


def test_stale_axis_is_refused():
    model = small_model()
    stale = find_adapter(model).axis("heads.0")
    compact(model, stale, np.arange(4) < 3)
    with pytest.raises(AxisError, match="find_axes again"):
        compact(model, stale, np.arange(4) < 2)
