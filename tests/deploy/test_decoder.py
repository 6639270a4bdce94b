"""Exports of decoders: prompts and greedy steps are compared, in a process of its own too; bad input is named."""

import numpy as np
import pytest
import torch

import icd_lib as icd
from icd_lib.deploy.decoder import TOKENS
from icd_lib.deploy.record import check_export
from icd_lib.deploy.verify import run_fresh
from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.optional import load_optional
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.rounding import Recipe, round_embeddings, round_weights
from tests.decoding.test_contract import EVEN, IDS, MASK, uneven
from tests.tiny_decoders import tiny_decoder
from tests.tiny_words import tiny_words

pytestmark = pytest.mark.wide

EXAMPLE = {"input_ids": IDS, "attention_mask": MASK}


def needs(*packages):
    for package in packages:
        try:
            load_optional(package)
        except ResourceError as error:
            pytest.skip(error.args[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_a_folder_for_openvino_says_what_the_model_says(tmp_path, precision):
    needs("openvino", "nncf")
    model = uneven()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = icd.export(model, None, tmp_path / "out", runtime="openvino", precision=precision, example=EXAMPLE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    facts = check_export(folder)
    assert facts["verified"]["openvino"]["status"] == "verified" and facts["output"] == "logits"
    assert facts["against_eager"]["what"] == f"3 prompts of up to 9 tokens and {TOKENS} tokens after each"
    assert precision != "fp32" or facts["against_eager"]["equal_tokens"] == 1
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", "generation_config.json"} <= {
        path.name for path in folder.iterdir()
    }
    given = {"input_ids": EVEN, "attention_mask": np.ones_like(EVEN), "tokens": np.array([[3, 5], [8, 9]])}
    found = run_fresh("decode_openvino", folder, given, {"threads": 1, "hints": facts["hints"]}).output
    with torch.no_grad():
        whole = model(torch.from_numpy(np.concatenate([EVEN, given["tokens"]], axis=1))).logits[:, -3:].numpy()
    near = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.2, "int4": 1.0}[precision]
    assert np.abs(found - whole).max() < near * np.abs(whole).max()


def test_the_card_says_how_it_is_loaded(tmp_path):
    needs("openvino")
    model, words = tiny_decoder(dtype=torch.float32, vocab_size=264), tiny_words()
    folder = icd.export(model, words, tmp_path / "out", runtime="openvino")
    card = (folder / "README.md").read_text()
    assert "OVModelForCausalLM.from_pretrained" in card and "LLMPipeline" in card and "KV_CACHE_PRECISION" in card
    assert (folder / "tokenizer.json").is_file() and check_export(folder)["tokenizer"]
    with pytest.raises(ArtifactError, match="holds an export already"):
        icd.export(model, words, folder, runtime="openvino")


@pytest.mark.parametrize(
    "runtime, precision, symmetric, types",
    [
        ("openvino", "fp32", False, None),
        pytest.param("gguf", "f32", True, {"Q4_0": 14, "Q8_0": 1, "F32": 5}, marks=pytest.mark.slow),
        pytest.param("gguf", "f32", False, {"Q4_1": 14, "F32": 6}, marks=pytest.mark.slow),
    ],
)
def test_codes_are_exported_as_they_are(tmp_path, runtime, precision, symmetric, types):
    """Groups of 32 are not rounded again, but for minima of q4_1, in 16 bits; 8 bits with zeros are floats in GGUF."""
    needs("openvino", "gguf", "accelerate")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_attention_heads": 4}
    model = tiny_decoder(dtype=torch.float32, num_key_value_heads=2, **sizes)
    ids = {"input_ids": torch.from_numpy(IDS), "attention_mask": torch.from_numpy(MASK)}
    rounded = round_weights(model, [ids], Recipe(lambda name: Spec(4, 32, symmetric), order="stored")).model
    assert round_embeddings(rounded, Spec(8, 32, symmetric, searched=False)) == ["model.embed_tokens"]
    folder = icd.export(rounded, None, tmp_path / "out", runtime=runtime, precision=precision, example=EXAMPLE)
    facts = check_export(folder)
    away = facts["against_eager"]
    if types and "Q4_1" in types:
        assert 0 < away["max_abs_error"] < 0.05 and away["min_cosine"] > 0.9999
    else:
        assert away["max_abs_error"] < 1e-4 and away["equal_tokens"] == 1
    assert facts.get("types") == types
    plain = icd.export(model, None, tmp_path / "plain", runtime=runtime, precision=precision, example=EXAMPLE)
    name = "model.gguf" if runtime == "gguf" else "openvino_model.bin"
    assert (folder / name).stat().st_size < 0.4 * (plain / name).stat().st_size


@pytest.mark.parametrize("precision", ["f32", "q8_0"])
def test_a_gguf_folder_says_what_the_model_says(tmp_path, precision):
    needs("gguf", "accelerate")
    model = tiny_decoder(dtype=torch.float32, vocab_size=264)
    folder = icd.export(model, tiny_words(), tmp_path / "out", runtime="gguf", precision=precision)
    facts = check_export(folder)
    assert facts["verified"]["transformers"]["status"] == "verified"
    assert precision != "f32" or facts["against_eager"]["equal_tokens"] == 1
    assert "llama_cpp" in (folder / "README.md").read_text() and (folder / "model.gguf").is_file()


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"runtime": "onnxruntime"}, ConfigError, "not exported for 'onnxruntime'"),
        ({"runtime": "openvino", "precision": "q4_0"}, ConfigError, "takes one of fp32, bf16, int8, int4"),
        ({"runtime": "gguf", "precision": "q5_k"}, ConfigError, "takes one of f32, f16"),
        ({"example": {"input_ids": [[]]}}, ConfigError, "empty"),
        ({"example": {"input_ids": [[3] * 65]}}, ConfigError, "65 tokens and the model 64 positions"),
        ({"example": {"input_ids": [[3] * 64]}}, ConfigError, "fill all 64 positions"),
        ({"example": {"input_ids": IDS, "attention_mask": MASK[:, ::-1]}}, ConfigError, "padded on the right"),
        ({"example": None}, ConfigError, "an example is needed"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, changes, error, words):
    needs("openvino", "gguf")
    asked = {"runtime": "openvino", "precision": "fp32", "example": EXAMPLE} | changes
    with pytest.raises(error, match=words):
        icd.export(tiny_decoder(dtype=torch.float32), None, tmp_path / "out", **asked)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        ("mistral", {"sliding_window": 8}, "sliding_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "type dynamic"),
    ],
)
def test_what_no_graph_can_hold_is_named(tmp_path, kind, changes, words):
    needs("openvino")
    with pytest.raises(ResourceError, match=words):
        icd.export(tiny_decoder(kind, dtype=torch.float32, **changes), None, tmp_path / "out", example=EXAMPLE)
