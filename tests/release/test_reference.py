"""The kept copy of a run: scrubbed, without weights, its manifest true."""

import json

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.paths import project_root
from icd_lib.release.reference import save_reference
from icd_lib.run.artifacts import open_run
from icd_lib.run.manifest import write_manifest
from icd_lib.storage.atomic import sha256_file

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55"
    "0000000a49444154789c63680000008200812ed46bb50000000049454e44ae426082"
)


def test_the_copy_is_scrubbed_complete_but_for_weights_and_its_manifest_is_true(tmp_path):
    run = open_run("bert", out=tmp_path)
    run.write_json("setup/setup.json", {"model": {}, "badges": [], "environment": {"path": f"{project_root()}/x"}})
    run.path("index.html").write_text(f"<p>{project_root()}/x</p>")
    run.path("linear", "W.ffn.npz").write_bytes(b"graph")
    run.path("figures", "w.png").write_bytes(PNG)
    run.path("linear", "model", "model.safetensors").write_bytes(b"weights")
    run.path("old").write_text("")
    write_manifest(run)
    run.log("00_setup_check")
    kept = tmp_path / "reference" / "bert"
    copied = save_reference(run.dir, kept)
    assert not {"linear/model/model.safetensors", "linear/W.ffn.npz"} & set(copied)
    assert {"run.log", "index.html", "figures/w.png"} <= set(copied)
    assert (kept / "figures" / "w.png").read_bytes() == PNG
    assert "linear/W.ffn.npz" in json.loads((kept / "manifest.json").read_text())["files"]
    assert not any(str(project_root()).encode() in p.read_bytes() for p in kept.rglob("*") if p.is_file())
    files = json.loads((kept / "manifest.json").read_text())["files"]
    assert files["index.html"] == sha256_file(kept / "index.html") != sha256_file(run.dir / "index.html")
    told = (kept / "manifest.txt").read_text().partition("# files\n")[2].splitlines()
    assert told == [f"{sha}  {rel}" for rel, sha in files.items()]
    assert files["linear/model/model.safetensors"] == sha256_file(run.dir / "linear/model/model.safetensors")
    run.path("old").unlink()
    save_reference(run.dir, kept)
    assert not (kept / "old").exists()


def test_only_a_run_is_copied_and_only_a_run_is_replaced(tmp_path):
    with pytest.raises(ArtifactError, match="holds no run"):
        save_reference(tmp_path, tmp_path / "x")
    run = open_run("bert", out=tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ArtifactError, match="is no run"):
        save_reference(run.dir, tmp_path / "mine")


def test_a_sweep_is_copied_with_its_runs(tmp_path):
    run = open_run("bert", out=tmp_path / "rates")
    run.write_json("setup/setup.json", {"model": {}, "badges": [], "environment": {"path": f"{project_root()}/x"}})
    run.path("linear", "model", "model.safetensors").write_bytes(b"weights")
    write_manifest(run)
    for name, text in {"sweep.json": "{}", "points.jsonl": "", "figures/w.png": PNG, "index.html": "<p>"}.items():
        path = tmp_path / "rates" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    kept = tmp_path / "reference" / "rates"
    for _ in range(2):
        copied = save_reference(tmp_path / "rates", kept)
        assert {"sweep.json", "points.jsonl", "figures/w.png", "bert/config.lock.json", "bert/manifest.json"} <= set(
            copied
        )
        assert "bert/linear/model/model.safetensors" not in copied
        assert str(project_root()) not in (kept / "bert" / "setup" / "setup.json").read_text()
