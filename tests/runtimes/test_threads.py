"""torch's threads are set for a time, and belong to the user afterwards."""

import os

import pytest
import torch

from icd_lib.runtimes.threads import torch_threads


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 3), (0, len(os.sched_getaffinity(0)))])
def test_threads_are_put_back_even_after_an_error(count, expected):
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(count):
        assert torch.get_num_threads() == expected
        raise KeyError
    assert torch.get_num_threads() == before
