import weakref

import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.measure.tables import measure_width_curves, narrowed_copy, widths_to_try
from icd_lib.models.families import find_adapter
from tests.tiny_problems import assert_same_state, encode, small_batches, small_model, state_of


@pytest.mark.parametrize(("size", "points", "step"), [(1536, 12, 16), (12, 6, 1), (48, 3, 16), (50, 4, 16), (8, 20, 1)])
def test_widths_are_ascending_multiples_that_end_with_all(size, points, step):
    widths = widths_to_try(size, points, step)
    assert widths == sorted(set(widths))
    assert (widths[0], widths[-1]) == (step, size)
    assert all(width % step == 0 for width in widths[:-1])
    assert len(widths) <= points + 1


@pytest.mark.parametrize(("kind", "kept"), [("ffn", 13), ("heads", 1)])
def test_a_narrowed_copy_is_the_compacted_model_and_shares_embeddings(kind, kept):
    model, (inputs,) = small_model(), small_batches(1)
    state = state_of(model)
    narrow = narrowed_copy(find_adapter(model), kind, kept)
    assert narrow.embeddings.word_embeddings.weight is model.embeddings.word_embeddings.weight
    assert_same_state(model, state)
    for axis in find_adapter(model).axes():
        if axis.kind == kind:
            compact(model, axis, np.arange(axis.size) < kept)
    assert torch.equal(encode(narrow, inputs), encode(model, inputs))


def test_curves_are_monotone_and_end_with_the_dense_model():
    model, (inputs,) = small_model(dtype=torch.float32), small_batches(1)
    state, ticks = state_of(model), []
    dense_ms, curves = measure_width_curves(
        find_adapter(model),
        inputs,
        {"ffn": [16, 32, 48], "heads": [2, 4]},
        repeats=3,
        seed=0,
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert dense_ms > 0
    assert ticks[-1] == (6, 6)
    for kind, kept in (("ffn", [16, 32, 48]), ("heads", [2, 4])):
        curve = curves[kind]
        assert (curve.kind, curve.kept) == (kind, kept)
        assert (curve.model_ms[-1], curve.saved_ms[-1]) == (dense_ms, 0.0)
        assert (np.diff(curve.saved_ms) <= 0).all()
        assert curve.to_json() == {"kept": kept, "model_ms": curve.model_ms, "saved_ms_per_layer": curve.saved_ms}
    assert_same_state(model, state)


@pytest.mark.parametrize(("at_once", "rounds"), [(1, 18), (2, 12), (9, 6)])
def test_no_more_variants_are_held_than_are_asked_for(at_once, rounds):
    model, (inputs,) = small_model(dtype=torch.float32), small_batches(1)
    held, most, ticks = weakref.WeakSet(), [], []

    class Call:
        def __init__(self, made, inputs):
            held.add(self)
            most.append(len(held))
            self.width = made.encoder.layer[0].intermediate.dense.out_features

        def __call__(self):
            pass

    def time_round(calls, settle_ns):
        return [1_000_000 * call.width for call in calls]

    dense_ms, curves = measure_width_curves(
        find_adapter(model),
        inputs,
        {"ffn": [16, 32, 40, 48]},
        repeats=3,
        seed=0,
        call=Call,
        time_round=time_round,
        at_once=at_once,
        progress=lambda done, total: ticks.append((done, total)),
    )
    assert max(most) == min(at_once, 3) + 1
    assert ticks == [(done, rounds) for done in range(1, rounds + 1)]
    assert dense_ms == 48 and curves["ffn"].model_ms == [16, 32, 40, 48]
    layers = len(model.encoder.layer)
    assert np.allclose(curves["ffn"].saved_ms, np.array([32, 16, 8, 0]) / layers)
