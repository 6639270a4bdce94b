"""Reading a file never runs what is in it, never trusts it without its hash, and never allocates what it claims."""

import ast
import gzip
import json
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from fuzzing import deep
from notebook_factory import write_notebook
from report_factory import write_run

from icd_lib.axes.permutation import hash_permutation
from icd_lib.codesign.layouts import perm_record, read_perm_record
from icd_lib.errors import ArtifactError, IcdError
from icd_lib.graph.contract import check_w
from icd_lib.graph.trace import trace_graph
from icd_lib.paths import project_root
from icd_lib.release import package_file
from icd_lib.release.package import why_unfit
from icd_lib.release.verify import verify
from icd_lib.report.results import Results
from icd_lib.run import configuration
from icd_lib.run.artifacts import Run, locked_config, open_run
from icd_lib.run.files import check_shape
from icd_lib.run.records import Records, snapshot
from icd_lib.run.scenario import load_scenario
from icd_lib.storage.json_text import MAX_BYTES, read_text
from icd_lib.storage.npz import load_graph, save_graph
from icd_lib.workloads.rows.events import read_events

SOURCES = [*sorted((project_root() / "icd_lib").rglob("*.py")), project_root() / "run_all.py"]
SOURCES += sorted((project_root() / "scripts").glob("*.py"))


# Code ---------------------------------------------------------------------------------------------------------------

EXECUTING = {"eval", "exec", "compile", "__import__", "execfile"}
MODULES = {"cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "codeop", "runpy"}
ATTRIBUTES = {
    "pickle": {"load", "loads", "Unpickler", "_Unpickler"},
    "yaml": {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all", "load_all", "UnsafeLoader", "Loader"},
    "os": {"system", "popen", "execv", "execve", "execl", "spawnl", "spawnv"},
    "shutil": {"unpack_archive"},
}
UNPACKING = {"extractall", "extract"}


def unsafe(tree: ast.AST) -> list[str]:
    """What in a module could run data, with its line."""
    found = []
    for node in ast.walk(tree):
        at = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"{at}: import {name}" for name in names if name.partition(".")[0] in MODULES]
            if isinstance(node, ast.ImportFrom) and node.module in ATTRIBUTES:
                found += [f"{at}: {a.name}" for a in node.names if a.name in ATTRIBUTES[node.module]]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in ATTRIBUTES.get(node.value.id, ()):
                found.append(f"{at}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in EXECUTING:
            found.append(f"{at}: {node.id}")
        if isinstance(node, ast.Call):
            found += [f"{at}: {what}" for what in unsafe_call(node)]
    return found


def unsafe_call(call: ast.Call) -> list[str]:
    """What makes a call unsafe: a loader without its safe mode, a shell, code from a hub."""
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    found = []
    if name == "torch.load" and given.get("weights_only") != "True":
        found.append("torch.load without weights_only=True")
    if name == "torch.jit.load" or name.endswith(".read_pickle"):
        found.append(name)
    if given.get("allow_pickle", "False") != "False":
        found.append(f"{name} with allow_pickle")
    if name == "yaml.load" and given.get("Loader") not in ("_Loader", "yaml.SafeLoader"):
        found.append("yaml.load without a safe loader")
    if given.get("shell", "False") != "False":
        found.append(f"{name} with a shell")
    if given.get("trust_remote_code", "False") != "False" or given.get("use_safetensors", "True") != "True":
        found.append(f"{name} that trusts code or pickles")
    if isinstance(call.func, ast.Attribute) and call.func.attr in UNPACKING:
        found.append(name)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(project_root()).as_posix())
def test_no_module_runs_what_it_reads(path):
    assert unsafe(ast.parse(path.read_text())) == []


def test_the_loader_of_scenarios_is_a_safe_one():
    import yaml

    assert issubclass(configuration._Loader, yaml.SafeLoader)
    assert not any("python" in (tag or "") for tag in configuration._Loader.yaml_constructors)


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "f = exec",
        "import pickle; pickle.loads(b'')",
        "from pickle import loads",
        "import dill.source",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "import numpy as np; np.load('x', allow_pickle=True)",
        "import yaml; yaml.load(x, Loader=yaml.FullLoader)",
        "import yaml; yaml.load(x)",
        "import yaml; yaml.unsafe_load(x)",
        "import os; os.system('x')",
        "import subprocess; subprocess.run('x', shell=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', use_safetensors=False)",
        "import zipfile; zipfile.ZipFile('x').extractall()",
        "__import__('os')",
    ],
)
def test_the_check_of_modules_notices(code):
    assert unsafe(ast.parse(code))


class Evil:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_array_of_objects_is_refused_and_does_not_run(tmp_path):
    trap, path = tmp_path / "sprung", tmp_path / "W.npz"
    objects = np.empty(1, dtype=object)
    objects[0] = Evil(trap)
    np.savez(path, data=objects, indices=[0], indptr=[0, 1], shape=[1, 1], format=b"csr", allow_pickle=True)
    with pytest.raises(ArtifactError, match="no array of numbers"):
        load_graph(path)
    with pytest.raises(ArtifactError):
        read_events(run_with(tmp_path, "setup/events.npz", path.read_bytes()))
    assert not trap.exists()
    np.load(path, allow_pickle=True)["data"]
    assert trap.exists()  # else the trap would prove nothing


def test_a_model_that_brings_its_own_code_does_not_run_it(tmp_path):
    from icd_lib.models.checkpoint.files import hash_files
    from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
    from tests.tiny_encoders import tiny_bert

    folder, trap = save_optimized(tiny_bert(), None, tmp_path / "model"), tmp_path / "sprung"
    (folder / "modeling.py").write_text(f"open({str(trap)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    record = json.loads((folder / "icd.json").read_text()) | {"config_sha256": hash_files([folder / "config.json"])}
    (folder / "icd.json").write_text(json.dumps(record))
    assert type(load_optimized(folder)).__name__ == "BertModel" and not trap.exists()


def run_with(out: Path, rel: str, data: bytes) -> Run:
    run = open_run("mock", out=out)
    run.path(rel).write_bytes(data)
    return run


# Hashes -------------------------------------------------------------------------------------------------------------


def test_a_graph_that_was_changed_is_made_again_and_not_used(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb")
    records = Records(open_run("mock", out=tmp_path))
    before = snapshot(records.run.dir)
    path = records.run.path("graph", "W.rows.npz")
    save_graph(path, sp.csr_array(np.array([[0, 1.0], [1, 0]])))
    records.finish("01_build_graph", "done", 1.0, before, (), notebook)
    assert records.why_stale("01_build_graph", (), notebook) is None
    save_graph(path, sp.csr_array(np.array([[0, 9.0], [9, 0]])))
    assert records.why_stale("01_build_graph", (), notebook) == "graph/W.rows.npz was changed"


@pytest.mark.parametrize("change", [{"pi": [0, 1, 2]}, {"D": 10**12}, {"hash": "0" * 64}, {"pi": [2, 0]}])
def test_the_layouts_of_a_model_run_are_refused_when_they_were_changed(tmp_path, change):
    from icd_lib.workloads.model.arms import load_saved

    record = perm_record({"ffn.0": np.array([2, 0, 1])}, 0)
    record["axes"]["ffn.0"] |= change
    run = open_run("bert", out=tmp_path)
    for name in ("perm_before", "perm_after"):
        run.write_json(f"linear/{name}.json", record)
    with pytest.raises(ArtifactError, match="does not match its hash"):
        load_saved(run, "linear")


# Sizes --------------------------------------------------------------------------------------------------------------


@contextmanager
def little_memory(megabytes: int = 40):
    """Fails if what runs inside allocates more."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20, f"{peak / 2**20:.0f} MiB"


def sparse_file(path: Path, size: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def npz_claiming(path: Path, shape: tuple, data: bytes = b"\0" * 64, compress=zipfile.ZIP_STORED) -> Path:
    """A graph whose `data` says that it has this shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name in ("data", "indices", "indptr", "shape"):
            archive.writestr(f"{name}.npy", array)
        archive.writestr("format.npy", array)
    return path


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 2**62), (-1,), (9,)])
def test_an_array_larger_than_its_file_is_refused_before_allocation(tmp_path, shape):
    with little_memory(), pytest.raises(ArtifactError, match="as long as it says|no array of numbers|is damaged"):
        load_graph(npz_claiming(tmp_path / "W.npz", shape))


def test_an_array_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    zeros = bytes(2**27)
    path = npz_claiming(tmp_path / "W.npz", (2**24,), zeros, zipfile.ZIP_DEFLATED)
    limit = 2**27
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icd_lib.storage.npz.MAX_BYTES", limit)
        with little_memory(), pytest.raises(ArtifactError, match="would unpack to"):
            load_graph(path)


def test_a_graph_is_what_was_saved(tmp_path):
    graph = sp.csr_array(np.array([[0, 2.0, 0], [2, 0, 1], [0, 1, 0]]))
    for compressed in (True, False):
        path = save_graph(tmp_path / "W.npz", graph, compressed=compressed)
        assert (check_w(load_graph(path)) != graph).nnz == 0
    sp.save_npz(tmp_path / "coo.npz", sp.coo_array(graph))
    with pytest.raises(ArtifactError, match="no array 'indices'"):
        load_graph(tmp_path / "coo.npz")
    with pytest.raises(ArtifactError, match="is missing"):
        load_graph(tmp_path / "none.npz")


def test_a_permutation_that_claims_a_trillion_elements_is_refused(tmp_path):
    path = tmp_path / "perm_before.json"
    entry = {"D": 10**12, "pi": [0], "hash": hash_permutation(np.array([0]))}
    path.write_text(json.dumps({"axes": {"rows": entry}}))
    with little_memory(), pytest.raises(ArtifactError, match="does not match its hash"):
        read_perm_record(path, "linear")


def test_json_larger_than_any_of_ours_is_not_read(tmp_path):
    path = sparse_file(tmp_path / "perm_before.json", MAX_BYTES + 1)
    with little_memory(1), pytest.raises(ArtifactError, match="larger than 256 MiB"):
        read_perm_record(path, "linear")
    with pytest.raises(ValueError, match="larger"):
        read_text(path)


@pytest.mark.parametrize("claim", ["header", "offsets", "shape"])
def test_weights_that_claim_terabytes_are_refused_before_allocation(tmp_path, claim):
    from icd_lib.models.checkpoint.files import check_weights, hash_files
    from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
    from tests.tiny_encoders import tiny_bert

    folder = save_optimized(tiny_bert(), None, tmp_path / "model")
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = next(key for key in header if key != "__metadata__")
    if claim == "offsets":
        header[name] |= {"shape": [2**40], "data_offsets": [0, 2**42]}
    elif claim == "shape":
        header[name] |= {"shape": [2**40, 2**40]}
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    length = 2**42 if claim == "header" else len(text)
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + text + data[8 + size :])
    record = json.loads((folder / "icd.json").read_text()) | {"sha256": hash_files([folder / "model.safetensors"])}
    (folder / "icd.json").write_text(json.dumps(record))
    with little_memory(), pytest.raises(ArtifactError, match="truncated or damaged"):
        load_optimized(folder)
    with little_memory(), pytest.raises(ArtifactError, match="truncated or damaged"):
        check_weights([folder / "model.safetensors"])


def test_a_trace_that_unpacks_to_gigabytes_is_refused_early(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(512):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**23
    with little_memory(300), pytest.raises(ArtifactError, match="is this a trace"):
        trace_graph(path)


def test_a_package_that_is_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i in range(20):
            archive.writestr(f"runs/x/{i}.json", bytes(2**24))
    with little_memory():
        (check,) = verify(path)
    assert not check.ok and "times its size" in check.note
    assert package_file.MAX_BYTES >= package_file.MAX_FILE_BYTES


DEEP = deep(100_000).encode()


@pytest.mark.parametrize(
    ("rel", "read"),
    [
        ("stages.json", lambda run: Records.load(run)),
        ("linear/perm_before.json", lambda run: read_perm_record(run.dir, "linear")),
        ("measure/measure.json", lambda run: run.read_json("measure/measure.json")),
        ("measure/measure.json", lambda run: Results.load(run.dir)),
        ("config.lock.json", lambda run: load_scenario(run.dir / "config.lock.json")),
        ("config.lock.json", lambda run: Results.load(run.dir)),
    ],
)
def test_json_nested_beyond_reason_is_an_error_of_ours(tmp_path, rel, read):
    run = run_with(tmp_path, rel, DEEP)
    with pytest.raises(IcdError):
        read(run)


def test_json_nested_beyond_reason_counts_as_none_where_it_is_only_a_convenience(tmp_path):
    run = run_with(tmp_path, "config.lock.json", DEEP)
    assert locked_config(run.dir) is None
    for rel in ("verdict.json", "measure/samples.json", "measure/measure.json"):
        run.path(rel).write_text("{}")
    run.path("manifest.json").write_bytes(DEEP)
    assert "manifest.json is damaged" in why_unfit(run.dir)


# Shapes -------------------------------------------------------------------------------------------------------------


def test_a_made_up_finished_run_has_the_shapes(tmp_path):
    """Else the shapes would refuse what stages write."""
    write_run(tmp_path)
    for path in tmp_path.rglob("*.json"):
        check_shape(json.loads(path.read_text()), path.relative_to(tmp_path).as_posix(), path.name)


@pytest.mark.parametrize("run", sorted((project_root() / "outputs" / "reference").glob("*/config.lock.json")))
def test_a_committed_run_has_the_shapes(run):
    for path in run.parent.rglob("*.json"):
        check_shape(json.loads(path.read_text()), path.relative_to(run.parent).as_posix(), path.name)


GATE = {"status": "pass", "checks": {}}
UNKNOWN = {"reason": "it was not asked for"}
VERDICT = {"smoke": GATE, "strict": GATE, "cost": UNKNOWN, "determinism": UNKNOWN}
FIGURE = {"value": 1.5, "unit": "fraction", "kind": "measured"}


@pytest.mark.parametrize(
    ("rel", "value", "says"),
    [
        ("verdict.json", [], "it takes an object, it holds a list"),
        ("verdict.json", {"smoke": {"status": "pass"}}, "'smoke' has no 'checks'"),
        ("verdict.json", {"smoke": GATE}, "has no 'strict'"),
        ("verdict.json", {"smoke": GATE | {"status": 1}}, "'smoke.status' takes a text"),
        ("verdict.json", {"smoke": GATE | {"status": "x"}}, "'smoke.status' takes one of pass, fail, partial"),
        ("verdict.json", {"smoke": GATE | {"checks": {"l2_pp": "?"}}}, "'smoke.checks.l2_pp' takes one of pass"),
        ("verdict.json", VERDICT | {"cost": {"delta_q": 1}}, "'cost' has no 'delta_c_rel'"),
        ("verdict.json", VERDICT | {"vs_toy": {"shapes": {"1x8": FIGURE}}}, "'vs_toy.shapes.1x8' has no 'n'"),
        (
            "verdict.json",
            VERDICT | {"outside_metrics": {"toy": FIGURE | {"n": 1, "method": None, "value": None}}},
            "'outside_metrics.toy' contradicts itself .value is None exactly when",
        ),
        ("linear/solve.json", {"widths": {"ffn.0": 1}}, "has no 'accepted_strength'"),
        ("measure/measure.json", {"latency": {"threads": 1, "shapes": {"1x8": {"dense": {}}}}}, "no 'latency_ms'"),
        ("measure/ladder.json", {"baseline": "dense", "threads": 1, "runtimes": {"a": {}}}, "'runtimes.a' has no"),
        (
            "measure/samples.json",
            {"shapes": {"8x128": {"dense": [1, "2"]}}},
            r"'shapes.8x128.dense\[1\]' takes a number",
        ),
        ("measure/samples.json", {"shapes": {"8x128": {"dense": [True]}}}, "takes a number, it holds true or false"),
        (
            "linear/perm_after.json",
            {"axes": {"ffn.0": {"D": 1, "pi": [0.5], "hash": ""}}},
            r"pi\[0\]' takes an integer",
        ),
        ("graph/sensitivity.json", {"axis": 1}, "takes a list"),
        ("setup/setup.json", {"model": {}, "badges": None, "environment": {}}, "'badges' takes a list"),
        (
            "stages.json",
            {"stages": {"00": {"status": "done", "outputs": {"a": 1}}}},
            "takes a text, it holds an integer",
        ),
    ],
)
def test_a_wrong_type_is_named_with_its_place_and_the_cure(tmp_path, rel, value, says):
    run = open_run("bert", out=tmp_path)
    run.write_json(rel, value)
    with pytest.raises(ArtifactError, match=rf"{Path(rel).name} is damaged or of another version.*{says}.*--force"):
        run.read_json(rel)
