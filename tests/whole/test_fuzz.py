"""Whatever stands in a configuration, a trace, a permutation or a file of a run: an answer or an error of ours.

Nothing outside the folder at hand is written, nothing is unpickled, started or connected to. The fast suite tries some
1,500 cases, the slow one more than 10,000, the same ones every time (`fuzzing.py`).
"""

import functools
import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import scipy.sparse as sp
import yaml
from fuzzing import NASTY, PLANNED, answers, as_json, damaged, damaged_bytes, deep, fuzz, junk
from hypothesis import strategies as st
from notebook_factory import write_notebook
from report_factory import solve

from icd_lib.axes.permutation import check_permutation, hash_permutation
from icd_lib.codesign.calibration import Calibration
from icd_lib.codesign.layouts import check_layouts, perm_record, read_perm_record
from icd_lib.errors import ArtifactError, ConfigError, IcdError
from icd_lib.execute.notebook import check_parameters
from icd_lib.execute.pipeline import Clock, plan_stages
from icd_lib.experiment.cost import cost_change
from icd_lib.graph.contract import check_w
from icd_lib.graph.events import Events
from icd_lib.graph.trace import trace_graph
from icd_lib.paths import unsafe_name
from icd_lib.records.verdict import CostChange
from icd_lib.release.package import zip_bytes
from icd_lib.release.package_file import PackageFile
from icd_lib.release.verify import verify
from icd_lib.run.artifacts import Run, open_run
from icd_lib.run.configuration import absolute_override, config_digest, parse_override
from icd_lib.run.lock import load_lock
from icd_lib.run.options import check_config, key_paths
from icd_lib.run.records import Records
from icd_lib.run.scenario import load_scenario, parameters_dir
from icd_lib.scrub.files import check_file, scrub_file
from icd_lib.solver.cache import keep_layout, read_layout
from icd_lib.storage import machine
from icd_lib.storage.npz import load_arrays, load_graph, save_graph
from icd_lib.workloads.rows.arms import load_layout
from icd_lib.workloads.rows.events import read_events, save_events

pytestmark = pytest.mark.wide

PATHS = key_paths()
SHIPPED = [path.read_bytes() for path in sorted(parameters_dir().glob("*.yaml"))]
CONFIG = check_config({"scenario": "x"})


# Configurations -----------------------------------------------------------------------------------------------------


@st.composite
def yaml_of_options(draw):
    """A scenario file of real keys, some with values that fit nowhere."""
    given: dict = {"scenario": draw(st.sampled_from(["mine", "a/b", "x" * 300, 5, None]))}
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=6)):
        node, *keys = given, *path.split(".")
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                break
        else:
            node[keys[-1]] = draw(junk)
    if draw(st.booleans()):
        given["quick"] = draw(junk)
    return yaml.safe_dump(given, allow_unicode=True).encode("utf-8", "surrogatepass")


yaml_texts = (
    yaml_of_options()
    | st.sampled_from(SHIPPED).flatmap(damaged_bytes)
    | st.text("abz:-[]{}&*!#|>\"'%@`, \n\t0.5e~?<=", max_size=80).map(str.encode)
    | st.binary(max_size=60)
)


@fuzz(
    150,
    1500,
    {"text": deep(100_000).encode()},
    {"text": b"seed: " + deep(2000).encode()},
    {"text": b"seed: 0" + b"1" * 5000},
    {"text": b"? [a]\n: 1"},
    {"text": b"seed: 1:" + b"59:" * 3000 + b"1"},
    {"text": b"seed: 2001-01-01T00:00:00+99:99"},
    {"text": b"<<: 5"},
    {"text": b"a: &a {<<: *a}"},
    {"text": b"!!binary x: 1\nseed: !!binary '='"},
    {"text": b"!!timestamp x: 1"},
    {"text": b"seed: !!int abc\nthreads: !!float q"},
    {"text": b"seed: !!bool maybe"},
    text=yaml_texts,
)
def test_a_scenario_file_is_a_configuration_or_refused(folder, text):
    path = folder / "mine.yaml"
    path.write_bytes(text)
    with answers(folder):
        scenario = load_scenario(path, quick=b"quick" in text and len(text) % 2 == 0)
        assert config_digest(scenario.config) == scenario.sha256
        again = {key: value for key, value in scenario.config.items() if key != "quick"}
        assert check_config(again) == again
        run = open_run(scenario, out=folder)
        assert run.dir.parent == folder
        assert load_lock(run.dir / "config.lock.json").sha256 == scenario.sha256


keys = st.sampled_from([*CONFIG, *PATHS, "quick", ""]) | st.text(max_size=8) | st.integers() | st.none() | st.booleans()
objects = junk | st.binary(max_size=4) | st.just(object()) | st.dates() | st.sets(st.integers(), max_size=2)


@fuzz(
    100,
    1200,
    {"given": {"scenario": "x", "stage_timeout_s": 10**400}, "partial": False},
    given=st.dictionaries(keys, objects, max_size=5) | damaged(CONFIG) | objects,
    partial=st.booleans(),
)
def test_a_mapping_is_a_configuration_or_refused(folder, given, partial):
    with answers(folder):
        checked = check_config(given, partial=partial)
        assert check_config(checked, partial=partial) == checked
        json.dumps(checked, allow_nan=False)


override_texts = (
    st.tuples(st.sampled_from(PATHS), st.text(max_size=20) | st.sampled_from(NASTY)).map("=".join)
    | st.tuples(st.sampled_from(PATHS), junk).map(lambda pair: f"{pair[0]}={json.dumps(pair[1])}")
    | st.text(max_size=30)
    | st.text("abc.=[]{}&*!\"'\0 \n", max_size=15)
)


@fuzz(
    120,
    1500,
    {"text": "seed=" + deep(100_000)},
    {"text": "seed=" + "[" * 100_000},
    {"text": "graph.trace=a\0b"},
    {"text": "graph.trace=~nobody-of-that-name/x"},
    {"text": "graph.trace=" + "x/" * 5000},
    {"text": "seed=1\n---\n2"},
    {"text": "seed=0" + "7" * 10_000},
    {"text": "." * 500 + "=1"},
    {"text": "seed=\ud800"},
    text=override_texts,
)
def test_an_override_is_applied_or_refused(folder, text):
    with answers(folder):
        nested = parse_override(text)
        assert parse_override(absolute_override(text)).keys() == nested.keys()


@fuzz(30, 300, overrides=st.lists(override_texts | st.integers(), max_size=3) | st.text(max_size=5), seed=junk)
def test_overrides_and_seeds_of_a_scenario_are_applied_or_refused(folder, overrides, seed):
    with answers(folder):
        scenario = load_scenario("mock", overrides, seed=seed)
        open_run(scenario, out=folder)


@fuzz(
    30,
    400,
    {"name": "a\0.yaml"},
    {"name": "x" * 5000 + ".yaml"},
    {"name": "~nobody-of-that-name/x.yaml"},
    {"name": "\ud800.json"},
    {"name": "."},
    {"name": "../mock"},
    name=st.text(max_size=30)
    | st.sampled_from(NASTY)
    | st.text("./~\\ma\0", max_size=12).map(lambda text: text + ".yaml"),
)
def test_a_scenario_name_is_found_or_refused(folder, name):
    with answers(folder):
        load_scenario(name)
    with answers(folder):
        load_scenario(f"{name}.json")


@functools.cache
def lock() -> dict:
    scenario = load_scenario("mock", ["measure.repeats=9"])
    fields = {"scenario": "mock", "sha256": scenario.sha256, "quick": False, "overrides": ["measure.repeats=9"]}
    return fields | {"icd_version": "0", "config": scenario.config}


@fuzz(
    100,
    1000,
    {"data": deep(100_000).encode(), "honest": False},
    {"data": as_json(lock() | {"overrides": ["seed"]}), "honest": False},
    data=damaged(lock()).map(as_json) | damaged_bytes(as_json(lock())),
    honest=st.booleans(),
)
def test_a_lock_is_the_configuration_it_states_or_refused(folder, data, honest):
    path = folder / "config.lock.json"
    try:
        value = json.loads(data)
        value["sha256"] = config_digest(value["config"])  # as a forger would
        path.write_text(json.dumps(value) if honest else data.decode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        path.write_bytes(data)
    with answers(folder):
        scenario = load_lock(path)
        assert config_digest(scenario.config) == scenario.sha256
        open_run(scenario, out=folder)


# Traces -------------------------------------------------------------------------------------------------------------

GOOD_TRACE = b"".join(as_json({"t": t, "ids": [t % 7, 3, t % 5], "bytes": 64}) + b"\n" for t in range(12))
TRIPLES = b"i,j,weight\n3,1,64.0\n0,2,8\n1,2,1e-3\n"
traces = (
    st.sampled_from([GOOD_TRACE, TRIPLES]).flatmap(damaged_bytes)
    | st.sampled_from([GOOD_TRACE, TRIPLES]).map(lambda text: gzip.compress(text, 1, mtime=0)).flatmap(damaged_bytes)
    | st.lists(damaged({"t": 0, "ids": [1, 2], "bytes": 8}).map(as_json), max_size=4).map(b"\n".join)
    | st.lists(st.tuples(junk, junk, junk).map(lambda row: ",".join(map(str, row))), max_size=3).map(
        lambda rows: "\n".join(rows).encode("utf-8", "surrogatepass")
    )
    | st.binary(max_size=60)
)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """What is compiled on its first use is compiled now: a compiler does what no reader of a file may do."""
    for data, window in ((GOOD_TRACE, 1), (GOOD_TRACE, 2), (TRIPLES, 1)):
        path = tmp_path_factory.getbasetemp() / "good.trace"
        path.write_bytes(data)
        check_w(trace_graph(path, window=window))
    odd = sp.csr_array(np.array([[0, 1.0], [2, 0]]))
    with pytest.raises(IcdError):
        check_w(odd)


@fuzz(
    100,
    1500,
    {"data": gzip.compress(b"\0" * 2**20, mtime=0), "window": 1, "size": None},
    {"data": b'{"ids": ' + deep(100_000).encode() + b"}", "window": 1, "size": None},
    data=traces,
    window=st.sampled_from([1, 1, 2, 1000, 0, -1]),
    size=st.sampled_from([None, None, 8, 1, 0, 10**12]),
)
def test_a_trace_is_a_graph_or_refused(folder, data, window, size):
    path = folder / "trace.bin"
    path.write_bytes(data)
    with answers(folder):
        graph = check_w(trace_graph(path, window=window, size=size))
        assert graph.shape[0] == size or size is None


# Permutations -------------------------------------------------------------------------------------------------------

RECORD = perm_record({"rows": np.array([2, 0, 1, 3]), "ffn.0": np.array([1, 0])}, 7)
GRAPHS = {"rows": np.zeros((4, 4)), "ffn.0": np.zeros((2, 2))}


@fuzz(
    100,
    1200,
    {"data": deep(100_000).encode()},
    {"data": as_json({"axes": {"rows": {"D": 10**12, "pi": [0], "hash": hash_permutation(np.array([0]))}}})},
    {"data": as_json({"axes": {"rows": {"D": 1, "pi": [10**30], "hash": "x"}}})},
    {"data": as_json({"axes": {"rows": {"D": 2, "pi": [1.0, 0.0], "hash": "x"}}})},
    {"data": as_json({"axes": []})},
    data=damaged(RECORD).map(as_json) | damaged_bytes(as_json(RECORD)) | st.binary(max_size=30),
)
def test_a_permutation_file_is_the_permutations_it_was_or_refused(folder, data):
    (folder / "perm_before.json").write_bytes(data)
    with answers(folder):
        perms = read_perm_record(folder / "perm_before.json", "linear")
        for axis, perm in perms.items():
            assert perm.dtype == np.int64 and perm.ndim == 1
            assert axis not in RECORD["axes"] or sorted(perm) == sorted(RECORD["axes"][axis]["pi"])
        check_layouts(perms, GRAPHS)


arrays = st.lists(st.integers(-2, 4), max_size=5).map(np.array) | st.sampled_from(
    [
        np.arange(3.0),
        np.array([[0]]),
        np.array(["0"]),
        np.array([2**64 - 1], np.uint64),
        np.array([True]),
        np.array(None),
    ]
)


@fuzz(
    100,
    1000,
    {"perm": [[0], [1, 2]], "size": 2},
    {"perm": [10**30], "size": 1},
    {"perm": [0], "size": 10**12},
    perm=junk | arrays | st.lists(st.integers(0, 3), max_size=4),
    size=st.integers(0, 4),
)
def test_a_permutation_is_one_or_refused(folder, perm, size):
    with answers(folder):
        assert sorted(check_permutation(perm, size)) == list(range(size))


# Files of a run -----------------------------------------------------------------------------------------------------

STAGES = {
    "icd_version": "0",
    "stages": {
        "00_setup_check": {
            "status": "done",
            "elapsed_s": 1.0,
            "quick": False,
            "config_sha256": "x",
            "input": "y",
            "outputs": {"setup/setup.json": "0", "00_setup_check.ipynb": "1"},
        },
        "01_build_graph": {"status": "running", "config_sha256": "x", "before": {"a.json": [1, 2]}},
    },
}


@fuzz(
    80,
    1200,
    {"data": deep(100_000).encode()},
    {"data": as_json({"stages": {"00_setup_check": {"status": "done", "outputs": {"x" * 300: "0"}}}})},
    {"data": as_json({"stages": {"00_setup_check": {"status": "done", "outputs": {"a\0b": "0"}}}})},
    {"data": as_json({"stages": {"00_setup_check": {"status": "done", "outputs": {"setup": "0"}}}})},
    {"data": as_json({"stages": {"00_setup_check": {"status": "done", "outputs": {"../../../victim": "0"}}}})},
    {"data": as_json({"stages": {"00_setup_check": {"status": "running", "before": {"setup/x.json": None}}}})},
    data=damaged(STAGES).map(as_json) | damaged_bytes(as_json(STAGES)),
)
def test_records_of_stages_are_used_or_refused(folder, data):
    run = open_run("mock", out=folder)
    (run.dir / "setup").mkdir(exist_ok=True)
    (run.dir / "setup" / "x.json").write_text("{}")
    (run.dir / "stages.json").write_bytes(data)
    notebook = write_notebook(folder / "n.ipynb") if not (folder / "n.ipynb").exists() else folder / "n.ipynb"
    plan = plan_stages("linear")
    with answers(run.dir):
        records = Records.load(run)
        clock = Clock(plan, records, quick=False)
        assert clock.remaining().count(":") in (1, 2)
        for stage in plan:
            records.why_stale(stage.name, stage.needs, notebook)
            records.is_done(stage.name)
        for name in list(records.stages):
            records.forget(name)
        records.start("00_setup_check")
        records.finish("00_setup_check", "done", 1.0, {}, (), notebook)
    assert Records.load(run, ignore_broken=True) is not None


FILES = {
    "iterative/solve.json": solve("iterative", True),
    "linear/perm_after.json": perm_record({"rows": np.array([2, 0, 1])}, 0),
    "setup/setup.json": {"model": {"name": "m"}, "badges": ["b"], "environment": {}, "workload": {"sha256": "0"}},
}


@fuzz(
    100,
    1000,
    *[{"rel": rel, "data": deep(100_000).encode()} for rel in FILES],
    rel=st.sampled_from(list(FILES)),
    data=st.sampled_from(list(FILES.values())).flatmap(damaged).map(as_json),
)
def test_what_stages_read_back_has_its_shape_or_is_refused(folder, rel, data):
    run = Run(load_scenario("mock"), folder, "linear", "outputs")
    for name, value in FILES.items():
        run.path(name).write_bytes(data if name == rel else as_json(value))
    with answers(folder):
        assert isinstance(cost_change(run), CostChange)
    with answers(folder):
        assert load_layout(run, "linear").ndim == 1


CALIBRATION = {
    "pilots": [
        {
            "name": "a",
            "C": 0.1,
            "Q": 0.2,
            "R_align": 0.0,
            "R_stab": 0.0,
            "targets": {"latency_ms": 1.0},
            "samples_ms": [],
        }
    ],
    "r2": {"latency_ms": 0.5},
    "slopes": {"latency_ms": {"C": 1.0}},
    "weights": {"alpha": 1.0, "g": 4},
    "kept_defaults": False,
    "reason": "fine",
}


@fuzz(60, 500, value=damaged(CALIBRATION))
def test_a_calibration_is_one_or_refused(folder, value):
    with answers(folder):
        Calibration.from_json(json.loads(json.dumps(value)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))


@fuzz(
    60, 500, {"data": deep(100_000).encode()}, data=st.binary(max_size=20) | damaged({"key": {}, "k": {}}).map(as_json)
)
def test_a_kept_figure_is_read_or_measured_again(folder, data):
    path = machine.kept_file("k", {})
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with answers(folder):
        found = machine.read_kept("k", {})
        assert found is None or data


@functools.cache
def layout_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        keep_layout(Path(folder) / "k.json", "k", np.array([2, 0, 1]), {"winner": "x"})
        return (Path(folder) / "k.json").read_bytes()


layouts = st.deferred(lambda: damaged(json.loads(layout_file())).map(as_json) | damaged_bytes(layout_file()))


@fuzz(60, 500, {"data": deep(100_000).encode()}, data=layouts)
def test_a_kept_layout_is_the_one_that_was_kept_or_refused(folder, data):
    path = folder / "k.json"
    path.write_bytes(data)
    with answers(folder):
        found, stats = read_layout(path, "k", 3)
        assert found.tolist() == [2, 0, 1] and stats == {"winner": "x"}


@functools.cache
def npz_files() -> tuple[bytes, bytes]:
    """W and the events of a run."""
    with tempfile.TemporaryDirectory() as folder:
        graph = sp.csr_array(np.array([[0, 2.0, 1], [2, 0, 0], [1, 0, 0]]))
        save_graph(Path(folder) / "W.npz", graph)
        run = Run(load_scenario("mock"), Path(folder))
        save_events(run, Events(np.array([2, 0, 1]), np.array([0, 2, 3]), np.array([64.0, 64.0]), 3))
        return (Path(folder) / "W.npz").read_bytes(), (Path(folder) / "setup" / "events.npz").read_bytes()


@fuzz(100, 900, data=st.deferred(lambda: st.sampled_from(npz_files()).flatmap(damaged_bytes)))
def test_arrays_are_those_that_were_written_or_refused(folder, data):
    run = Run(load_scenario("mock"), folder)
    path = run.path("setup", "events.npz")
    path.write_bytes(data)
    with answers(folder):
        check_w(load_graph(path))
    with answers(folder):
        read_events(run)
    with answers(folder):
        load_arrays(path, {"data": 1})


# Optimised models ---------------------------------------------------------------------------------------------------


@functools.cache
def saved_model() -> dict[str, bytes]:
    from icd_lib.models.checkpoint.optimized import save_optimized
    from tests.tiny_encoders import tiny_bert

    with tempfile.TemporaryDirectory() as folder:
        where = save_optimized(tiny_bert(), None, Path(folder) / "model")
        return {path.name: path.read_bytes() for path in where.iterdir()}


HONEST = {"config.json": "config_sha256", "model.safetensors": "sha256"}


def write_model(folder: Path, name: str, data: bytes) -> Path:
    """The saved model with one file changed, and its record true to that, as a forger would make it."""
    from icd_lib.models.checkpoint.files import hash_files

    folder = folder / "model"
    folder.mkdir(exist_ok=True)
    for other, content in saved_model().items():
        (folder / other).write_bytes(data if other == name else content)
    if name in HONEST:
        record = json.loads(saved_model()["icd.json"])
        (folder / "icd.json").write_text(json.dumps(record | {HONEST[name]: hash_files([folder / name])}))
    return folder


def damaged_file(name: str):
    """(name, content) of one file of the saved model."""
    data = saved_model()[name]
    contents = damaged_bytes(data)
    if name.endswith(".json"):
        contents |= damaged(json.loads(data)).map(as_json)
    return st.tuples(st.just(name), contents)


def config_with(**changes) -> dict:
    """An example: the saved model with another configuration."""
    return {"file": ("config.json", lambda: as_json(json.loads(saved_model()["config.json"]) | changes))}


@fuzz(
    25,
    600,
    {"file": ("icd.json", lambda: deep(100_000).encode())},
    {"file": ("config.json", lambda: deep(100_000).encode())},
    {"file": ("model.safetensors", lambda: (2**40).to_bytes(8, "little") + b"{}")},
    config_with(num_hidden_layers=10**9),
    config_with(hidden_size=10**12),
    config_with(max_position_embeddings=10**12),
    config_with(num_labels=10**12),
    config_with(vocab_size=-1),
    config_with(hidden_act="__import__('os')"),
    file=st.sampled_from(["icd.json", "config.json", "config.json", "model.safetensors"]).flatmap(damaged_file),
)
def test_an_optimised_model_loads_or_is_refused(folder, file):
    from icd_lib.models.checkpoint.optimized import load_optimized

    name, data = file
    write_model(folder, name, data() if callable(data) else data)
    with answers(folder):
        assert not load_optimized(folder / "model").training


# Packages -----------------------------------------------------------------------------------------------------------

names = (
    st.text("ab./\\:~ \0\n%é", max_size=14)
    | st.text(max_size=10)
    | st.sampled_from([*NASTY, "../../../../tmp/x", "C:\\x", "a/../../b", "CON", "a" * 500, "./x", "x/."])
)


@fuzz(100, 1500, name=names)
def test_a_name_that_a_package_may_have_stays_in_its_folder(folder, name):
    if unsafe_name(name) is None:
        assert not PurePosixPath(name).is_absolute() and not PureWindowsPath(name).drive
        assert (folder / name).resolve().is_relative_to(folder.resolve()) and (folder / name) != folder
        assert ".." not in PureWindowsPath(name).parts
    with answers(folder):
        assert zip_bytes({name: b"x"})


entries = st.tuples(names, st.binary(max_size=30), st.integers(0, 2**32 - 1), st.sampled_from([0, 8, 12, 14]))


def zip_of(members: list[tuple]) -> bytes:
    """A zip file of (name, content, attributes, compression), as far as zipfile writes such names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data, attributes, compression in members:
            entry = zipfile.ZipInfo("placeholder")
            entry.filename, entry.external_attr, entry.compress_type = name, attributes, compression
            try:
                archive.writestr(entry, data)
            except (ValueError, UnicodeError):
                continue
    return buffer.getvalue()


listed = damaged({"format": "icd-package/1", "files": {}, "runs": {"runs/x": {}}}).map(
    lambda value: ("contents.json", as_json(value), 0o100644 << 16, 0)
)
zips = st.tuples(st.lists(entries, max_size=4), listed).map(lambda pair: zip_of([*pair[0], pair[1]]))


@fuzz(120, 1200, data=zips | zips.flatmap(damaged_bytes))
def test_a_package_is_checked_or_refused_and_never_unpacked(folder, data):
    path = folder / "x.zip"
    path.write_bytes(data)
    with answers(folder):
        checks = list(verify(path))
        assert checks and not all(check.ok for check in checks)
    with answers(folder), PackageFile(path) as package:
        for name in package.names:
            package.read(name)
    assert [entry.name for entry in folder.iterdir() if entry.name != "x.zip"] == []


texts = st.text(max_size=60) | st.sampled_from(
    ["mail jane.doe@acme.org", "/home/jane/x", "token hf_" + "a" * 30, *NASTY]
)
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "id": "a",
            "source": "x = 1",
            "metadata": {"tags": ["parameters"]},
            "outputs": [],
            "execution_count": 1,
        },
        {"cell_type": "markdown", "id": "b", "source": ["a\n", "b"], "metadata": {}},
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "p"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@fuzz(
    80,
    800,
    {"suffix": ".json", "data": deep(100_000).encode()},
    {"suffix": ".log", "data": b"{" * 3000 + b"\n\xc3"},
    suffix=st.sampled_from([".json", ".ipynb", ".html", ".log", ".txt", ".png", ".csv", ""]),
    data=junk.map(as_json)
    | damaged(NOTEBOOK).map(as_json)
    | st.lists(texts, max_size=4).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
    | damaged_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 17 + b"\0\0\0\0IEND\xaeB`\x82")
    | st.binary(max_size=40),
)
def test_a_file_is_cleaned_or_refused(folder, suffix, data):
    with answers(folder):
        clean = scrub_file(f"f{suffix}", data)
        check_file(f"f{suffix}", clean)
        assert scrub_file(f"f{suffix}", clean) == clean


@fuzz(
    60,
    600,
    {"data": deep(100_000).encode()},
    {"data": as_json(NOTEBOOK | {"nbformat_minor": "x"})},
    data=damaged(NOTEBOOK).map(as_json) | damaged_bytes(as_json(NOTEBOOK)),
)
def test_a_notebook_takes_parameters_or_is_refused(folder, data):
    path = folder / "n.ipynb"
    path.write_bytes(data)
    with answers(folder):
        check_parameters(path, {"x": 1})


# The tests above fail where they should -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder.parent / "escaped").write_text("x"),
        lambda folder: (folder / "x").write_text("x") and (folder / "x").rename(folder.parent / "moved"),
        lambda folder: (folder.parent / "made").mkdir(),
        lambda folder: __import__("pickle").loads(b"cos\ngetpid\n."),
        lambda folder: __import__("os").system("true"),
        lambda folder: 1 / 0,
        lambda folder: (_ for _ in ()).throw(KeyError("x")),
        lambda folder: (_ for _ in ()).throw(ConfigError("short")),
    ],
)
def test_the_property_notices_what_it_forbids(tmp_path, act):
    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises((AssertionError, ZeroDivisionError, KeyError)), answers(folder):
        act(folder)


def test_enough_is_tried():
    fast, slow = (sum(counts) for counts in zip(*PLANNED, strict=True))
    assert 1_500 <= fast <= 2_000 and slow >= 10_000


def test_the_property_lets_an_answer_and_our_errors_pass(tmp_path):
    with answers(tmp_path):
        (tmp_path / "x").write_text("inside")
    with answers(tmp_path):
        raise ArtifactError("a file is damaged; make it again")
