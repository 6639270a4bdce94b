"""USAGE lists what is supported and what is refused, as the table of inputs has it."""

import os
import subprocess
import sys

from icd_lib.paths import project_root
from tests.inputs.case import DOORS
from tests.inputs.cases import all_cases
from tests.inputs.page import COMMAND, TITLES, page_text


def test_the_page_is_up_to_date():
    """In a process of its own: tests add rows to the tables."""
    environment = {key: value for key, value in os.environ.items() if key != "ICD_EXTENSIONS"}
    command = [sys.executable, "-m", "tests.inputs.page", "--check"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=project_root())
    assert found.returncode == 0, f"{found.stdout}{found.stderr}: run `{COMMAND}`"


def test_every_input_stands_on_the_page_once():
    lines = page_text().splitlines()
    assert list(TITLES) == list(DOORS)
    for case in all_cases():
        assert any(line.startswith(f"| {case.what}".replace("\n", " ")) for line in lines), case.what
