"""benchmarks/bridge.py and its tables: compilers that are left out stay, reasons are counted, no package no run."""

import sys
from pathlib import Path

import pytest

from icd_lib.errors import ResourceError
from icd_lib.runtimes import BRIDGE, RUNTIMES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import bridge
import bridge_tables

ANOTHER = "what was compiled is another function (relative error {}), so it is not used"


def case(engine, **more):
    good = {"to_float64": 2e-7, "to_eager": 3e-7, "eager_to_float64": 1e-7, "per_token_to_float64": {"max": 9e-7}}
    return {"engine": engine, "family": "bert", "shape": "1x7"} | (more or good)


def section(*engines, **more):
    return {"norm": "l2", "cases": [case(engine, **more) for engine in engines], "ran": {e: more for e in engines}}


@pytest.mark.parametrize("engine", list(BRIDGE))
def test_a_compiler_that_is_run_again_leaves_the_other_one_alone(engine):
    merged = bridge.with_others(section(*BRIDGE), section(engine, reason="no"), [engine])
    assert [item["engine"] for item in merged["cases"]] == list(BRIDGE)
    assert {item["engine"] for item in merged["cases"] if "reason" in item} == {engine}
    assert {name for name, ran in merged["ran"].items() if ran} == {engine} and set(merged["ran"]) == set(BRIDGE)


def test_the_first_run_is_all_there_is():
    assert bridge.with_others({}, section(*BRIDGE), list(BRIDGE)) == section(*BRIDGE)


def test_reasons_that_differ_in_a_number_are_one_row_with_their_count():
    cases = [case("tvm_relax", reason=ANOTHER.format(error)) for error in ("1", "0.07", "8e-2")]
    cases += [case("tvm_relax", reason="did not compile within 1800 s"), case("tvm_relax")]
    good, late, wrong = bridge_tables.equivalence_table({"cases": cases}).splitlines()[2:]
    assert good.startswith("| `tvm_relax` | bert | 1 | 2.0e-07 |")
    assert late.startswith("| `tvm_relax` | bert | 1 | not measured: did not compile within 1800 s |")
    assert wrong.startswith(f"| `tvm_relax` | bert | 3 | not measured: {ANOTHER.format('0.07 to 1')} |")


def test_a_number_in_a_name_is_no_number():
    assert bridge_tables.alike(["float32 of v1.2", "float64 of v1.2"]) == [
        ("float32 of v1.2", 1),
        ("float64 of v1.2", 1),
    ]


def test_without_its_packages_nothing_runs_and_nothing_is_written(monkeypatch, capsys, tmp_path):
    def missing():
        raise ResourceError("package tvm is not installed; run pip install apache-tvm")

    monkeypatch.setattr(bridge, "FIGURES", tmp_path / "bridge.json")
    monkeypatch.setattr(RUNTIMES["tvm_relax"], "check", missing)
    monkeypatch.setattr(sys, "argv", ["bridge.py", "equivalence", "--engines", "tvm_relax"])
    assert bridge.main() == ResourceError.exit_code
    assert "package tvm is not installed" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_page_has_the_places_for_it():
    page = bridge_tables.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- bridge-{name}: start -->" in page for name in ("equivalence", *bridge.MODELS))
