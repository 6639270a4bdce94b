"""docs/DECODER.md states its reference run's numbers and no others."""

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.paths import project_root
from icd_lib.report import decoder_page
from icd_lib.report.table import Table


def test_the_page_holds_the_numbers_of_the_reference_run():
    text = (project_root() / decoder_page.PAGE).read_text(encoding="utf-8")
    assert decoder_page.with_numbers(text) == text
    assert "accuracy lost" in text and "per token" in text


def test_without_its_run_there_are_none(tmp_path):
    with pytest.raises(ArtifactError, match="holds no judged run"):
        decoder_page.numbers(tmp_path)


def test_a_table_in_markdown():
    table = Table("A title", ["one", "two"], [["a|b", 3]], "A note.")
    assert table.to_markdown() == "**A title**\n\n| one | two |\n|---|---|\n| a\\|b | 3 |\n\nA note."
