"""What the runs of one sweep leave for each other on a machine; none of it outlives the sweep."""

from collections.abc import Callable

from icd_lib.run.artifacts import Run
from icd_lib.storage.machine import keep, read_kept, this_machine


def read_shared(run: Run, kind: str, key: dict) -> dict | None:
    """What another run of the sweep left of `kind` under exactly this key, on this machine; None of a run in none."""
    return None if run.shared is None else read_kept(kind, key | {"host": this_machine()}, run.shared)


def keep_shared(run: Run, kind: str, key: dict, value: dict) -> None:
    """Leave it for the other runs of the sweep, if the run is in one."""
    if run.shared is not None:
        keep(kind, key | {"host": this_machine()}, value, run.shared)


def once_in_sweep(run: Run, kind: str, key: dict, make: Callable[[], dict]) -> tuple[dict, bool]:
    """What another run of the sweep left, or else what `make` gives, left for the others; and whether it was there.

    The value has to be the same after it was JSON.
    """
    if (found := read_shared(run, kind, key)) is not None:
        return found, True
    made = make()
    keep_shared(run, kind, key, made)
    return made, False
