"""Sweeps that cost nothing: points of round numbers in a folder, and a pipeline that only leaves a run's files."""

import json
import shutil
from pathlib import Path

from icd_lib.errors import IcdError
from icd_lib.metric import figure, not_measured
from icd_lib.run.artifacts import write_lock
from icd_lib.storage.atomic import to_json
from icd_lib.sweeps.outcome import ArmFigures, Outcome, Where, append_outcome
from icd_lib.sweeps.result import FILE, Planned, PlannedPoint, SweepResult

KEPT = Path(__file__).parents[1] / "outputs" / "reference" / "mock"
HERE = Where(model="tiny", shape="8x128", machine="a CPU, 2 cores", runtime="eager")


def arm(ms, drop=0.0, size=1_000_000, vs_dense=-0.1, half=0.1):
    """Figures of an arm; None: not measured."""

    def item(value, unit, half=half):
        if value is None:
            return not_measured(unit, "no clock")
        return figure(value, unit, "measured", n=9, method="made up", ci95=(value - half, value + half))

    return ArmFigures(
        latency_ms=item(ms, "ms"),
        latency_vs_dense=item(vs_dense, "fraction", 0.01),
        quality_drop_pp=item(drop, "pp"),
        other_drop_pp=item(None if drop is None else drop + 0.5, "pp"),
        peak_memory_mb=item(10.0, "MB"),
        energy_j_per_token=not_measured("J/token", "no counter"),
        parameter_bytes=size,
    )


def write_sweep(folder, points, factors, *, quick=False):
    """`points`: name → (levels, outcome's fields or a tuple of iterative's `arm` arguments); returns the result."""
    folder.mkdir(parents=True, exist_ok=True)
    planned = Planned(
        sweep=folder.name,
        icd_version="0",
        quick=quick,
        factors=factors,
        points=[
            PlannedPoint(name=name, levels=levels, source="mock", overrides=[]) for name, (levels, _) in points.items()
        ],
        options={},
    )
    (folder / FILE).write_text(to_json(planned), encoding="utf-8")
    for name, (_, given) in points.items():
        fields = dict(given) if isinstance(given, dict) else done(*given)
        append_outcome(folder, Outcome(point=name, **({"command": f"python run_all.py {name}"} | fields)))
    return SweepResult.load(folder)


def done(ms, drop=0.0, size=1_000_000, where=HERE, linear_ms=None):
    linear = arm(linear_ms or (None if ms is None else ms + 2), drop, size)
    arms = {"dense": arm(20.0, 0.0, 2_000_000, 0.0), "linear": linear, "iterative": arm(ms, drop, size)}
    return {"status": "done", "where": where, "arms": arms, "gates": {"smoke": "pass", "strict": "fail"}}


class FakePipeline:
    """Stands for `run_pipeline`: leaves the files of a kept run, or raises what `failing` says of a point's name."""

    def __init__(self, failing=None, lost=None):
        self.failing, self.lost, self.ran = failing or {}, lost or {}, []

    def __call__(self, run, stages, *, force=False, notebooks=None, echo=None, servers=None):
        name, names = run.scenario.name, [stage.name for stage in stages]
        self.ran.append((name, names[0], names[-1]))
        write_lock(run)
        error = self.failing.get(name)
        if error is not None:
            raise error
        if name in self.lost:
            drop, se = self.lost[name]
            solved = json.loads((KEPT.parent / "bert" / "iterative" / "solve.json").read_text())
            solved["validation"] |= {"drop_pp": drop, "se_pp": se}
            run.write_json("iterative/solve.json", solved)
        if names[-1] == "05_report":
            for rel in ("setup/setup.json", "verdict.json", *(f"{a}/metrics.json" for a in ARMS)):
                shutil.copy(KEPT / rel, run.path(rel))

    @property
    def names(self):
        return [name for name, _, _ in self.ran]


ARMS = ("dense", "linear", "oneshot", "iterative")


def failure(kind: type[IcdError], text: str) -> IcdError:
    return kind(f"{text}\n  what was executed: nothing")
