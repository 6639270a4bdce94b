"""Packing: the same bytes from the same inputs, scrubbed, nothing that may not be passed on, and refusals."""

import fcntl
import io
import json
import os
import re
import shutil
import tomllib
import zipfile

import pytest
import yaml
from packed_run import write_finished_run

from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.paths import project_root
from icd_lib.release import package as packaging
from icd_lib.release.package import find_runs, pack, why_unfit, zip_bytes
from icd_lib.run.artifacts import open_run
from icd_lib.run.manifest import write_manifest
from icd_lib.storage.atomic import sha256_file
from icd_lib.version import VERSION


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_finished_run(tmp_path_factory.mktemp("made") / "outputs").dir


@pytest.fixture
def root(made, tmp_path):
    """A project with one finished run and its licence."""
    shutil.copytree(made, tmp_path / "outputs" / "bert")
    shutil.copy(project_root() / "LICENSE", tmp_path / "LICENSE")
    return tmp_path


def again(folder):
    """Make the manifest true to what was changed in a run."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {rel: sha256_file(folder / rel) for rel in packaging.list_files(folder)}
    path.write_text(json.dumps(manifest))


def test_the_same_inputs_give_the_same_bytes(root, tmp_path):
    first, contents = pack(root=root)
    assert first == root / "artifacts" / "icd_artifacts.zip" and list(contents["runs"]) == ["runs/bert"]
    for path in (root / "outputs").rglob("*"):
        os.utime(path, (1, 1))
    (root / "outputs" / "bert" / "report.csv").chmod(0o600)
    second, _ = pack(target=tmp_path / "second.zip", root=root)
    assert first.read_bytes() == second.read_bytes()
    (root / "LICENSE").write_text("other")
    assert pack(target=tmp_path / "third.zip", root=root)[0].read_bytes() != first.read_bytes()


def test_what_is_in_it(root):
    path, contents = pack(root=root)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == sorted(names) and archive.testzip() is None
        assert json.loads(archive.read("contents.json")) == contents
        assets = json.loads(archive.read("assets.json"))
        assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
    for rel in ("verdict.json", "config.lock.json", "run.log", "manifest.json", "report.html", "03_measure.ipynb"):
        assert f"runs/bert/{rel}" in names
    weights = "runs/bert/iterative/model/model.safetensors"
    assert {"LICENSE", "assets.json"} <= set(names) and weights not in names
    assert [(asset["path"], asset["sha256"]) for asset in assets["assets"]] == [
        (weights, sha256_file(root / "outputs" / "bert" / "iterative" / "model" / "model.safetensors"))
    ]
    assert assets["provenance"]["runs/bert"]["model"]["licence"] == "mit"
    assert set(contents["files"]) == set(names) - {"contents.json"}


def test_leaks_are_scrubbed_and_the_manifest_is_true_to_what_is_packed(root):
    folder = root / "outputs" / "bert"
    (folder / "report.csv").write_text("by,jane.doe@acme.org\nat,/home/jdoe/x\n")
    again(folder)
    path, contents = pack(root=root)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("runs/bert/report.csv") == b"by,<email>\nat,<home>/x\n"
        listed = json.loads(archive.read("runs/bert/manifest.json"))["files"]["report.csv"]
    entry = contents["files"]["runs/bert/report.csv"]
    assert entry["sha256"] == listed and entry["sha256_before_scrubbing"] == sha256_file(folder / "report.csv")
    assert str(project_root()).encode() not in path.read_bytes()


def test_what_cannot_be_cleaned_is_refused_and_nothing_is_written(root):
    folder = root / "outputs" / "bert"
    (folder / "notes.dat").write_bytes(b"\xff\x80")
    again(folder)
    with pytest.raises(ArtifactError, match=r"notes\.dat cannot be cleaned"):
        pack(root=root)
    assert not (root / "artifacts").exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "report.csv").write_text("changed"), r"report\.csv was changed"),
        (lambda folder: (folder / "report.csv").unlink(), r"report\.csv is gone"),
        (lambda folder: (folder / "verdict.json").unlink(), "not finished"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "new.txt").write_text("new"), r"new\.txt was changed"),
    ],
)
def test_a_run_that_is_not_whole_is_refused_by_name_and_left_out_of_all_runs(root, damage, says):
    folder = root / "outputs" / "bert"
    shutil.copytree(folder, root / "outputs" / "reference" / "bert")
    damage(folder)
    with pytest.raises(ArtifactError, match=says):
        pack([folder], root=root)
    assert not (root / "artifacts").exists()
    _, contents = pack(root=root)
    assert list(contents["runs"]) == ["reference/bert"] and list(contents["left_out"]) == ["runs/bert"]


def test_weights_that_were_removed_are_still_named(root):
    folder = root / "outputs" / "bert"
    shutil.rmtree(folder / "iterative" / "model")
    assert why_unfit(folder) is None
    with zipfile.ZipFile(pack(root=root)[0]) as archive:
        (asset,) = json.loads(archive.read("assets.json"))["assets"]
    assert asset["bytes"] is None and len(asset["sha256"]) == 64


def test_links_running_runs_equal_names_and_no_runs_are_refused(root, tmp_path):
    folder = root / "outputs" / "bert"
    with open(folder / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="a run is writing"):
            pack(root=root)
    shutil.copytree(folder, tmp_path / "other" / "bert")
    with pytest.raises(ArtifactError, match="same name"):
        pack([folder, tmp_path / "other" / "bert"], root=root)
    (folder / "link.txt").symlink_to("/etc/hostname")
    again(folder)
    with pytest.raises(ArtifactError, match="is a link"):
        pack(root=root)
    with pytest.raises(ArtifactError, match="there is no run"):
        pack(root=tmp_path / "nowhere")
    open_run("bert", out=tmp_path / "fresh" / "outputs")
    with pytest.raises(ArtifactError, match="no run can be packed.*not finished"):
        pack(root=tmp_path / "fresh")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b", "c:x", "a//b", "./a", "", "a\nb"])
def test_names_that_leave_a_folder_are_not_packed(name):
    with pytest.raises(ArtifactError, match="cannot be packed"):
        zip_bytes({name: b""})


def test_a_full_disk_leaves_the_earlier_package(root, monkeypatch):
    path, _ = pack(root=root)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    (root / "LICENSE").write_text("other")
    with pytest.raises(ArtifactError, match="disk is full"):
        pack(root=root)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_command_line(root, capsys, monkeypatch):
    folder, target = root / "outputs" / "bert", root / "x.zip"
    assert packaging.main([str(folder), "--to", str(target)]) == 0
    assert "packed    runs/bert" in capsys.readouterr().out and zipfile.is_zipfile(io.BytesIO(target.read_bytes()))
    assert packaging.main([str(root)]) == 7
    assert "not finished" in capsys.readouterr().err


def test_runs_are_found_in_outputs_and_reference(root):
    shutil.copytree(root / "outputs" / "bert", root / "outputs" / "reference" / "mamba")
    assert sorted(find_runs(root)) == ["reference/mamba", "runs/bert"]


def test_the_changelogs_newest_version_is_the_projects():
    headings = re.findall(r"^## (.*)$", (project_root() / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased" and headings[1].split()[0] == VERSION


def test_licence_citation_and_project_agree():
    root = project_root()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    licence = (root / "LICENSE").read_text()
    assert project["license"] == citation["license"] == "Apache-2.0" and str(citation["version"]) == VERSION
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    assert citation["authors"] == [{"name": "The ICD authors"}]
    assert "Apache License" in licence and "Version 2.0" in licence and "Copyright 2026 The ICD authors" in licence
    assert "END OF TERMS AND CONDITIONS" in licence and "artifacts/" in (root / ".gitignore").read_text().split()


def test_a_manifest_written_after_the_run_is_what_packing_takes(tmp_path):
    run = write_finished_run(tmp_path / "outputs", "mamba")
    run.path("report.csv").write_text("c\n")
    assert "report.csv was changed" in why_unfit(run.dir)
    write_manifest(run)
    assert why_unfit(run.dir) is None
