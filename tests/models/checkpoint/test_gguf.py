import shutil

import numpy as np
import pytest

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.models.checkpoint.gguf import gguf_folder, is_gguf, read_header
from icd_lib.models.checkpoint.source import resolve_checkpoint

gguf = pytest.importorskip("gguf")


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


def test_a_file_without_a_tokenizer_leaves_nothing(tmp_path, cache):
    with pytest.raises(ArtifactError, match="a.gguf cannot be read"):
        gguf_folder(write(tmp_path / "a.gguf"))
    assert not list(cache.glob("gguf-*")) and not list(cache.glob(".*partial"))
