"""The command icd, as somebody with a model and a file of text uses it."""

import io
import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from rich.console import Console

import icd_lib as icd
from icd_lib.command.app import main, progress_on
from icd_lib.command.judges import NeighbourJudge, nearest
from icd_lib.paths import project_root
from icd_lib.progress import DETAIL
from icd_lib.transforms.observed import Findings
from icd_lib.transforms.sparsity.allocate import LatencyTable
from tests.tiny_domains import damage, toy_domain, toy_encoder, toy_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, its tokenizer and a file of text."""
    folder = tmp_path_factory.mktemp("place")
    tokenizer = toy_tokenizer(folder)
    model = toy_encoder()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "texts.txt").write_text("\n".join(toy_domain().texts) + "\n")
    return folder


@pytest.mark.wide
def test_a_model_and_a_file_of_text_are_enough(place, capsys):
    out = place / "fast"
    words = ["optimize", str(place / "model"), "--calibrate", str(place / "texts.txt"), "--out", str(out)]
    code = main([*words, "--target", "-0.01", "--max-length", "24"])
    told = capsys.readouterr()
    if code == 6:  # on a model this small the clock may find no width that is faster
        assert "no candidate was kept" in told.err and not out.exists()
        pytest.skip("nothing of this tiny model is faster on this machine")
    assert code == 0, told.err
    assert "nearest neighbours" in told.out and "Agreement is not quality" in told.out
    assert f"icd.load_optimized({str(out)!r})" in told.out.replace("\n", "")
    record = json.loads((out / "icd.json").read_text())["meta"]
    assert record["judged"]["dense_pct"] == 100 and record["judged"]["value_pct"] < 100
    assert sum(record["widths"].values()) < 2 * (48 + 2)
    model = icd.load_optimized(out)
    assert torch.isfinite(model(input_ids=torch.tensor([[2, 5, 3]])).last_hidden_state).all()

    assert main([*words, "--target", "-0.01"]) == 7  # the folder holds a model now
    assert "--force replaces it" in capsys.readouterr().err
    words = ["measure", str(out), "--against", str(place / "model"), "--shape", "2x8", "--runtime", "eager"]
    assert main([*words, "--repeats", "3"]) == 0
    assert "2x8" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["optimize", "_judge", "time_models"])
def test_a_device_that_runs_out_of_memory_is_told_with_the_cure(part, place, known_clock, monkeypatch, capsys):
    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(f"icd_lib.command.optimize.{part}", out_of_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    out = place / f"no memory for {part}"
    words = ["optimize", str(place / "model"), "--calibrate", str(place / "texts.txt"), "--out", str(out)]
    assert main([*words, "--target", "-0.01", "--max-length", "24"]) == 3
    assert (
        "icd optimize computed: CUDA out of memory" in capsys.readouterr().err.replace("\n", " ") and not out.exists()
    )


@pytest.fixture
def known_clock(monkeypatch):
    """Tables that say what the clock of a busy machine may not: a narrower FFN takes less time."""
    widths, heads = np.arange(0, 49, 16), np.arange(1, 3)

    def tables(observed, settings, device):
        ffn = LatencyTable("ffn", widths, 2.0 * (1 - widths / 48))
        found = {"ffn": ffn, "heads": LatencyTable("heads", heads, 0.4 * (1 - heads / 2))}
        return Findings(found, 10.0, {item.axis: 1.0 for item in observed.adapter.prunable()})

    monkeypatch.setattr("icd_lib.api._measure_machine", tables)


@pytest.mark.wide
@pytest.mark.parametrize("form", ["jsonl", pytest.param("csv", marks=pytest.mark.slow)])
def test_objects_and_rows_and_a_budget(place, capsys, known_clock, form):
    texts = toy_domain().texts
    if form == "jsonl":
        lines, more = [json.dumps({"text": text, "n": place}) for place, text in enumerate(texts)], []
    else:
        lines, more = ["id,review", *(f'{place},"{text}"' for place, text in enumerate(texts))], ["--field", "review"]
    file, out = place / f"texts.{form}", place / f"fast_{form}"
    file.write_text("\n".join(lines) + "\n")
    words = ["optimize", str(place / "model"), "--calibrate", str(file), "--out", str(out), "--max-length", "24", *more]
    assert main([*words, "--budget", "0"]) == 6, "every change costs some agreement"
    assert "no candidate was kept" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--budget", "90"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert f"{len(texts) - len(texts) // 4} texts calibrate, {len(texts) // 4} others judge" in told
    record = json.loads((out / "icd.json").read_text())["meta"]
    assert 10 <= record["judged"]["value_pct"] < 100 and sum(record["widths"].values()) < 2 * (48 + 2)


@pytest.mark.parametrize(
    "change, code, message",
    [
        ({"--calibrate": "nowhere.txt"}, 2, "nowhere.txt is no file"),
        ({"--calibrate": "few.txt"}, 2, "holds 2 different texts"),
        ({"--calibrate": "one.txt"}, 2, "holds 1 different texts; to calibrate on some and judge by others takes 64"),
        ({"--out": "texts.txt"}, 7, "--out .* is a file"),
        ({"--out": "model"}, 7, "not empty and holds no optimised model"),
        ({"--target": "0.3"}, 2, "latency_target_rel"),
        ({"--target": "soon"}, 2, "--target"),
        ({"--mode": "magic"}, 2, "mode"),
        ({"--max-length": "2"}, 2, "--max-length is 8 tokens or more"),
        ({"--quality": "nowhere:judge"}, 2, "--quality nowhere:judge cannot be loaded"),
        ({"--quality": "judge"}, 2, "module:function"),
        ({"--nonsense": "1"}, 2, "--nonsense"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(place, capsys, change, code, message):
    (place / "few.txt").write_text("one\ntwo\n")
    (place / "one.txt").write_text("one\n")
    given = {"--calibrate": "texts.txt", "--out": "never"} | change
    paths = {"--calibrate", "--out"}
    words = [word for key, value in given.items() for word in (key, str(place / value) if key in paths else value)]
    assert main(["optimize", str(place / "model"), *words]) == code
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(message, told), told
    assert not (place / "never").exists()


def test_a_model_that_is_none_is_refused_with_what_was_tried(place, capsys):
    assert main(["optimize", "no/such", "--calibrate", str(place / "texts.txt"), "--out", str(place / "never")]) == 3
    assert "no/such" in capsys.readouterr().err


def test_what_there_is_is_listed(capsys):
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert "bert_domain" in told and "openvino" in told and "mamba" in told


def test_scenarios_run_by_the_same_code(capsys):
    assert main(["run", "--scenario", "no_such"]) == 2
    assert "no_such" in capsys.readouterr().err


@pytest.mark.notebooks
def test_a_scenario_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    fewer = ["calibration.pilots=8", "calibration.repeats=3"]
    words = ["--scenario", "mock", "--quick", "--mode", "linear", "--no-measure", "--out", str(tmp_path)]
    assert main(["run", *words, *(word for key in fewer for word in ("--override", key))]) == 0
    assert json.loads((tmp_path / "mock" / "linear" / "solve.json").read_text())


def test_details_are_a_spinner_s_and_lines_are_kept():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with progress_on(console, "begun [x]") as say:
        say("a line [of 3]")
        say(f"{DETAIL}half of it")
        time.sleep(0.3)
    told = stream.getvalue()
    assert "half of it" in told and DETAIL not in told
    assert "a line [of 3]\n" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told).replace("\r", "")
    plain = Console(file=(stream := io.StringIO()), width=80)
    with progress_on(plain, "begun") as say:
        say("a line")
        say(f"{DETAIL}half of it")
    assert stream.getvalue() == "a line\n"


def test_it_is_a_command_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "icd_lib.command.app", "version"], capture_output=True, text=True, cwd=project_root()
    )
    assert (done.returncode, done.stdout.strip()) == (0, icd.__version__)


def test_neighbours_are_shared_by_the_model_itself_and_not_by_a_damaged_one(tmp_path):
    model, texts = toy_encoder(), toy_domain().texts
    judge = NeighbourJudge(model, toy_tokenizer(tmp_path), texts, 24)
    assert judge(model) == 100 and judge.detail()["mean_cosine"] == pytest.approx(1)
    assert judge(damage(model)) < 90 and judge.detail()["mean_cosine"] < 0.99


def test_a_text_is_not_its_own_neighbour():
    near = nearest(torch.nn.functional.normalize(torch.randn(5, 3), dim=1).numpy(), 10)
    assert near.shape == (5, 4) and all(row not in near[row] for row in range(5))
