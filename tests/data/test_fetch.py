"""Texts come from packages: only the pinned files are kept, others are refused, and one failure stops no other."""

import hashlib
import io
import os
import re
import subprocess
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from icd_lib.data import fetch
from icd_lib.data.sources import SOURCES, KeptFile, Source
from icd_lib.errors import ArtifactError, ConfigError, ResourceError

TEXTS = {"zip": b"from a wheel\n", "tar": b"from a tarball\n", "nested": b"from an archive within\n"}


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


ARCHIVES = {
    "wheels": ("w.whl", zipped({"pkg/a.txt": TEXTS["zip"], "pkg/other.txt": b"not kept", "../out.txt": b"not kept"})),
    "balls": (
        "b.tar.gz",
        tarred({"b/a.txt": TEXTS["tar"], "b/in.tar.gz": tarred({"in/a.txt": TEXTS["nested"], "in/b": b""})}),
    ),
}


def kept(name, member, data):
    return KeptFile(name, member, hashlib.sha256(data).hexdigest())


def source(package, *files, client="pip", **more):
    return Source(package, "1.0", client, "MIT", "words", files, **more)


BALLS = source(
    "balls", kept("tar.txt", "b/a.txt", TEXTS["tar"]), kept("n.txt", "b/in.tar.gz!in/a.txt", TEXTS["nested"])
)
WHEELS = source("wheels", kept("deep/zip.txt", "pkg/a.txt", TEXTS["zip"]), client="npm")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Two small packages instead of the real ones; `calls` lists what was downloaded, `broken` what cannot be."""
    state = SimpleNamespace(calls=[], broken=set(), folder=tmp_path / "cache" / "data", archives=dict(ARCHIVES))

    def download(source, folder):
        state.calls.append(source.package)
        if source.package in state.broken:
            raise ResourceError(f"{source.package} could not be fetched")
        name, data = state.archives[source.package]
        (folder / name).write_bytes(data)
        return folder / name

    monkeypatch.delenv("ICD_DATA_DIR", raising=False)
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "SOURCES", (BALLS, WHEELS))
    monkeypatch.setattr(fetch, "download", download)
    return state


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ALL = {"tar.txt": TEXTS["tar"], "n.txt": TEXTS["nested"], "deep/zip.txt": TEXTS["zip"]}


def test_exactly_the_kept_files_are_written_and_a_second_call_does_nothing(registry, tmp_path):
    lines = []
    assert not fetch.has_file("tar.txt")
    assert fetch.fetch_data(lines.append) == [] and files_of(tmp_path / "cache") == {
        f"data/{n}": d for n, d in ALL.items()
    }
    assert [line.split(":")[0] for line in lines] == ["balls 1.0 (PyPI)", "wheels 1.0 (npm)"]
    assert fetch.has_file("tar.txt") and fetch.source_file("deep/zip.txt").read_bytes() == TEXTS["zip"]
    before = {path: path.stat().st_mtime_ns for path in registry.folder.rglob("*")}
    assert fetch.fetch_data(lines.append) == [] and registry.calls == ["balls", "wheels"]
    assert {path: path.stat().st_mtime_ns for path in registry.folder.rglob("*")} == before


def test_what_is_there_serves_and_only_the_rest_is_written(registry):
    fetch.fetch_data(lambda line: None)
    (registry.folder / "n.txt").unlink()
    before = (registry.folder / "tar.txt").stat().st_mtime_ns
    assert fetch.fetch_data(lambda line: None) == [] and registry.calls == ["balls", "wheels", "balls"]
    assert files_of(registry.folder) == ALL and (registry.folder / "tar.txt").stat().st_mtime_ns == before


def test_a_missing_file_names_its_package_and_the_cure(registry):
    with pytest.raises(ResourceError, match=r"zip\.txt is missing; .*npm package wheels 1\.0; run: make fetch_data"):
        fetch.source_file("deep/zip.txt")
    with pytest.raises(ConfigError, match=r"'zip'; there are tar\.txt, n\.txt, deep/zip\.txt"):
        fetch.source_file("zip")
    with pytest.raises(ConfigError, match="'zip'"):
        fetch.has_file("zip")


def test_a_changed_file_is_refused_until_it_is_deleted(registry):
    fetch.fetch_data(lambda line: None)
    path = fetch.source_file("tar.txt")
    path.write_bytes(b"something else\n")
    with pytest.raises(ArtifactError, match=r"tar\.txt has the sha256 .*; delete the file, then run: make fetch_data"):
        fetch.source_file("tar.txt")
    assert fetch.has_file("tar.txt") and fetch.fetch_data(lambda line: None) == ["balls"]
    assert path.read_bytes() == b"something else\n" and registry.calls == ["balls", "wheels"]
    path.unlink()
    assert fetch.fetch_data(lambda line: None) == [] and fetch.source_file("tar.txt").read_bytes() == TEXTS["tar"]


def test_a_file_is_hashed_once_per_state(registry, monkeypatch):
    fetch.fetch_data(lambda line: None)
    hashed = []
    monkeypatch.setattr(fetch, "sha256_file", lambda path: hashed.append(path) or BALLS.files[0].sha256)
    path = fetch.source_file("tar.txt")
    assert hashed == []  # fetching has read it
    os.utime(path, (1, 1))
    fetch.source_file("tar.txt")
    fetch.source_file("tar.txt")
    assert hashed == [path]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"b/a.txt": TEXTS["tar"], "b/in.tar.gz": tarred({"in/a.txt": b"changed"})}, "in/a.txt in the archive has the"),
        ({"b/a.txt": TEXTS["tar"]}, "the archive has no readable b/in.tar.gz!in/a.txt"),
        ({"b/a.txt": TEXTS["tar"], "b/in.tar.gz": b"no archive"}, "the archive has no readable b/in.tar.gz!in/a.txt"),
        ({"b/a.txt": TEXTS["tar"], "b/in.tar.gz": b"PK no zip"}, "the archive has no readable b/in.tar.gz!in/a.txt"),
    ],
)
def test_of_a_package_with_a_wrong_member_nothing_is_written(registry, members, said):
    registry.archives["balls"] = ("b.tar.gz", tarred(members))
    lines = []
    assert fetch.fetch_data(lines.append) == ["balls"] and said in lines[0]
    assert files_of(registry.folder) == {"deep/zip.txt": TEXTS["zip"]}


def test_a_member_that_is_cut_short_or_too_long_is_refused(registry, monkeypatch):
    name, data = ARCHIVES["balls"]
    registry.archives["balls"] = (name, data[: len(data) // 2])
    assert fetch.fetch_data(lambda line: None) == ["balls"]
    monkeypatch.setattr(fetch, "_MOST_BYTES", 5)
    registry.archives["balls"] = (name, data)
    assert fetch.fetch_data(lambda line: None) == ["balls"] and files_of(registry.folder) == {
        "deep/zip.txt": TEXTS["zip"]
    }


def test_a_failed_download_leaves_the_others_working_and_is_reported(registry, capsys):
    registry.broken = {"balls"}
    assert fetch.main([]) == ResourceError.exit_code
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and "balls could not be fetched" in out[0] and "all 1 files" in out[1]
    assert files_of(registry.folder) == {"deep/zip.txt": TEXTS["zip"]}
    assert fetch.main(["--optional"]) == 0 and "without the texts of balls" in capsys.readouterr().err
    registry.broken = set()
    assert fetch.main([]) == 0 and files_of(registry.folder) == ALL and capsys.readouterr().err == ""


def test_a_check_downloads_nothing(registry, capsys):
    assert fetch.main(["--check"]) == ResourceError.exit_code and not registry.calls
    assert "package balls 1.0; run: make fetch_data" in capsys.readouterr().out.splitlines()[0]
    fetch.fetch_data(lambda line: None)
    assert fetch.main(["--check"]) == 0


def test_the_data_folder_variable_is_honoured(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "mine"))
    assert fetch.fetch_data(lambda line: None) == [] and not registry.folder.exists()
    assert fetch.data_folder() == tmp_path / "mine" / "domains" and files_of(fetch.data_folder()) == ALL


def test_a_folder_that_cannot_be_written_names_the_variable(registry, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "file"))
    lines = []
    assert fetch.fetch_data(lines.append) == ["balls", "wheels"]
    assert "cannot write" in lines[0] and "set ICD_DATA_DIR to a folder you may write to" in lines[0]


@pytest.fixture
def client(monkeypatch):
    """`subprocess.run` replaced: it keeps the command, and does what `client.act` says."""
    state = SimpleNamespace(command=None, act=lambda folder: SimpleNamespace(returncode=0, stderr=b""))

    def run(command, cwd, **options):
        state.command, state.options = command, options
        return state.act(cwd)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return state


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (BALLS, ["pip", "download", "--no-deps", "--only-binary=:all:", "balls==1.0"]),
        (source("balls", built=False), ["pip", "download", "--no-deps", "--no-binary=balls", "balls==1.0"]),
        (WHEELS, ["npm", "pack", "wheels@1.0"]),
    ],
)
def test_a_client_is_asked_for_one_pinned_package(client, tmp_path, wanted, words):
    def act(folder):
        (folder / "a-1.0.tgz").write_bytes(b"")
        return SimpleNamespace(returncode=0, stderr=b"")

    client.act = act
    assert fetch.download(wanted, tmp_path) == tmp_path / "a-1.0.tgz"
    assert [word for word in client.command if word in words] == words
    assert client.options["timeout"] == fetch.TIMEOUT_S and not [word for word in client.command if "://" in word]


NPM = b"npm error code ENOTFOUND\nnpm error network a problem\nnpm error A complete log of this run\n"
PIP = b"WARNING: odd\nERROR: No versions\nERROR: No matching distribution found for balls==1.0\nhint: see above\n"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (FileNotFoundError("npm"), r"\(npm is not installed\); install npm, then run: make fetch_data"),
        (subprocess.TimeoutExpired("npm", 300), r"\(npm took longer than 300 s\); .*make fetch_data"),
        ((1, NPM), r"wheels could not be fetched \(npm error code ENOTFOUND\); .*make fetch_data"),
        ((1, PIP), r"\(ERROR: No matching distribution found for balls==1\.0\)"),
        ((1, b"sh: odd\n\n"), r"\(sh: odd\)"),
        ((0, b""), r"\(npm got no archive\)"),
    ],
)
def test_a_client_that_fails_says_why(client, tmp_path, outcome, said):
    def act(folder):
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(returncode=outcome[0], stderr=outcome[1])

    client.act = act
    with pytest.raises(ResourceError, match=said):
        fetch.download(WHEELS, tmp_path)


def test_provenance_states_package_licence_and_hashes(registry):
    found = fetch.provenance_of("wheels")
    assert found.pop("files") == {"deep/zip.txt": hashlib.sha256(TEXTS["zip"]).hexdigest()}
    assert found == {"package": "wheels", "version": "1.0", "licence": "MIT", "registry": "npm"}
    with pytest.raises(ConfigError, match="'wheel'; known: balls, wheels"):
        fetch.provenance_of("wheel")


def test_the_declared_names_are_distinct_relative_and_pinned():
    files = [file for source in SOURCES for file in source.files]
    assert len({file.name for file in files}) == len({file.sha256 for file in files}) == len(files) == 32
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in files)
    assert all(re.fullmatch(r"(dialogues/)?[\w-]+(\.\w+)+", file.name) for file in files)
    assert {source.registry for source in SOURCES} == {"PyPI", "npm"}
