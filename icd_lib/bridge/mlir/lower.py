"""Lower: StableHLO to a module of IREE for this machine's CPU."""

from pathlib import Path

from icd_lib.errors import ResourceError
from icd_lib.optional import load_optional

# A worker's stack has 128 KiB; the compiler allows itself 32 of it, and a fused layer norm of MiniLM takes 37.
FLAGS = ("--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O2", "--iree-llvmcpu-stack-allocation-limit=65536")


def lower(source: Path, artifact: Path) -> None:
    """Compile a text; `ResourceError` with the compiler's first words where it refuses."""
    compiler = load_optional("iree.compiler", "iree-base-compiler")
    tools = load_optional("iree.compiler.tools", "iree-base-compiler")
    try:
        compiler.compile_file(
            str(source),
            target_backends=["llvm-cpu"],
            input_type="stablehlo",
            extra_args=list(FLAGS),
            output_file=str(artifact),
        )
    except tools.CompilerToolError as error:
        told = [line for line in str(error).splitlines() if "error:" in line] or [str(error)]
        raise ResourceError(f"IREE cannot compile the module: {told[0][:300]}") from error
