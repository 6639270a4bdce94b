"""An export: what is in the folder is what was exported, it loads in a process of its own, and bad input is named."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, MambaConfig, MambaForCausalLM

import icd_lib as icd
from icd_lib.deploy import export as deploy_export
from icd_lib.deploy import verify
from icd_lib.deploy.card import Card, Lost, Speed
from icd_lib.deploy.place import check_place, clear_leftovers, new_folder
from icd_lib.deploy.record import check_export
from icd_lib.deploy.sentence import Pooling, read_pooling
from icd_lib.deploy.target import find_target, targets
from icd_lib.deploy.verify import TEXTS, check_same, compare, run_fresh
from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.metric import figure, not_measured
from icd_lib.models import export as onnx_export
from icd_lib.models.quantized import as_float
from icd_lib.paths import project_root
from icd_lib.runtimes import RUNTIMES
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from tests.tiny_domains import toy_encoder, toy_tokenizer
from tests.tiny_encoders import batch, prune, tiny_bert, tiny_config

TARGETS = list(targets())
TRIED = (("openvino", "int8"), ("openvino", "fp32"), ("onnxruntime", "fp32"))  # by the fast tests
CALIBRATION = [batch(2, 12, seed=seed) for seed in range(3)]
WIDE = pytest.mark.wide
FILES = {"openvino": "openvino_model.bin", "onnxruntime": "model.onnx", "eager": "model.safetensors"}


@pytest.fixture(autouse=True)
def without_other_environments(monkeypatch):
    """sentence-transformers takes seconds to start: its test is tests/deploy/test_sentence.py."""
    monkeypatch.setattr(verify, "python_with", lambda users: None)


def ready(runtime: str, precision: str):
    try:
        find_target(runtime, precision)
    except ResourceError as error:
        pytest.skip(error.args[0])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return toy_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def rounded(monkeypatch, tokenizer, tmp_path):
    """Exports for a runtime that rounds and gives states of such a least cosine to the model's."""
    ready("openvino", "bf16")

    def make(cosine):
        actual = deploy_export.compare
        found = lambda *given: actual(*given) | {"min_cosine": cosine}  # noqa: E731
        monkeypatch.setattr(deploy_export, "compare", found)
        return icd.export(toy_encoder(), tokenizer, tmp_path / "rounded", runtime="openvino", precision="bf16")

    return make


@WIDE
def test_what_rounds_far_away_from_the_model_is_a_warning_that_the_card_repeats(rounded):
    with pytest.warns(UserWarning, match="least cosine .* is 0.850, below 0.9: judge its quality"):
        folder = rounded(0.85)
    assert "- Warning: in OpenVINO" in (folder / "README.md").read_text()
    assert "0.850" in check_export(folder)["doubt"]


@WIDE
@pytest.mark.parametrize("cosine", [0.2, float("nan")])
def test_what_is_another_function_after_rounding_is_not_exported(rounded, tmp_path, cosine):
    with pytest.raises(ArtifactError, match="below 0.5: it computes another function; export in another runtime"):
        rounded(cosine)
    assert not (tmp_path / "rounded").exists()


@pytest.fixture
def written(tmp_path, tokenizer):
    """A small export, and its folder."""
    ready("onnxruntime", "fp32")
    return icd.export(toy_encoder(), tokenizer, tmp_path / "out", runtime="onnxruntime")


@WIDE
@pytest.mark.parametrize(
    "target", [one if one in TRIED else pytest.param(one, marks=pytest.mark.slow) for one in TARGETS], ids=" ".join
)
def test_what_is_exported_is_what_the_ladder_measures(tmp_path, target):
    """A pruned model with widths of its own in every layer, in every runtime and precision."""
    runtime, precision = target
    ready(*target)
    model, example = prune(tiny_bert()), batch(3, 11, padded=True)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = icd.export(
        model, None, tmp_path / "out", runtime=runtime, precision=precision, calibration=CALIBRATION, example=example
    )
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    facts = check_export(folder)
    loader = next(iter(facts["verified"]))
    assert facts["verified"][loader]["status"] == "verified"
    other = batch(2, 7, seed=5)
    found = run_fresh(loader, folder, other, {"threads": 1, "hints": facts["hints"]})
    row = RUNTIMES[next(name for name, row in RUNTIMES.items() if row is targets()[target])]
    prepared = row.prepare(model, example, workdir=tmp_path, calibration=CALIBRATION, threads=1)
    assert np.abs(found.output - prepared.run(other)).max() < 1e-5
    prepared.close()
    assert [facts["widths"][f"ffn.{layer}"] for layer in range(3)] == [80, 33, 16]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    assert "Not measured." in (folder / "README.md").read_text()


@WIDE
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_two_exports_are_the_same_bytes_and_hold_no_path(tmp_path, tokenizer, runtime):
    ready(runtime, "fp32")
    for name in ("one", "two"):
        icd.export(prune(tiny_bert()), None, tmp_path / name / "out", runtime=runtime, example=batch(2, 9))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) >= 4
    for rel in files:
        data = (tmp_path / "one" / rel).read_bytes()
        assert data == (tmp_path / "two" / rel).read_bytes(), rel
        assert str(tmp_path).encode() not in data and str(project_root()).encode() not in data


def is_int8(folder, runtime: str) -> bool:
    """Whether the graph in the folder of an export rounds."""
    if runtime == "openvino":
        return "FakeQuantize" in (folder / "openvino_model.xml").read_text()
    return b"QuantizeLinear" in (folder / "model.onnx").read_bytes()


@WIDE
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_quantised_model_needs_no_text_and_rounds_in_int8_alone(tmp_path, runtime, precision):
    ready(runtime, precision)
    model, example = quantize(prune(tiny_bert()), CALIBRATION, Recipe())[0], batch(3, 11, padded=True)
    folder = icd.export(model, None, tmp_path / "out", runtime=runtime, precision=precision, example=example)
    assert is_int8(folder, runtime) == (precision == "int8")
    held = model if precision == "int8" else as_float(model)
    loader, hints = runtime, check_export(folder)["hints"]
    found = run_fresh(loader, folder, batch(2, 7, seed=5), {"threads": 1, "hints": hints})
    with torch.no_grad():
        expected = held(**batch(2, 7, seed=5)).last_hidden_state.numpy()
    assert compare(found.output, expected)["min_cosine"] > (0.99 if precision == "int8" else 0.99999)


@pytest.mark.slow
def test_int8_is_the_same_bytes_again(tmp_path):
    ready("openvino", "int8")
    for name in ("one", "two"):
        icd.export(tiny_bert(), None, tmp_path / name, precision="int8", calibration=CALIBRATION, example=batch(2, 9))
    for file in ("openvino_model.xml", "openvino_model.bin"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_files_of_sentence_transformers_say_how_it_is_read(tmp_path, tokenizer):
    ready("openvino", "bf16")
    folder = tmp_path / "out"
    icd.export(toy_encoder(), tokenizer, folder, precision="bf16", pooling="cls", normalize=False, max_length=9)
    read = json.loads((folder / "sentence_bert_config.json").read_text())
    assert read["model_args"]["ov_config"]["INFERENCE_PRECISION_HINT"] == "bf16" and read["max_seq_length"] == 9
    assert read_pooling(folder) == Pooling("cls", False, 9)
    assert [module["path"] for module in json.loads((folder / "modules.json").read_text())] == ["", "1_Pooling"]
    assert "'INFERENCE_PRECISION_HINT': 'bf16'" in (folder / "README.md").read_text()


UNCHECKED = "Not checked with {} where this was made."


def test_the_card_says_which_lines_nobody_tried(tmp_path, tokenizer):
    ready("onnxruntime", "fp32")
    folder = icd.export(toy_encoder(), tokenizer, tmp_path / "out", runtime="onnxruntime")
    card = (folder / "README.md").read_text()
    for name, line in (("sentence-transformers", "import SentenceTransformer"), ("optimum.onnxruntime", "import ORT")):
        assert line in card and UNCHECKED.format(name) in card.partition(line)[2].split("```python")[0], name
        assert check_export(folder)["verified"][name]["status"] == "not_measured"
    assert "Not checked" not in card.partition("import onnxruntime")[2]


@pytest.mark.parametrize("away", [0.0, 1.0])
def test_optimum_is_tried_where_it_is_there(tmp_path, tokenizer, monkeypatch, away):
    """The other environment's process is played: what it gives is what this one's runtime gives, or something else."""
    ready("onnxruntime", "fp32")
    monkeypatch.setattr(verify, "python_with", lambda users: "another python")
    embedded, asked = [], []

    def played(loader, folder, given, options, python=sys.executable):
        if python == sys.executable:
            return run_fresh(loader, folder, given, options)
        asked.append((loader, python))
        if loader.startswith("sentences"):
            return verify.Found(embedded.pop(), {"versions": {}})
        states = run_fresh("onnxruntime", folder, given, options).output
        return verify.Found(states + away * np.eye(*states.shape[1:], dtype=np.float32), {"versions": {}})

    def noted(folder, users, expected, options):
        embedded.append(expected)
        return verify.verify_sentences(folder, users, expected, options)

    monkeypatch.setattr(verify, "run_fresh", played)
    monkeypatch.setattr("icd_lib.deploy.export.verify_sentences", noted)
    out = tmp_path / "out"
    with pytest.raises(ArtifactError, match="optimum_onnx gives outputs with a least") if away else nullcontext():
        icd.export(toy_encoder(), tokenizer, out, runtime="onnxruntime")
    assert asked == [("sentences_onnx", "another python"), ("optimum_onnx", "another python")]
    assert out.exists() != bool(away)
    if not away:
        assert check_export(out)["verified"]["optimum.onnxruntime"]["min_cosine"] > 0.99999
        assert "Not checked" not in (out / "README.md").read_text()


@WIDE
def test_a_classifier_is_exported_without_pooling(tmp_path, tokenizer):
    ready("onnxruntime", "fp32")
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config(num_labels=3)).eval()
    folder = icd.export(model, tokenizer, tmp_path / "out", runtime="onnxruntime")
    assert check_export(folder)["output"] == "logits" and not (folder / "modules.json").exists()
    assert "ORTModelForSequenceClassification" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_mamba_goes_to_eager_only_and_loads_again(tmp_path):
    torch.manual_seed(0)
    model = MambaForCausalLM(
        MambaConfig(vocab_size=97, hidden_size=16, state_size=4, num_hidden_layers=2, time_step_rank=2)
    ).eval()
    for runtime in ("openvino", "onnxruntime"):
        ready(runtime, "fp32")
        with pytest.raises(ResourceError, match="no selective scan"):
            icd.export(model, None, tmp_path / "no", runtime=runtime, example=batch(1, 5))
    assert not (tmp_path / "no").exists()
    folder = icd.export(model, None, tmp_path / "out", runtime="eager", example=batch(1, 5))
    with torch.no_grad():
        again = icd.load_optimized(folder)(**batch(1, 5)).logits
        assert torch.allclose(again, model(**batch(1, 5)).logits, atol=1e-6)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            {"runtime": "tensorrt"},
            ConfigError,
            "'tensorrt' is no runtime; export for one of eager, onnxruntime, openvino",
        ),
        ({"runtime": "compile"}, ConfigError, "'compile' keeps nothing on disk"),
        (
            {"runtime": "eager", "precision": "int8"},
            ConfigError,
            "eager is not exported in 'int8'; it takes one of fp32",
        ),
        ({"precision": "int4"}, ConfigError, "openvino is not exported in 'int4'; it takes one of fp32, bf16, int8"),
        ({"precision": "int8"}, ConfigError, r"needs calibration=\[input dict"),
        ({"pooling": "sum"}, ConfigError, "pooling 'sum' is unknown; it takes one of mean, cls, max"),
        ({"example": None}, ConfigError, "without a tokenizer an example is needed"),
        ({"folder": "file"}, ArtifactError, "is a file or a link"),
        ({"folder": "full"}, ArtifactError, "is not empty and holds no export"),
        ({"folder": "full", "overwrite": True}, ArtifactError, "is not empty and holds no export"),
        ({"folder": "file/below"}, ArtifactError, "a file stands where a folder is needed"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, change, error, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    ready("openvino", "int8")
    given = {"folder": "out", "example": batch(2, 9)} | change
    with pytest.raises(error, match=message):
        icd.export(tiny_bert(), None, tmp_path / given.pop("folder"), **given)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_a_model_of_no_transformers_class_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="takes a model of transformers, with its config; got Linear"):
        icd.export(torch.nn.Linear(2, 2), None, tmp_path / "out", runtime="eager", example=batch(1, 5))


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_a_missing_package_is_named_with_the_cure(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=f"package {package} .*run pip install"):
        icd.export(tiny_bert(), None, tmp_path / "out", precision="int8", calibration=CALIBRATION, example=batch(2, 9))
    assert not any(tmp_path.iterdir())


def test_a_runtime_that_refuses_the_graph_says_so_and_nothing_is_written(tmp_path, monkeypatch):
    ready("openvino", "fp32")

    def refuse(self, graph, threads):
        raise RuntimeError("Unsupported operation of type: Whatever")

    monkeypatch.setattr(type(RUNTIMES["openvino"]), "open", refuse)
    with pytest.raises(ResourceError, match="openvino cannot run BertModel here: RuntimeError: Unsupported operation"):
        icd.export(tiny_bert(), None, tmp_path / "out", example=batch(2, 9))
    assert not any(tmp_path.iterdir())


def test_what_the_processor_emulates_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("icd_lib.runtimes.emulation.cpu_flags", lambda: {"avx2", "avx512f"})
    ready("openvino", "bf16")
    with pytest.warns(UserWarning, match="perhaps slower than fp32"):
        folder = icd.export(tiny_bert(), None, tmp_path / "out", precision="bf16", example=batch(2, 9))
    assert "Warning: this processor has no bf16 instructions" in (folder / "README.md").read_text()


def test_a_file_that_says_something_else_is_not_put_in_place(tmp_path, monkeypatch):
    """The graph that is written is another model's: the process of its own sees it."""
    ready("onnxruntime", "fp32")
    other = onnx_export.export_onnx(tiny_bert(seed=9), batch(2, 9), tmp_path / "other.onnx")
    row = type(RUNTIMES["onnxruntime"])
    kept = row.save
    monkeypatch.setattr(row, "save", lambda self, graph, folder: kept(self, other, folder))
    with pytest.raises(ArtifactError, match="onnxruntime gives outputs that differ from the exported model's by"):
        icd.export(tiny_bert(), None, tmp_path / "out", runtime="onnxruntime", example=batch(2, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


def test_an_earlier_export_is_replaced_only_when_asked_and_kept_when_the_next_fails(written, tokenizer, monkeypatch):
    before = (written / "icd.json").read_bytes()
    with pytest.raises(ArtifactError, match="holds an export already; pass overwrite=True"):
        icd.export(toy_encoder(), tokenizer, written, runtime="onnxruntime")
    with monkeypatch.context() as patched, pytest.raises(ArtifactError, match="cannot load"):
        patched.setattr(verify, "fresh", type("Broken", (), {"__file__": os.devnull + "/nothing.py"}))
        icd.export(toy_encoder(), tokenizer, written, runtime="onnxruntime", overwrite=True)
    assert (written / "icd.json").read_bytes() == before
    icd.export(toy_encoder(), tokenizer, written, runtime="onnxruntime", overwrite=True, pooling="cls")
    assert check_export(written)["pooling"] == "cls"
    assert [path.name for path in written.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "file, damage, message",
    [
        ("model.onnx", lambda path: path.write_bytes(path.read_bytes()[:-1]), "has sha256"),
        ("README.md", lambda path: path.write_text("ten times faster"), "README.md has sha256"),
        ("config.json", lambda path: path.unlink(), "cannot read"),
        ("more.py", lambda path: path.write_text("import os"), "more.py was added after the export"),
        ("icd.json", lambda path: path.write_text("{}"), "holds no export"),
        (
            "icd.json",
            lambda path: path.write_text(path.read_text().replace('"model.onnx"', '"../x"')),
            "leaves its folder",
        ),
    ],
)
def test_a_file_that_was_changed_is_found(written, file, damage, message):
    check_export(written)
    damage(written / file)
    with pytest.raises(ArtifactError, match=message):
        check_export(written)


def test_a_graph_is_no_model_for_pytorch(written):
    with pytest.raises(ArtifactError, match="holds an export for onnxruntime.*as its README.md says"):
        icd.load_optimized(written)


KILLED = """
import sys
import icd_lib as icd
from icd_lib.deploy import export as place
from tests.tiny_encoders import batch, tiny_bert
real = place.verify_plain
def slow(folder, *more):
    print("written", flush=True)
    import time; time.sleep(60)
place.verify_plain = slow
icd.export(tiny_bert(), None, sys.argv[1], runtime="onnxruntime", example=batch(2, 9))
"""


@WIDE
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_export_that_is_killed_leaves_nothing_under_its_name_and_the_next_one_clears_up(tmp_path, number):
    ready("onnxruntime", "fp32")
    out = tmp_path / "out"
    words = [sys.executable, "-c", KILLED, str(out)]
    with subprocess.Popen(words, cwd=project_root(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(number)
        process.wait(30)
    assert not out.exists() and len(list(tmp_path.iterdir())) == 1
    icd.export(tiny_bert(), None, out, runtime="onnxruntime", example=batch(2, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_killed_between_two_renames_is_put_back(written):
    before = (written / "icd.json").read_bytes()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    own = f".out.{int(dead.stdout):08x}"
    written.rename(written.with_name(f"{own}.old"))
    written.with_name(f"{own}.partial").mkdir()
    assert clear_leftovers(written) == 2
    assert (written / "icd.json").read_bytes() == before and len(list(written.parent.iterdir())) == 1


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    theirs = tmp_path / f".out.{os.getppid():08x}.partial"
    theirs.mkdir()
    with new_folder(tmp_path / "out") as partial:
        (partial / "x").write_text("x")
    assert theirs.is_dir() and (tmp_path / "out" / "x").is_file()


FULL = """
import resource, sys
import icd_lib as icd
from icd_lib.errors import ArtifactError
from tests.tiny_encoders import batch, tiny_bert
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    icd.export(tiny_bert(), None, sys.argv[1], runtime="eager", example=batch(2, 9))
except ArtifactError as error:
    print(error)
"""


@WIDE
def test_a_full_disk_is_an_error_with_the_cure_and_leaves_nothing(tmp_path):
    words = [sys.executable, "-c", FULL, str(tmp_path / "out")]
    done = subprocess.run(words, cwd=project_root(), capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ArtifactError, match="permission denied"):
        icd.export(tiny_bert(), None, tmp_path / "out", runtime="eager", example=batch(2, 9))


def test_a_card_says_what_was_measured_and_what_was_not(tmp_path):
    fast = Speed(shape="8x128", against="dense", change=figure(-0.5, "fraction", "measured", n=20, ci95=(-0.52, -0.48)))
    kept = Lost(split="unseen", reading="own", where="this runtime", figure=figure(0.1, "pp", "measured", n=9))
    none = Lost(split="seen", reading="own", where="this runtime", figure=not_measured("pp", "it was not judged"))
    card = Card(
        title="small",
        source="a model",
        licence="mit",
        machine="a CPU",
        speeds=(fast,),
        losses=(kept, none),
        again="make",
    )
    ready("onnxruntime", "fp32")
    folder = icd.export(tiny_bert(), None, tmp_path / "out", runtime="onnxruntime", example=batch(2, 9), card=card)
    text = (folder / "README.md").read_text()
    for line in (
        "license: mit",
        "# small",
        "Measured on a CPU.",
        "| 8x128 | dense | −50.0 % (−52.0 to −48.0 %) |",
        "| unseen | own | this runtime | +0.100 pp |",
        "| seen | own | this runtime | not measured: it was not judged |",
        "```\nmake\n```",
    ):
        assert line in text, line


@pytest.mark.parametrize("away, same", [(5e-4, True), (5e-3, False)])
def test_an_export_differs_by_rounding_at_most(away, same):
    one = np.eye(4, dtype=np.float32)
    compared = compare(one + away * np.eye(4, k=1, dtype=np.float32), one)
    with nullcontext() if same else pytest.raises(ArtifactError, match="differ from the exported model's"):
        check_same("x", compared, one)


def test_a_difference_is_seen_where_it_counts():
    one = np.ones((2, 3, 4), np.float32)
    padded = one.copy()
    padded[0, 2] = 7
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    assert compare(padded, one, mask) == {"max_abs_error": 0.0, "min_cosine": pytest.approx(1)}
    check_same("x", compare(padded, one, mask), one)
    with pytest.raises(ArtifactError, match="differ from the exported model's by 6"):
        check_same("x", compare(padded, one), one)
    with pytest.raises(ArtifactError, match="of shape"):
        compare(one[:1], one)
    assert len(TEXTS) > 1 and check_place(Path(os.devnull).with_name("no-such-folder"))
