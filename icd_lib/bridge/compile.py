"""A model compiled in a child process with a time limit: an artifact that runs without torch, and what it took."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from icd_lib.bridge.layout import layout_of
from icd_lib.bridge.program import record
from icd_lib.bridge.settings import Settings, current
from icd_lib.errors import ResourceError
from icd_lib.models.export import as_tensors
from icd_lib.storage.atomic import sha256_file, to_json
from icd_lib.storage.json_text import read_text

RECORD, FORMAT = "icd.json", "icd-bridge/v1"
PACKAGES = {
    "stablehlo_iree": {
        "torch_mlir": "torch-mlir",
        "iree.compiler": "iree-base-compiler",
        "iree.runtime": "iree-base-runtime",
    },
    "tvm_relax": {"tvm": "apache-tvm"},
}


def compile_model(
    engine: str, model: nn.Module, inputs: dict, folder: Path, settings: Settings | None = None, dynamic_shapes=None
) -> dict:
    """Write the model, compiled by `engine` at the shapes of `inputs`, into `folder`; return what icd.json says.

    engine: "stablehlo_iree" or "tvm_relax". Raises `ResourceError` with the reason where the model or the machine is
    not one for this compiler, or the compile took longer than `bridge.compile_timeout_s`.
    """
    settings = settings or current()
    options = settings.options
    start = time.perf_counter()
    program = record(model, inputs, max_module_mb=options.max_module_mb, dynamic_shapes=dynamic_shapes)
    layout = layout_of(model, settings.tile, settings.pi.get(model, {}))
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / "program.pt2")
    (folder / "job.json").write_text(json.dumps({"engine": engine, "layout": layout, "tiles": options.tiles}))
    exported_s = round(time.perf_counter() - start, 3)
    try:
        told = run_child(engine, type(model).__name__, folder, options.compile_timeout_s)
    finally:
        for name in ("program.pt2", "job.json", "done.json", "refused.json"):
            (folder / name).unlink(missing_ok=True)
    tensors = as_tensors(inputs)
    told["seconds"] = {"export": exported_s, **told["seconds"]}
    entry = {
        "format": FORMAT,
        "engine": engine,
        "model": type(model).__name__,
        "inputs": [{"name": name, "shape": list(t.shape), "dtype": _dtype(t)} for name, t in tensors.items()],
        "layout": layout,
        "packages": {name: metadata.version(name) for name in (*PACKAGES[engine].values(), "torch")},
        **told,
    }
    entry["sha256"] = {entry[key]: sha256_file(folder / entry[key]) for key in ("artifact", "source")}
    (folder / RECORD).write_text(to_json(entry))
    if settings.keep is not None:
        settings.keep(model, entry, folder)
    return entry


def kept_or_compiled(engine: str, model: nn.Module, inputs: dict, folder: Path) -> dict:
    """What icd.json says of the artifact in `folder`, which `compile_model` leaves there unless it has one."""
    file = folder / RECORD  # written last
    return read_text(file) if file.is_file() else compile_model(engine, model, inputs, folder)


def run_child(engine: str, name: str, folder: Path, timeout_s: float, command: list[str] | None = None) -> dict:
    """What the child says of its work; `ResourceError` where it refuses, fails, or takes too long (it is killed)."""
    command = command or [sys.executable, "-m", "icd_lib.bridge.child", str(folder)]
    log = folder / "compile.log"
    with log.open("wb") as words:
        child = subprocess.Popen(
            command, stdout=words, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ResourceError(
                f"{engine} did not compile {name} within {timeout_s:.0f} s (bridge.compile_timeout_s) and was stopped"
            ) from None
        finally:
            _end(child)
    if (folder / "refused.json").is_file():
        raise ResourceError(f"{engine}: {read_text(folder / 'refused.json')['reason']}")
    if code or not (folder / "done.json").is_file():
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise ResourceError(f"{engine} ended with exit code {code} while it compiled {name}: {' '.join(last)[:300]}")
    log.unlink()
    return read_text(folder / "done.json")


def _end(child: subprocess.Popen) -> None:
    """The child and what it started: IREE's compiler is a process of its own."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _environment() -> Mapping[str, str]:
    """Where the child finds this package, whatever the working folder."""
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
