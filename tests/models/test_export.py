"""ONNX export: the file says what the module says, for any batch, any length, any mask, stock or compacted."""

import copy
import sys

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.models import export
from icd_lib.models.export import export_onnx, plain_attention, run_onnx
from tests.tiny_encoders import batch, prune, tiny_bert, tiny_config


@pytest.mark.parametrize("pruned", [False, True])
def test_export_equals_eager_at_other_shapes_and_masks(tmp_path, pruned):
    model = prune(tiny_bert()) if pruned else tiny_bert()
    path = export_onnx(model, batch(1, 32), tmp_path / "model.onnx")
    for inputs in (batch(1, 32), batch(5, 7), batch(3, 20, padded=True), batch(1, 1)):
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state
        kept = inputs["attention_mask"].bool()
        output = torch.from_numpy(run_onnx(path, inputs))
        assert output.shape == expected.shape
        assert (output - expected)[kept].abs().max() < 1e-5


def test_export_uses_the_mask(tmp_path):
    path = export_onnx(tiny_bert(), batch(2, 8), tmp_path / "model.onnx")
    whole, padded = run_onnx(path, batch(2, 8)), run_onnx(path, batch(2, 8, padded=True))
    assert abs(whole[0, 0] - padded[0, 0]).max() > 1e-4
    assert abs(whole[1] - padded[1]).max() < 1e-6


def test_export_leaves_the_model_in_its_mode_and_unchanged(tmp_path):
    model = tiny_bert()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, batch(2, 8), tmp_path / "model.onnx")
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_attention_is_written_out_without_a_search_for_nan_and_stays_the_models_own(tmp_path):
    model = tiny_bert()
    assert model.config._attn_implementation == "sdpa"
    path = export_onnx(model, batch(2, 8), tmp_path / "model.onnx")
    kinds = {node.op_type for node in pytest.importorskip("onnx").load(path).graph.node}
    assert "Softmax" in kinds and "IsNaN" not in kinds
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with plain_attention(model):
        assert model.config._attn_implementation == "eager"
    with plain_attention(torch.nn.Linear(1, 1)):
        pass


def test_export_of_a_classifier_gives_logits_and_a_missing_mask_means_ones(tmp_path):
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config(num_labels=3)).eval()
    ids = batch(4, 9)["input_ids"]
    path = export_onnx(model, {"input_ids": ids}, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(input_ids=ids).logits.numpy()
    output = run_onnx(path, {"input_ids": ids}, threads=1)
    assert output.shape == (4, 3) and abs(output - expected).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_dtype_is_exported_in_float32_and_kept_as_it_is(tmp_path, dtype):
    model = tiny_bert().to(dtype).train()
    model.embeddings.eval()  # a mode of its own
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    with pytest.warns(
        UserWarning, match=f"BertModel has {str(dtype)[6:]} numbers; its ONNX file is written in float32"
    ):
        path = export_onnx(model, batch(2, 8), tmp_path / "model.onnx")
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3)), "nothing is drawn from the user's generator"
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert all(
        tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]) for name, tensor in before.items()
    )
    inputs = batch(3, 11, padded=True)
    output = run_onnx(path, inputs)
    with torch.no_grad():
        expected = copy.deepcopy(model).float().eval()(**inputs).last_hidden_state.numpy()
    assert output.dtype == np.float32 and np.abs(output - expected)[inputs["attention_mask"].bool()].max() < 1e-5


def test_a_file_that_says_something_else_or_does_not_load_is_not_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier one")
    monkeypatch.setattr(export, "run_onnx", lambda file, inputs, **_: run_onnx(file, inputs) + 0.5)
    with pytest.raises(ArtifactError, match=r"differ from the model's by 0\.5"):
        export_onnx(tiny_bert(), batch(2, 8), path)
    monkeypatch.setattr(export, "run_onnx", lambda file, *_, **__: run_onnx(__file__, batch(2, 8)))
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot run the file of BertModel"):
        export_onnx(tiny_bert(), batch(2, 8), path)
    broken = tiny_bert()
    broken.embeddings.word_embeddings.weight.data[:] = torch.nan
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="differ from the model's by nan"):
        export_onnx(broken, batch(2, 8), path)
    assert path.read_bytes() == b"an earlier one" and [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_without_onnxruntime_the_file_is_written_and_a_warning_says_that_it_was_not_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.warns(UserWarning, match="was not run: package onnxruntime is not installed"):
        assert export_onnx(tiny_bert(), batch(2, 8), tmp_path / "model.onnx").stat().st_size > 10_000


def test_what_onnx_has_no_operator_for_is_refused(tmp_path):
    model = tiny_bert()
    model.embeddings.register_forward_hook(lambda _module, _inputs, output: output + torch.special.i0(output) * 0)
    with pytest.raises(ResourceError, match="BertModel cannot be exported to ONNX"):
        export_onnx(model, batch(2, 8), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_unwritable_target_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="writable"):
        export_onnx(tiny_bert(), batch(2, 8), tmp_path / "file" / "model.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_running_a_missing_file_says_how_to_write_it(tmp_path):
    with pytest.raises(ArtifactError, match="export_onnx"):
        run_onnx(tmp_path / "nothing.onnx", batch(1, 4))
