"""In what steps time follows width: found where there are some, and not where there are none or the clock is noisy."""

import numpy as np
import pytest
import torch

from icd_lib.measure.steps import find_step, measure_steps, widths_of_steps
from icd_lib.models.families import find_adapter
from tests.tiny_problems import small_batches, small_model


def rounded_up(width, step):
    return -(-width // step) * step


@pytest.mark.parametrize("tile", [16, 64])
@pytest.mark.parametrize("step", [1, 16, 32, 64, 128])
def test_the_widest_step_that_the_clock_shows_is_found(step, tile):
    rng = np.random.default_rng(0)
    widths = widths_of_steps(1536, tile)
    samples = {width: rounded_up(width, step) / 100 + rng.normal(0, 0.02, 15) for width in widths}
    assert find_step(samples, tile) == max(step if step > 16 else tile, tile)


def test_a_clock_that_shows_nothing_finds_no_step():
    rng = np.random.default_rng(1)
    samples = {width: 5 + rng.normal(0, 0.5, 15) for width in widths_of_steps(1536, 16)}
    assert find_step(samples, 16) == 16


@pytest.mark.parametrize(("size", "tile"), [(128, 16), (1536, 128), (3072, 256)])
def test_where_no_step_could_show_none_is_looked_for(size, tile):
    assert widths_of_steps(size, tile) == []


def test_a_model_is_timed_with_every_layer_at_the_same_width():
    model, (inputs,) = small_model(dtype=torch.float32, intermediate_size=512), small_batches(1)

    def call(made, inputs):
        widths = {layer.intermediate.dense.out_features for layer in made.encoder.layer}
        return lambda: widths

    def time_round(calls, settle_ns):
        return [1000 * rounded_up(max(call()), 64) for call in calls if len(call()) == 1]

    found = measure_steps(
        find_adapter(model),
        inputs,
        {"ffn": 16, "heads": 1},
        call=call,
        repeats=4,
        seed=0,
        time_round=time_round,
    )
    assert set(found) == {"ffn"}
    assert found["ffn"].step == 64 and found["ffn"].width == [256, 272, 288, 320, 384]
    assert found["ffn"].model_ms == [0.256, 0.32, 0.32, 0.32, 0.384]
