"""Every case of the table, from the files of this folder."""

import importlib
from pathlib import Path

from tests.inputs.case import DOORS, Case


def all_cases() -> list[Case]:
    """Those of every `rows_*.py`, by door."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("rows_*.py"))
    cases = [case for name in names for case in importlib.import_module(f"tests.inputs.{name}").CASES]
    return sorted(cases, key=lambda case: DOORS.index(case.door))
