"""A labelled folder becomes a domain of one's own; what is not one is refused with the cure."""

import sys
from types import SimpleNamespace

import pytest

from icd_lib.data.domains import group_domains
from icd_lib.data.labelled import load_own_domain
from icd_lib.errors import ArtifactError, ConfigError, ResourceError


def write_csv(folder, train=60, validation=20, separator=","):
    suffix = {",": "csv", "\t": "tsv"}[separator]
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("validation", validation)):
        rows = [f'"{part} film number {i}"{separator}{i % 3}' for i in range(count)]
        (folder / f"{part}.{suffix}").write_text("\n".join([f"sentence{separator}label", *rows]))
    return folder


@pytest.mark.parametrize("separator", [",", "\t"])
def test_both_parts_become_one_domain_whose_texts_stand_alone(tmp_path, separator):
    own = load_own_domain(str(write_csv(tmp_path / "films", separator=separator)))
    assert (own.name, len(own), list(own.labels)) == ("own", 80, ["label"])
    assert sorted(own.texts) == sorted(
        [f"train film number {i}" for i in range(60)] + [f"validation film number {i}" for i in range(20)]
    )
    assert own.labels["label"].tolist() == [int(text.split()[-1]) % 3 for text in own.texts]
    assert len(set(own.documents)) == 80 and own.pairs is None and not own.same_document
    assert own.head_classes == 3, "a head for these classes is the user's and judges"
    assert (own.provenance["name"], own.provenance["source"]) == ("films", "path")


def test_the_order_follows_the_seed_and_the_hash_of_the_data_does_not(tmp_path):
    folder = str(write_csv(tmp_path / "films"))
    first, again, other = (load_own_domain(folder, seed=seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 and first.texts != other.texts and sorted(first.texts) == sorted(other.texts)
    assert first.provenance == other.provenance
    (tmp_path / "films" / "train.csv").write_text("sentence,label\none film only,0\n")
    assert load_own_domain(folder).provenance["sha256"] != first.provenance["sha256"]


def test_of_equal_texts_one_stays(tmp_path):
    folder = write_csv(tmp_path / "films")
    with (folder / "train.csv").open("a") as file:
        file.write("\nValidation film: number 3!,0")
    own = load_own_domain(str(folder))
    spelled = [text for text in own.texts if text.lower().replace(":", "").rstrip("!") == "validation film number 3"]
    assert len(own) == 80 and len(spelled) == 1


def test_it_calibrates_and_judges_like_any_seen_domain(tmp_path):
    own = load_own_domain(str(write_csv(tmp_path / "films")))
    found = group_domains(["own"], [], [], given={"own": own})
    parts = [found.judged["seen"]["own"].texts, found.judged["validation"]["own"].texts, found.calibration["own"]]
    assert [len(part) for part in parts] == [32, 12, 36]
    assert sorted(sum(parts, [])) == sorted(own.texts)
    assert found.judged["seen"]["own"].head_classes


def test_the_data_folder_variable_is_searched(tmp_path, monkeypatch):
    write_csv(tmp_path / "sst2", train=7, validation=5)
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path / "sst2")
    assert len(load_own_domain("sst2")) == 12


def test_parquet_is_read_or_the_reader_is_named(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    expected = load_own_domain(str(write_csv(tmp_path / "csv")))
    (tmp_path / "parquet").mkdir()
    for part in ("train", "validation"):
        frame = pandas.read_csv(tmp_path / "csv" / f"{part}.csv")
        frame.to_parquet(tmp_path / "parquet" / f"{part}-00000-of-00001.parquet")
    found = load_own_domain(str(tmp_path / "parquet"))
    assert found.sha256 == expected.sha256 and found.provenance["sha256"] == expected.provenance["sha256"]


def test_without_a_parquet_reader_it_is_named(tmp_path, monkeypatch):
    for part in ("train", "validation"):
        (tmp_path / f"{part}.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ResourceError, match="pip install pandas pyarrow"):
        load_own_domain(str(tmp_path))


def test_without_the_datasets_package_or_a_hub_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResourceError, match=r"pip install datasets.*ICD_DATA_DIR/sst2"):
        load_own_domain("sst2")


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
        rows = [{"sentence": f"the film number {i}", "label": i % 2} for i in range(18)]
        return FakeParts({"train": rows[9:], "validation": rows[:9]})

    fake_datasets(monkeypatch, load_dataset)
    own = load_own_domain("sst2")
    assert asked == ["stanfordnlp/sst2"] and len(own) == 18 and own.provenance["source"] == "hub"
    fake_datasets(monkeypatch, lambda name: FakeParts({"train": []}))
    with pytest.raises(ConfigError, match="train and validation are needed"):
        load_own_domain("sst2")


def test_an_unreachable_hub_is_a_resource_error(monkeypatch):
    def load_dataset(name):
        raise ConnectionError("no route")

    fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(ResourceError, match="neither cached nor reachable.*leave data.name out"):
        load_own_domain("sst2")


@pytest.mark.parametrize(
    "content, message",
    [
        ("text,target\nx,1\n", "columns"),
        ("", "columns"),
        ("text,label\nx,good\n", "row 1.*'good'"),
        ("text,label\nx,-1\n", "row 1.*'-1'"),
        ("text,label\nx,1\ny\n", "row 2.*'None'"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    folder = write_csv(tmp_path / "films")
    (folder / "train.csv").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        load_own_domain(str(folder))


def test_an_unreadable_or_incomplete_folder_is_refused(tmp_path):
    folder = write_csv(tmp_path / "films")
    (folder / "train.csv").write_bytes(b"sentence,label\n\xff\xfe\x00,1\n")
    with pytest.raises(ArtifactError, match=r"train\.csv cannot be read"):
        load_own_domain(str(folder))
    (folder / "train.csv").unlink()
    with pytest.raises(ResourceError, match=r"no train\*\.csv"):
        load_own_domain(str(folder))
