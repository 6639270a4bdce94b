"""The page of options and the JSON Schema are those of the sections."""

from icd_lib.report.options_page import options_text, published
from icd_lib.run.options import key_paths


def test_what_is_published_is_up_to_date():
    stale = [path.name for path, text in published().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `python -m icd_lib.report.options_page`"


def test_the_page_has_every_option_once():
    text = options_text()
    assert [key for key in key_paths() if text.count(f"| `{key}` |") != 1] == []
