"""A labelled folder becomes splits that share no text; what is not one is refused with the cure."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from icd_lib.data.load import load_text_data
from icd_lib.errors import ArtifactError, ConfigError, ResourceError


def write_csv(folder, train=60, validation=20, separator=","):
    suffix = {",": "csv", "\t": "tsv"}[separator]
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("validation", validation)):
        rows = [f'"{part} film number {i}"{separator}{i % 2}' for i in range(count)]
        (folder / f"{part}.{suffix}").write_text("\n".join([f"sentence{separator}label", *rows]))
    return folder


@pytest.mark.parametrize("separator", [",", "\t"])
def test_the_test_split_is_the_validation_part_and_the_rest_comes_from_train(tmp_path, separator):
    data = load_text_data(str(write_csv(tmp_path / "films", separator=separator)), validation=10, probe=15)
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "test": 20,
        "validation": 10,
        "probe": 15,
        "calibration": 35,
    }
    assert all(text.startswith("validation") for text in data.texts("test"))
    assert all(text.startswith("train") for name in ("validation", "probe") for text in data.texts(name))
    assert data.labels["label"][data.splits["test"]].tolist() == [0, 1] * 10
    assert not data.retrieval and data.name == "films" and data.provenance["source"] == "path"


def test_a_train_text_that_is_also_in_the_test_split_is_dropped(tmp_path):
    folder = write_csv(tmp_path / "films")
    with (folder / "train.csv").open("a") as file:
        file.write("\nValidation film: number 3!,1\n")
    data = load_text_data(str(folder))
    assert "Validation film: number 3!" in data.views[0]
    used = np.concatenate(list(data.splits.values()))
    assert len(used) == 80 and "Validation film: number 3!" not in [data.views[0][i] for i in used]


def test_the_data_folder_variable_is_searched(tmp_path, monkeypatch):
    write_csv(tmp_path / "sst2")
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path / "sst2")
    assert load_text_data("sst2", test=5).splits["test"].size == 5


def test_parquet_is_read_or_the_reader_is_named(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    expected = load_text_data(str(write_csv(tmp_path / "csv")))
    (tmp_path / "parquet").mkdir()
    for part in ("train", "validation"):
        frame = pandas.read_csv(tmp_path / "csv" / f"{part}.csv")
        frame.to_parquet(tmp_path / "parquet" / f"{part}-00000-of-00001.parquet")
    found = load_text_data(str(tmp_path / "parquet"))
    assert found.provenance["sha256"] == expected.provenance["sha256"]


def test_without_the_datasets_package_or_a_hub_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResourceError, match=r"pip install datasets.*ICD_DATA_DIR/sst2"):
        load_text_data("sst2")


class FakeParts(dict):
    """What `datasets.load_dataset` returns, as far as it is used: parts with `to_list`."""

    def __init__(self, parts):
        super().__init__({name: SimpleNamespace(to_list=rows.copy) for name, rows in parts.items()})


def fake_datasets(monkeypatch, load_dataset):
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_hub_data_goes_through_the_same_checks(monkeypatch):
    asked = []

    def load_dataset(name):
        asked.append(name)
        rows = [{"sentence": f"film {i}", "label": i % 2} for i in range(18)]
        return FakeParts({"train": rows[9:], "validation": rows[:9]})

    fake_datasets(monkeypatch, load_dataset)
    data = load_text_data("sst2")
    assert asked == ["stanfordnlp/sst2"] and len(data.splits["test"]) == 9
    fake_datasets(monkeypatch, lambda name: FakeParts({"train": []}))
    with pytest.raises(ConfigError, match="train and validation are needed"):
        load_text_data("sst2")


def test_an_unreachable_hub_is_a_resource_error(monkeypatch):
    def load_dataset(name):
        raise ConnectionError("no route")

    fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(ResourceError, match="neither cached nor reachable.*data.name=bible"):
        load_text_data("sst2")


@pytest.mark.parametrize(
    "content, message",
    [
        ("text,target\nx,1\n", "columns"),
        ("", "columns"),
        ("text,label\nx,good\n", "row 1.*'good'"),
        ("text,label\nx,-1\n", "row 1.*'-1'"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    folder = write_csv(tmp_path / "films")
    (folder / "train.csv").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        load_text_data(str(folder))


def test_an_unreadable_or_incomplete_folder_is_refused(tmp_path):
    folder = write_csv(tmp_path / "films")
    (folder / "train.csv").write_bytes(b"sentence,label\n\xff\xfe\x00,1\n")
    with pytest.raises(ArtifactError, match=r"train\.csv cannot be read"):
        load_text_data(str(folder))
    (folder / "train.csv").unlink()
    with pytest.raises(ResourceError, match=r"no train\*\.csv"):
        load_text_data(str(folder))
