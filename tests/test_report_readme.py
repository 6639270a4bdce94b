"""The README states the reference run's numbers and no others."""

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.report import readme
from icd_lib.scenario import project_root


def test_the_readme_holds_the_numbers_of_the_reference_run():
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    assert readme.with_numbers(text) == text


def test_a_changed_number_is_noticed():
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    tampered = text.replace("| iterative vs dense | ", "| iterative vs dense | 9", 1)
    assert readme.with_numbers(tampered) == text != tampered


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ArtifactError, match="markers"):
        readme.with_numbers("# ICD\n")
