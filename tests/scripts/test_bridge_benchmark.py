"""benchmarks/bridge.py and its tables: what a call leaves out stays, what is kept is found, no package no run."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from icd_lib.errors import ResourceError
from icd_lib.runtimes import BRIDGE, RUNTIMES
from tests.tiny_encoders import batch, tiny_bert

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import bridge
import bridge_kept
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
    assert all(f"<!-- bridge-{name}: start -->" in page for name in ("equivalence", "errors", *bridge.MODELS))


ERROR = {"to_float64": 2e-7, "to_eager": 3e-7, "eager_to_float64": 1e-7}
ERROR["per_token_to_float64"] = {"median": 2e-7, "p95": 4e-7, "max": 5e-7, "n": 12}
MADE = {"seconds": {"lower": 6.0}, "peak_memory_mb": 512.4}


def shape_of(*labels, medians=None, worse=1.0):
    return {
        "median_ms": medians or {},
        "ratios": {},
        "compiled": dict.fromkeys(labels, MADE),
        "errors": {label: ERROR | {"to_float64": 2e-7 * (worse if "tiles" in label else 1)} for label in labels},
        "refused": {"stablehlo_iree/dense/plain": "no"},
        "threads": 2,
        "rounds": len(medians or {}),
    }


def test_a_shape_stands_where_it_stood_and_the_others_stay():
    earlier = {"model": "BertModel", "shapes": {"8x128": 1, "1x32": 2}}
    assert bridge.with_shape(earlier, "BertModel", "8x128", 3)["shapes"] == {"8x128": 3, "1x32": 2}
    assert bridge.with_shape({}, "BertModel", "8x128", 3) == {"model": "BertModel", "shapes": {"8x128": 3}}


def test_what_is_compiled_and_not_timed_yet_says_so():
    label = "tvm_relax/dense/plain"
    table = {"model": "BertModel", "shapes": {"1x7": shape_of(label), "1x9": shape_of(label, medians={label: 7.0})}}
    untimed, timed, *rest = bridge_tables.latency_table(table).splitlines()[2:]
    assert "| not measured |" in untimed and "| 7.00 ms |" in timed and "512 MB | 2.0e-07" in untimed
    assert "`stablehlo_iree/dense/plain` was not measured at 1x7: no" in rest
    assert "BertModel at 1x7: 2 threads, 0 interleaved rounds." in rest


def test_the_larger_error_of_a_module_with_tiles_and_without_is_told():
    entry = shape_of("tvm_relax/dense/plain", "tvm_relax/dense/tiles", worse=4)
    (line,) = bridge_tables.errors_table({"mamba": {"shapes": {"1x7": entry}}}).splitlines()[2:]
    assert line.startswith("| `tvm_relax` | mamba | 1x7 | dense | 8.00e-07 | 3.00e-07 | 1.00e-07 | 2.00e-07 |")
    assert bridge_tables.errors_table({}) == bridge_tables.NOT_RUN


def options(**more):
    return argparse.Namespace(**({"repeats": 12, "minutes": None} | more))


def test_rounds_are_given_as_they_come_and_end_when_time_is_up():
    calls = {"one": lambda: None, "other": lambda: None}
    given = list(bridge.rounds(calls, options()))
    assert [len(samples["other"]) for samples in given] == [5, 10, 12]
    assert np.array_equal(given[0]["one"], given[2]["one"][:5])
    assert [len(samples["one"]) for samples in bridge.rounds(calls, options(minutes=1e-9))] == [5]
    assert list(bridge.rounds(calls, options(repeats=0))) == []


def test_a_kept_artifact_is_found_by_all_that_it_depends_on(monkeypatch, tmp_path):
    def place(model=None, shape=(2, 12), engine="tvm_relax", tiles=True):
        return bridge_kept.kept_folder(tmp_path, engine, model or tiny_bert(), batch(*shape), {"tiles": tiles})

    changed = tiny_bert()
    changed.embeddings.word_embeddings.weight.data[3, 3] += 1
    first = place()
    assert place() == first
    others = [place(changed), place(shape=(2, 13)), place(engine="stablehlo_iree"), place(tiles=False)]
    source = tmp_path / "a.py"
    source.write_text("1")
    monkeypatch.setattr(bridge_kept, "sources", lambda: [source])
    others.append(place())
    source.write_text("2")
    others.append(place())
    assert len({first, *others}) == 7


def test_the_sources_of_an_artifact_are_there():
    names = {file.relative_to(bridge_kept.LIBRARY).as_posix() for file in bridge_kept.sources()}
    assert {"bridge/relax/tile.py", "kernels/doubling.py", "models/export.py"} <= names
