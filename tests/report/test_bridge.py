"""The section of the compilers on the report: tables of the record, IR folded and escaped, nothing where it was off."""

from report_factory import write_run

from icd_lib.records.bridge import BRIDGED
from icd_lib.report import bridge
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Table
from icd_lib.storage.atomic import atomic_write, to_json

ENTRY = {
    "shape": "2x12",
    "seconds": {"export": 1.0, "import": 2.0, "passes": 0.5, "lower": 4.0},
    "peak_memory_mb": 512.4,
    "passes": {"annotate": [f"w{number}: ffn" for number in range(14)], "fold": []},
    "gathers": {"lookups": 1, "permutations": 0, "other": 1},
    "before": "",
    "after": "",
}
RECORD = {
    "tiles": True,
    "compiled": {
        "tvm_relax": {"dense": [ENTRY], "iterative": [ENTRY | {"before": "%0 = <a>\nb", "after": "%0 = <c>"}]}
    },
}


def test_a_run_without_the_bridge_has_no_section(tmp_path):
    results = Results.load(write_run(tmp_path))
    assert all(isinstance(part(results), DoesNotApply) for part in (bridge.compiled_table, bridge.listings))


def test_the_tables_say_what_compiling_took_and_what_the_passes_did(tmp_path):
    folder = write_run(tmp_path)
    atomic_write(folder / BRIDGED, to_json(RECORD))
    results = Results.load(folder)
    compiled, passes = bridge.compiled_table(results), bridge.passes_table(results)
    assert isinstance(compiled, Table) and isinstance(passes, Table)
    assert compiled.rows[0] == ["tvm_relax", "dense", "2x12", "4.0 s", "7.5 s", "512 MB", 0, 1]
    assert [row[1:4] for row in passes.rows] == [["iterative", "annotate", 14], ["iterative", "fold", 0]]
    assert passes.rows[0][4].endswith("; and 2 more") and passes.rows[1][4] == "nothing to do"


def test_the_ir_is_folded_and_escaped(tmp_path):
    folder = write_run(tmp_path)
    atomic_write(folder / BRIDGED, to_json(RECORD))
    first, second = bridge.listings(Results.load(folder)).to_html().split("\n<details>")
    assert first == (
        "<details><summary>tvm_relax, iterative, 2x12: IR as imported (2 lines)</summary>"
        "<pre>%0 = &lt;a&gt;\nb</pre></details>"
    )
    assert "after the passes (1 lines)" in second
