"""Where a sweep's points are run when its user did not say it: on workers of this machine, if that pays.

Points that compute on a GPU have workers of their own, one a device. What is compared stays on one of them: all points
of a base and a seed (`comparison_of`).
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icd_lib.errors import IcdError
from icd_lib.execute.point import Job
from icd_lib.storage.devices import AUTO as ANY_DEVICE
from icd_lib.storage.devices import CPU, CUDA
from icd_lib.storage.memory import free_memory
from icd_lib.sweeps.pairs import BASE

AUTO, HERE, LOCAL = "auto", "none", "local"
VISIBLE = "CUDA_VISIBLE_DEVICES"
EACH_BYTES = 3e9  # a reserve for a worker's kernel, with no measurement behind it; larger models want --cluster none
_HOW = "pip install 'icd-lib[cluster]' (or make venv EXTRAS=dev,cluster) lets {workers} be solved at once"


@dataclass(frozen=True)
class Place:
    """cluster: None runs the points in this process, one after the other; workers: how many to wait for.

    devices: of the workers of a local cluster, as `VISIBLE` names them; none: they compute on the CPU
    """

    cluster: str | None = None
    workers: int = 1
    devices: tuple[str, ...] = ()


def chosen_place(asked: str | None, jobs: Sequence[Job], echo: Callable[[str], None]) -> Place:
    """What `--cluster` means for these jobs."""
    on_gpu = [name for job in jobs if (name := device_of(job)) not in (None, CPU)]
    if asked not in (AUTO, LOCAL) or not on_gpu:
        return Place(*chosen_cluster(asked, len(jobs), echo))
    if len(on_gpu) < len(jobs) or not {ANY_DEVICE, CUDA}.issuperset(on_gpu):
        echo(
            "points run one after the other: some name a GPU by its number, or compute on the CPU beside others on one"
        )
        return Place()
    devices = visible_devices()[: len({comparison_of(job) for job in jobs})]
    if len(devices) < 2 and (asked == AUTO or not devices):
        return Place()
    if importlib.util.find_spec("distributed") is None:
        return Place(*chosen_cluster(asked, 1 if asked == AUTO else len(devices), echo))
    echo(f"{len(devices)} local workers, each with a GPU of its own; what is compared stays on one of them")
    return Place(LOCAL, len(devices), tuple(devices))


def device_of(job: Job) -> str | None:
    """The device that a point's scenario names; None where it names none, or is none."""
    try:
        return job.scenario().config.get("device")
    except IcdError:  # running it says why
        return None


def comparison_of(job: Job) -> tuple[str, str]:
    """Points that agree in this are compared with each other: they have one base, and one seed."""
    levels = job.point.levels
    return levels.get(BASE, job.point.source), levels.get("seed", "")


def visible_devices() -> list[str]:
    """The CUDA devices that torch can use here, as `VISIBLE` names them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = [word.strip() for word in os.environ.get(VISIBLE, "").split(",") if word.strip()]
    return given[:count] if given else [str(number) for number in range(count)]


def local_workers(points: int) -> int:
    """Processes that solve points at once here: no more than points, usable cores, or free memory allows; at least 1.

    Nothing is solved while something is timed, so that none of them disturbs a measurement.
    """
    return max(1, min(points, _usable_cores(), int(free_memory() / EACH_BYTES)))


def chosen_cluster(asked: str | None, points: int, echo: Callable[[str], None]) -> tuple[str | None, int]:
    """What `--cluster` means for so many points to run: the cluster, and how many workers to wait for.

    None instead of a cluster runs the points in this process, one after the other.

    "auto" takes workers of this machine where Dask is installed and more than one would have work, and says it.
    """
    if asked in (None, HERE):
        return None, 1
    workers = local_workers(points)
    if asked != AUTO:
        return asked, workers if asked == LOCAL else 1
    if workers == 1:
        return None, 1
    if importlib.util.find_spec("distributed") is None:
        echo(f"points run one after the other: Dask is not installed; {_HOW.format(workers=workers)}")
        return None, 1
    echo(f"{workers} local workers solve points at once; --cluster none runs one point after the other")
    return LOCAL, workers


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
