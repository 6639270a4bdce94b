"""Check a package of runs anywhere: `python -m icd_lib.verify FILE.zip`.

Hashes, schema, and every verdict again from the raw samples. Prints a line per check; exit code 0, or 7 if one failed.
Nothing is unpacked or executed, and no model library is needed.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from icd_lib.errors import EXIT_OK, ArtifactError, IcdError
from icd_lib.execute.output import steady_output
from icd_lib.release.package_file import ASSETS, CONTENTS, FORMAT, PackageFile
from icd_lib.release.run_checks import CHECKS, RunView
from icd_lib.scrub.files import check_file
from icd_lib.storage.json_text import parse_json

_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError)


@dataclass(frozen=True)
class Check:
    """One line of the answer: what was checked, whether it holds, and what was found."""

    name: str
    ok: bool
    note: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.note}"


def verify(path) -> Iterator[Check]:
    """The checks of a package, one after the other; the first that makes the others meaningless is the last."""
    try:
        package = PackageFile(path)
    except ArtifactError as error:
        yield Check("container", False, error.args[0])
        return
    with package:
        yield Check("container", True, f"{len(package.names)} files, no link, no path that leaves its folder")
        contents = run_check("contents", check_contents, package)
        yield contents
        if not contents.ok:
            return
        for name, check in (("assets", check_assets), ("json", check_json), ("scrubbed", check_scrubbed)):
            yield run_check(name, check, package)
        for prefix in sorted(package.read_json(CONTENTS)["runs"]):
            view = RunView(package, prefix)
            for name, check in CHECKS.items():
                yield run_check(f"{prefix} {name}", check, view)


def run_check(name: str, check: Callable, given) -> Check:
    """A check's answer; a file that is not of the shape it should be is a failure of the check, not of this program."""
    try:
        return Check(name, True, check(given))
    except IcdError as error:
        return Check(name, False, error.args[0])
    except _MALFORMED as error:
        return Check(name, False, f"a file does not have the shape it should have ({type(error).__name__}: {error})")


def check_contents(package: PackageFile) -> str:
    """contents.json lists every file, and nothing else, with its size and sha256."""
    contents = package.read_json(CONTENTS)
    if contents["format"] != FORMAT:
        raise ArtifactError(f"{CONTENTS}: the format is {contents['format']!r}, this reads {FORMAT!r}")
    files, runs = contents["files"], contents["runs"]
    if not isinstance(files, dict) or not isinstance(runs, dict) or not runs:
        raise ArtifactError(f"{CONTENTS} takes files and at least one run")
    present = set(package.names) - {CONTENTS}
    for what, names in (("not listed", present - files.keys()), ("missing", files.keys() - present)):
        if names:
            raise ArtifactError(f"{len(names)} files are {what}, such as {min(names)}")
    for name, entry in files.items():
        data = package.read(name)
        if len(data) != entry["bytes"] or package.sha256(name) != entry["sha256"]:
            raise ArtifactError(f"{name} is not the file that was packed: its hash differs")
    outside = [name for name in files if "/" in name and not name.startswith(tuple(f"{run}/" for run in runs))]
    if outside:
        raise ArtifactError(f"{outside[0]} belongs to no run")
    return f"{len(files)} hashes equal, {len(runs)} runs"


def check_assets(package: PackageFile) -> str:
    """assets.json names by hash what is not passed on, and none of it is in the package."""
    assets = package.read_json(ASSETS)["assets"]
    for asset in assets:
        sha, path = asset["sha256"], asset["path"]
        if not (isinstance(sha, str) and len(sha) == 64 and set(sha) <= set("0123456789abcdef")):
            raise ArtifactError(f"{ASSETS}: {path} has no sha256")
        if path in package.names:
            raise ArtifactError(f"{path} is listed by hash only but is in the package")
    return f"{len(assets)} files by hash only"


def check_json(package: PackageFile) -> str:
    """Every JSON file and notebook parses, and every line of a log has ts, stage, ok and meta."""
    count = 0
    for name in package.names:
        path = PurePosixPath(name)
        if path.suffix in (".json", ".ipynb"):
            value = package.read_json(name)
            if path.suffix == ".ipynb" and not isinstance(value.get("cells"), list):
                raise ArtifactError(f"{name} is no notebook")
            count += 1
        elif path.name == "run.log":
            check_log(package, name)
            count += 1
    return f"{count} files parse"


def check_log(package: PackageFile, name: str) -> None:
    """Raise `ArtifactError` unless every line is {"ts", "stage", "ok", "meta"}."""
    for i, line in enumerate(package.read(name).decode().removesuffix("\n").split("\n"), 1):
        entry = parse_json(line, f"{name}, line {i}")
        kinds = {"ts": str, "stage": str, "ok": bool, "meta": dict}
        if any(type(entry[key]) is not kind for key, kind in kinds.items()):
            raise ArtifactError(f"{name}, line {i} takes ts, stage, ok and meta")


def check_scrubbed(package: PackageFile) -> str:
    """No file holds a path, name, address, token or e-mail address that can be told on sight."""
    for name in package.names:
        check_file(name, package.read(name))
    return f"no leak in {len(package.names)} files"


@steady_output()
def main(argv: list[str] | None = None) -> int:
    """Print the checks of a package; 0 if all hold, else 7."""
    parser = argparse.ArgumentParser(prog="python -m icd_lib.verify", description=__doc__.partition("\n")[0])
    parser.add_argument("file", metavar="FILE.zip", help="a package made by `make pack`")
    checks = []
    for check in verify(parser.parse_args(argv).file):
        print(check, flush=True)
        checks.append(check)
    failed = [check.name for check in checks if not check.ok]
    print(
        f"{len(checks) - len(failed)} of {len(checks)} checks hold"
        + (f"; failing: {', '.join(failed)}" if failed else "")
    )
    return ArtifactError.exit_code if failed else EXIT_OK
