"""GGUF files: what is read back is what was written, by Transformers' reader and, where it is, by llama.cpp."""

import numpy as np
import pytest
import torch
import transformers

from icd_lib.decoding import DECODERS
from icd_lib.decoding.grouped import Grouped
from icd_lib.deploy.gguf import TYPES, write_gguf
from icd_lib.deploy.gguf_tokenizer import tokenizer_fields
from icd_lib.errors import ConfigError, ResourceError, TransformError
from icd_lib.models.checkpoint.gguf import read_config, read_header
from icd_lib.models.families import find_adapter
from icd_lib.optional import load_optional
from tests.decoding.test_contract import uneven
from tests.tiny_decoders import tiny_decoder
from tests.tiny_words import SPECIAL, TEMPLATE, tiny_words

try:
    gguf = load_optional("gguf")
    load_optional("accelerate")
except ResourceError as error:
    pytest.skip(error.args[0], allow_module_level=True)

IDS = torch.tensor([[1, 7, 9, 30, 12, 44], [1, 4, 22, 60, 8, 3]])
SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "vocab_size": 64}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2}
KINDS = ("llama", "qwen2", "qwen3")
AWAY = {"f32": 1e-6, "f16": 2e-3, "q8_0": 2e-2, "q4_0": 0.5, "q4_1": 0.5}  # of the largest weight of a tensor


def decoder(kind="llama", **changes):
    return tiny_decoder(kind, dtype=torch.float32, spread=0.1, **(SIZES | changes))


def read_back(path, model):
    config = read_config(path, type(model.config))
    words = {"gguf_file": path.name, "config": config, "dtype": torch.float32}
    return type(model).from_pretrained(path.parent, **words).eval().requires_grad_(False)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_float_file_is_the_model(tmp_path, kind, tied):
    model = decoder(kind, tie_word_embeddings=tied)
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32")
    assert read_header(file.path)["architecture"] == kind
    again = read_back(file.path, model)
    assert torch.allclose(logits(again), logits(model), atol=1e-4 * logits(model).abs().max())
    for name, parameter in model.named_parameters():
        assert torch.equal(file.weights[name], parameter)


def test_the_size_of_a_head_is_read_from_the_file(tmp_path):
    """Transformers gives Qwen3 heads of 128 whatever the file says."""
    model = decoder("qwen3", head_dim=32)
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32")
    assert read_config(file.path, type(model.config)).head_dim == 32


def test_slower_rotary_embeddings_are_factors_in_the_file(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    model = decoder(rope_parameters=rope | {"original_max_position_embeddings": 32})
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file.path).tensors}
    plain = 1e4 ** -(np.arange(0, 16, 2) / 16)
    assert np.allclose(plain / tensors["rope_freqs.weight"], model.model.rotary_emb.inv_freq.numpy(), rtol=1e-6)
    assert tensors["rope_freqs.weight"].max() == pytest.approx(8) and "rope_freqs.weight" not in file.weights
    half = write_gguf(model.bfloat16(), None, tmp_path / "half.gguf", kind="f32")  # its buffers are rounded too
    (again,) = (t.data for t in gguf.GGUFReader(half.path).tensors if t.name == "rope_freqs.weight")
    assert np.array_equal(again, tensors["rope_freqs.weight"])


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_rounds_as_far_as_its_bits(tmp_path, type_):
    model = decoder()
    file = write_gguf(model, None, tmp_path / "model.gguf", kind=type_)
    again = dict(read_back(file.path, model).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(again[name], file.weights[name], atol=1e-6)
        away = (again[name] - parameter).abs().max() / parameter.abs().max()
        assert away <= AWAY[type_], name
        table = "embed" in name
        assert parameter.dim() == 1 or type_ == "f32" or away > 0
        if type_.startswith("q4") and parameter.dim() == 2:
            assert (away < AWAY["q8_0"]) == table, "embedding and head keep eight bits"


def test_uneven_layers_are_padded_to_one_shape(tmp_path):
    model = uneven()
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32")
    again = read_back(file.path, model)
    assert again.config.intermediate_size == 25 and again.config.num_key_value_heads == 3
    assert torch.allclose(logits(again), logits(model), atol=1e-4 * logits(model).abs().max())


def test_token_maps_are_folded(tmp_path):
    from icd_lib.axes.permute import permute

    model = tiny_decoder(dtype=torch.float32)
    expected = logits(model)
    vocab = next(axis for axis in find_adapter(model).axes() if axis.name == "vocab")
    permute(model, vocab, np.roll(np.arange(vocab.size), 1))
    assert torch.equal(logits(model), expected)
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32")
    assert torch.allclose(logits(read_back(file.path, model)), expected, atol=1e-5)


def codes(shape, bits, zeros, group=32, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = shape
    scales = rng.uniform(0.01, 0.02, (rows, columns // group)).astype(np.float16).astype(np.float32)
    offsets = np.full(scales.shape, zeros, np.float32) if np.isscalar(zeros) else zeros(rng, scales.shape)
    return Grouped(rng.integers(0, 2**bits, shape).astype(np.uint8), scales, offsets, bits)


def any_zeros(rng, shape):
    return rng.integers(0, 16, shape).astype(np.float32)


@pytest.mark.parametrize(
    "bits, zeros, group, expected, exact",
    [
        (4, 8, 32, "Q4_0", True),
        (4, any_zeros, 32, "Q4_1", False),
        (4, 8, 64, "Q4_0", True),
        (3, any_zeros, 32, "Q4_1", False),
        (8, 128, 64, "Q8_0", True),
    ],
)
@pytest.mark.parametrize("name", ["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"])
def test_codes_are_stored_as_they_are(tmp_path, name, bits, zeros, group, expected, exact):
    model, key = decoder(), f"model.layers.1.{name}.weight"
    one = codes(tuple(model.get_parameter(key).shape), bits, zeros, group)
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32", grouped={key: one})
    assert file.types[expected] == 1
    again, meant = read_back(file.path, model).get_parameter(key).numpy(), one.weight()
    assert np.array_equal(again, meant) if exact else np.abs(again - meant).max() <= 2**-11 * np.abs(meant).max() * 16


def test_codes_that_no_block_holds_are_refused(tmp_path):
    model, path = decoder(), tmp_path / "model.gguf"
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(TransformError, match="groups of 16 columns and GGUF's blocks have 32"):
        write_gguf(model, None, path, grouped={name: codes((96, 64), 4, 8, 16)})
    with pytest.raises(TransformError, match="quantise symmetrically"):
        write_gguf(model, None, path, grouped={name: codes((96, 64), 8, 5, 32)})
    with pytest.raises(TransformError, match="llama.cpp takes one each"):
        write_gguf(uneven(), None, path, grouped={name: codes((96, 64), 4, 8, 32)})
    assert not any(tmp_path.iterdir())


def test_what_has_no_file_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(ConfigError, match="one of f32, f16"):
        write_gguf(decoder(), None, path, kind="q5_k")
    with pytest.raises(ConfigError, match="rotary embeddings of type linear"):
        write_gguf(decoder(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}), None, path)
    with pytest.raises(ConfigError, match="sliding window of 8"):
        write_gguf(decoder("mistral", sliding_window=8), None, path)
    with pytest.raises(ConfigError, match="GemmaForCausalLM is written to no GGUF file; models of type llama"):
        write_gguf(decoder("gemma"), None, path)
    with pytest.raises(ConfigError, match="no language head"):
        write_gguf(tiny_decoder("backbone", dtype=torch.float32), None, path)
    assert not any(tmp_path.iterdir())


def test_words_are_read_back(tmp_path):
    words, model = tiny_words(), decoder(vocab_size=264)
    file = write_gguf(model, words, tmp_path / "model.gguf")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.path.name)
    for text in ("the thin man in the 1977 band", f"{SPECIAL[1]}user then{SPECIAL[2]}", "ü § \n\t"):
        assert again(text)["input_ids"] == words(text)["input_ids"], text
    assert again.chat_template == TEMPLATE and again.eos_token == SPECIAL[2]
    copied = tokenizer_fields(None, 264, file.path)
    assert {key: value for key, value, *_ in copied} == {key: value for key, value, *_ in tokenizer_fields(words, 264)}


def test_words_of_another_size_or_kind_are_refused(tmp_path):
    file = write_gguf(decoder(vocab_size=264), tiny_words(), tmp_path / "model.gguf")
    with pytest.raises(ConfigError, match="264 tokens and the model 64 rows"):
        tokenizer_fields(None, 64, file.path)
    with pytest.raises(ConfigError, match="264 tokens and the model 64 rows"):
        tokenizer_fields(tiny_words(), 64)


def test_splitting_is_named():
    fields = dict(field[:2] for field in tokenizer_fields(tiny_words(digits=False), 264))
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    fields = dict(field[:2] for field in tokenizer_fields(tiny_words(), 270))
    assert fields["tokenizer.ggml.pre"] == "smollm" and fields["tokenizer.ggml.tokens"][269] == "[PAD269]"


@pytest.mark.wide
@pytest.mark.parametrize("kind", KINDS)
def test_llamacpp_says_the_same(tmp_path, kind):
    row = DECODERS["llamacpp"]
    try:
        row.check()
    except ResourceError as error:
        pytest.skip(error.args[0])
    model = decoder(kind, head_dim=16)
    file = write_gguf(model, None, tmp_path / "model.gguf", kind="f32")
    opened = row.prepare(None, threads=1, file=file.path, texts=2, context=32)
    try:
        found = opened.prefill(IDS.numpy())
    finally:
        opened.close()
    expected = logits(model)[:, -1].numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
