"""The two ways through a compiler, each from a recorded program to a file that runs; they run in the child process."""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from icd_lib.bridge import mlir, relax
from icd_lib.bridge.target import float_lanes
from icd_lib.storage.memory import largest_resident, peak_resident

BEFORE, AFTER = "before.txt", "after.txt"  # the IR without its weights, for readers


class Seconds(dict):
    """name → seconds that the work since the last one took."""

    def __init__(self):
        super().__init__()
        self._since = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self[name], self._since = round(now - self._since, 3), now


def through_iree(program: torch.export.ExportedProgram, job: dict, folder: Path) -> dict:
    """`module.mlir` (StableHLO with the layout) and `module.vmfb`."""
    seconds = Seconds()
    text = mlir.import_stablehlo(program)
    seconds.mark("import")
    module = mlir.parse(text)
    (folder / BEFORE).write_text(mlir.printed(module, short=True))
    passes = {"annotate": mlir.annotate(module, job["layout"]), "fold": mlir.fold(module)}
    passes["legalize-layout"] = mlir.legalize_layout(module, float_lanes())
    if job["tiles"]:
        passes["tile"] = mlir.tile_products(module, float_lanes())
    passes["pieces"] = mlir.sum_pieces(module)
    (folder / AFTER).write_text(mlir.printed(module, short=True))
    (folder / "module.mlir").write_text(mlir.printed(module))
    seconds.mark("passes")
    mlir.lower(folder / "module.mlir", folder / "module.vmfb")
    seconds.mark("lower")
    return _told(seconds, passes, mlir.gathers(module), "module.vmfb", "module.mlir")


def through_tvm(program: torch.export.ExportedProgram, job: dict, folder: Path) -> dict:
    """`module.relax` (Relax script with the layout, without weights) and `module.so`."""
    seconds = Seconds()
    module, weights, names = relax.import_relax(program)
    seconds.mark("import")
    (folder / BEFORE).write_text(module.script())
    passes = {}
    module, passes["annotate"] = relax.annotate(module, job["layout"], names)
    module, passes["fold"] = relax.fold(module)
    module, passes["legalize-layout"] = relax.legalize_layout(module, float_lanes())
    offers, told = relax.offered_tiles(module)
    if job["tiles"]:
        passes["tile"] = told
    left = relax.gathers(module)
    for name in (AFTER, "module.relax"):
        (folder / name).write_text(module.script())
    seconds.mark("passes")
    relax.lower(module, weights, offers if job["tiles"] else {}, float_lanes(), folder / "module.so")
    seconds.mark("lower")
    return _told(seconds, passes, left, "module.so", "module.relax")


def _told(seconds: Seconds, passes: dict[str, list[str]], left, artifact: str, source: str) -> dict:
    used = max(peak_resident(), largest_resident(resource.RUSAGE_CHILDREN))  # this process, or IREE's compiler
    return {
        "artifact": artifact,
        "source": source,
        "seconds": seconds,
        "peak_memory_mb": round(used / 1e6, 1),
        "passes": passes,
        "gathers": asdict(left),
    }


ENGINES: dict[str, Callable[..., dict]] = {"stablehlo_iree": through_iree, "tvm_relax": through_tvm}
