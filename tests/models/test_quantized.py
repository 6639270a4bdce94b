"""Quantised Linears: torch's own fake quantization, wherever rows and columns go, in files and in runtimes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from icd_lib.axes.compact import compact
from icd_lib.axes.double import Unrounded
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error, verify_axes
from icd_lib.errors import ArtifactError, ResourceError, TransformError
from icd_lib.measure.memory import parameter_bytes
from icd_lib.models import export
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.export import export_onnx, run_onnx
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import (
    QuantizedLinear,
    check_scales,
    check_trainable,
    is_quantized,
    quantized_like,
    quantized_linears,
    replace_linear,
)
from icd_lib.runtimes.openvino import INT8
from tests.tiny_encoders import batch, tiny_bert
from tests.tiny_problems import small_model, three_cycle

pytestmark = pytest.mark.wide
N, OUT = 12, 7


def random_linear(bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(N, OUT, bias)


def columns(*names):
    torch.manual_seed(5)
    held = {"shift": torch.randn(N) / 3, "smooth": torch.rand(N) + 0.5, "unrounded": torch.zeros(N)}
    held["unrounded"][[2, 3]] = 1.0
    return {name: held[name] for name in names}


def quantised(seed=0, names=(), fp8=False):
    """A quantised Linear and the plain one it was made of."""
    plain = random_linear(seed=seed)
    steps = plain.weight.detach().abs().amax(1) / 127
    return QuantizedLinear.of(plain, steps, None if fp8 else (0.03, 120), columns(*names)), plain


def quantise_all(model, names=("shift", "smooth"), unrounded=None):
    """Every Linear of a model's blocks, with made-up ranges."""
    made, generator = copy.deepcopy(model), torch.Generator().manual_seed(2)
    for name, module in find_adapter(made).trunk().named_modules():
        if isinstance(module, nn.Linear):
            path = next(key for key, other in made.named_modules() if other is module)
            size, dtype = module.in_features, module.weight.dtype
            held = {key: torch.rand(size, generator=generator, dtype=torch.float32).to(dtype) + 0.5 for key in names}
            if unrounded and name.endswith("output.dense") and "attention" not in name:
                held["unrounded"] = torch.zeros(size, dtype=dtype)
                held["unrounded"][unrounded] = 1.0
            smooth = held.get("smooth", torch.ones(size, dtype=dtype))
            steps = (module.weight.detach() / smooth).abs().amax(1) / 127
            replace_linear(made, path, QuantizedLinear.of(module, steps, (0.05, 118), held))
    return made


def test_it_computes_what_torchs_fake_quantization_computes():
    made, plain = quantised()
    x = 2 * torch.randn(5, 3, N)
    wanted = linear(
        torch.fake_quantize_per_tensor_affine(x, 0.03, 120, 0, 255),
        torch.fake_quantize_per_channel_affine(
            plain.weight, made.row_scale, torch.zeros(OUT, dtype=torch.int32), 0, -128, 127
        ),
        plain.bias,
    )
    assert torch.allclose(made(x), wanted, atol=1e-6)
    assert not torch.allclose(made(x), plain(x), atol=1e-3)


def test_channels_are_centred_and_evened_out_before_they_are_rounded():
    made, _ = quantised(names=("shift", "smooth"))
    x = torch.randn(50, N)
    shift, smooth = made.shift, made.smooth
    wanted = torch.fake_quantize_per_tensor_affine((x - shift) * smooth, 0.03, 120, 0, 255) / smooth + shift
    assert torch.allclose(made.rounded(x), wanted, atol=1e-6)
    on_grid = made.weight / smooth / made.row_scale[:, None]
    assert torch.allclose(on_grid, on_grid.round(), atol=1e-3) and on_grid.abs().max() > 100


def test_a_column_that_stays_float_is_not_rounded():
    made, plain = quantised(names=("unrounded",))
    x = torch.randn(20, N)
    assert torch.equal(made.rounded(x)[:, 2:4], x[:, 2:4]) and torch.equal(made.weight[:, 2:4], plain.weight[:, 2:4])
    assert not torch.equal(made.rounded(x)[:, :2], x[:, :2])


def test_weights_alone_in_fp8():
    made, plain = quantised(fp8=True)
    x = torch.randn(9, N)
    assert torch.equal(made.rounded(x), x)
    steps = plain.weight.detach() / made.row_scale[:, None]
    assert torch.equal(made.weight, steps.to(torch.float8_e4m3fn).float() * made.row_scale[:, None])


def test_without_rounding_it_is_the_linear_that_its_weight_says():
    made, _ = quantised(names=("shift", "smooth", "unrounded"))
    x = torch.randn(6, N)
    with Unrounded():
        assert torch.allclose(made(x), linear(x, made.weight, made.bias), atol=1e-6)
    assert not torch.allclose(made(x), linear(x, made.weight, made.bias), atol=1e-4)


@pytest.mark.parametrize("left", [[], [2, 3], [1, 4, 9], list(range(N))])
def test_what_an_exporter_sees_is_the_same_whatever_stays_float(left):
    plain, held = random_linear(), columns("shift", "smooth", "unrounded")
    held["unrounded"] = torch.zeros(N)
    held["unrounded"][left] = 1.0
    made = QuantizedLinear.of(plain, plain.weight.detach().abs().amax(1) / 127, (0.03, 120), held)
    x = torch.randn(5, N)
    assert torch.allclose(made._traced(x), made(x), atol=1e-5)


@pytest.mark.parametrize("unrounded", [None, [0, 5, 40]])
def test_every_axis_of_a_quantised_model_is_one_and_takes_its_scales_along(unrounded):
    model = quantise_all(small_model(), unrounded=unrounded)
    example = {"input_ids": torch.arange(1, 25).reshape(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    certificates = verify_axes(model, find_adapter(model).axes(), example)
    assert max(entry["max_rel_error"] for entry in certificates) <= 1e-6
    moved, before = copy.deepcopy(model), model.encoder.layer[1]
    axis = find_adapter(moved).axis("ffn.1")
    permute(moved, axis, three_cycle(axis.size))
    perm, after = torch.from_numpy(three_cycle(axis.size)), moved.encoder.layer[1]
    assert torch.equal(after.intermediate.dense.row_scale, before.intermediate.dense.row_scale[perm])
    assert torch.equal(after.output.dense.smooth, before.output.dense.smooth[perm])
    assert torch.equal(after.output.dense.row_scale, before.output.dense.row_scale)
    # In float64 no sum reaches a rounding edge from its other side, so that even with rounding the function stays.
    assert outputs_error(model_outputs(moved, example), model_outputs(model, example)) < 1e-9


def test_an_axis_that_leaves_scales_behind_is_refused():
    model = quantise_all(small_model())
    axes = find_adapter(model).axes()
    check_scales(model, axes)
    bare = replace(axes[0], slots=tuple(slot for slot in axes[0].slots if not slot.parameter.endswith("smooth")))
    with pytest.raises(TransformError, match=r"axis 'ffn.0' of BertModel does not take .*output.dense.smooth' along"):
        check_scales(model, [bare])


def test_compaction_takes_the_scales_of_dead_elements_along():
    model = quantise_all(tiny_bert())
    axis = find_adapter(model).axis("ffn.0")
    alive = np.arange(axis.size) % 3 != 0
    kept = torch.from_numpy(np.flatnonzero(alive))
    scales = model.encoder.layer[0].intermediate.dense.row_scale[kept].clone()
    compact(model, axis, alive)
    assert torch.equal(model.encoder.layer[0].intermediate.dense.row_scale, scales)
    assert model.encoder.layer[0].output.dense.smooth.shape == (int(alive.sum()),)
    model_outputs(model, batch(2, 5))


@pytest.mark.parametrize("unrounded", [None, [1, 2, 70]])
def test_saved_in_eight_bits_and_loaded_it_computes_the_same(tmp_path, unrounded):
    model = quantise_all(tiny_bert(), unrounded=unrounded)
    compact(model, find_adapter(model).axis("ffn.1"), np.arange(80) < 72)
    folder = save_optimized(model, None, tmp_path / "model")
    plain = save_optimized(tiny_bert(), None, tmp_path / "plain")
    loaded = load_optimized(folder)
    assert list(quantized_linears(loaded)) == list(quantized_linears(model)) and len(quantized_linears(model)) == 18
    inputs = batch(3, 9)
    assert outputs_error(model_outputs(loaded, inputs), model_outputs(model, inputs)) <= 1e-6
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (plain / "model.safetensors").stat().st_size


def test_weights_in_fp8_are_saved_as_such(tmp_path):
    model = tiny_bert()
    linear = model.encoder.layer[0].intermediate.dense
    steps = linear.weight.detach().abs().amax(1) / 448
    replace_linear(model, "encoder.layer.0.intermediate.dense", QuantizedLinear.of(linear, steps))
    loaded = load_optimized(save_optimized(model, None, tmp_path / "model"))
    assert quantized_linears(loaded)["encoder.layer.0.intermediate.dense"].codes == "fp8"
    assert outputs_error(model_outputs(loaded, batch(2, 8)), model_outputs(model, batch(2, 8))) == 0


def test_bytes_are_those_of_the_codes():
    made, plain = quantised(names=("unrounded",))
    assert parameter_bytes(plain) == 4 * (N * OUT + OUT)
    assert parameter_bytes(made) == OUT * (N - 2) + 4 * (2 * OUT + OUT + OUT + N + 2)


def test_a_file_that_names_a_module_that_is_not_there_is_refused(tmp_path, monkeypatch):
    folder = save_optimized(quantise_all(tiny_bert()), None, tmp_path / "model")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_hidden_layers": 3', '"num_hidden_layers": 2'))
    with pytest.raises(ArtifactError):
        load_optimized(folder)


def test_no_stock_shape(tmp_path):
    with pytest.raises(TransformError, match="a quantised model has no stock shape"):
        save_optimized(quantise_all(tiny_bert()), None, tmp_path / "model", uniform=True)


def test_it_is_not_trained():
    with pytest.raises(TransformError, match="would leave their grid; set distill_steps 0"):
        check_trainable(quantise_all(tiny_bert()))
    check_trainable(tiny_bert())


def test_the_same_kind_at_the_dense_shape():
    quantized = quantise_all(tiny_bert(), unrounded=[3])
    like = quantized_like(tiny_bert(), quantized)
    assert is_quantized(like) and list(dict(like.named_parameters())) == list(dict(quantized.named_parameters()))
    assert float(like.encoder.layer[0].output.dense.step) == float(quantized.encoder.layer[0].output.dense.step)


@pytest.mark.parametrize(
    "names, unrounded", [((), None), (("shift", "smooth"), None), (("shift", "smooth"), [0, 1, 9])]
)
def test_onnx_runtime_and_openvino_compute_it_in_int8(tmp_path, names, unrounded):
    model = quantise_all(tiny_bert(), names, unrounded)
    inputs = batch(4, 16)
    path = export_onnx(model, inputs, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    assert cosine(run_onnx(path, inputs), expected) >= 0.999
    try:
        prepared = INT8.prepare(model, inputs, onnx_path=path)
    except ResourceError as error:
        pytest.skip(error.args[0])
    assert cosine(prepared.run(inputs), expected) >= 0.999
    assert cosine(tiny_bert()(**inputs).last_hidden_state.detach().numpy(), expected) < 0.9999


def test_a_file_of_another_function_is_refused(tmp_path, monkeypatch):
    model = quantise_all(tiny_bert())
    monkeypatch.setattr(export, "run_onnx", lambda path, example, threads: -np.ones((2, 16, 48), np.float32))
    with pytest.raises(ArtifactError, match="the ONNX file of the quantised BertModel gives outputs with cosine"):
        export_onnx(model, batch(2, 16), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
