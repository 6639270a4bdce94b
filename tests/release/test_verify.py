"""Verifying a package: a good one holds, and every way of changing one is noticed by the check that should."""

import copy
import hashlib
import json
import re
import stat
import struct
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_run import write_finished_run

from icd_lib.errors import ArtifactError
from icd_lib.paths import project_root, unsafe_name
from icd_lib.release import package_file, run_checks, verify
from icd_lib.release.package import pack, zip_bytes
from icd_lib.release.package_file import PackageFile
from icd_lib.run.configuration import config_digest

RUN = "runs/bert"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    root = tmp_path_factory.mktemp("packed")
    write_finished_run(root / "outputs")
    return pack(root=root)[0]


@pytest.fixture(scope="module")
def files(package):
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def write(folder, files, honest=True):
    """A package of these files; `honest` makes contents.json and the manifest true to them, as a forger would."""
    files = dict(files)
    if honest:
        manifest = json.loads(files[f"{RUN}/manifest.json"])
        for rel in manifest["files"]:
            if (name := f"{RUN}/{rel}") in files:
                manifest["files"][rel] = sha(files[name])
        files[f"{RUN}/manifest.json"] = json.dumps(manifest).encode()
        contents = json.loads(files.pop("contents.json"))
        contents["files"] = {name: {"sha256": sha(data), "bytes": len(data)} for name, data in files.items()}
        files["contents.json"] = json.dumps(contents).encode()
    path = folder / "changed.zip"
    path.write_bytes(zip_bytes(files))
    return path


def failing(path):
    return {check.name: check.note for check in verify.verify(path) if not check.ok}


def test_a_good_package_holds_without_the_model_library(package, tmp_path):
    code = (
        "import sys; from icd_lib.release import verify; code = verify.main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers', 'pickle5'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, cwd=project_root())
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]" and lines[-2] == "12 of 12 checks hold" and done.stderr == ""
    assert all(line.startswith("ok    ") for line in lines[:-2])
    names = [check.name for check in verify.verify(package)]
    assert names == [
        "container",
        "contents",
        "assets",
        "json",
        "scrubbed",
        *(f"{RUN} {name}" for name in run_checks.CHECKS),
    ]


def edit(rel, change, prefix=f"{RUN}/"):
    """A change of one JSON file of the package."""

    def apply(files):
        value = json.loads(files[prefix + rel])
        change(value)
        files[prefix + rel] = json.dumps(value).encode()

    return apply


def put(name, data):
    return lambda files: files.update({name: data})


def set_in(*path, value):
    def change(node):
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


SHAPE = ("latency", "shapes", "8x128", "iterative", "latency_ms")
FORGERIES = {
    "a sample": (edit("measure/samples.json", set_in("shapes", "8x128", "iterative", 3, value=1.0)), "latency"),
    "a shape without samples": (edit("measure/samples.json", lambda v: v["shapes"].pop("1x32")), "latency"),
    "a negative sample": (edit("measure/samples.json", set_in("shapes", "8x128", "dense", 0, value=-1.0)), "latency"),
    "samples that are words": (edit("measure/samples.json", set_in("shapes", "8x128", "dense", value="x")), "latency"),
    "no shapes": (edit("measure/samples.json", set_in("shapes", value={})), "latency"),
    "a latency": (edit("measure/measure.json", set_in(*SHAPE, "value", value=5.0)), "latency"),
    "an interval": (edit("measure/measure.json", set_in(*SHAPE, "ci95", value=[5.9, 5.95])), "latency"),
    "an n": (edit("measure/measure.json", set_in(*SHAPE, "n", value=400)), "latency"),
    "a step": (edit("measure/measure.json", set_in("deployment", 1, "vs_eager", "value", value=-0.9)), "latency"),
    "what a step is worth": (
        edit("measure/measure.json", set_in("deployment", 1, "against", 0, "latency_rel", "value", value=-0.9)),
        "latency",
    ),
    "a mode's latency": (edit("linear/metrics.json", set_in("latency_ms", "value", value=1.0)), "latency"),
    "a comparison": (edit("verdict.json", set_in("vs_dense", "shapes", "1x32", "value", value=-0.9)), "comparisons"),
    "the first figure": (
        edit("verdict.json", set_in("same_quality", "latency_rel", "value", value=-0.9)),
        "comparisons",
    ),
    "a control": (edit("verdict.json", set_in("aa_control", "contains_zero", "8x128", value="yes")), "comparisons"),
    "a placebo": (edit("verdict.json", set_in("placebo", "8x128", "ci95", value=[0.0, 0.1])), "comparisons"),
    "a gate": (edit("verdict.json", set_in("smoke", "status", value="pass")), "gates"),
    "a check": (edit("verdict.json", set_in("strict", "checks", "l2_pp", value="pass")), "gates"),
    "a cost": (edit("verdict.json", set_in("cost", "delta_c_rel", value=-0.9)), "gates"),
    "a quality": (edit("verdict.json", set_in("vs_dense", "quality_drop_pp", "value", value=0.0)), "gates"),
    "π": (edit("linear/perm_after.json", lambda v: v["axes"]["ffn.0"]["pi"].reverse()), "layouts"),
    "π's size": (edit("linear/perm_after.json", set_in("axes", "ffn.0", "D", value=31)), "layouts"),
    "π twice the same": (edit("linear/perm_after.json", set_in("axes", "ffn.0", "pi", 0, value=0)), "layouts"),
    "π of words": (edit("linear/perm_after.json", set_in("axes", "ffn.0", "pi", value=["x"] * 32)), "layouts"),
    "an option": (edit("config.lock.json", set_in("config", "seed", value=9)), "configuration"),
    "a hash": (edit("dense/metrics.json", set_in("config_sha256", value="0" * 64)), "configuration"),
    "a field gone": (edit("dense/metrics.json", lambda v: v.pop("peak_memory_mb")), "fields"),
    "a kind": (edit("dense/metrics.json", set_in("l2_hit_pct", "kind", value="measured")), "fields"),
    "a state": (edit("verdict.json", set_in("smoke", "status", value="great")), "fields"),
    "a verdict that is a list": (put(f"{RUN}/verdict.json", b"[]"), "fields"),
    "no JSON": (put(f"{RUN}/verdict.json", b"{"), "json"),
    "a key twice": (put(f"{RUN}/verdict.json", b'{"a": 1, "a": 2}'), "json"),
    "depth": (put(f"{RUN}/verdict.json", b"[" * 50_000), "json"),
    "a log line": (put(f"{RUN}/run.log", b'{"ts": "x"}\n'), "json"),
    "a notebook": (put(f"{RUN}/03_measure.ipynb", b'{"cells": 0}'), "json"),
    "a leak": (put(f"{RUN}/report.csv", b"by,jane.doe@acme.org\n"), "scrubbed"),
    "an unlisted file": (put(f"{RUN}/more.txt", b"x"), "manifest"),
    "a file of no run": (put("runs/other/x.txt", b"x"), "contents"),
    "weights": (put(f"{RUN}/iterative/model/model.safetensors", b"x"), "assets"),
    "an asset's hash": (edit("assets.json", set_in("assets", 0, "sha256", value="x"), prefix=""), "assets"),
    "another asset's hash": (edit("assets.json", set_in("assets", 0, "sha256", value="0" * 64), prefix=""), "manifest"),
    "no assets": (edit("assets.json", set_in("assets", value=[]), prefix=""), "manifest"),
    "a verdict gone": (lambda files: files.pop(f"{RUN}/verdict.json"), "manifest"),
    "another format": (edit("contents.json", set_in("format", value="icd-package/9"), prefix=""), "contents"),
    "no run": (edit("contents.json", set_in("runs", value={}), prefix=""), "contents"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_with_true_hashes_is_noticed_by_its_check(what, files, tmp_path):
    change, check = FORGERIES[what]
    changed = copy.deepcopy(files)
    change(changed)
    found = failing(write(tmp_path, changed))
    assert check in found or f"{RUN} {check}" in found, found


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """The files of a package whose run has what a GPU's counters said."""
    root = tmp_path_factory.mktemp("counted")
    write_finished_run(root / "outputs", gpu=True)
    with zipfile.ZipFile(pack(root=root)[0]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


WINDOWS, RATES = ("rounds", "energy_j_per_token"), ("rounds", "l2_hit_pct")
COUNTERS = {
    "a window": ("measure/measure.json", set_in(*WINDOWS, "dense", 0, value=9.0)),
    "a profile": ("measure/measure.json", set_in(*RATES, "iterative", 1, value=99.0)),
    "a hit rate": ("measure/measure.json", set_in("l2_hit_pct", "iterative", "value", value=99.0)),
    "an energy": ("measure/measure.json", set_in("energy", "iterative", "value", value=1e-9)),
    "hits gained": ("verdict.json", set_in("same_transform", "l2_pp", "value", value=30.0)),
    "their interval": ("verdict.json", set_in("same_transform", "l2_pp", "ci95", value=[29.0, 31.0])),
    "energy saved": ("verdict.json", set_in("same_transform", "ept_rel", "value", value=-0.9)),
    "its interval": ("verdict.json", set_in("same_transform", "ept_rel", "ci95", value=[-0.91, -0.89])),
}


def test_a_package_of_a_gpu_holds(counted, tmp_path):
    assert failing(write(tmp_path, counted)) == {}


@pytest.mark.parametrize("what", COUNTERS)
def test_a_forgery_of_what_counters_said_is_noticed(what, counted, tmp_path):
    rel, change = COUNTERS[what]
    changed = copy.deepcopy(counted)
    edit(rel, change)(changed)
    assert f"{RUN} gates" in failing(write(tmp_path, changed))


def test_an_unchanged_copy_of_a_forgers_package_holds(files, tmp_path):
    assert failing(write(tmp_path, files)) == {}


@pytest.mark.parametrize("name", [f"{RUN}/verdict.json", f"{RUN}/report.html", "assets.json", f"{RUN}/run.log"])
def test_a_changed_missing_or_added_file_is_noticed_and_nothing_more_is_read(files, tmp_path, name):
    for changed in (
        files | {name: files[name] + b" "},
        {key: data for key, data in files.items() if key != name},
        files | {f"{RUN}/extra": b""},
    ):
        assert list(failing(write(tmp_path, changed, honest=False))) == ["contents"]


def test_absurd_computations_are_refused(files, tmp_path):
    changed = dict(files)

    def bootstrap(lock):
        lock["config"]["measure"]["bootstrap"] = 10**12
        lock["sha256"] = config_digest(lock["config"])

    edit("config.lock.json", bootstrap)(changed)
    assert "1000000000000 resamples" in failing(write(tmp_path, changed))[f"{RUN} latency"]


def crafted(path, name="x", data=b"x", attributes=0o100644 << 16, flags=0):
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename, entry.external_attr = name, attributes
        archive.writestr(entry, data)
    if flags:
        raw = bytearray(path.read_bytes())
        struct.pack_into("<H", raw, raw.index(b"PK\1\2") + 8, flags)
        path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: crafted(p, "../x"), "leaves its folder"),
        (lambda p: crafted(p, "a/../../x"), "leaves its folder"),
        (lambda p: crafted(p, "/etc/passwd"), "leaves its folder"),
        (lambda p: crafted(p, "a\\..\\x"), "backslash"),
        (lambda p: crafted(p, "C:x"), "colon"),
        (lambda p: crafted(p, "a//b"), "shortest form"),
        (lambda p: crafted(p, "x" * 500), "too long"),
        (lambda p: crafted(p, attributes=(stat.S_IFLNK | 0o777) << 16), "link"),
        (lambda p: crafted(p, attributes=(stat.S_IFIFO | 0o777) << 16), "link"),
        (lambda p: crafted(p, "d/"), "shortest form|link"),
        (lambda p: crafted(p, flags=1), "encrypted"),
        (lambda p: p.write_bytes(b"") and p, "no zip file"),
        (lambda p: p.write_bytes(b"PK\3\4" + b"\0" * 100) and p, "no zip file"),
    ],
)
def test_dangerous_and_broken_containers_are_refused_before_anything_is_read(tmp_path, make, says):
    path = make(tmp_path / "x.zip") or tmp_path / "x.zip"
    (check,) = verify.verify(path)
    assert (check.name, check.ok) == ("container", False)
    assert re.search(says, check.note), check.note


def test_bombs_doubles_and_crowds_are_refused(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(2**22))
    assert "times its size" in failing(bomb)["container"]
    double = tmp_path / "double.zip"
    with zipfile.ZipFile(double, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("A", b"2")
    assert "there twice" in failing(double)["container"]
    lying = tmp_path / "lying.zip"
    lying.write_bytes(zip_bytes({"x": b"0123456789"}))
    raw = bytearray(lying.read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\1\2") + 24, 2**29)
    lying.write_bytes(bytes(raw))
    assert "would unpack to" in failing(lying)["container"]
    monkeypatch.setattr(package_file, "MAX_FILES", 1)
    crowd = tmp_path / "crowd.zip"
    crowd.write_bytes(zip_bytes({"a": b"", "b": b""}))
    assert "at most 1" in failing(crowd)["container"]


def test_compressed_packages_are_read_and_damage_in_them_is_noticed(files, tmp_path):
    path = tmp_path / "deflated.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    assert failing(path) == {}
    raw = bytearray(path.read_bytes())
    for at in range(60, len(raw) // 2, 97):
        raw[at] ^= 0x55
    path.write_bytes(bytes(raw))
    assert "damaged" in failing(path)["contents"]


def test_a_damaged_byte_is_noticed(package, tmp_path):
    raw = bytearray(package.read_bytes())
    raw[raw.index(b"<!doctype html>") + 3] ^= 1
    (tmp_path / "x.zip").write_bytes(bytes(raw))
    assert "damaged" in failing(tmp_path / "x.zip")["contents"]


@pytest.mark.parametrize("name", ["no/such.zip", "."])
def test_exit_codes_and_one_line_per_check(name, files, tmp_path, capsys):
    assert verify.main([name]) == 7
    changed = dict(files)
    FORGERIES["a gate"][0](changed)
    assert verify.main([str(write(tmp_path, changed))]) == 7
    out = capsys.readouterr().out
    assert f"FAIL  {RUN} gates: verdict.json: smoke status is pass, the samples say" in out
    assert f"11 of 12 checks hold; failing: {RUN} gates" in out


def test_names_of_any_language_are_safe_and_a_missing_file_is_named():
    assert unsafe_name("runs/bert/W.ffn.0.npz") is None and unsafe_name("π/ü.json") is None
    with pytest.raises(ArtifactError, match=r"there is no file .*none\.zip"):
        PackageFile("none.zip")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, at=()):
    """Every path into a JSON value."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(children)[:12]:
        yield from places(item, (*at, key))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_value_anywhere_makes_it_crash(files, tmp_path_factory, data):
    names = sorted(name for name in files if name.endswith(".json") and "manifest" not in name)
    name = data.draw(st.sampled_from(names))
    value = json.loads(files[name])
    path = data.draw(st.sampled_from(list(places(value))))
    new = data.draw(JSON)
    if path:
        set_in(*path, value=new)(value)
    changed = files | {name: json.dumps(value if path else new).encode()}
    checks = list(verify.verify(write(tmp_path_factory.getbasetemp(), changed, honest=name != "contents.json")))
    assert checks and all(isinstance(check.note, str) for check in checks)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_damage_to_the_container_makes_it_crash(package, tmp_path_factory, data):
    raw = bytearray(package.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # The directory at the end decides how the rest is read.
        at = data.draw(st.integers(0, len(raw) - 1) | st.integers(len(raw) - 3000, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.zip"
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]))
    assert list(verify.verify(path))
