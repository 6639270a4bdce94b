"""Command lines, machines, graphs and exports, as users have them."""

import importlib
import sys
import warnings

import numpy as np
import scipy.sparse as sp
import torch

from icd_lib.errors import ConfigError, ResourceError, SolverNotConverged
from icd_lib.graph import build_w
from icd_lib.measure.energy import energy_j_per_token
from icd_lib.metric import Figure
from icd_lib.models.export import export_onnx, run_onnx
from icd_lib.optional import load_optional
from icd_lib.run.scenario import load_scenario
from icd_lib.solver import CostConfig, fit_permutation
from icd_lib.storage.memory import free_memory
from tests.inputs.case import Case, Ground

ODD_PATH = '/models/my #1: "model" 50 %'


def lay_out(weights: list[float]) -> dict:
    """A ring of 60 elements with these weights in turn; what its solve says."""
    upper = sp.coo_array((np.resize(weights, 59), (np.arange(59), np.arange(1, 60))), shape=(60, 60))
    return fit_permutation(sp.csr_array(upper + upper.T), refine_steps=10)[1]


def is_solved(stats: dict) -> None:
    assert all(np.isfinite(value) for value in stats["after"].values()) and not stats["skipped"]


def traced(ground: Ground, nbytes: str):
    path = ground.folder / "trace.jsonl"
    path.write_text("".join(f'{{"ids": [{i}, {i + 1}], "bytes": {nbytes}}}\n' for i in range(40)))
    return fit_permutation(build_w(path), refine_steps=5)[1]


def exported(ground: Ground, dtype: torch.dtype) -> tuple:
    model = ground.model.to(dtype)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = export_onnx(model, ground.inputs, ground.folder / "model.onnx")
    return run_onnx(path, ground.inputs), next(model.parameters()).dtype == dtype, [str(one.message) for one in said]


def is_float32(found: tuple) -> None:
    output, kept, said = found
    assert output.dtype == np.float32 and np.isfinite(output).all() and kept
    assert any("is written in float32" in line for line in said)


def without_nvml(ground: Ground) -> dict:
    (ground.folder / "pynvml.py").write_text("raise OSError('libnvidia-ml.so.1: cannot open shared object file')\n")
    before = sys.modules.pop("pynvml", None)
    sys.path.insert(0, str(ground.folder))
    try:
        return energy_j_per_token(lambda: None, 1, device="cuda")
    finally:
        sys.path.remove(str(ground.folder))
        sys.modules.pop("pynvml", None)
        if before is not None:
            sys.modules["pynvml"] = before
        importlib.invalidate_caches()


def is_not_measured(figure: Figure) -> None:
    assert figure.kind == "not_measured" and "OSError: libnvidia-ml.so.1" in figure.reason


def in_container(ground: Ground) -> int:
    for folder, limit in (("pod", 900), ("pod/app", 1000)):
        group = ground.folder / "cgroup" / folder
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("400\n")
    (ground.folder / "cgroup" / "cgroup.controllers").write_text("memory\n")
    (ground.folder / "cgroup.txt").write_text("")
    process = ground.folder / "self"
    process.mkdir()
    (process / "cgroup").write_text("0::/pod/app\n")
    return free_memory(ground.folder / "cgroup", process)


def is_limit(free: int) -> None:
    assert free == 500


def is_odd_path(scenario) -> None:
    assert scenario.get("model.checkpoint") == ODD_PATH
    assert load_scenario("bert", scenario.overrides).sha256 == scenario.sha256


def is_none(scenario) -> None:
    assert scenario.get("model.checkpoint") is None


ANY = ("bert",)
CASES = [
    Case(
        "scenario",
        "`--override` of a text with spaces, `#`, `:`, quotes or `%`",
        "the text after `=`, character by character",
        run=lambda ground: load_scenario("bert", [f"model.checkpoint={ODD_PATH}"]),
        holds=is_odd_path,
        families=ANY,
    ),
    Case(
        "scenario",
        "`--override model.checkpoint=null`",
        "none: the default of the family",
        run=lambda ground: load_scenario("bert", ["model.checkpoint=null"]),
        holds=is_none,
        families=ANY,
    ),
    Case(
        "scenario",
        "`--override model.checkpoint=` with nothing behind it (a variable that is not set)",
        "refused, with what to give",
        run=lambda ground: load_scenario("bert", ["model.checkpoint="]),
        refused=ConfigError,
        message=("model.checkpoint=", "nothing stands after '='", "null for none"),
        families=ANY,
    ),
    Case(
        "argument",
        "an access graph of the smallest doubles (5e-324), the largest, or both",
        "laid out; the scale of W changes nothing",
        run=lambda ground: lay_out([5e-324, 1e-310, 1.0, 1e308]) and lay_out([5e-324, 1e-310]),
        holds=is_solved,
        families=ANY,
    ),
    Case(
        "argument",
        'a trace whose events have `"bytes": 1e-310`',
        "laid out as any other",
        run=lambda ground: traced(ground, "1e-310"),
        holds=is_solved,
        families=ANY,
    ),
    Case(
        "argument",
        "activations whose squares overflow or vanish (1e200, 1e-200)",
        "refused, with the cure",
        run=lambda ground: build_w(np.random.default_rng(0).standard_normal((9, 4)) * 1e200),
        refused=SolverNotConverged,
        message=("activations", "multiply all activations by a constant"),
        families=ANY,
    ),
    Case(
        "argument",
        "a weight of the cost beyond reason (`mu=1e308`, `k=2**40`)",
        "refused, with its bounds",
        run=lambda ground: CostConfig(mu=1e308),
        refused=ConfigError,
        message=(r"cost\.mu", "at most", "1e\\+308"),
        families=ANY,
    ),
    *(
        Case(
            "model",
            f"`export_onnx` of a {name} model",
            "written in float32, run and compared before it is put in place; the model stays as it is",
            run=lambda ground, name=name: exported(ground, getattr(torch, name)),
            holds=is_float32,
            families=ANY,
        )
        for name in ("float16", "bfloat16", "float64")
    ),
    Case(
        "machine",
        "a `pynvml` that raises on import (no driver, another version)",
        "energy is not measured, with the reason",
        run=without_nvml,
        holds=is_not_measured,
        families=ANY,
    ),
    Case(
        "machine",
        "an optional package that is not there or cannot be loaded",
        "what needs it is refused or not measured, with the reason and what to install",
        run=lambda ground: load_optional("no_such_package"),
        refused=ResourceError,
        message=("no_such_package is not installed", "pip install no_such_package"),
        families=ANY,
    ),
    Case(
        "machine",
        "a container's memory limit, nested ones too",
        "the least that any of them leaves is what is free",
        run=in_container,
        holds=is_limit,
        families=ANY,
    ),
]
