"""Whole models through both compilers: the same function to 1e-6, no activation gathered, a folder without torch."""

import copy
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import icd_lib as icd
from icd_lib.axes.double import KeepDouble
from icd_lib.bridge import child, compile
from icd_lib.bridge.compile import PACKAGES, compile_model
from icd_lib.bridge.load import load
from icd_lib.bridge.options import BridgeOptions
from icd_lib.bridge.program import MainOutput, record
from icd_lib.bridge.settings import Settings
from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.models.export import as_tensors
from icd_lib.models.families import find_adapter
from icd_lib.runtimes import BRIDGE
from icd_lib.runtimes.bridge import PreparedBridge
from tests.tiny_decoders import tiny_decoder
from tests.tiny_encoders import batch, prune, tiny_bert
from tests.tiny_mambas import make_uneven, tiny_mamba, tokens

pytestmark = pytest.mark.wide

TOLERANCE = 1e-6  # relative, l2 over all tokens that are not padded
FLOAT = torch.float32
MODELS = {
    "bert": (tiny_bert, partial(batch, 2, 12, padded=True)),
    "bert, pruned": (lambda: prune(tiny_bert()), partial(batch, 3, 9, padded=True)),
    "mamba, uneven": (lambda: make_uneven(tiny_mamba("backbone", dtype=FLOAT)), lambda: {"input_ids": tokens(2, 9)}),
    "llama": (lambda: tiny_decoder("backbone", dtype=FLOAT), lambda: {"input_ids": tokens(1, 7)}),
}


@pytest.fixture(params=list(BRIDGE))
def engine(request):
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    return request.param


def exact(model, inputs):
    tensors = as_tensors(inputs)
    with torch.no_grad(), KeepDouble():
        return MainOutput(copy.deepcopy(model).double().eval(), list(tensors))(*tensors.values()).numpy()


def distance(output, wanted, inputs):
    seen = as_tensors(inputs)["attention_mask"].numpy().astype(bool)
    return np.linalg.norm((output - wanted)[seen]) / np.linalg.norm(wanted[seen])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_the_same_function_and_gathers_nothing(engine, name, tmp_path):
    make, given = MODELS[name]
    model, inputs = make(), given()
    record = compile_model(engine, model, inputs, tmp_path)
    arrays = [tensor.numpy() for tensor in as_tensors(inputs).values()]
    assert distance(load(tmp_path, 1)(*arrays), exact(model, inputs), inputs) <= TOLERANCE
    assert record["gathers"]["permutations"] == 0 and record["gathers"]["lookups"] >= 1
    assert record["peak_memory_mb"] > 0 and set(record["seconds"]) == {"export", "import", "passes", "lower"}


def test_the_peak_memory_of_a_compile_is_its_own(engine, tmp_path):
    """Not what the process that asked for it holds, which in a benchmark grows from compile to compile."""
    alone = compile_model(engine, tiny_bert(), batch(2, 12), tmp_path / "alone")["peak_memory_mb"]
    held = np.ones(200_000_000)
    beside = compile_model(engine, tiny_bert(), batch(2, 12), tmp_path / "beside")["peak_memory_mb"]
    assert abs(beside - alone) < held.nbytes / 1e6 / 4


def test_what_was_kept_is_not_compiled_again(engine, monkeypatch, tmp_path):
    model, inputs = tiny_bert(), batch(2, 12)
    first = PreparedBridge(engine, model, 1, tmp_path)
    expected = first.run(inputs)
    first.close()
    monkeypatch.setattr(compile, "run_child", lambda *given: pytest.fail("it was compiled again"))
    again = PreparedBridge(engine, model, 1, tmp_path)
    assert np.array_equal(again.run(inputs), expected) and again.records == first.records


def test_a_permuted_model_gathers_no_more_than_it_did(engine, tmp_path):
    """What a gather in the model would be: the counts are those of the model, not of the test."""
    model, inputs = tiny_bert(), batch(2, 12)
    axis = next(axis for axis in find_adapter(model).axes() if axis.kind == "ffn")
    icd.permute(model, axis, np.random.default_rng(0).permutation(axis.size))
    assert compile_model(engine, model, inputs, tmp_path / "weights")["gathers"]["permutations"] == 0
    record = compile_model(engine, Gathering(48), inputs, tmp_path / "activations")
    assert record["gathers"]["permutations"] == 1 and record["passes"]["fold"] == []


class Gathering(nn.Module):
    """Reorders an activation by constant indices that no weight can take: a sum follows."""

    def __init__(self, width: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(97, width)
        self.register_buffer("order", torch.randperm(width, generator=generator))

    def forward(self, input_ids, attention_mask):
        rows = self.table(input_ids)
        return rows + rows.tanh().index_select(2, self.order)


def test_the_offer_of_tiles_changes_no_output(engine, tmp_path):
    model, inputs = tiny_bert(), batch(2, 12)
    arrays = [tensor.numpy() for tensor in inputs.values()]
    outputs = []
    for tiles in (True, False):
        folder = tmp_path / str(tiles)
        record = compile_model(engine, model, inputs, folder, Settings(BridgeOptions(tiles=tiles)))
        assert ("tile" in record["passes"]) is tiles
        outputs.append(load(folder, 1)(*arrays))
    assert distance(*outputs, inputs) <= TOLERANCE


WITHOUT = """
import sys
sys.modules["torch"] = sys.modules["icd_lib"] = None
import numpy as np
from load import load
given = np.load("given.npz")
run = load(".")
np.save("found.npy", run(given["input_ids"], given["attention_mask"]))
try:
    run(given["input_ids"][:1], given["attention_mask"])
except ValueError as error:
    print(error)
"""


def test_an_export_runs_without_torch_and_names_a_wrong_shape(engine, tmp_path):
    export = {"stablehlo_iree": icd.export_stablehlo, "tvm_relax": icd.export_tvm}[engine]
    model, inputs = tiny_bert(), batch(2, 12, padded=True)
    folder = export(model, inputs, tmp_path / "out")
    record = json.loads((folder / "icd.json").read_text())
    files = {"icd.json", "load.py", record["artifact"], record["source"]}
    assert {file.name for file in folder.iterdir()} == files and set(record["sha256"]) < files
    assert record["layout"]["encoder.layer.0.intermediate.dense.weight"][0]["axis"] == "ffn.0"
    np.savez(folder / "given.npz", **{name: tensor.numpy() for name, tensor in inputs.items()})
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert "input_ids takes int64 (2, 12), got int64 (1, 12); compile this shape" in done.stdout
    assert distance(np.load(folder / "found.npy"), exact(model, inputs), inputs) <= TOLERANCE


def test_an_artifact_that_computes_something_else_is_refused(monkeypatch, tmp_path):
    program = record(tiny_bert(), batch(2, 12), max_module_mb=100)
    expected = program.module()(*program.example_inputs[0], **program.example_inputs[1]).detach().numpy()
    monkeypatch.setitem(child.OPENERS, "tvm_relax", lambda path: lambda *arrays: expected)
    assert child.checked(program, "tvm_relax", tmp_path) == 0
    for wrong in (expected * 1.01, expected * np.nan):
        monkeypatch.setitem(child.OPENERS, "tvm_relax", lambda path, wrong=wrong: lambda *arrays: wrong)
        with pytest.raises(ResourceError, match="another function"):
            child.checked(program, "tvm_relax", tmp_path)


class Unusual(nn.Module):
    """Has an operator that no compiler of the bridge translates."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(97, 8)

    def forward(self, input_ids, attention_mask):
        return torch.linalg.eigvals(self.table(input_ids)[:, :8]).abs()


def test_an_operator_without_a_translation_is_named_with_its_line(engine, tmp_path):
    with pytest.raises(ResourceError, match=r"no \w+ for the operator aten\.\w*eig\w*, called at test_engines\.py:\d+"):
        compile_model(engine, Unusual(), batch(2, 12), tmp_path)
    assert not (tmp_path / "icd.json").exists()


def test_a_compile_beyond_its_time_is_stopped_and_leaves_no_export(engine, tmp_path):
    export = {"stablehlo_iree": icd.export_stablehlo, "tvm_relax": icd.export_tvm}[engine]
    with pytest.raises(ResourceError, match=f"{engine} did not compile BertModel within 0 s"):
        export(tiny_bert(), batch(2, 12), tmp_path / "out", compile_timeout_s=0.01)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(engine, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not empty and holds no export of the bridge"):
        icd.export_stablehlo(tiny_bert(), batch(2, 12), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
