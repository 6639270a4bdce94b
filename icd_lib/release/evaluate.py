"""All that an artifact evaluator checks, in order, with a list that ticks itself: `python -m icd_lib.release.evaluate`.

Each step is a command of this project; its exit code ticks it. The list, with seconds and verdicts, is written to
artifacts/checklist.md and .json after every step, and a finished step is not run again unless --force.
"""

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from icd_lib.errors import EXIT_GATE_NOT_MET, EXIT_OK, ConfigError, IcdError
from icd_lib.execute.output import steady_output
from icd_lib.paths import project_root
from icd_lib.run.manifest import git_state
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text

FOLDER = "artifacts"


@dataclass(frozen=True)
class Step:
    """One line of the list; `minutes` on two cores; `gate_may_fail`: a result may be not good enough (exit code 1)."""

    name: str
    shows: str
    command: str
    minutes: float
    gate_may_fail: bool = False


STEPS = (
    Step("lint", "Functional: the sources are clean", "make lint", 1),
    Step("test", "Functional: the tests pass", "make test", 18),
    Step("mock", "Functional: the whole path without a model", "python run_all.py --scenario mock", 1, True),
    Step("trace", "Functional: the same from a recorded trace", "python run_all.py --scenario trace", 1, True),
    Step("bert", "Reproduced: a trained BERT made faster", "python run_all.py --scenario bert", 20, True),
    Step("mamba", "Reproduced: a trained Mamba made faster", "python run_all.py --scenario mamba", 15, True),
    Step(
        "judge",
        "Reproduced: the verdicts again from the raw samples, beside the committed runs",
        "python -m icd_lib.validate outputs/mock outputs/trace outputs/bert outputs/mamba outputs/reference/bert",
        1,
        True,
    ),
    Step(
        "solver",
        "Reproduced: the layout solver beside its peers",
        "python benchmarks/solver.py --out artifacts/solver",
        15,
    ),
    Step(
        "frontier",
        "Reproduced: how far linear and iterative get with less and more distillation",
        "python benchmarks/frontier.py outputs/bert --out artifacts/frontier",
        20,
    ),
    Step("scan", "Reproduced: the selective scan beside the stock one", "python benchmarks/scan.py", 6),
    Step(
        "lock",
        "Reusable: a run from its lock alone",
        "python run_all.py --from-lock outputs/mock/config.lock.json --out artifacts/again",
        1,
        True,
    ),
    Step("claims", "Available: every stated number has its source", "python -m icd_lib.release.claims --check", 0.1),
    Step("pack", "Available: scrubbed package", "python -m icd_lib.packaging --to artifacts/icd_artifacts.zip", 0.5),
    Step("verify", "Available: the package proves itself", "python -m icd_lib.verify artifacts/icd_artifacts.zip", 0.5),
)


def run_step(step: Step, root: Path) -> dict:
    """Run a step; {"status": done | gate not met | failed, "exit_code", "seconds"}."""
    began = time.monotonic()
    words = [sys.executable if word == "python" else word for word in shlex.split(step.command)]
    code = subprocess.run(words, cwd=root, check=False).returncode
    fine = code == EXIT_OK or (step.gate_may_fail and code == EXIT_GATE_NOT_MET)
    status = "failed" if not fine else "done" if code == EXIT_OK else "gate not met"
    return {"status": status, "exit_code": code, "seconds": round(time.monotonic() - began, 1)}


def as_markdown(records: dict[str, dict], head: str | None) -> str:
    """The list as it stands."""
    lines = ["# Checklist", "", f"Commit {head or 'not a git checkout'}; times are of this machine.", ""]
    for step in STEPS:
        result = records.get(step.name)
        tick = "x" if result and result["status"] != "failed" else " "
        told = f"{result['status']} in {result['seconds']:.0f} s" if result else f"not run, about {step.minutes:g} min"
        lines.append(f"- [{tick}] **{step.name}**: {step.shows} (`{step.command}`): {told}")
    return "\n".join(lines) + "\n"


def chosen_steps(only: list[str]) -> list[Step]:
    """The steps named, all if none is; `ConfigError` for a name that is no step."""
    names = [step.name for step in STEPS]
    for name in only:
        if name not in names:
            raise ConfigError(f"there is no step {name!r}; steps: {', '.join(names)}")
    return [step for step in STEPS if not only or step.name in only]


def evaluate(steps: list[Step], root: Path, force: bool) -> int:
    """Run what is not done for this commit; returns the exit code."""
    head = git_state(root)["head"]
    kept = root / FOLDER / "checklist.json"
    records = _kept(kept, head)
    todo = [step for step in steps if force or records.get(step.name, {}).get("status") in (None, "failed")]
    print(
        f"{len(todo)} of {len(steps)} steps to do, about {sum(step.minutes for step in todo):.0f} minutes", flush=True
    )
    for step in todo:
        print(f"[ ] {step.name}: {step.shows}; about {step.minutes:g} min: {step.command}", flush=True)
        records[step.name] = run_step(step, root)
        ticked = "x" if records[step.name]["status"] != "failed" else " "
        print(
            f"[{ticked}] {step.name}: {records[step.name]['status']}, {records[step.name]['seconds']:.0f} s", flush=True
        )
        atomic_write(kept, to_json({"head": head, "steps": records}))
        atomic_write(kept.with_suffix(".md"), as_markdown(records, head))
    failed = [step.name for step in steps if records[step.name]["status"] == "failed"]
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(steps)} steps done; {FOLDER}/checklist.md says how")
    return EXIT_GATE_NOT_MET if failed else EXIT_OK


def _kept(file: Path, head: str | None) -> dict[str, dict]:
    """Results of an earlier call for the same commit; none if there are none or they cannot be read."""
    try:
        kept = read_text(file)
    except (OSError, ValueError):
        return {}
    same = isinstance(kept, dict) and kept.get("head") == head and isinstance(kept.get("steps"), dict)
    return kept["steps"] if same else {}


@steady_output()
def main(argv: list[str] | None = None) -> int:
    """Run the list; returns 0 if every step is ticked."""
    parser = argparse.ArgumentParser(
        prog="python -m icd_lib.release.evaluate", description="The evaluator's checklist."
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of: {', '.join(step.name for step in STEPS)}")
    parser.add_argument("--list", action="store_true", help="show the list and stop")
    parser.add_argument("--force", action="store_true", help="run finished steps again")
    args = parser.parse_args(argv)
    try:
        steps = chosen_steps(args.steps)
        if args.list:
            print(
                as_markdown(_kept(project_root() / FOLDER / "checklist.json", git_state(project_root())["head"]), None)
            )
            return EXIT_OK
        return evaluate(steps, project_root(), args.force)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
