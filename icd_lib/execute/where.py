"""Where a sweep's points are run when its user did not say it: on workers of this machine, if that pays."""

import importlib.util
import os
from collections.abc import Callable

from icd_lib.storage.memory import free_memory

AUTO, HERE, LOCAL = "auto", "none", "local"
EACH_BYTES = 3e9  # a reserve for a worker's kernel, with no measurement behind it; larger models want --cluster none
_HOW = "pip install 'icd-lib[cluster]' (or make venv EXTRAS=dev,cluster) lets {workers} be solved at once"


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
