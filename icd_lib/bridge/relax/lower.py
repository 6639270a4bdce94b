"""Lower: Relax to a shared library for this machine's CPU, weights in it."""

from collections.abc import Mapping
from pathlib import Path

from icd_lib.bridge.relax.annotate import strip
from icd_lib.bridge.relax.tile import schedule_products, schedule_rest
from icd_lib.errors import ResourceError
from icd_lib.optional import brief, load_optional


def lower(
    module, weights: Mapping[str, object], offers: dict[tuple[int, int], int], lanes: int, artifact: Path
) -> None:
    """Compile; `ResourceError` with the compiler's first words where it refuses."""
    tvm, relax = load_optional("tvm", "apache-tvm"), load_optional("tvm.relax", "apache-tvm")
    passes = relax.transform
    try:
        target = host()
        with target:
            module = passes.BindParams("main", dict(weights))(strip(module))
            for step in (passes.LegalizeOps(), passes.FoldConstant()):
                module = step(module)
            module = schedule_products(module, offers, lanes)
            for step in (passes.AnnotateTIROpPattern(), passes.FuseOps(), passes.FuseTIR()):
                module = step(module)
            module = passes.DeadCodeElimination()(module)
            module = schedule_rest(module, lanes)
            built = tvm.compile(module, target=target, relax_pipeline=relax.get_pipeline("default_build"))
        built.export_library(str(artifact))
    except Exception as error:  # its passes raise many kinds
        raise ResourceError(f"TVM cannot compile the module: {brief(error)}") from error


def host():
    """LLVM for this processor."""
    tvm = load_optional("tvm", "apache-tvm")
    codegen = load_optional("tvm.target.codegen", "apache-tvm")
    return tvm.target.Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})
