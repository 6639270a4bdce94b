"""Packages that may be missing or broken: whatever their import raises becomes a reason with a cure."""

import subprocess
import sys

import pytest
import scipy.sparse as sp

from icd_lib.errors import ResourceError
from icd_lib.kernels import cuda_package
from icd_lib.measure.energy import NvmlCounter, energy_j_per_token
from icd_lib.models.export import import_onnxruntime
from icd_lib.optional import REPORTER, load_optional
from icd_lib.runtimes import RUNTIMES
from icd_lib.solver import ORDERINGS, CostConfig, fit_permutation

RAISED = [
    'OSError("libnative.so.1: cannot open shared object file")',
    'RuntimeError("built for another driver")',
    'ImportError("DLL load failed")',
    'AttributeError("module numpy has no attribute float")',
    "ModuleNotFoundError(\"No module named 'inner'\", name='inner')",
]


@pytest.fixture(params=RAISED)
def broken(request, tmp_path, monkeypatch):
    """broken(package): its import raises what a broken installation raises; gives the reason that must be shown."""

    def install(package: str) -> str:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"raise {request.param}\n")
        monkeypatch.syspath_prepend(tmp_path)
        kind, _, rest = request.param.partition('("')
        return f"{kind}: {rest.partition(chr(34))[0]}"

    return install


def test_a_broken_package_is_told_from_a_missing_one(broken):
    reason = broken("some_package")
    with pytest.raises(ResourceError) as caught:
        load_optional("some_package", "some-package")
    assert reason in str(caught.value) and "pip install --force-reinstall some-package" in str(caught.value)
    with pytest.raises(
        ResourceError, match=r"package no_such_package is not installed; run pip install no_such_package"
    ):
        load_optional("no_such_package")


def test_a_broken_pynvml_is_no_counter(broken):
    reason = broken("pynvml")
    with pytest.raises(ResourceError) as caught:
        NvmlCounter()
    assert reason in str(caught.value)
    found = energy_j_per_token(lambda: None, 1, device="cuda")
    assert found.kind == "not_measured" and reason in found.reason


@pytest.mark.parametrize("where", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetTotalEnergyConsumption"])
def test_a_pynvml_that_fails_later_is_no_counter(tmp_path, monkeypatch, where):
    source = "class NVMLError(Exception): pass\ndef fail(*_): raise OSError('no libnvidia-ml.so')\n"
    names = ("nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetTotalEnergyConsumption")
    source += "".join(f"{name} = {'fail' if name == where else 'lambda *_: 0'}\n" for name in names)
    (tmp_path / "pynvml.py").write_text(source)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ResourceError, match="NVML (does not work|has no energy counter) here: no libnvidia-ml.so"):
        NvmlCounter()


def test_a_counter_that_stops_answering_is_not_measured(tmp_path):
    class Counter:
        name = "test"
        answers = 1

        def joules(self):
            self.answers -= 1
            if self.answers < 0:
                raise ResourceError("it is gone")
            return 0.0

    found = energy_j_per_token(lambda: None, 1, counter=Counter(), window_s=0.001)
    assert found.kind == "not_measured" and "it is gone" in found.reason


@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_a_runtime_with_a_broken_package_says_so(broken, package):
    reason = broken(package)
    if package == "onnxruntime":
        with pytest.raises(ResourceError) as caught:
            import_onnxruntime()
        assert reason in str(caught.value)
    rows = [row for row in RUNTIMES.values() if package in row.needs]
    assert rows
    for row in rows:
        with pytest.raises(ResourceError) as caught:
            row.check()
        assert reason in str(caught.value)


@pytest.mark.parametrize("package, method", [("pymetis", "bisection"), ("igraph", "leiden")])
def test_a_broken_graph_library_is_skipped_where_others_compete(broken, package, method):
    reason = broken(package)
    W = sp.csr_array([[abs(i - j) == 1 for j in range(70)] for i in range(70)], dtype=float)
    with pytest.raises(ResourceError) as caught:
        ORDERINGS[method](W, CostConfig(), 0)
    assert reason in str(caught.value)
    _, stats = fit_permutation(W, refine_steps=5)
    assert reason in stats["skipped"][method]


def test_a_broken_mamba_ssm_says_how_to_build_it(broken):
    broken("mamba_ssm")
    cuda_package.load_scan.cache_clear()
    with pytest.raises(ResourceError, match="mamba_ssm is installed but cannot be loaded"):
        cuda_package.load_scan()
    cuda_package.load_scan.cache_clear()


CONVERTS = """
import os, sys
import torch
from icd_lib.optional import load_optional

forks = []
os.register_at_fork(before=lambda: forks.append(1))
model = load_optional("openvino").convert_model(torch.nn.Linear(8, 8), example_input=torch.zeros(1, 8))
load_optional("nncf").compress_weights(model)
print(len(forks), "openvino_telemetry" in sys.modules)
"""


def test_converting_and_quantising_report_to_nobody_and_fork_nothing():
    pytest.importorskip("openvino"), pytest.importorskip("nncf")
    said = subprocess.run([sys.executable, "-c", CONVERTS], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "0 False"


def test_who_imported_the_reporter_before_keeps_it(monkeypatch):
    before = object()
    monkeypatch.setitem(sys.modules, REPORTER, before)
    load_optional("json")
    assert sys.modules[REPORTER] is before
    monkeypatch.delitem(sys.modules, REPORTER)
    with pytest.raises(ResourceError):
        load_optional("no_such_package")
    assert REPORTER not in sys.modules
