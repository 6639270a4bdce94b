import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.models.checkpoint import room
from icd_lib.models.checkpoint.source import random_checkpoint

MINILM = 22_713_216  # parameters of the six-layer encoder, its pooler included


def test_parameters_are_counted_without_allocating():
    assert room.count_parameters(random_checkpoint("minilm-l6")) == MINILM
    assert room.count_parameters(random_checkpoint("mamba-2.8b", family="mamba")) > 2.6e9


def test_a_run_needs_three_working_copies_and_a_double():
    assert room.needed_bytes(10, torch.float32) == 200
    assert room.needed_bytes(10, torch.bfloat16) == 140


@pytest.mark.parametrize(("free_copies", "wanted", "chosen"), [(21, "auto", "float32"), (15, "auto", "bfloat16")])
def test_auto_takes_the_wider_type_that_fits(monkeypatch, free_copies, wanted, chosen):
    monkeypatch.setattr(room, "free_memory", lambda: MINILM * free_copies)
    assert room.fitting_dtype(random_checkpoint("minilm-l6"), wanted) == getattr(torch, chosen)


@pytest.mark.parametrize(("free_copies", "wanted"), [(19, "float32"), (13, "auto")])
def test_what_does_not_fit_is_refused_with_both_figures(monkeypatch, free_copies, wanted):
    monkeypatch.setattr(room, "free_memory", lambda: MINILM * free_copies)
    with pytest.raises(ResourceError, match=r"needs 0\.\d GB .* and 0\.\d GB are free"):
        room.fitting_dtype(random_checkpoint("minilm-l6"), wanted)


def test_the_largest_shape_is_refused_on_a_small_machine(monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda: 16 * 10**9)
    with pytest.raises(ResourceError, match="'random mamba-2.8b' has 2.77 billion parameters"):
        room.fitting_dtype(random_checkpoint("mamba-2.8b", family="mamba"), "auto")
