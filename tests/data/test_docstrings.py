"""Docstrings: prose only, distinct, and the same whatever else the process has imported."""

import subprocess
import sys

import pytest

from icd_lib.data.docstrings import MIN_WORDS, docstrings_provenance, labelled_docstrings, prose
from icd_lib.data.splits import normalise


def test_docstrings_are_distinct_sentences_with_the_number_of_their_module():
    found = labelled_docstrings()
    texts = [text for text, _ in found]
    assert len(texts) > 5000 and len({normalise(text) for text in texts}) == len(texts)
    assert all(text[0].isupper() and text[-1] == "." and len(text.split()) >= MIN_WORDS for text in texts)
    assert not any("\n" in text or "`" in text or ">>>" in text for text in texts)
    modules = {module for _, module in found}
    assert modules <= set(range(32)) and len(modules) > 25
    assert ("Compute the Cholesky decomposition of a matrix.", 10) in found


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the sine of an angle\n  in radians.", ["Return the sine of an angle in radians."]),
        ("Takes `x` and gives it back again.", ["Takes x and gives it back again."]),
        ("Too short.\n\nlower case starts this one here.\n\nThis one does not end properly", []),
        ("Parameters\n----------\nx : int\n    A number that is taken as it is.", []),
        (
            "Use it as in the following line.\n\n>>> f(1) gives one and nothing else.",
            ["Use it as in the following line."],
        ),
        (".. note:: This is not prose at all.\n\n* A list item is not prose either.", []),
        ("See https://example.org for more than that.\n\nThe norm \\alpha of it is one.", []),
    ],
)
def test_prose_is_whole_sentences(docstring, expected):
    assert prose(docstring) == expected


def test_provenance_names_packages_and_the_hash_of_what_was_read():
    found = docstrings_provenance()
    assert set(found["packages"]) == {"numpy", "scipy", "scikit-learn", "torch"}
    assert found["items"] == len(labelled_docstrings()) and len(found["sha256"]) == 64


HASH = "from icd_lib.data.docstrings import docstrings_provenance; print(docstrings_provenance()['sha256'])"


@pytest.mark.slow
def test_docstrings_do_not_depend_on_what_was_imported_before():
    hashes = {
        subprocess.run([sys.executable, "-c", before + HASH], capture_output=True, text=True, check=True).stdout
        for before in ("", "import scipy.signal, scipy.special; ")
    }
    assert len(hashes) == 1
