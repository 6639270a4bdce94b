"""Shared by all tests: GPU tests are skipped, with the reason, where there is no CUDA device; long files come first."""

import sys
from functools import partial
from pathlib import Path

import pytest

from icd_lib.optional import REPORTER

sys.modules.setdefault(REPORTER, None)  # for tests that import OpenVINO themselves (icd_lib.optional says why)

# Half a minute and more each. `make test` gives files to its workers in the order of the tests: what is long is begun
# first, so that no core has nothing to do while the other is busy with a last long file.
LONG = (
    "inputs/test_inputs.py",
    "whole/test_run_bert.py",
    "execute/test_kill.py",
    "execute/test_run_all.py",
    "execute/test_sweep.py",
    "extend/test_whole_run.py",
    "execute/test_output.py",
    "inputs/test_fuzz_optimize.py",
    "workloads/model/test_counters.py",
    "whole/test_run_mock.py",
    "execute/test_pipeline.py",
    "execute/test_cluster.py",
    "workloads/model/test_deployment.py",
    "codesign/test_loop.py",
    "decoding/test_contract.py",
    "runtimes/test_contract.py",
    "models/test_contract.py",
    "deploy/test_export.py",
    "solver/test_scale.py",
)
assert all((Path(__file__).parent / name).is_file() for name in LONG), "a file of LONG was renamed"
PLACES = {f"tests/{name}": place for place, name in enumerate(LONG)}

collect_ignore_glob = ["extend/toy_*.py"]  # looking for doctests would import them, and so add their rows


@pytest.fixture(scope="module")
def unsettled():
    """`icd.optimize` makes no untimed calls before a timed one: for tiny models they are nearly all of its time."""
    from icd_lib import api

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "measure_width_curves", partial(api.measure_width_curves, settle_ms=0.0))
        yield


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: PLACES.get(item.nodeid.partition("::")[0], len(PLACES)))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in on_gpu:
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device and this machine has none"))
