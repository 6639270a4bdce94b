from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.permutation import hash_permutation
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import verify_axes
from icd_lib.errors import AxisError
from icd_lib.models.families import find_adapter
from tests.tiny_problems import CLASSES, assert_same_state, small_batches, small_model, state_of, three_cycle


@pytest.mark.parametrize("kind", CLASSES)
def test_every_axis_is_certified_and_the_model_is_untouched(kind):
    model, (inputs,) = small_model(kind, dtype=torch.float32), small_batches(1)
    state, axes = state_of(model), find_adapter(model).axes()
    certificates = verify_axes(model, axes, inputs)
    assert [c["axis"] for c in certificates] == [axis.name for axis in axes]
    assert max(c["max_rel_error"] for c in certificates) <= 1e-10
    assert_same_state(model, state)


def test_every_slot_matters():
    """Leave out one slot after the other: the axis must be refused and the model stay as it is."""
    model, (inputs,) = small_model("masked_lm"), small_batches(1)
    state = state_of(model)
    for name in ("ffn.0", "heads.1", "residual", "vocab"):
        axis = find_adapter(model).axis(name)
        for i, slot in enumerate(axis.slots):
            wrong = replace(axis, slots=axis.slots[:i] + axis.slots[i + 1 :])
            # Attention weights do not change when a constant is added to all scores of a query.
            if slot.parameter.endswith("self.key.bias"):
                continue
            with pytest.raises(AxisError, match=f"axis '{name}' changes the outputs.*refused"):
                verify_axes(model, [wrong], inputs)
    assert_same_state(model, state)


def test_given_permutations_are_the_ones_certified():
    model, (inputs,) = small_model(), small_batches(1)
    axis, perm = find_adapter(model).axis("ffn.1"), three_cycle(48)
    (certificate,) = verify_axes(model, [axis], inputs, perms={"ffn.1": perm})
    assert certificate["perm_hash"] == hash_permutation(perm)
    assert (certificate["kind"], certificate["size"]) == ("ffn", 48)


def test_seed_chooses_the_permutations():
    model, (inputs,) = small_model(), small_batches(1)
    axes = find_adapter(model).axes()[:2]

    def hashes(seed):
        return [c["perm_hash"] for c in verify_axes(model, axes, inputs, seed=seed)]

    assert hashes(0) == hashes(0) != hashes(1)


def test_mapped_vocabulary_can_be_certified_again():
    model, (inputs,) = small_model("masked_lm"), small_batches(1)
    axis = find_adapter(model).axis("vocab")
    permute(model, axis, np.random.default_rng(0).permutation(axis.size))
    (certificate,) = verify_axes(model, [axis], inputs)
    assert certificate["max_rel_error"] <= 1e-10


@pytest.mark.parametrize("place", ["encoder.layer.1.output.dense.bias", "pooler.dense.bias"])
def test_nan_outputs_are_never_certified(place):
    """The pooler is the second output: one that is NaN must not hide behind a first that is fine."""
    model, (inputs,) = small_model(), small_batches(1)
    model.get_parameter(place)[0] = float("nan")
    with pytest.raises(AxisError):
        verify_axes(model, [find_adapter(model).axis("ffn.0")], inputs)
