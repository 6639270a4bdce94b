"""What the caller has set and what we need do not reach each other."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.codesign.surroundings import Surroundings, our_own


def draw():
    return torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002


@pytest.fixture(autouse=True)
def back():
    before = Surroundings.now()
    yield
    before.restore()


def test_a_function_of_the_caller_finds_and_leaves_the_callers_things():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    seen = []

    def function(word):
        seen.append((word, torch.get_default_dtype(), torch.is_grad_enabled(), draw()))
        torch.set_default_dtype(torch.float16)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_autocast_enabled("cpu", True)
        np.seterr(all="raise")
        return word

    before, threads = Surroundings.now(), torch.get_num_threads()
    with our_own(nn.Linear(1, 1)) as caller:
        ours = (torch.float32, True, False, threads)
        now = lambda: (  # noqa: E731
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_num_threads(),
        )
        assert now() == ours
        assert caller.wrapped(function)("a") == "a" and now() == ours
        draw()
        assert caller.call(function, "b") == "b" and now() == ours
        assert torch.get_deterministic_debug_mode() == 0 and np.geterr()["over"] != "raise"
    assert [word for word, *_ in seen] == ["a", "b"] and seen[0][1:] == seen[1][1:]
    assert seen[0][1:3] == (torch.float64, False)
    assert Surroundings.now().switches == before.switches
    assert draw() == seen[0][3], "the caller's generators stand where they stood"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_all_is_back_after_an_exception(error):
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train()
    model[1].eval()
    before = Surroundings.now()

    def function():
        torch.set_grad_enabled(False)
        model.eval().requires_grad_(False)
        draw()
        raise error

    with pytest.raises(error), our_own(model) as caller:
        caller.call(function)
    now = Surroundings.now()
    assert now.switches == before.switches and torch.equal(now.generators[0], before.generators[0])
    assert [module.training for module in model.modules()] == [True, True, False]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_within_inference_mode_we_can_still_learn():
    with torch.inference_mode(), our_own(nn.Linear(1, 1)) as caller:
        assert not torch.is_inference_mode_enabled() and torch.ones(1, requires_grad=True).sum().requires_grad
        assert caller.call(torch.is_inference_mode_enabled)
