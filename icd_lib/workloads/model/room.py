"""What a run on a GPU takes at its widest, reckoned from the model's outline before anything of it is allocated."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.experiment.arms import ARMS, IN_FP32, IN_REFERENCE, MODEL, MODES
from icd_lib.measure.tables import ON_DEVICE
from icd_lib.models.families import find_adapter
from icd_lib.runtimes import RUNTIMES, rows_of
from icd_lib.storage.devices import activation_bytes, as_gb, needed_bytes
from icd_lib.storage.machine import cache_folder
from icd_lib.storage.memory import free_memory

if TYPE_CHECKING:
    from icd_lib.workloads.model.context import Context

WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a number, by a row's precision
EQUALITY_BYTES = 16  # of a number: two models in float64, whose outputs are compared
SHARED = ("dense_again", "dense_eager", "dense_fp32", "iterative_fp32")  # arms that are another arm's model
MEASURED_ARMS = 4  # whose sizes and profiles are taken of copies on disk: dense, and what every mode left


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes that a run takes at its widest: on the GPU while it solves and while arms are timed, of this machine's
    memory while arms are held, of the run's folder, of the folder for temporary files, and of the machine's cache.
    """

    parameters: int
    solving: int
    timing: int
    host: int
    run: int
    temporary: int
    cache: int

    @property
    def device(self) -> int:
        return max(self.solving, self.timing)

    @property
    def words(self) -> str:
        return (
            f"{self.parameters / 1e9:.2f} billion parameters need about {as_gb(self.device)} of the GPU, "
            f"{as_gb(self.host)} of memory and {as_gb(self.run + self.temporary + self.cache)} of disk"
        )


def needs_of(context: "Context", model: nn.Module) -> Needs:
    """What the run takes; model: the dense one, or its outline."""
    get, held = context.get, sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    numbers = sum(parameter.numel() for parameter in model.parameters())
    shapes = [block.consumer.weight.shape for block in find_adapter(model).blocks()]
    widest = max(map(max, shapes))
    distilled = get("data.distill_texts") if get("transform.distill_steps") else 1
    texts = max(get("data.calibration_texts"), distilled)
    moments = sum(8 * inner * (inner + outer) for outer, inner in shapes)
    models = [arm for arm in timed_arms() if arm.name not in SHARED]
    return Needs(
        parameters=numbers,
        solving=needed_bytes(model, texts * get("data.max_length"), widest),
        timing=timing_bytes(context, model, numbers, widest),
        host=len(models) * held + EQUALITY_BYTES * numbers,
        run=len(MODES) * held,
        temporary=MEASURED_ARMS * held,
        cache=moments,
    )


def timed_arms() -> list:
    """The arms that a run on a GPU can have: no row there fits shapes, and nothing is quantised."""
    arms = [arm for arm in ARMS.values() if MODEL in arm.words and not arm.any_shape]
    return [arm for arm in arms if not arm.step or arm.runs_in == IN_FP32]


def timing_bytes(context: "Context", model: nn.Module, numbers: int, widest: int) -> int:
    """All arms at once as they are deployed, none smaller than dense, with the buffers of their graphs; and dense.

    Or the widths of a curve that are held together, where those are more: dense in the same place, and while one is
    made ready itself and a copy of it.
    """
    own = next(model.parameters()).dtype.itemsize
    rows = [RUNTIMES[name].precision for name in rows_of(*context.asked_runtime, "cuda")]
    deployed = max((WIDTHS[precision] for precision in rows), default=4)
    rounds = any(WIDTHS[precision] < own for precision in rows)
    total, arms = own, 0
    for arm in timed_arms():
        if arm.runs_in == IN_FP32 and not rounds:
            continue
        total += own if arm.runs_in in (IN_REFERENCE, IN_FP32) else deployed
        arms += 1
    tokens = max(batch * length for batch, length in context.get("measure.shapes"))
    head = model.get_output_embeddings()
    # Mamba's are given back in fp32 beside those of the head.
    logits = 0 if head is None else tokens * head.weight.shape[0] * (deployed + 4)
    buffers = activation_bytes(tokens, widest) + logits
    together = 1 + ON_DEVICE
    curves = (own + together * deployed + 2 * own) * numbers + together * buffers
    return max(total * numbers + arms * buffers, curves)


def check_machine(needs: Needs, run: Path, where: str) -> None:
    """Raise `ResourceError` where this machine has not so much memory or disk free; where: what asked for the GPU."""
    if (free := free_memory()) < needs.host:
        raise ResourceError(
            f"{where}: {needs.words}, and {as_gb(free)} of this machine's memory are free; end what else uses it, set "
            "model.dtype to bfloat16, or take a smaller model"
        )
    for folders, wanted, free in disks(needs, run):
        if free < wanted:
            raise ResourceError(
                f"{where}: {needs.words}; {', '.join(folders)} take {as_gb(wanted)} of it on a disk that has "
                f"{as_gb(free)} free; remove what is not needed, or name other disks (--out, TMPDIR, ICD_CACHE_DIR)"
            )


def disks(needs: Needs, run: Path) -> list[tuple[list[str], int, int]]:
    """What lies on each disk in words, the bytes that are taken of it, and those that are free."""
    folders = {
        "the run's folder": (run, needs.run),
        "temporary files": (Path(tempfile.gettempdir()), needs.temporary),
        "the machine's cache": (cache_folder(), needs.cache),
    }
    found: dict[int, tuple[list[str], int, int]] = {}
    for words, (folder, wanted) in folders.items():
        there = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
        disk = os.stat(there).st_dev
        names, so_far, _ = found.get(disk, ([], 0, 0))
        found[disk] = ([*names, words], so_far + wanted, shutil.disk_usage(there).free)
    return list(found.values())
