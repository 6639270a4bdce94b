"""A stream of access events: which elements are touched together, in the order they are touched."""

from dataclasses import dataclass

import numpy as np

from icd_lib.errors import ConfigError, SolverNotConverged

# Element numbers are int32, so an axis has at most this many elements.
MAX_SIZE = 2**31 - 1


@dataclass(frozen=True)
class Events:
    """Access events: event e touches ids[offsets[e]:offsets[e + 1]] together, nbytes[e] bytes per touched element.

    ids int32 (n,) in [0, size), in the order of the accesses (an id may repeat); offsets int64 (m + 1,), from 0 to n,
    not decreasing; nbytes float64 (m,), finite and >= 0; size = D of the axis. Other integer and float dtypes are
    cast. Raises `SolverNotConverged` naming the first offender, `ConfigError` on a bad size.

    >>> Events(np.array([2, 0, 1]), np.array([0, 2, 3]), np.array([64.0, 64.0]), 3).count
    2
    """

    ids: np.ndarray
    offsets: np.ndarray
    nbytes: np.ndarray
    size: int

    def __post_init__(self):
        size = check_size(self.size)
        ids, offsets = _as_integers(self.ids, "ids"), _as_integers(self.offsets, "offsets")
        nbytes = _as_weights(self.nbytes)
        _check_offsets(offsets, len(ids), len(nbytes))
        outside = (ids < 0) | (ids >= size)
        if outside.any():
            at = int(np.argmax(outside))
            event = int(np.searchsorted(offsets, at, side="right")) - 1
            raise SolverNotConverged(f"event {event} touches id {int(ids[at])}, outside 0..{size - 1}")
        for name, value in (("ids", ids.astype(np.int32, copy=False)), ("nbytes", nbytes), ("size", size)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "offsets", offsets.astype(np.int64, copy=False))

    @property
    def count(self) -> int:
        """Number of events, m."""
        return len(self.nbytes)

    @property
    def accesses(self) -> int:
        """Number of accesses, n: ids over all events, repeats included."""
        return len(self.ids)

    def event_of_access(self) -> np.ndarray:
        """Event number of each access, int64 (n,)."""
        return np.repeat(np.arange(self.count), np.diff(self.offsets))

    def keep(self, alive) -> "Events":
        """The same events without their accesses to dead elements; alive is bool (D,), size and m stay."""
        alive = np.asarray(alive)
        if alive.dtype != bool or alive.shape != (self.size,):
            raise SolverNotConverged(f"alive is bool of shape ({self.size},), got {alive.dtype} of {alive.shape}")
        stays = alive[self.ids]
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(stays, dtype=np.int64)])
        return Events(self.ids[stays], before[self.offsets], self.nbytes, self.size)


def check_size(size) -> int:
    """Return the axis length D as an int, or raise `ConfigError`."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= MAX_SIZE:
        raise ConfigError(f"size is the number of elements D, an integer in 1..{MAX_SIZE}, got {size!r}")
    return int(size)


def _as_integers(values, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise SolverNotConverged(f"{name} are a 1-D integer array, got {array.dtype} of shape {array.shape}")
    return array


def _as_weights(values) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise SolverNotConverged(f"nbytes is a 1-D array of numbers, got {array.dtype} of shape {array.shape}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise SolverNotConverged(f"nbytes[{int(bad[0])}] = {array[bad[0]]}; expected a finite number >= 0")
    return array.astype(np.float64, copy=False)


def _check_offsets(offsets: np.ndarray, accesses: int, events: int) -> None:
    if len(offsets) != events + 1:
        raise SolverNotConverged(f"{events} events need {events + 1} offsets, got {len(offsets)}")
    if offsets[0] != 0 or offsets[-1] != accesses:
        raise SolverNotConverged(f"offsets go from 0 to {accesses}, got {int(offsets[0])} to {int(offsets[-1])}")
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if falls.size:
        at = int(falls[0])
        raise SolverNotConverged(f"offsets[{at + 1}] = {int(offsets[at + 1])} is below offsets[{at}]")
