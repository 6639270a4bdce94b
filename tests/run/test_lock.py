"""A lock read back: the same configuration and hash, and every way in which it can be wrong."""

import json

import pytest
from notebook_factory import write_project

import run_all
from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.paths import project_root
from icd_lib.run.artifacts import open_run
from icd_lib.run.configuration import config_digest
from icd_lib.run.lock import load_lock
from icd_lib.run.scenario import load_scenario
from icd_lib.storage.json_text import parse_json


@pytest.fixture
def run(tmp_path):
    return open_run("bert", ["measure.repeats=7"], out=tmp_path / "first", quick=True, seed=5)


def lock_of(run):
    return run.dir / "config.lock.json"


def rewrite(run, change, rehash=False):
    lock = json.loads(lock_of(run).read_text())
    change(lock)
    if rehash:
        lock["sha256"] = config_digest(lock["config"])
    lock_of(run).write_text(json.dumps(lock))
    return lock_of(run)


def test_a_lock_gives_the_same_configuration_and_writes_the_same_lock(run, tmp_path):
    again = load_scenario(lock_of(run))
    assert (again.name, again.config, again.sha256, again.quick) == (
        "bert",
        run.scenario.config,
        run.scenario.sha256,
        True,
    )
    second = open_run(again, out=tmp_path / "second")
    assert lock_of(second).read_bytes() == lock_of(run).read_bytes()
    # A notebook repeats what the command line was given.
    assert load_scenario(again.source, list(again.overrides), quick=again.quick, seed=again.seed) == again


@pytest.mark.parametrize("name", ["bert", "mamba", "mock", "smollm2", "trace"])
def test_every_shipped_scenario_survives_its_lock(name, tmp_path):
    run = open_run(name, out=tmp_path)
    assert load_lock(lock_of(run)).config == run.scenario.config


def test_paths_of_this_machine_come_back(tmp_path):
    trace = project_root() / "parameters" / "x.jsonl"
    run = open_run("trace", [f"graph.trace={trace}"], out=tmp_path)
    assert "<project>/parameters/x.jsonl" in lock_of(run).read_text()
    again = load_lock(lock_of(run))
    assert again.sha256 == run.scenario.sha256 and again.get("graph.trace") == str(trace)
    assert again.overrides == run.scenario.overrides


def test_a_path_of_another_machine_is_refused_and_named_as_the_reason(run):
    def foreign(lock):
        lock["config"]["graph"]["trace"] = "<path>/x.jsonl"

    with pytest.raises(ArtifactError, match="path of another machine"):
        load_lock(rewrite(run, foreign))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"overrides": ["measure.repeats=8"]}, "would change"),
        ({"seed": 6}, "--seed 6 would change"),
        ({"overrides": ["measure.repeat=7"]}, "did you mean"),
    ],
)
def test_options_that_would_change_it_are_refused(run, options, says):
    with pytest.raises(ConfigError, match=says):
        load_scenario(lock_of(run), **options)
    same = load_scenario(lock_of(run), ["measure.repeats=7", "seed=5"], quick=True, seed=5)
    assert same.sha256 == run.scenario.sha256


def test_quick_is_refused_on_a_full_lock(tmp_path):
    with pytest.raises(ConfigError, match="--quick would change"):
        load_lock(lock_of(open_run("bert", out=tmp_path)), quick=True)


def changed(key, value):
    def change(lock):
        lock["config"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "rehash", "error", "says"),
    [
        (changed("seed", 6), False, ArtifactError, "was changed"),
        (changed("seed", -1), True, ConfigError, "out of range"),
        (changed("sede", 1), True, ConfigError, "did you mean 'seed'"),
        (changed("sede", 1), False, ConfigError, "did you mean 'seed'"),
        (changed("scenario", "mamba"), True, ArtifactError, "'scenario' is 'bert' and 'mamba'"),
        (changed("quick", False), True, ArtifactError, "'quick' is True and False"),
        (lambda lock: lock["config"].pop("threads"), True, ConfigError, "does not give every option"),
        (lambda lock: lock.pop("sha256"), False, ArtifactError, "no lock"),
        (lambda lock: lock.update(config=[]), False, ArtifactError, "no lock"),
        (lambda lock: lock.update(overrides=[1]), False, ArtifactError, "list of strings"),
        (
            lambda lock: (lock.update(scenario="../x"), changed("scenario", "../x")(lock)),
            True,
            ConfigError,
            "folder name",
        ),
    ],
)
def test_a_changed_lock_is_refused(run, change, rehash, error, says):
    with pytest.raises(error, match=says):
        load_lock(rewrite(run, change, rehash))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', "[" * 100_000]
)
def test_text_that_is_no_lock_is_an_artifact_error(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"x\.json"):
        load_lock(tmp_path / "x.json")


def test_bytes_missing_files_and_huge_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no lock"):
        load_lock(tmp_path / "none.json")
    with pytest.raises(ArtifactError):
        parse_json(b"\xff\xfe\x00", "bytes")
    (tmp_path / "big.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ArtifactError, match="larger than a lock"):
        load_lock(tmp_path / "big.json")


def test_the_command_line_takes_a_lock(run, tmp_path, capsys):
    notebooks = write_project(tmp_path / "notebooks")
    args = ["--from-lock", str(lock_of(run)), "--out", str(tmp_path / "second")]
    assert run_all.main([*args, "--dry-run"], notebooks) == 0
    assert f"configuration {run.scenario.sha256[:12]}" in capsys.readouterr().out
    assert not (tmp_path / "second").exists()
    for extra in (["--scenario", "bert"], ["--seed", "6"], ["--override", "threads=1"]):
        assert run_all.main([*args, *extra], notebooks) == 2
    assert run_all.main(["--from-lock", "bert"], notebooks) == 2
    rewrite(run, changed("seed", 6))
    assert run_all.main(args, notebooks) == 7
    assert "was changed" in capsys.readouterr().err and not (tmp_path / "second").exists()
    rewrite(run, changed("sede", 6), rehash=True)
    assert run_all.main(args, notebooks) == 2


@pytest.mark.notebooks
@pytest.mark.slow
def test_a_run_from_a_lock_hands_the_lock_to_its_notebooks(run, tmp_path, capsys):
    notebooks = write_project(tmp_path / "notebooks")
    args = ["--from-lock", str(lock_of(run)), "--mode", "linear", "--no-measure", "--out", str(tmp_path / "second")]
    assert run_all.main(args, notebooks) == 0
    assert (tmp_path / "second" / "bert" / "config.lock.json").read_bytes() == lock_of(run).read_bytes()
    assert run_all.main([*args, "--resume"], notebooks) == 0
    assert capsys.readouterr().out.count("unchanged since it was run") == 3
