"""Arrays and words come back as they were written, or the file is refused."""

import numpy as np
import pytest

from icd_lib.errors import ArtifactError
from icd_lib.storage import tensor_file
from icd_lib.storage.tensor_file import load_tensors, save_tensors

ARRAYS = {
    "a/b": np.arange(12, dtype=np.float64).reshape(3, 4).T,  # not contiguous
    "empty": np.empty((0, 5), np.float32),
    "numbers": np.array([np.finfo(np.float32).tiny, -0.0, 1 / 3], np.float32),
}


def test_arrays_and_words_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    save_tensors(ARRAYS, path, {"split": "unseen", "naïve": "é"})
    arrays, meta = load_tensors(path)
    assert meta == {"split": "unseen", "naïve": "é"} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == np.ascontiguousarray(array).tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"], "nothing half-written stays"
    save_tensors({"a": np.ones(2)}, path, {})
    assert load_tensors(path)[0].keys() == {"a"}, "the new file takes the old one's place"


def test_a_file_that_is_cut_short_missing_or_something_else_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ArtifactError, match="missing or damaged"):
        load_tensors(path)
    save_tensors(ARRAYS, path, {})
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:9], b"", b"\xff" * 40):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="run the stage that writes it again"):
            load_tensors(path)


def test_where_no_folder_can_be_made_the_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write .*x.safetensors"):
        save_tensors(ARRAYS, tmp_path / "file" / "x.safetensors", {})


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    path = tmp_path / "x.safetensors"
    save_tensors(ARRAYS, path, {"a": "1"})
    monkeypatch.setattr(tensor_file, "save_file", half)
    with pytest.raises(ArtifactError, match="cannot write .*no space left"):
        save_tensors(ARRAYS, path, {"a": "2"})
    assert load_tensors(path)[1] == {"a": "1"} and [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
