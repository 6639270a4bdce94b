"""icd export, as somebody with a model and a terminal uses it."""

import json
import re

import pytest

from icd_lib.command.app import main
from icd_lib.deploy import verify
from icd_lib.deploy.record import check_export
from icd_lib.deploy.target import find_target
from icd_lib.errors import ResourceError
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
    assert main(["measure", str(out)]) == 7 and "as its README.md says" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, code, message",
    [
        ({"--runtime": "magic"}, 2, "'magic' is no runtime"),
        ({"--runtime": "openvino", "--precision": "int4"}, 2, "it takes one of fp32, bf16, int8"),
        ({"--runtime": "openvino", "--precision": "int8"}, 2, "pass --calibrate FILE"),
        ({"--runtime": "openvino", "--precision": "int8", "--calibrate": "nowhere.txt"}, 2, "nowhere.txt is no file"),
        ({"--pooling": "sum"}, 2, "pooling 'sum' is unknown"),
        ({"--out": "texts.txt"}, 7, "is a file or a link"),
        ({"--out": "model"}, 7, "is not empty and holds no export"),
        ({"model": "no/such"}, 3, "no/such"),
        ({"model": "wordless"}, 3, "has no tokenizer"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(place, capsys, change, code, message):
    given = {"--out": "never", "--runtime": "onnxruntime"} | change
    model = given.pop("model", "model")
    model = model if "/" in model else str(place / model)
    words = [word for key, value in given.items() for word in (key, str(place / value) if key == "--out" else value)]
    assert main(["export", model, *words]) == code
    told = " ".join(capsys.readouterr().err.split())
    assert message in told, told
    assert not (place / "never").exists()
