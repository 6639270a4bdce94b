"""The two ways through a compiler, each from a recorded program to a file that runs; they run in the child process."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from icd_lib.bridge.relax import import_relax
from icd_lib.bridge.stablehlo import import_stablehlo
from icd_lib.errors import ResourceError
from icd_lib.optional import brief, load_optional

IREE_FLAGS = ("--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O2")


class Seconds(dict):
    """name → seconds that the work since the last one took."""

    def __init__(self):
        super().__init__()
        self._since = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self[name], self._since = round(now - self._since, 3), now


def through_iree(program: torch.export.ExportedProgram, lines: Mapping[str, str], job: dict, folder: Path) -> dict:
    """`module.mlir` (StableHLO with the layout) and `module.vmfb`."""
    compiler = load_optional("iree.compiler", "iree-base-compiler")
    seconds = Seconds()
    text = import_stablehlo(program, lines)
    (folder / "module.mlir").write_text(text)
    seconds.mark("import")
    try:
        compiler.compile_str(
            text,
            target_backends=["llvm-cpu"],
            input_type="stablehlo",
            extra_args=list(IREE_FLAGS),
            output_file=str(folder / "module.vmfb"),
        )
    except compiler.CompilerToolError as error:
        raise ResourceError(f"IREE cannot compile the model: {brief(error)}") from error
    seconds.mark("compile")
    return {"seconds": seconds, "artifact": "module.vmfb", "source": "module.mlir"}


def through_tvm(program: torch.export.ExportedProgram, lines: Mapping[str, str], job: dict, folder: Path) -> dict:
    """`module.relax` (Relax script with the layout) and `module.so`."""
    tvm, relax = load_optional("tvm", "apache-tvm"), load_optional("tvm.relax", "apache-tvm")
    seconds = Seconds()
    module, weights = import_relax(program, lines)
    (folder / "module.relax").write_text(module.script())
    seconds.mark("import")
    try:
        names = [var.name for var in module["main"].params[int(module["main"].attrs["num_input"]) :]]
        module = relax.transform.BindParams("main", dict(zip(names, weights.values(), strict=True)))(module)
        target = tvm.target.Target("llvm")
        with target:
            tvm.compile(module, target=target).export_library(str(folder / "module.so"))
    except Exception as error:  # its passes raise many kinds
        raise ResourceError(f"TVM cannot compile the model: {brief(error)}") from error
    seconds.mark("compile")
    return {"seconds": seconds, "artifact": "module.so", "source": "module.relax"}


ENGINES: dict[str, Callable[..., dict]] = {"stablehlo_iree": through_iree, "tvm_relax": through_tvm}
