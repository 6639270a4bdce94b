import shutil
import threading

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from icd_lib.deploy.gguf import write_gguf
from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.models.checkpoint.gguf import check_tensors, gguf_folder, is_gguf, parsed_once, read_config, read_header
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.optional import load_optional
from tests.tiny_decoders import tiny_decoder
from tests.tiny_words import tiny_words

try:
    gguf = load_optional("gguf")
    load_optional("accelerate")
except ResourceError as error:
    pytest.skip(error.args[0], allow_module_level=True)

IDS = torch.tensor([[1, 7, 9, 30, 12, 44, 2, 5]])
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32, "rope_theta": 1e4}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, architecture="llama", sizes=True):
    """A file with a header of llama.cpp's and one tensor: no model."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("mit")
    if sizes:
        for add in (writer.add_block_count, writer.add_embedding_length, writer.add_feed_forward_length):
            add(1)
        writer.add_head_count(1)
        writer.add_context_length(8)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_is_read(tmp_path):
    found = read_header(write(tmp_path / "a.gguf"))
    assert found == {"architecture": "llama", "license": "mit", "name": "tiny", "types": "F32 1"}


def test_files_are_told_by_their_first_bytes(tmp_path):
    renamed = tmp_path / "weights"
    shutil.copy(write(tmp_path / "a.gguf"), renamed)
    (tmp_path / "text").write_text("hello")
    assert (is_gguf(renamed), is_gguf(tmp_path / "text"), is_gguf(tmp_path / "none.gguf")) == (True, False, False)


@pytest.mark.parametrize("length", [3, 20, 100, -40])
def test_a_truncated_file_is_refused_by_name(tmp_path, cache, length):
    path = write(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="a.gguf is no whole GGUF file"):
        resolve_checkpoint(str(path), family="llama")
    assert not list(cache.glob("gguf-*"))


def test_an_unknown_block_type_is_refused(tmp_path, cache):
    path = write(tmp_path / "a.gguf")
    data = path.read_bytes()
    place = data.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8  # n_dims, dims, then the type
    path.write_bytes(data[:place] + (200).to_bytes(4, "little") + data[place + 4 :])
    with pytest.raises(ArtifactError, match="unknown type"):
        gguf_folder(path)


def test_another_architecture_is_refused_by_name(tmp_path, cache):
    with pytest.raises(ConfigError, match="architecture 'mamba'.*'llama'"):
        gguf_folder(write(tmp_path / "a.gguf", "mamba"))


def test_a_file_without_a_models_sizes_is_refused(tmp_path, cache):
    with pytest.raises(ArtifactError, match="no whole model: it has no block_count"):
        gguf_folder(write(tmp_path / "a.gguf", sizes=False))


def decoder(**changes):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_attention_heads": 4, "vocab_size": 264}
    return tiny_decoder(dtype=torch.float32, **(sizes | {"num_key_value_heads": 2} | changes))


@pytest.fixture
def whole(tmp_path):
    """A file with a whole model and no tokenizer."""
    return write_gguf(decoder(), None, tmp_path / "whole.gguf", kind="f32").path


def changed(source, target, keys=None, tensors=None, without=()):
    """A copy of a GGUF file with other keys and more or fewer tensors."""
    reader, keys = gguf.GGUFReader(source), keys or {}
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in {"general.architecture", *keys}:
            writer.add_key_value(name, field.contents(), *field.types[:2])
    for name, value in keys.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(name, value)
    for tensor in reader.tensors:
        if tensor.name not in without:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, np.asarray(value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize("rope", [None, LLAMA3], ids=["plain", "llama3"])
def test_a_file_gives_the_model_that_it_was_written_from(tmp_path, cache, rope):
    """Transformers' reader leaves the factors of the rotary embeddings out."""
    model = decoder(rope_parameters=rope) if rope else decoder()
    write_gguf(model, tiny_words(), tmp_path / "a.gguf", kind="f32")
    again = AutoModelForCausalLM.from_pretrained(gguf_folder(tmp_path / "a.gguf"), dtype=torch.float32).eval()
    if rope:
        assert again.config.rope_parameters == rope
    with torch.no_grad():
        given, found = model(IDS).logits, again(IDS).logits
        plain = decoder()(IDS).logits
    assert torch.allclose(found, given, atol=1e-4 * given.abs().max())
    assert torch.allclose(found, plain, atol=1e-4 * given.abs().max()) == (rope is None)


@pytest.mark.parametrize(
    ("keys", "tensors", "says"),
    [
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, {}, r"are scaled \(yarn\)"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {}, r"are scaled \(linear\)"),
        ({"llama.rope.scale_linear": 2.0}, {}, r"are scaled \(linear\)"),
        ({"llama.rope.dimension_count": 8}, {}, "turns 8 of a head's 16 dims"),
        ({}, {"rope_factors_long.weight": np.ones(8)}, "rope_factors_long.weight .longrope."),
        ({}, {"rope_freqs.weight": np.ones(7)}, "7 factors for 8 rotary pairs"),
        ({}, {"rope_freqs.weight": [1, 3, 2, 5, 4, 8, 8, 8]}, "are not those of rotary embeddings of type llama3"),
    ],
)
def test_other_rotary_embeddings_are_refused_by_name(tmp_path, whole, keys, tensors, says):
    path = changed(whole, tmp_path / "a.gguf", keys, tensors)
    with pytest.raises(ConfigError, match=f"a.gguf cannot be read: .*{says}.*take the model as safetensors"):
        read_config(path, LlamaConfig)


def test_factors_of_one_and_no_scaling_change_nothing(tmp_path, whole):
    keys = {"llama.rope.scaling.type": "none", "llama.rope.scale_linear": 1.0}
    path = changed(whole, tmp_path / "a.gguf", keys, {"rope_freqs.weight": np.ones(8)})
    assert read_config(path, LlamaConfig).rope_parameters == read_config(whole, LlamaConfig).rope_parameters


def test_a_mixture_of_experts_is_refused_by_name(tmp_path, whole):
    """Mixtral's files are of architecture "llama"."""
    with pytest.raises(ConfigError, match="a.gguf holds a mixture of 8 experts"):
        gguf_folder(changed(whole, tmp_path / "a.gguf", {"llama.expert_count": 8}))
    assert read_header(changed(whole, tmp_path / "b.gguf", {"llama.expert_count": 0}))["architecture"] == "llama"


def test_weights_that_are_missing_or_have_no_place_are_refused(tmp_path, whole):
    """Transformers would draw the first at random and leave the second out."""
    config = read_config(whole, LlamaConfig)
    check_tensors(whole, LlamaForCausalLM, config)
    fewer = changed(whole, tmp_path / "a.gguf", without={"blk.1.ffn_up.weight", "output_norm.weight"})
    with pytest.raises(ArtifactError, match="a.gguf lacks 2 tensors of its model, such as blk.1.ffn_up.weight"):
        check_tensors(fewer, LlamaForCausalLM, config)
    more = changed(whole, tmp_path / "b.gguf", tensors={"blk.0.attn_q.bias": np.ones(64)})
    with pytest.raises(ConfigError, match="b.gguf holds blk.0.attn_q.bias, for which LlamaForCausalLM has no place"):
        check_tensors(more, LlamaForCausalLM, config)


def test_gemma_is_refused_for_as_long_as_transformers_does_not_read_it(tmp_path, cache):
    """docs/DECODER.md says so; Gemma 2 and 3, which it reads, are refused as models."""
    assert "gemma" not in GGUF_SUPPORTED_ARCHITECTURES
    for architecture in ("gemma", "gemma2", "gemma3"):
        with pytest.raises(ConfigError, match=f"architecture '{architecture}'"):
            gguf_folder(write(tmp_path / f"{architecture}.gguf", architecture))


def test_a_file_is_parsed_once_and_the_package_is_left_as_it_was(tmp_path, cache, monkeypatch):
    made = []

    class Counted(gguf.GGUFReader):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    names = gguf.get_tensor_name_map
    write_gguf(decoder(), tiny_words(), tmp_path / "a.gguf", kind="f32")
    made.clear()
    gguf_folder(tmp_path / "a.gguf")
    assert len(made) == 1
    with pytest.raises(ConfigError):
        gguf_folder(write(tmp_path / "b.gguf", "mamba"))
    assert gguf.GGUFReader is Counted and gguf.get_tensor_name_map is names


def test_two_threads_leave_the_package_as_it_was():
    reader, inside, go = gguf.GGUFReader, threading.Event(), threading.Event()

    def second():
        with parsed_once():
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=second)
    with parsed_once():
        thread.start()
        assert not inside.wait(0.3)
    go.set()
    thread.join()
    assert inside.is_set() and gguf.GGUFReader is reader


def test_a_file_without_a_tokenizer_leaves_nothing(whole, cache):
    with pytest.raises(ArtifactError, match="whole.gguf cannot be read"):
        gguf_folder(whole)
    assert not list(cache.glob("gguf-*")) and not list(cache.glob(".*partial"))
