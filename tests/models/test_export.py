"""ONNX export: the file says what the module says, for any batch, any length, any mask, stock or compacted."""

import pytest
import torch
from transformers import BertForSequenceClassification

from icd_lib.errors import ArtifactError
from icd_lib.models.export import export_onnx, run_onnx
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


def test_export_of_a_classifier_gives_logits_and_a_missing_mask_means_ones(tmp_path):
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config(num_labels=3)).eval()
    ids = batch(4, 9)["input_ids"]
    path = export_onnx(model, {"input_ids": ids}, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(input_ids=ids).logits.numpy()
    output = run_onnx(path, {"input_ids": ids}, threads=1)
    assert output.shape == (4, 3) and abs(output - expected).max() < 1e-5


def test_unwritable_target_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="writable"):
        export_onnx(tiny_bert(), batch(2, 8), tmp_path / "file" / "model.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_running_a_missing_file_says_how_to_write_it(tmp_path):
    with pytest.raises(ArtifactError, match="export_onnx"):
        run_onnx(tmp_path / "nothing.onnx", batch(1, 4))
