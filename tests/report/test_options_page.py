"""The page of options and the JSON Schema are those of the sections."""

import os
import subprocess
import sys

from icd_lib.report.options_page import options_text
from icd_lib.run.options import key_paths


def test_what_is_published_is_up_to_date():
    """In a process of its own: tests add rows to the tables."""
    command = [sys.executable, "-m", "icd_lib.report.options_page", "--check"]
    environment = {key: value for key, value in os.environ.items() if key != "ICD_EXTENSIONS"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, f"{found.stdout}{found.stderr}: run `python -m icd_lib.report.options_page`"


def test_the_page_has_every_option_once():
    text = options_text()
    assert [key for key in key_paths() if text.count(f"| `{key}` |") != 1] == []
