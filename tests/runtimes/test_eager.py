"""What the clock sees of the reference runtime: the model's own call, and the wait for a device."""

import pytest
import torch

from icd_lib.runtimes import reference_call
from icd_lib.runtimes.eager import RUNTIME
from tests.tiny_encoders import batch, tiny_bert


class Seen(torch.nn.Module):
    """Notes what it is called with, and how; returns an object of its own."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.calls = []

    def forward(self, **inputs):
        self.calls.append((inputs, torch.is_inference_mode_enabled(), self.training))
        return self


def test_the_clock_calls_the_model_with_its_inputs_as_they_are():
    model, inputs = Seen(), {"input_ids": torch.ones(1, 2)}
    assert reference_call(model, inputs)() is model
    ((given, inference, training),) = model.calls
    assert given == inputs and inference and not training


def test_memory_is_that_of_the_weights():
    assert RUNTIME.prepare(Seen(), {}).memory_bytes == 12
    model = tiny_bert()
    assert RUNTIME.prepare(model, {}).memory_bytes >= 4 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("cuda", [False, True])
def test_a_call_on_a_device_ends_when_the_device_is_done(monkeypatch, cuda):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    model = Seen()
    prepared = RUNTIME.prepare(model, {})
    prepared._cuda = cuda
    assert prepared.call(batch(1, 4))() is model and len(waited) == cuda
