"""Shared by all tests: GPU tests are skipped, with the reason, where there is no CUDA device."""

import pytest

collect_ignore_glob = ["extend/toy_*.py"]  # looking for doctests would import them, and so add their rows


def pytest_collection_modifyitems(items):
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in on_gpu:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device and this machine has none"))
