"""Points in order, each with its end: failures, budgets, what is kept and what is stopped; and a real sweep."""

import errno
import json
import re

import pytest
from sweep_factory import FakePipeline, failure

import icd_lib as icd
import run_all
from icd_lib.errors import ArtifactError, ConfigError, MeasureError, ResourceError
from icd_lib.execute import point as point_module
from icd_lib.execute import sweep as module
from icd_lib.execute.pipeline import only_one
from icd_lib.storage.atomic import write_error
from icd_lib.sweeps.plan import sweep_of
from icd_lib.sweeps.result import SweepResult

RATES = {"transform.dead_share": [0.3, 0.5, 0.7]}
NAMES = ["dead-share-0.3", "dead-share-0.5", "dead-share-0.7"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs a sweep of three points with a pipeline that costs nothing; gives its result and the pipeline."""

    def go(pipeline=None, *, force=False, overrides=(), **more):
        pipeline = pipeline or FakePipeline()
        monkeypatch.setattr(point_module, "run_pipeline", pipeline)
        monkeypatch.setattr(module, "write_pages", lambda *given: None)
        planned = sweep_of({"base": "mock", "grid": RATES} | more, "mine", overrides=overrides)
        said = []
        result = module.run_sweep(planned, tmp_path / "out", force=force, echo=said.append)
        return result, pipeline, said

    go.folder = tmp_path / "out" / "mine"
    return go


def statuses(result):
    return [result.outcome(point.name).status for point in result.planned.points]


def test_every_point_is_a_run_of_its_own_in_its_own_folder(runs):
    result, pipeline, said = runs()
    assert pipeline.names == NAMES and statuses(result) == ["done"] * 3
    for name, share in zip(NAMES, (0.3, 0.5, 0.7), strict=True):
        lock = json.loads((runs.folder / name / "config.lock.json").read_text())
        assert lock["scenario"] == name and lock["config"]["transform"]["dead_share"] == share
        assert result.outcome(name).config_sha256 == lock["sha256"]
    command = result.outcome(NAMES[0]).command
    assert command.startswith("python run_all.py --scenario mock --override transform.dead_share=0.3")
    assert [row.arm for row in result.rows[:4]] == ["dense", "linear", "oneshot", "iterative"]
    assert {row.where.host for row in result.rows} == {point_module.this_machine()}
    assert said[0].startswith("[1/3] dead-share-0.3")


def test_a_finished_point_is_not_run_again_and_a_changed_one_is(runs):
    runs()
    result, pipeline, said = runs()
    assert pipeline.ran == [] and statuses(result) == ["done"] * 3 and "kept" in said[0]
    _, pipeline, _ = runs(overrides=["measure.repeats=9"])
    assert pipeline.names == NAMES
    (runs.folder / NAMES[1] / "config.lock.json").unlink()
    _, pipeline, _ = runs(overrides=["measure.repeats=9"])
    assert pipeline.names == [NAMES[1]]
    _, pipeline, _ = runs(force=True, overrides=["measure.repeats=9"])
    assert pipeline.names == NAMES


def test_a_point_that_fails_neither_stops_the_others_nor_hides(runs):
    errors = {NAMES[0]: failure(MeasureError, "the clock broke"), NAMES[1]: failure(ConfigError, "512 positions")}
    result, pipeline, _ = runs(FakePipeline(errors))
    assert pipeline.names == NAMES and statuses(result) == ["failed", "not_measured", "done"]
    first = result.outcome(NAMES[0])
    assert (first.reason, first.code) == ("the clock broke", "E_MSR_401")
    result, pipeline, _ = runs()
    assert pipeline.names == NAMES[:2] and statuses(result) == ["done"] * 3


def test_a_bug_in_a_point_is_that_points_failure(runs):
    result, _, _ = runs(FakePipeline({NAMES[1]: ZeroDivisionError("division by zero")}))
    assert statuses(result) == ["done", "failed", "done"]
    assert result.outcome(NAMES[1]).reason == "ZeroDivisionError: division by zero"


def test_an_interrupt_ends_the_sweep_and_what_was_done_is_kept(runs):
    with pytest.raises(KeyboardInterrupt):
        runs(FakePipeline({NAMES[1]: KeyboardInterrupt()}))
    assert statuses(SweepResult.load(runs.folder)) == ["done", "not_run", "not_run"]
    _, pipeline, _ = runs()
    assert pipeline.names == NAMES[1:]


def test_the_budget_starts_no_further_point_and_says_which_were_not_run(runs, monkeypatch):
    clock = iter(range(0, 100_000, 70))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    result, pipeline, _ = runs(budget_minutes=4)
    assert pipeline.names == NAMES[:1] and statuses(result) == ["done", "not_run", "not_run"]
    assert result.outcome(NAMES[2]).reason == "the budget of 4 minutes was spent"


def test_a_point_that_loses_too_much_is_not_measured_and_stronger_ones_are_not_run(runs):
    pipeline = FakePipeline(lost={NAMES[0]: (0.1, 0.1), NAMES[1]: (3.0, 0.1), NAMES[2]: (9.0, 0.1)})
    result, _, _ = runs(pipeline, prune={"max_drop_pp": 1.0, "along": ["transform.dead_share"]})
    assert statuses(result) == ["done", "pruned", "pruned"]
    assert "loses +3.000 ± 0.100 pp" in result.outcome(NAMES[1]).reason
    assert result.outcome(NAMES[2]).reason == f"a stronger form of {NAMES[1]}, which lost too much"
    assert pipeline.ran == [
        (NAMES[0], "00_setup_check", "02_solve[iterative]"),
        (NAMES[0], "03_measure", "05_report"),
        (NAMES[1], "00_setup_check", "02_solve[iterative]"),
    ]


def test_two_sweeps_in_one_folder_and_a_run_in_its_place_are_refused(runs):
    runs.folder.mkdir(parents=True)
    with only_one(runs.folder, "sweep"), pytest.raises(ResourceError, match="another sweep is writing to"):
        runs()
    (runs.folder / "config.lock.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run of a scenario; give the sweep another name"):
        runs()


def test_a_disk_that_is_full_ends_the_sweep_and_with_space_the_same_command_goes_on(runs, monkeypatch):
    def full(folder, outcome):
        raise ArtifactError("cannot write points.jsonl: the disk is full")

    with monkeypatch.context() as patched, pytest.raises(ArtifactError, match="disk is full"):
        patched.setattr(module, "append_outcome", full)
        pipeline = FakePipeline()
        runs(pipeline)
    assert pipeline.names == NAMES[:1]
    pipeline = FakePipeline({NAMES[1]: write_error(runs.folder / "x", OSError(errno.ENOSPC, "full"))})
    with pytest.raises(ArtifactError, match=r"\[2/3\] .*the disk is full; free some space .* the same command goes on"):
        runs(pipeline)
    assert pipeline.names == NAMES[:2] and statuses(SweepResult.load(runs.folder)) == ["done", "failed", "not_run"]
    with open(runs.folder / "points.jsonl", "a") as file:
        file.write('{"point": "dead-sh')  # what a full disk leaves of a line
    result, pipeline, _ = runs()
    assert pipeline.names == NAMES[1:] and statuses(result) == ["done"] * 3


def test_from_python(runs, tmp_path):
    runs()  # puts the pipeline in place
    result = icd.sweep("mock", RATES, name="other", out=tmp_path / "out", repeat=[1, 2])
    assert len(result.rows) == 24 and result.dir == tmp_path / "out" / "other"
    assert result.best().arm == "iterative" and len(result.frame()) == 6
    with pytest.raises(ConfigError, match="did you mean 'transform.dead_share'"):
        icd.sweep("mock", {"transform.dead_shar": [1]}, out=tmp_path / "out")


MILLION = "{" + ", ".join(f"l{i}: {{seed: {i}}}" for i in range(1000)) + "}"
HERE = ("--cluster", "none")  # the stand-in for the pipeline is of this process
FILE = "base: mock\ngrid:\n  transform.dead_share: [0.3, 0.5]\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(point_module, "run_pipeline", FakePipeline())
    monkeypatch.setattr(module, "write_pages", lambda *given: None)
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return path


def test_the_command_line_runs_a_sweep_by_either_option(file, tmp_path, capsys):
    for option in ("--sweep", "--scenario"):
        assert run_all.main([option, str(file), *HERE, "--out", str(tmp_path / "out")]) == 0
        out, err = capsys.readouterr()
        assert "2 points" in out and "2 done" in out and "on the frontier: " in out and err == ""
    assert "kept" in out


def test_a_failed_point_gives_the_exit_code_and_one_that_cannot_be_had_does_not(file, tmp_path, capsys, monkeypatch):
    errors = {"dead-share-0.3": failure(MeasureError, "the clock broke")}
    monkeypatch.setattr(point_module, "run_pipeline", FakePipeline(errors))
    assert run_all.main(["--sweep", str(file), *HERE, "--out", str(tmp_path / "out")]) == 4
    assert "1 done, 1 failed" in capsys.readouterr().out
    errors = {"dead-share-0.3": failure(ResourceError, "no such device")}
    monkeypatch.setattr(point_module, "run_pipeline", FakePipeline(errors))
    assert run_all.main(["--sweep", str(file), *HERE, "--out", str(tmp_path / "out")]) == 0


def test_a_dry_run_lists_the_points_and_writes_nothing(file, tmp_path, capsys):
    assert run_all.main(["--sweep", str(file), "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert re.findall(r"^  (\S+)$", capsys.readouterr().out, re.MULTILINE) == ["dead-share-0.3", "dead-share-0.5"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--scenario", "bert"], "leave out --scenario"),
        (["--seed", "1"], "write repeat"),
        (["--no-measure"], "compares what is measured"),
        (["--from-lock", "config.lock.json"], "a lock is one run"),
        (["--override", "transform.dead_share=0.9"], "varies it"),
    ],
)
def test_options_that_do_not_go_with_a_sweep_are_refused(file, tmp_path, capsys, args, says):
    assert run_all.main(["--sweep", str(file), *args, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "args", "code", "says"),
    [
        (FILE.replace("dead_share", "dead_shar"), [], 2, "did you mean 'transform.dead_share'"),
        (FILE.replace("grid", "gird"), [], 2, "unknown key 'gird'; did you mean 'grid'"),
        ("base: mock\ngrid: {}\n", [], 2, "grid is empty"),
        (f"base: mock\ngrid: {{a: {MILLION}, b: {MILLION}}}\n", [], 2, "has 1,000,000 points; .* --yes"),
        (FILE, ["--cluster", "gone.json"], 3, "there is no scheduler file gone.json; --cluster takes local, none"),
    ],
)
def test_bad_input_is_refused_by_its_name_and_nothing_is_run(file, tmp_path, capsys, text, args, code, says):
    file.write_text(text)
    assert run_all.main(["--sweep", str(file), *args, "--out", str(tmp_path / "out")]) == code
    assert re.search(says, capsys.readouterr().err) and not list((tmp_path / "out").glob("*/*/"))


def test_a_point_that_repeats_another_is_merged_and_said(file, tmp_path, capsys):
    grid = "base: mock\ngrid:\n  n: {a: {codesign.max_rounds: 2}, b: {codesign.max_rounds: 2}, c: {}}\n"
    file.write_text(grid + "overrides: {codesign.max_rounds: 3}\n")
    assert run_all.main(["--sweep", str(file), *HERE, "--out", str(tmp_path / "out")]) == 0
    assert "2 points, 1 that repeat another merged" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out" / "mine").glob("*/")) == ["n-a", "n-c"]


def test_the_list_has_the_sweeps(capsys):
    assert run_all.main(["--list"]) == 0
    assert re.search(r"^ablation +Sparsity", capsys.readouterr().out, re.MULTILINE)


TINY = """
base: mock
grid:
  transform.dead_share: [0.3]
overrides:
  workload: {rows: 256, events: 2000, burst: 20}
  solver: {refine_steps: 10}
  calibration: {pilots: 0}
  measure: {repeats: 3, max_repeats: 3, warmup: 0, bootstrap: 100}
  codesign: {max_rounds: 1}
"""


@pytest.mark.notebooks
@pytest.mark.wide
def test_a_real_sweep_from_its_file_to_its_page_and_its_notebook(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    args = ["--sweep", str(path), "--out", str(tmp_path / "out")]
    assert run_all.main(args) == 0, capsys.readouterr()
    folder = tmp_path / "out" / "tiny"
    result = SweepResult.load(folder)
    assert statuses(result) == ["done"] and len(result.rows) == 4
    page = (folder / "index.html").read_text()
    assert "1 done" in page and (folder / "dead-share-0.3" / "index.html").is_file()
    notebook = json.loads((folder / "06_sweep.ipynb").read_text())
    shown = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in shown)
    assert not [out for out in shown if out["output_type"] == "error"]
    assert 'alt="Pareto frontier' in (folder / "06_sweep.html").read_text()
    capsys.readouterr()
    assert run_all.main(args) == 0
    assert capsys.readouterr().out.count("kept") == 1
