"""The arms of a table: the untouched one, what the modes made of it, and the controls that keep the claim honest."""

from dataclasses import dataclass

import numpy as np

from icd_lib.axes.permutation import pack_alive
from icd_lib.codesign.layouts import perms_of
from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import DENSE, MODES, RESULT, ROWS, controls_of
from icd_lib.run.artifacts import Run
from icd_lib.workloads.rows import TableRunner, place_rows
from icd_lib.workloads.rows.context import AXIS, TableContext


@dataclass(frozen=True)
class Arm:
    """A layout over all rows, which of them live, and how many places the table has; `rows` is the place of each."""

    pi: np.ndarray
    alive: np.ndarray
    rows: np.ndarray
    places: int

    @classmethod
    def of(cls, pi: np.ndarray, alive: np.ndarray, tile: int) -> "Arm":
        return cls(pi, alive, *place_rows(pi, alive, tile))

    @property
    def order(self) -> np.ndarray:
        """Old index of the row at each place of the compacted table, int64 (places,)."""
        return self.pi[self.rows[self.pi] >= 0]

    def runner(self, context: TableContext, events, *, chained: bool = True) -> TableRunner:
        """One pass over `events` as far as they concern living rows."""
        return TableRunner(context.workload(events, chained=chained).keep(self.alive), self.rows)

    def sizes(self, tile: int, row_bytes: int) -> dict:
        """What the table holds: rows that live, dead ones that stay in a living tile, tiles, bytes."""
        living = int(self.alive.sum())
        return {
            "rows": self.places,
            "living_rows": living,
            "dead_rows_kept": self.places - living,
            "tiles": -(-self.places // tile),
            "parameter_bytes": self.places * row_bytes,
        }


def solved_modes(run: Run) -> list[str]:
    """Modes whose solve stage has finished in this run."""
    return [mode for mode in MODES if (run.dir / mode / "solve.json").is_file()]


def load_layout(run: Run, mode: str, name: str = "perm_after") -> np.ndarray:
    """A layout as 02_solve wrote it; `ArtifactError` when it does not match its hash."""
    perms = perms_of(run.read_json(f"{mode}/{name}.json"), f"{run.dir / mode / name}.json")
    if set(perms) != {AXIS}:
        raise ArtifactError(f"{run.dir / mode / name}.json is of no table; make it again with: {run.command()} --force")
    return perms[AXIS]


def compared_arms(context: TableContext) -> dict[str, Arm]:
    """dense, and every mode that has been solved."""
    everything = np.ones(context.size, dtype=bool)
    arms = {DENSE: Arm.of(np.arange(context.size), everything, context.tile)}
    for mode in solved_modes(context.run):
        arms[mode] = Arm.of(load_layout(context.run, mode), context.alive, context.tile)
    return arms


def control_arms(context: TableContext) -> dict[str, Arm]:
    """Every control of a table that this run can have."""
    made = {arm.name: arm.maker(ROWS)(context) for arm in controls_of(ROWS)}
    return {name: Arm.of(*found, context.tile) for name, found in made.items() if found is not None}


def dense_again(context: TableContext) -> tuple[np.ndarray, np.ndarray]:
    """Layout and mask of the untouched table."""
    return np.arange(context.size), np.ones(context.size, dtype=bool)


def masked(context: TableContext) -> tuple[np.ndarray, np.ndarray]:
    """The mask in the original order."""
    return np.arange(context.size), context.alive


def placebo(context: TableContext) -> tuple[np.ndarray, np.ndarray]:
    """The mask in a random layout."""
    return np.random.default_rng(context.get("seed")).permutation(context.size), context.alive


def permuted(context: TableContext) -> tuple[np.ndarray, np.ndarray] | None:
    """The whole table in π₀."""
    first = first_layout(context)
    return None if first is None else (first, np.ones(context.size, dtype=bool))


def packed(context: TableContext) -> tuple[np.ndarray, np.ndarray] | None:
    """The living rows in π₀'s order, then the dead ones."""
    first = first_layout(context)
    return None if first is None else (pack_alive(first, context.alive), context.alive)


def first_layout(context: TableContext) -> np.ndarray | None:
    """π₀, where a mode has solved it."""
    mode = next((mode for mode in (RESULT, "linear") if mode in solved_modes(context.run)), None)
    return None if mode is None else load_layout(context.run, mode, "perm_before")
