"""icd export, as somebody with a model and a terminal uses it."""

import json
import re

import pytest

from icd_lib.command.app import main
from icd_lib.deploy import verify
from icd_lib.deploy.record import check_export
from icd_lib.deploy.target import find_target
from icd_lib.errors import ResourceError
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from tests.tiny_domains import toy_domain, toy_encoder, toy_tokenizer


@pytest.fixture(autouse=True)
def without_other_environments(monkeypatch):
    monkeypatch.setattr(verify, "python_with", lambda users: None)
    try:
        find_target("onnxruntime", "fp32")
    except ResourceError as error:
        pytest.skip(error.args[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tokenizer, model = toy_tokenizer(folder), toy_encoder()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    model.save_pretrained(folder / "wordless")
    (folder / "texts.txt").write_text("\n".join(toy_domain().texts) + "\n")
    return folder


def test_a_model_becomes_a_folder_for_a_runtime(place, capsys):
    out = place / "onnx"
    words = ["export", str(place / "model"), "--out", str(out), "--runtime", "onnxruntime", "--max-length", "9"]
    assert main(words) == 0, capsys.readouterr().err
    told = " ".join(capsys.readouterr().out.split())
    assert "ONNX Runtime, fp32" in told and "onnxruntime: checked, least cosine 1.000000" in told
    assert "sentence-transformers: not checked" in told
    assert check_export(out)["max_length"] == 9
    card = (out / "README.md").read_text()
    assert re.search(r"- Made from: model, sha256 [0-9a-f]{12}", card)
    assert "icd export model --runtime onnxruntime --precision fp32 --out onnx" in card and str(place) not in card
    assert main(words) == 7 and "holds an export already" in capsys.readouterr().err
    assert main([*words, "--force", "--pooling", "max"]) == 0
    assert json.loads((out / "icd.json").read_text())["export"]["pooling"] == "max"
    assert main(["measure", str(out)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "is an export for onnxruntime" in told and "with --runtime onnxruntime" in told


def test_a_quantised_model_is_exported_in_int8_without_text_and_any_other_is_not(place, capsys):
    tokenizer = toy_tokenizer(place)
    batches = [dict(tokenizer(toy_domain().texts[:24], padding=True, return_tensors="pt", return_token_type_ids=False))]
    save_optimized(quantize(toy_encoder(), batches, Recipe())[0], tokenizer, place / "rounded")
    save_optimized(toy_encoder(), tokenizer, place / "plain")
    words = ["--runtime", "onnxruntime", "--precision", "int8", "--out", str(place / "int8")]
    assert main(["export", str(place / "plain"), *words]) == 2 and "pass --calibrate FILE" in capsys.readouterr().err
    assert main(["export", str(place / "rounded"), *words]) == 0, capsys.readouterr().err
    assert check_export(place / "int8")["precision"] == "int8"


@pytest.mark.parametrize(
    "change, code, message",
    [
        ({"--runtime": "magic"}, 2, "'magic' is no runtime"),
        ({"--runtime": "openvino", "--precision": "int4"}, 2, "it takes one of fp32, bf16, int8"),
        ({"--runtime": "openvino", "--precision": "int8"}, 2, "pass --calibrate FILE"),
        ({"--runtime": "openvino", "--precision": "int8", "--calibrate": "nowhere.txt"}, 2, "nowhere.txt is no file"),
        ({"--runtime": "openvino", "--precision": "int8", "--calibrate": "one.txt"}, 2, "holds 1 different texts"),
        ({"--pooling": "sum"}, 2, "pooling 'sum' is unknown"),
        ({"--out": "texts.txt"}, 7, "is a file or a link"),
        ({"--out": "model"}, 7, "is not empty and holds no export"),
        ({"model": "no/such"}, 3, "no/such"),
        ({"model": "wordless"}, 3, "has no tokenizer"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(place, capsys, change, code, message):
    (place / "one.txt").write_text("A line, and no other.\n")
    given = {"--out": "never", "--runtime": "onnxruntime"} | change
    model, paths = given.pop("model", "model"), {"--out", "--calibrate"}
    model = model if "/" in model else str(place / model)
    words = [word for key, value in given.items() for word in (key, str(place / value) if key in paths else value)]
    assert main(["export", model, *words]) == code
    told = " ".join(capsys.readouterr().err.split())
    assert message in told, told
    assert not (place / "never").exists()
