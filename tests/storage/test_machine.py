"""This machine's tables: what is kept comes back for the same key only."""

import pytest

from icd_lib.storage import machine

KEY = {"model": "abc", "shape": [8, 128], "widths": {"ffn": [16, 32]}}
TABLES = {"dense_ms": 2.5, "curves": {}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_kept_tables_come_back_for_their_key_only():
    assert machine.read_tables(KEY) is None
    assert machine.keep_tables(KEY, TABLES)
    assert machine.read_tables(KEY) == TABLES
    assert machine.read_tables(KEY | {"shape": [1, 32]}) is None


def test_a_damaged_file_counts_as_none():
    machine.keep_tables(KEY, TABLES)
    machine.kept_file("tables", KEY).write_text("{")
    assert machine.read_tables(KEY) is None


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(cache):
    cache.write_text("a file, not a folder")
    assert machine.keep_tables(KEY, TABLES) is False
