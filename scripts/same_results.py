"""Do two versions of this project give the same results? `python scripts/same_results.py OLD NEW [SCENARIO ...]`.

OLD and NEW are working trees (`git worktree add ../old COMMIT`). Each runs the scenarios with --quick and this
machine's kept tables; OLD runs twice, and what differs between its two runs is what a clock decides. Everything else
has to be equal in NEW: the names of all files, the keys of every JSON file, π hashes, W and weights byte for byte,
widths, losses, verdicts. So have the command line, the public names, and what is said of OLD's kept reference runs.
Prints every difference; exit code 0 if there is none, else 1.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCENARIOS = ("mock", "trace", "bert", "mamba")
BYTES = {".npz", ".safetensors"}  # compared by hash
CODE = {"stages.json", "manifest.json"}  # state the hashes of code and files: names only
PAGES = {".html", ".png", ".ipynb", ".csv", ".log", ".txt"}  # drawn from the JSON files, or a diary: names only
COMMANDS = {
    "command line": ["run_all.py", "--help"],
    "scenarios": ["run_all.py", "--list"],
    "public names": ["-c", "import icd_lib; print(sorted(icd_lib.__all__))"],
}


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python with the packages of this interpreter and the code of `tree`."""
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def run(tree: Path, scenario: str, out: Path, overrides: list[str]) -> Path:
    """The run's folder; raises `SystemExit` with the last lines if it failed."""
    more = [word for override in overrides for word in ("--override", override)]
    done = python(tree, "run_all.py", "--scenario", scenario, "--quick", "--out", str(out), *more)
    if done.returncode not in (0, 1):
        raise SystemExit(
            f"{tree.name}: {scenario} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return out / scenario


def leaves(value, where: str = "") -> dict[str, object]:
    """Every leaf of a JSON value by its path."""
    if isinstance(value, dict) and value:
        return {path: leaf for key, item in value.items() for path, leaf in leaves(item, f"{where}/{key}").items()}
    if isinstance(value, list) and value:
        return {path: leaf for i, item in enumerate(value) for path, leaf in leaves(item, f"{where}[{i}]").items()}
    return {where: value}


def facts(folder: Path) -> dict[str, object]:
    """What a run holds: file and path in it → value."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        rel = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix == ".json" and path.name not in CODE:
            found |= {f"{rel}:{where}": leaf for where, leaf in leaves(json.loads(path.read_text())).items()}
        elif path.suffix in BYTES:
            found[rel] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[rel] = "there" if path.suffix in PAGES or path.name in CODE else path.read_text(errors="replace")
    return found


def differences(old: dict, again: dict, new: dict) -> list[str]:
    """What is in one and not in the other, and what differs though a second run of the old version agreed."""
    told = [f"gone: {key}" for key in old if key not in new and key in again]
    told += [f"new: {key}" for key in new if key not in old and key not in again]
    told += [
        f"differs: {key}: {value!r} is now {new[key]!r}"
        for key, value in old.items()
        if key in new and key in again and again[key] == value and new[key] != value
    ]
    return told


def compare_trees(old: Path, new: Path) -> list[str]:
    """Command line, public names, and the kept reference runs judged by both."""
    told = []
    kept = [str(path.parent) for path in sorted((old / "outputs/reference").glob("*/verdict.json"))]
    commands = COMMANDS | {f"judgement of {Path(run).name}": ["-m", "icd_lib.validate", run] for run in kept}
    for what, arguments in commands.items():
        done = [python(tree, *arguments) for tree in (old, new)]
        texts = [(found.stdout + found.stderr).replace(str(old), "").replace(str(new), "") for found in done]
        if texts[0] != texts[1]:
            lines = [set(text.splitlines()) for text in texts]
            told += [f"{what}: − {line}" for line in sorted(lines[0] - lines[1])]
            told += [f"{what}: + {line}" for line in sorted(lines[1] - lines[0])]
    return told


def main(argv: list[str] | None = None) -> int:
    """Compare and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS)
    parser.add_argument("--override", action="append", default=[], help="for both, such as calibration.pilots=0")
    args = parser.parse_args(argv)
    old, new = args.old.resolve(), args.new.resolve()
    told = compare_trees(old, new)
    with tempfile.TemporaryDirectory() as folder:
        for scenario in args.scenarios:
            found = [
                facts(run(tree, scenario, Path(folder) / name, args.override))
                for name, tree in (("old", old), ("again", old), ("new", new))
            ]
            more = differences(*found)
            stable = sum(found[0][key] == found[1].get(key) for key in found[0])
            print(
                f"{scenario}: {len(more)} differences; {stable:,} of {len(found[0]):,} facts do not depend on the clock"
            )
            told += [f"{scenario}: {line}" for line in more]
    print("\n".join(told) or "the same")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
