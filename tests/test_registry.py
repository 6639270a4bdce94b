"""Tables of rows: names without imports, rows on first use, rows from outside, and what is refused."""

import sys

import pytest

from icd_lib.errors import ConfigError
from icd_lib.registry import VARIABLE, Registry


def test_names_cost_no_import_and_a_row_is_imported_once(tmp_path, monkeypatch):
    (tmp_path / "lazy_row_of_a_test.py").write_text("ROW = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    table = Registry("things", {"one": "lazy_row_of_a_test:ROW"})
    assert list(table) == ["one"] and len(table) == 1 and "lazy_row_of_a_test" not in sys.modules
    assert table["one"] is table["one"] is sys.modules["lazy_row_of_a_test"].ROW


def test_an_unknown_name_gets_the_nearest_one_and_is_a_missing_key():
    table = Registry("things", {"eager": 1, "compile": 2})
    with pytest.raises(ConfigError, match=r"'eagre' is none of the things; did you mean 'eager'\? Known: eager, comp"):
        table["eagre"]
    assert "eagre" not in table and table.get("eagre", 3) == 3


def test_modules_from_outside_add_rows(tmp_path, monkeypatch):
    (tmp_path / "outside_of_a_test.py").write_text(
        "import icd_lib.registry as r\nr.table_of_a_test.add('new', 5)\nassert 'new' in r.table_of_a_test\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(VARIABLE, "outside_of_a_test")
    table = Registry("things", {"old": 4})
    monkeypatch.setattr("icd_lib.registry.table_of_a_test", table, raising=False)
    assert dict(table) == {"old": 4, "new": 5}


def test_what_cannot_be_added_is_named(monkeypatch):
    table = Registry("things", {"old": 4})
    with pytest.raises(ConfigError, match="two things are called 'old'"):
        table.add("old", object())
    monkeypatch.setenv(VARIABLE, "no_such_module_of_a_test")
    with pytest.raises(ConfigError, match="ICD_EXTENSIONS names 'no_such_module_of_a_test'"):
        list(table)
