"""The arms of a table: the untouched one, what the modes made of it, and the controls that keep the claim honest."""

from dataclasses import dataclass

import numpy as np

from icd_lib.codesign.layouts import pack_alive, perms_of
from icd_lib.errors import ArtifactError
from icd_lib.run.artifacts import Run
from icd_lib.stages.table.context import AXIS, TableContext
from icd_lib.workloads.rows import TableRunner, place_rows

MODES = ("linear", "oneshot", "iterative")
CONTROLS = {
    "dense_again": "A/A control: the untouched table a second time",
    "permuted": "the whole table in layout π₀, nothing removed",
    "masked": "the mask in the original order; only wholly dead tiles dropped",
    "packed": "the mask in layout π₀, dead rows removed, not solved again: compaction alone",
    "placebo": "the mask in a random layout; only wholly dead tiles dropped",
}


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
    arms = {"dense": Arm.of(np.arange(context.size), everything, context.tile)}
    for mode in solved_modes(context.run):
        arms[mode] = Arm.of(load_layout(context.run, mode), context.alive, context.tile)
    return arms


def control_arms(context: TableContext) -> dict[str, Arm]:
    """The arms of `CONTROLS`; those of π₀ only where a mode has solved it."""
    everything, alive = np.ones(context.size, dtype=bool), context.alive
    identity = np.arange(context.size)
    chance = np.random.default_rng(context.get("seed")).permutation(context.size)
    found = {
        "dense_again": (identity, everything),
        "masked": (identity, alive),
        "placebo": (chance, alive),
    }
    mode = next((mode for mode in ("iterative", "linear") if mode in solved_modes(context.run)), None)
    if mode is not None:
        first = load_layout(context.run, mode, "perm_before")
        found |= {"permuted": (first, everything), "packed": (pack_alive(first, alive), alive)}
    return {name: Arm.of(*found[name], context.tile) for name in CONTROLS if name in found}
