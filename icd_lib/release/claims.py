"""Every number that README and docs state, its source, and whether it still holds: `python -m icd_lib.release.claims`.

claims.yaml lists them. `--check` compares the pages with the committed sources, `--update` writes the sources' numbers
into claims.yaml, `--rerun MINUTES` makes them again where this machine can and says what no longer holds (exit code 1).
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from icd_lib.errors import EXIT_GATE_NOT_MET, EXIT_OK, ArtifactError, IcdError
from icd_lib.execute.output import steady_output
from icd_lib.metric import Figure
from icd_lib.paths import project_root
from icd_lib.report.readme import as_change, as_drop
from icd_lib.storage.atomic import atomic_write
from icd_lib.storage.json_text import read_text
from icd_lib.storage.record_json import from_json

FILE = "claims.yaml"
# Where a claim's command writes what is committed there.
FRESH = {"outputs/reference/": "outputs/", "docs/figures/": "artifacts/claims/"}
FORMATS: dict[str, Callable] = {
    "change": as_change,
    "drop": as_drop,
    "word": str,
    "percent": lambda value: f"{100 * value:+.1f} %",
    "three": lambda value: f"{value:.3f}",
    "four": lambda value: f"{value:.4f}",
    "two": lambda value: f"{value:.2f}",
    "one": lambda value: f"{value:.1f}",
    "whole": lambda value: f"{value:,.0f}",
}
HEADER = """# Every number that README and docs state. `make claims` reruns what this machine can and says what broke.
# stated: the words on the page, written by `python -m icd_lib.release.claims --update`. source: file : path
# tolerance: how far a rerun may be off, in the number's own unit (1 is 100 %, pp are pp); 0 for what is deterministic
# Figures in docs/DECISIONS.md are of the day of the decision and are not repeated here.
"""


@dataclass(frozen=True)
class Claim:
    """One stated number; `minutes` and `command` say what making it again takes."""

    id: str
    says: str
    where: str
    stated: str
    source: str
    shown_as: str
    command: str
    minutes: float
    hardware: str
    tolerance: float
    verdict: str

    @property
    def needs_cuda(self) -> bool:
        """Whether it takes an NVIDIA GPU to make the number again."""
        return "CUDA" in self.hardware

    @property
    def board(self) -> str:
        """The GPU that the number is of, as torch names it; empty where it is of none, or of any."""
        return self.hardware.partition("CUDA:")[2].strip()

    def is_of(self, device: str) -> bool:
        """Whether the number is of a GPU with this whole name; one of any GPU is."""
        return self.board in ("", device)

    def value(self, root: Path, fresh: Mapping[str, str] | None = None):
        """The number (or figure, or word) in the source, or in what was made anew.

        fresh: beginnings of the committed files' paths → where the command that makes them again has written
        """
        file, _, path = self.source.partition(" : ")
        for kept, made in (fresh or {}).items():
            file = made + file.removeprefix(kept) if file.startswith(kept) else file
        node = _read(root / file)
        for key in path.split(" / "):
            try:
                node = node[int(key) if isinstance(node, list) else key]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ArtifactError(f"{FILE}: {self.id}: {file} has no {path}") from error
        is_figure = isinstance(node, dict) and {"value", "unit", "kind"} <= node.keys()
        return from_json(Figure, node, f"{file}: {path}") if is_figure else node

    def words(self, root: Path) -> str:
        """The number as the page shows it."""
        return FORMATS[self.shown_as](self.value(root))


def load_claims(root: Path | None = None) -> list[Claim]:
    """The claims of claims.yaml; `ArtifactError` for one without its fields or with an unknown format."""
    path = (root or project_root()) / FILE
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
        claims = [Claim(**entry) for entry in entries]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ArtifactError(f"{FILE} is missing or damaged ({error})") from error
    odd = [claim.id for claim in claims if claim.shown_as not in FORMATS]
    if odd or len({claim.id for claim in claims}) != len(claims):
        raise ArtifactError(f"{FILE}: {odd[0] if odd else 'an id'} is twice there or has an unknown format")
    return claims


def check(claims: list[Claim], root: Path) -> list[str]:
    """What is wrong: a claim that its source does not bear out, or that its page does not state."""
    wrong = []
    for claim in claims:
        if claim.words(root) != claim.stated:
            wrong.append(f"{claim.id}: the source says {claim.words(root)!r}, {FILE} states {claim.stated!r}")
        if claim.stated not in (root / claim.where).read_text(encoding="utf-8"):
            wrong.append(f"{claim.id}: {claim.where} does not state {claim.stated!r}")
    return wrong


def updated(claims: list[Claim], root: Path) -> list[Claim]:
    """The claims with what their sources say now."""
    return [replace(claim, stated=claim.words(root)) for claim in claims]


def as_yaml(claims: list[Claim]) -> str:
    """claims.yaml."""
    entries = [vars(claim) for claim in claims]
    return HEADER + yaml.safe_dump({"claims": entries}, sort_keys=False, allow_unicode=True, width=120)


def commands(claims: list[Claim], minutes: float) -> tuple[list[str], dict[str, str]]:
    """Commands to run, each once, and for claims that are left out the reason."""
    chosen, left = [], {}
    for claim in claims:
        if claim.needs_cuda and not has_cuda():
            left[claim.id] = f"takes {claim.hardware}"
        elif claim.needs_cuda and not claim.is_of(name := cuda_name()):
            left[claim.id] = f"is of {claim.board}, and here is {name}"
        elif claim.minutes > minutes:
            left[claim.id] = f"takes about {claim.minutes:g} minutes, more than {minutes:g}"
        elif claim.command not in chosen:
            chosen.append(claim.command)
    return chosen, left


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def cuda_name() -> str:
    """What torch calls its first CUDA device."""
    import torch

    return torch.cuda.get_device_name(0)


def compare(claim: Claim, root: Path, fresh: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Whether what was made anew (`Claim.value`, by default by a rerun) bears the claim out, and the words for it."""
    old, new = (number_of(claim.value(root, places)) for places in (None, FRESH if fresh is None else fresh))
    if isinstance(old, str) or old is None or new is None:
        return old == new, f"{new} (stated: {old})"
    return abs(new - old) <= claim.tolerance + 1e-12, f"{new:.4g} (stated: {old:.4g}, ± {claim.tolerance:g})"


def number_of(value):
    """The number in a figure; a number or word as it is."""
    return value.value if isinstance(value, Figure) else value


def rerun(claims: list[Claim], root: Path, minutes: float) -> int:
    """Run what fits, compare, print a line per claim; returns the exit code."""
    chosen, left = commands(claims, minutes)
    failed = {}
    for command in chosen:
        print(f"running: {command}", flush=True)
        words = [sys.executable if word == "python" else word for word in shlex.split(command)]
        code = subprocess.run(words, cwd=root, check=False).returncode
        if code not in (EXIT_OK, EXIT_GATE_NOT_MET):
            failed[command] = code
    broken = 0
    for claim in claims:
        if claim.id in left:
            print(f"not run  {claim.id}: {left[claim.id]}")
            continue
        if claim.command in failed:
            holds, words = False, f"its command ended with code {failed[claim.command]}"
        else:
            holds, words = compare(claim, root)
        broken += not holds
        print(f"{'holds   ' if holds else 'BROKEN  '} {claim.id}: {words}")
    print(f"{len(claims) - len(left) - broken} hold, {broken} do not, {len(left)} were not run")
    return EXIT_GATE_NOT_MET if broken else EXIT_OK


def _read(path: Path):
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); make it with the claim's command") from error


@steady_output()
def main(argv: list[str] | None = None) -> int:
    """Check, update or rerun; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m icd_lib.release.claims", description="The numbers on the project's pages."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare pages, claims.yaml and committed sources (default)")
    what.add_argument("--update", action="store_true", help="write what the sources say into claims.yaml")
    what.add_argument("--rerun", type=float, metavar="MINUTES", help="make again what takes no longer than this each")
    args = parser.parse_args(argv)
    root = project_root()
    try:
        claims = load_claims(root)
        if args.update:
            atomic_write(root / FILE, as_yaml(updated(claims, root)))
            return EXIT_OK
        if args.rerun is not None:
            return rerun(claims, root, args.rerun)
        wrong = check(claims, root)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n".join(wrong) or f"{len(claims)} claims: the pages state what the sources say")
    return EXIT_GATE_NOT_MET if wrong else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
