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


def test_the_limit_of_instructions_is_part_of_what_latency_depends_on(monkeypatch):
    monkeypatch.delenv(machine.ISA_LIMIT, raising=False)
    whole = machine.processor()
    monkeypatch.setenv(machine.ISA_LIMIT, "AVX2")
    limited = machine.processor()
    assert machine.keep_tables(whole, TABLES) and machine.read_tables(limited) is None
    assert whole["isa_limit"] is None and limited["isa_limit"] == "AVX2"
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"amx_int8", "avx2"})
    assert machine.processor()["simd"] == ["avx2", "amx_int8"]


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (None, {"amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni"}),
        ("ALL", {"amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni"}),
        ("AVX512_CORE_AMX", {"amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni"}),
        ("AVX512_CORE_FP16", {"avx512_bf16", "avx512_vnni", "avx_vnni"}),
        ("avx512_core_bf16", {"avx512_bf16", "avx512_vnni"}),
        ("AVX512_CORE_VNNI", {"avx512_vnni"}),
        ("AVX2_VNNI", {"avx_vnni"}),
        ("AVX512_CORE", set()),
        ("AVX2", set()),
    ],
)
def test_a_limit_leaves_what_its_level_has(limit, left):
    assert machine.within_limit({"amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "fma"}, limit) == left | {"fma"}


def test_a_damaged_file_counts_as_none():
    machine.keep_tables(KEY, TABLES)
    machine.kept_file("tables", KEY).write_text("{")
    assert machine.read_tables(KEY) is None


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(cache):
    cache.write_text("a file, not a folder")
    assert machine.keep_tables(KEY, TABLES) is False
