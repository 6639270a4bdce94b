"""Every fast path against the slow reference."""

import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.kernels import (
    cpu_pool,
    cuda_package,
    scan,
    selective_scan,
    selective_scan_ref,
    selective_scan_step,
    triton_scan,
)
from icd_lib.kernels.cpu_scan import CHUNK
from tests.scan_cases import TOLERANCE, assert_agrees, make_inputs, relative_error


@pytest.mark.parametrize("length", [1, 2, 255, 256, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_length(length, dtype):
    assert_agrees(make_inputs(length=length, dtype=dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("width", [1, 15, 16, 17, 63, 64, 65, 131])
@pytest.mark.parametrize("states", [1, 3, 16, 130])
def test_widths_and_states_that_are_multiples_of_nothing(width, states):
    assert_agrees(make_inputs(width=width, states=states, length=CHUNK + 1), TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("layout", ["rows", "columns", "sliced"])
def test_any_layout_and_precision(layout, dtype):
    assert_agrees(make_inputs(sequences=3, dtype=dtype, layout=layout), TOLERANCE[dtype])


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "initial_state"])
def test_optional_arguments(absent):
    inputs = make_inputs()
    for given in ({absent: None}, {name: None for name in ("D", "z", "delta_bias", "initial_state") if name != absent}):
        assert_agrees(inputs | given, 2e-6)
        # Without softplus the steps are taken as they are, and negative ones let the state grow beyond all bounds.
        plain = {"delta": inputs["delta"].abs(), "delta_bias": inputs["delta_bias"].abs(), "delta_softplus": False}
        assert_agrees(inputs | plain | given, 2e-6)


def test_mixed_precisions():
    inputs = make_inputs(dtype=torch.bfloat16)
    assert_agrees(inputs | {"delta": inputs["delta"].float(), "B": inputs["B"].float()}, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("cut", [1, CHUNK, 57])
def test_two_parts_make_the_whole(cut):
    inputs = make_inputs(length=80, dtype=torch.float64)
    whole, last = selective_scan(**inputs, return_last_state=True)
    state, parts = inputs["initial_state"], []
    for part in (slice(0, cut), slice(cut, None)):
        tokens = {name: inputs[name][..., part] for name in ("u", "delta", "B", "C", "z")}
        out, state = selective_scan(**(inputs | tokens | {"initial_state": state}), return_last_state=True)
        parts.append(out)
    assert relative_error(torch.cat(parts, -1), whole) <= 1e-13
    assert relative_error(state, last) <= 1e-13


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("states", [1, 5, 16])
def test_single_steps_make_the_whole(dtype, states):
    inputs = make_inputs(length=7, states=states, dtype=dtype)
    whole, last = selective_scan(**inputs, return_last_state=True)
    state = inputs["initial_state"].clone()
    common = {name: inputs[name] for name in ("A", "D", "delta_bias", "delta_softplus")}
    for t in range(7):
        tokens = {name: inputs[name][..., t] for name in ("u", "delta", "B", "C", "z")}
        out = selective_scan_step(state, **tokens, **common)
        assert out.dtype == dtype
        assert relative_error(out, whole[..., t]) <= TOLERANCE[dtype]
    assert relative_error(state, last) <= 2e-6


def test_a_state_that_is_not_contiguous_is_advanced_all_the_same():
    inputs = make_inputs(length=1)
    state = inputs["initial_state"].transpose(1, 2).contiguous().transpose(1, 2)
    tokens = {name: inputs[name][..., 0] for name in ("u", "delta", "B", "C", "z")}
    common = {name: inputs[name] for name in ("A", "D", "delta_bias", "delta_softplus")}
    out = selective_scan_step(state, **tokens, **common)
    wanted, last = selective_scan_ref(**inputs, return_last_state=True)
    assert relative_error(out, wanted[..., 0]) <= 2e-6 and relative_error(state, last) <= 2e-6


def leaves_of(inputs):
    return {name: x.detach().clone().requires_grad_() for name, x in inputs.items() if torch.is_tensor(x)}


@pytest.mark.parametrize("length", [1, 3, CHUNK, CHUNK + 2])
def test_gradcheck_of_every_tensor(length):
    inputs = make_inputs(sequences=1 if length > 3 else 2, width=2, states=2, length=length, dtype=torch.float64)
    leaves = leaves_of(inputs)

    def function(*tensors):
        return selective_scan(**dict(zip(leaves, tensors, strict=True)), delta_softplus=True, return_last_state=True)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()), fast_mode=length > 3)


@pytest.mark.parametrize("absent", [(), ("D", "z", "delta_bias", "initial_state")])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_gradients_are_those_of_the_reference(absent, dtype, tolerance):
    inputs = {name: x for name, x in make_inputs(length=100, width=70, dtype=dtype).items() if name not in absent}
    inputs["delta_softplus"] = not absent
    if absent:
        inputs["delta"] = inputs["delta"].abs() * 0.1
    weight = torch.randn(2, 70, 100, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    gradients = []
    for function, raised in ((selective_scan, False), (selective_scan_ref, True)):
        leaves = leaves_of({n: x.double() if raised and torch.is_tensor(x) else x for n, x in inputs.items()})
        out, last = function(**(inputs | leaves), return_last_state=True)
        loss = (out.double() * weight).sum() + last.double().square().sum()
        gradients.append(dict(zip(leaves, torch.autograd.grad(loss, tuple(leaves.values())), strict=True)))
    for name, got in gradients[0].items():
        assert got.dtype == inputs[name].dtype
        assert relative_error(got, gradients[1][name]) <= tolerance, name


def run_all(inputs):
    """Bytes of the outputs and of every gradient."""
    leaves = leaves_of(inputs)
    out, last = selective_scan(**(inputs | leaves), return_last_state=True)
    grads = torch.autograd.grad(out.square().sum() + last.sum(), tuple(leaves.values()))
    return [x.detach().numpy().tobytes() for x in (out, last, *grads)]


def test_the_same_bytes_for_any_number_of_threads_and_without_openmp(monkeypatch):
    inputs = make_inputs(sequences=3, width=200, states=16, length=70)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run_all(inputs)
        torch.set_num_threads(3)
        assert run_all(inputs) == alone == run_all(inputs)
        monkeypatch.setattr(cpu_pool, "_openmp_parallel", lambda: None)
        assert run_all(inputs) == alone
    finally:
        torch.set_num_threads(before)


def test_several_threads_really_share_the_work(monkeypatch):
    seen = []
    monkeypatch.setattr(
        cpu_pool, "_openmp_parallel", lambda: lambda pointer, data, threads, flags: seen.append(threads)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    selective_scan(**make_inputs(width=200, states=16, length=70))
    selective_scan(**make_inputs(width=5, states=2, length=1))  # too little work to wake anybody
    assert seen == [4]


def test_calls_from_several_threads_at_once_do_not_disturb_each_other():
    cases = [make_inputs(width=100, states=16, length=100, seed=seed) for seed in range(3)]
    wanted = [selective_scan(**inputs) for inputs in cases]
    with ThreadPoolExecutor(max_workers=3) as pool:
        found = list(pool.map(lambda index: selective_scan(**cases[index % 3]), range(60)))
    assert all(torch.equal(out, wanted[index % 3]) for index, out in enumerate(found))


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux only")
def test_torch_lends_its_openmp_threads_here():
    assert cpu_pool._openmp_parallel() is not None


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_nan_is_never_lost(name):
    inputs = make_inputs()
    poisoned = inputs | {name: inputs[name].clone()}
    poisoned[name][(0,) * inputs[name].ndim] = float("nan")
    assert selective_scan(**poisoned).isnan().any()


def test_extreme_steps_neither_overflow_nor_stall():
    """A step so long that nothing is kept, and one so short that nothing is forgotten."""
    inputs = make_inputs(dtype=torch.float64)
    for shift in (200.0, -200.0):
        assert_agrees(inputs | {"delta_bias": inputs["delta_bias"] + shift}, 1e-12)
        single = {name: x.float() if torch.is_tensor(x) else x for name, x in inputs.items()}
        assert_agrees(single | {"delta_bias": single["delta_bias"] + shift}, 2e-6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"u": torch.zeros(2, 37, 0)}, "the prompt is empty"),
        ({"u": torch.zeros(37, 9)}, r"takes u \(B, D, L\)"),
        ({"A": torch.zeros(37, 0)}, "at least one token, channel and state"),
        ({"delta": torch.zeros(2, 36, 9)}, r"delta of shape \(2, 37, 9\).*got \(2, 36, 9\)"),
        ({"B": torch.zeros(2, 9, 5)}, r"B of shape \(2, 5, 9\)"),
        ({"initial_state": torch.zeros(2, 37)}, r"initial_state of shape \(2, 37, 5\)"),
        ({"D": torch.zeros(37, device="meta")}, "u is on cpu, D on meta"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        selective_scan(**(make_inputs() | change))


def test_backends_by_name():
    inputs = make_inputs()
    assert torch.equal(selective_scan(**inputs, backend="reference"), selective_scan_ref(**inputs))
    with pytest.raises(ConfigError, match="no backend 'fast'; it takes one of reference, cpu, triton, mamba_ssm"):
        selective_scan(**inputs, backend="fast")


def test_a_recorded_graph_holds_torch_operators_only():
    def function(u, delta, A, B, C):
        return selective_scan(u, delta, A, B, C, delta_softplus=True)

    first, other = ([make_inputs(seed=seed)[name] for name in ("u", "delta", "A", "B", "C")] for seed in (1, 2))
    traced = torch.jit.trace(function, first, check_trace=False)
    assert relative_error(traced(*other), function(*other)) <= 2e-6


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A folder on the path for a make-believe mamba_ssm; nothing of it stays loaded."""
    cuda_package.load_scan.cache_clear()
    scan._usable_package.cache_clear()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mamba_ssm" / "ops"
    for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
        del sys.modules[name]
    cuda_package.load_scan.cache_clear()
    scan._usable_package.cache_clear()


def install(folder: Path, interface: str) -> None:
    folder.mkdir(parents=True)
    for init in (folder.parent / "__init__.py", folder / "__init__.py"):
        init.write_text("")
    (folder / "selective_scan_interface.py").write_text(interface)


def test_absent_mamba_ssm_says_how_to_get_it(package, monkeypatch):
    monkeypatch.setattr(cuda_package, "is_installed", lambda: False)
    with pytest.raises(ResourceError, match="mamba_ssm is not installed; pip install --no-build-isolation mamba-ssm"):
        selective_scan(**make_inputs() | {"initial_state": None}, backend="mamba_ssm")


def test_mamba_ssm_for_another_cuda_is_named_and_the_built_in_kernel_takes_over(package):
    install(package, "raise ImportError('libcudart.so.11.0: cannot open shared object file')\n")
    inputs = make_inputs() | {"initial_state": None}
    with pytest.raises(ResourceError, match=r"libcudart.so.11.0.*built for another CUDA or torch.*pip uninstall"):
        selective_scan(**inputs, backend="mamba_ssm")
    with pytest.warns(UserWarning, match="another CUDA.*built-in kernel"):
        assert not scan._usable_package()


def test_a_working_mamba_ssm_is_called_as_it_wants_to_be(package):
    install(
        package,
        "from icd_lib.kernels.reference import selective_scan_ref\n"
        "def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,\n"
        "                      return_last_state=False):\n"
        "    assert delta.dtype == B.dtype == z.dtype == u.dtype and A.dtype == D.dtype == delta_bias.dtype\n"
        "    return selective_scan_ref(u, delta, A, B, C, D, z, delta_bias, delta_softplus, None, return_last_state)\n",
    )
    inputs = make_inputs(dtype=torch.bfloat16)
    with pytest.raises(ResourceError, match="zero state"):
        selective_scan(**inputs, backend="mamba_ssm")
    inputs["initial_state"] = None
    assert torch.equal(selective_scan(**inputs, backend="mamba_ssm"), selective_scan_ref(**inputs))
    assert scan._usable_package()


TRITON_CHECK = """
import torch
from tests.scan_cases import TOLERANCE, assert_agrees, make_inputs
for dtype in TOLERANCE:
    for sizes in ({"length": 1, "width": 33, "states": 1}, {"length": 20}, {"sequences": 1, "width": 3, "states": 16}):
        inputs = make_inputs(dtype=dtype, **sizes)
        assert_agrees(inputs, TOLERANCE[dtype], backend="triton")
        bare = {name: None for name in ("D", "z", "delta_bias", "initial_state")}
        bare |= {"delta": inputs["delta"].abs(), "delta_softplus": False}
        assert_agrees(inputs | bare, TOLERANCE[dtype], backend="triton")
"""


def test_the_triton_kernel_in_triton_s_interpreter():
    pytest.importorskip("triton", reason="Triton is not installed: it comes with torch's CUDA wheels")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, "-c", TRITON_CHECK], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "ModuleNotFoundError: .*triton"),
        ("raise RuntimeError('no libLLVM')", "RuntimeError: no libLLVM"),
    ],
)
def test_without_triton_or_with_a_broken_one_the_backend_says_so(tmp_path, monkeypatch, body, says):
    if body:
        (tmp_path / "triton.py").write_text(body)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "triton", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "triton", None)
    found = runpy.run_path(triton_scan.__file__)
    with pytest.raises(ResourceError, match=f"{says}.*backend='reference' needs none"):
        found["scan"](*[None] * 11)
