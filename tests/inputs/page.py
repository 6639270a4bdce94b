"""The part of docs/USAGE.md that says what is supported and what is refused, written from the families and the table.

`python -m tests.inputs.page` writes it, with --check it exits 1 where the page says something else.
"""

import sys

from icd_lib.models.families import FAMILIES
from icd_lib.paths import project_root
from icd_lib.report.marked import with_marked
from icd_lib.storage.atomic import atomic_write
from tests.inputs.case import DOORS, Case
from tests.inputs.cases import all_cases

NAME = "inputs"
COMMAND = "python -m tests.inputs.page"
PAGE = project_root() / "docs" / "USAGE.md"
# What the rows of a door are about, in the order of `DOORS`.
TITLES = {
    "model": "Models",
    "calibration": "Calibration: the inputs that the loop learns from",
    "quality": "`quality`: your own judge",
    "argument": "Arguments of Python's functions",
    "checkpoint": "Checkpoints",
    "scenario": "Scenarios and the command line",
    "machine": "Machines",
}


def families_table() -> str:
    """Every family: what its models are known by in memory, and which checkpoints are loaded."""
    lines = ["| family | a model in memory | `model_type` of a checkpoint |", "|---|---|---|"]
    for name, row in FAMILIES.items():
        types = ", ".join(f"`{kind}`" for kind in row.model_types)
        lines.append(f"| `{name}` | {row.described} | {types} |")
    return "\n".join(lines)


def cases_table(cases: list[Case]) -> str:
    """What becomes of each input: first those that work, then those that are refused."""
    lines = ["| input | what becomes of it |", "|---|---|"]
    for case in sorted(cases, key=lambda case: case.refused is not None):
        lines.append(f"| {_cell(case.what)} | {_cell(case.says)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def page_text() -> str:
    """The whole part, between its markers."""
    parts = [families_table()]
    for door in DOORS:
        if cases := [case for case in all_cases() if case.door == door]:
            parts += [f"### {TITLES[door]}", cases_table(cases)]
    return "\n" + "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write the part, or with --check exit 1 when the page says something else."""
    now = PAGE.read_text(encoding="utf-8")
    made = with_marked(now, NAME, page_text())
    if "--check" in arguments:
        print(f"{PAGE.name}: " + ("up to date" if made == now else f"the list of inputs differs; run {COMMAND}"))
        return int(made != now)
    if made != now:
        atomic_write(PAGE, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
