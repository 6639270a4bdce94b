"""The pipeline on real notebooks: order, skipping, failing and going on, limits, and pages that open offline."""

import json
import re
import shutil
import sys

import nbformat
import pytest
from notebook_factory import write_notebook, write_project
from tiny_pipeline import Pipeline

from icd_lib.errors import ArtifactError, AxisError, ConfigError, InternalError, ResourceError
from icd_lib.execute.html import to_html
from icd_lib.execute.notebook import CellFailure, LineWriter, check_parameters, execute
from icd_lib.execute.pipeline import Clock, plan_stages
from icd_lib.paths import project_root
from icd_lib.run.artifacts import open_run
from icd_lib.run.records import FILE, Records, snapshot
from icd_lib.storage.atomic import sha256_file


def run_notebook(tmp_path, *cells, timeout_s=60, parameters="x = 1", given=None):
    lines = []
    source = write_notebook(tmp_path / "n.ipynb", *cells, parameters=parameters)
    target = tmp_path / "out {x}" / "n.ipynb"
    kwargs = {"cwd": project_root(), "timeout_s": timeout_s, "echo": lines.append}
    try:
        execute(source, target, given or {"x": 5}, **kwargs)
    finally:
        assert sorted(p.name for p in target.parent.iterdir()) == ["n.html", "n.ipynb"]
    return lines, target


@pytest.mark.notebooks
def test_notebook_runs_on_this_interpreter_with_its_parameters_and_prints_live(tmp_path):
    lines, target = run_notebook(
        tmp_path,
        'import os, sys\nprint("a", x, flush=True)\nprint("b", end=" ", flush=True)\nprint("c\\rd")',
        "print(sys.executable)\nprint(os.getcwd())",
    )
    assert lines == ["a 5", "d", sys.executable, str(project_root())]
    written = nbformat.read(target, 4)
    assert written.cells[-1].outputs[0].text.splitlines()[1] == "<project>"
    assert len(written.cells[-2].outputs) == 1  # the pieces of one stream are joined
    for path in (target, target.with_suffix(".html")):
        assert str(project_root()) not in path.read_text() and str(tmp_path) not in path.read_text()


@pytest.mark.notebooks
def test_failing_cell_keeps_the_evidence_and_raises_the_same_error(tmp_path):
    with pytest.raises(AxisError, match=r"n\.ipynb, cell 4 \(`from icd_lib import errors`\) failed: no such axis") as e:
        run_notebook(tmp_path, "print('before')", "from icd_lib import errors\nraise errors.AxisError('no such axis')")
    assert str(e.value).count("E_AXS_302") == 1
    written = nbformat.read(tmp_path / "out {x}" / "n.ipynb", 4)
    assert [cell.outputs[0].output_type for cell in written.cells if cell.get("outputs")] == ["stream", "error"]
    page = (tmp_path / "out {x}" / "n.html").read_text()
    assert "before" in page and "no such axis" in page


@pytest.mark.parametrize(
    ("ename", "evalue", "error", "says"),
    [
        ("ConfigError", "[E_CFG_001] bad key", ConfigError, "failed: bad key"),
        ("ZeroDivisionError", "division by zero", InternalError, "ZeroDivisionError: division by zero"),
        ("OSError", "[Errno 28] No space left on device: 'x'", ArtifactError, "disk is full"),
        ("SafetensorError", "I/O error: No space left on device (os error 28)", ArtifactError, "disk is full"),
        ("MemoryError", "", ResourceError, "out of memory"),
        ("EXIT_OK", "a name of the errors module that is no class", InternalError, "EXIT_OK"),
        ("annotations", "x", InternalError, "annotations"),
    ],
)
def test_the_class_of_a_cells_error_decides_the_exit_code(ename, evalue, error, says):
    raised = CellFailure(3, "f()", ename, evalue).to_error("n.ipynb")
    assert type(raised) is error and says in str(raised) and "n.ipynb, cell 3 (`f()`)" in str(raised)


@pytest.mark.notebooks
def test_the_time_limit_is_the_notebooks_not_the_cells(tmp_path):
    wait = "import threading\nthreading.Event().wait(1.2)"
    with pytest.raises(ResourceError, match="stage_timeout_s"):
        run_notebook(tmp_path, wait, wait, wait, "threading.Event().wait(60)", timeout_s=3)


@pytest.mark.notebooks
def test_a_kernel_that_dies_is_a_resource_error(tmp_path):
    with pytest.raises(ResourceError, match="died"):
        run_notebook(tmp_path, "import os\nos._exit(1)")


@pytest.mark.parametrize(
    ("parameters", "given", "says"),
    [
        ("alpha = 1\nbeta: int = 2", {"alfa": 1}, "did you mean 'alpha'"),
        ("alpha = ", {"alpha": 1}, "not Python"),
        ("alpha = 1\nbeta: int = 2", {"alpha": 1, "beta": 2}, None),
    ],
)
def test_unknown_parameters_are_refused_before_anything_runs(tmp_path, parameters, given, says):
    path = write_notebook(tmp_path / "n.ipynb", parameters=parameters)
    if says is None:
        assert check_parameters(path, given) is None
        return
    with pytest.raises(ConfigError, match=says):
        execute(path, tmp_path / "out" / "n.ipynb", given, cwd=tmp_path, timeout_s=9)
    assert not (tmp_path / "out").exists()


def test_a_notebook_needs_one_parameters_cell_and_to_be_one(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "none.ipynb")
    with pytest.raises(ConfigError, match="exactly one cell tagged 'parameters'"):
        check_parameters(tmp_path / "none.ipynb", {})
    (tmp_path / "cut.ipynb").write_text('{"cells": [')
    with pytest.raises(ArtifactError, match="not a notebook"):
        check_parameters(tmp_path / "cut.ipynb", {})
    with pytest.raises(ArtifactError, match=r"gone\.ipynb"):
        check_parameters(tmp_path / "gone.ipynb", {})


def test_page_loads_nothing_from_anywhere_and_keeps_alt_text():
    v4 = nbformat.v4
    image = {"image/png": "iVBORw0KGgo="}
    figure = v4.new_code_cell("draw()")
    figure.outputs = [
        v4.new_output("display_data", data=image, metadata={"image/png": {"alt": "latency <fell>"}}),
        v4.new_output("display_data", data=image, metadata={"alt": "of the output"}),
        v4.new_output("display_data", data={"text/html": '<img alt="inline" src="data:image/png;base64,AA==">'}),
    ]
    other = v4.new_code_cell("more()", metadata={"alt": "of the cell"})
    other.outputs = [v4.new_output("display_data", data=image)]
    page = to_html(
        v4.new_notebook(cells=[v4.new_markdown_cell("$x$ and text"), figure, other]), "t & t", "../index.html"
    )
    for alt in ("latency &lt;fell&gt;", "of the output", "of the cell", "inline"):
        assert f'alt="{alt}"' in page
    loads = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)|url\(\s*["']?([^"')]*)|import\s*\(?["']([^"']*)""", page)
    loaded = {link for group in loads for link in group if link and not link.startswith(("data:", "#"))}
    assert loaded == {"../index.html"}
    assert "<script" not in page and "cdn" not in page and 'name="viewport"' in page and 'lang="en"' in page


def test_a_page_does_not_depend_on_the_pages_before_it():
    v4 = nbformat.v4
    one = v4.new_notebook(cells=[v4.new_markdown_cell("one", id="a")], metadata={"language_info": {"name": "python"}})
    other = v4.new_notebook(cells=[v4.new_code_cell("1 + 1", id="b")])
    first = to_html(one, "first", "index.html")
    assert "<title>other</title>" in (page := to_html(other, "other", "../index.html")) and "../index.html" in page
    assert to_html(one, "first", "index.html") == first


def test_lines_are_handed_over_when_complete():
    lines = []
    writer = LineWriter(lines.append)
    for piece in ("a", "b\nc", "\n\n10 %\r50 %", "\r100 %\nlast"):
        writer.write(piece)
    assert lines == ["ab", "c", "100 %"]
    writer.close()
    writer.close()
    assert lines[3:] == ["last"]


def test_plan_follows_mode_and_measure():
    names = [stage.name for stage in plan_stages()]
    solves = ["02_solve[linear]", "02_solve[oneshot]", "02_solve[iterative]"]
    assert names == ["00_setup_check", "01_build_graph", *solves, "03_measure", "04_validate", "05_report"]
    assert [s.mode for s in plan_stages("iterative") if s.mode] == ["oneshot", "iterative"]
    assert [s.name for s in plan_stages("linear", measure=False)][-1] == "02_solve[linear]"
    for i, stage in enumerate(plan_stages()):
        assert set(stage.needs) <= set(names[:i])
    with pytest.raises(ConfigError, match="fast"):
        plan_stages("fast")


def test_a_scenario_says_which_of_the_modes_are_solved():
    config = {"codesign": {"arms": ("iterative", "linear")}}
    assert [s.mode for s in plan_stages(config=config) if s.mode] == ["linear", "iterative"]
    assert [s.mode for s in plan_stages("iterative", config=config) if s.mode] == ["iterative"]
    with pytest.raises(ConfigError, match="linear solves none of codesign.arms, oneshot"):
        plan_stages("linear", config={"codesign": {"arms": ("oneshot",)}})


ALL = [stage.name for stage in plan_stages("linear")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pipeline = Pipeline(tmp_path_factory.mktemp("finished"))
    pipeline.go()
    return pipeline


@pytest.mark.notebooks
def test_a_run_writes_every_stage_and_its_records(finished):
    assert finished.ran() == ALL
    assert any(re.search(r"\| opened [0-9a-f]{8}$", line) for line in finished.lines)
    files = set(snapshot(finished.dir))
    for stage in plan_stages("linear"):
        page = stage.target.replace(".ipynb", ".html")
        assert {stage.target, page} <= files
        record = finished.records()[stage.name]
        assert record["status"] == "done" and record["elapsed_s"] > 0 and {stage.target, page} <= set(record["outputs"])
        for rel, sha in record["outputs"].items():
            assert sha256_file(finished.dir / rel) == sha
    assert [(line["stage"], line["ok"]) for line in finished.log()] == [(name, True) for name in ALL]
    listed = json.loads((finished.dir / "manifest.json").read_text())["files"]
    assert set(listed) - files == {"stages.json", "config.lock.json"} and files <= set(listed)
    assert 'href="../index.html"' in (finished.dir / "linear" / "02_solve.html").read_text()


@pytest.mark.notebooks
def test_a_second_run_skips_everything_until_something_changes(finished, tmp_path):
    pipeline = Pipeline(tmp_path)
    shutil.copytree(finished.dir, pipeline.dir)
    pipeline.go()
    assert pipeline.ran() == [] and sum("skipped" in line for line in pipeline.lines) == len(ALL)
    (pipeline.dir / "measure" / "samples.json").write_text("[]")
    (pipeline.dir / "05_report.html").unlink()
    pipeline.go(resume=True)
    # The repeated measurement gives the same samples, so what is judged from them stands.
    assert pipeline.ran() == ["03_measure", "05_report"]
    write_project(pipeline.notebooks, measure='run.write_json("measure/samples.json", ["new"])')
    pipeline.go(resume=True)
    assert pipeline.ran() == ALL[3:]


@pytest.mark.notebooks
def test_another_configuration_replaces_the_run_unless_it_is_resumed(finished, tmp_path):
    pipeline = Pipeline(tmp_path)
    shutil.copytree(finished.dir, pipeline.dir)
    (pipeline.dir / "notes.txt").write_text("a person's own file")
    before = {p: p.read_bytes() for p in pipeline.dir.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="seed: 0 → 7"):
        pipeline.go(overrides=["seed=7"], resume=True)
    assert {p: p.read_bytes() for p in pipeline.dir.rglob("*") if p.is_file()} == before
    write_project(pipeline.notebooks, setup_check="raise SystemExit(1)")
    with pytest.raises(InternalError, match="SystemExit"):
        pipeline.go(overrides=["seed=7"])
    left = set(snapshot(pipeline.dir))
    assert left == {"00_setup_check.ipynb", "00_setup_check.html", "index.html", "notes.txt"}


@pytest.mark.notebooks
def test_failure_names_the_cell_and_the_run_goes_on_after_the_cure(tmp_path):
    bad = (
        'run.write_json(f"{mode}/solve.json", {})\nrun.write_json(f"{mode}/stale.json", {})\n'
        "from icd_lib.errors import TransformError\nraise TransformError('cannot prune ffn.3')"
    )
    pipeline = Pipeline(tmp_path, solve=bad)
    with pytest.raises(Exception, match="cannot prune") as caught:
        pipeline.go(measure=False)
    message = str(caught.value)
    assert "E_ADP_301" in message and "02_solve.ipynb, cell 4" in message and "--resume" in message
    assert (
        "--quick" in message and "--mode linear" in message and str(pipeline.dir / "linear/02_solve.ipynb") in message
    )
    assert (pipeline.dir / "linear" / "02_solve.html").exists() and not (pipeline.dir / "measure").exists()
    assert pipeline.records()["02_solve[linear]"]["status"] == "failed"
    assert pipeline.log()[-1]["ok"] is False and pipeline.log()[-1]["meta"]["error"] == "E_ADP_301"
    assert str(tmp_path) not in json.dumps(pipeline.log()[-1])
    write_project(pipeline.notebooks)
    pipeline.go(resume=True, measure=False)
    assert pipeline.ran() == ["02_solve[linear]"]
    assert not (pipeline.dir / "linear" / "stale.json").exists()


@pytest.mark.notebooks
def test_force_runs_everything_and_forgives_a_damaged_record(finished, tmp_path):
    pipeline = Pipeline(tmp_path, setup_check="raise SystemExit(1)")
    pipeline.dir.mkdir(parents=True)
    (pipeline.dir / FILE).write_text('{"stages": {"00_set')
    with pytest.raises(ArtifactError, match="--force"):
        pipeline.go()
    with pytest.raises(InternalError):
        pipeline.go(force=True)
    assert pipeline.records()["00_setup_check"]["status"] == "failed"


def test_all_notebooks_are_checked_before_the_first_one_runs(tmp_path):
    pipeline = Pipeline(tmp_path)
    write_notebook(pipeline.notebooks / "05_report.ipynb", "1", parameters="scenarios = 1")
    with pytest.raises(ConfigError, match="did you mean 'scenarios'"):
        pipeline.go()
    assert not (pipeline.dir / FILE).exists()


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    import fcntl

    pipeline = Pipeline(tmp_path)
    pipeline.dir.mkdir(parents=True)
    with open(pipeline.dir / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="another run"):
            pipeline.go()


@pytest.fixture
def records(tmp_path):
    return Records(open_run("bert", out=tmp_path / "out"))


def finish(records, name, needs=(), **files):
    before = snapshot(records.run.dir)
    for rel, text in files.items():
        records.run.path(f"{rel}.json").write_text(text)
    records.start(name)
    records.finish(name, "done", 2.0, before, needs, finish.notebook)


def test_a_file_that_a_later_stage_adds_to_stays_with_its_maker(records, tmp_path):
    finish.notebook = write_notebook(tmp_path / "n.ipynb")
    finish(records, "a", shared="1", own="1")
    finish(records, "b", ("a",), shared="2 longer", more="1")
    assert set(records.outputs("a")) == {"shared.json", "own.json"} and set(records.outputs("b")) == {"more.json"}
    assert records.why_stale("a", (), finish.notebook) is None
    assert records.why_stale("b", ("a",), finish.notebook) is None
    assert records.forget("b") == 1 and (records.run.dir / "shared.json").exists()
    (records.run.dir / "own.json").unlink()
    assert records.why_stale("a", (), finish.notebook) == "own.json is gone"


def test_an_upstream_change_reaches_the_stages_that_need_it_and_no_others(records, tmp_path):
    finish.notebook = write_notebook(tmp_path / "n.ipynb")
    finish(records, "a", x="1")
    finish(records, "b", ("a",), y="1")
    finish(records, "c", (), z="1")
    finish(records, "a", x="another")
    assert records.why_stale("b", ("a",), finish.notebook) == "its inputs changed"
    assert records.why_stale("c", (), finish.notebook) is None


def test_a_record_cannot_make_a_run_delete_files_outside_its_folder(records, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("keep")
    records.stages["a"] = {"outputs": {"../../victim.txt": "0", str(victim): "0"}}
    assert records.forget("a") == 0 and victim.exists()


def test_estimates_come_from_the_last_run_then_from_the_pace_of_this_one(records):
    stages = plan_stages("linear")
    clock = Clock(stages, records, quick=False)
    typical = clock.remaining_s()
    clock.done("00_setup_check", 2 * clock.typical["00_setup_check"])
    assert clock.remaining_s() == pytest.approx(2 * (typical - clock.typical["00_setup_check"]))
    clock.skip("01_build_graph")
    assert clock.remaining_s() == pytest.approx(2 * sum(clock.typical[name] for name in ALL[2:]))
    records.stages = {name: {"status": "done", "quick": False, "elapsed_s": 3.0} for name in ALL}
    assert Clock(stages, records, quick=False).remaining_s() == pytest.approx(3.0 * len(ALL))
    assert Clock(stages, records, quick=True).remaining_s() != pytest.approx(3.0 * len(ALL))
