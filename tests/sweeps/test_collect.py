"""A point's figures are those of its run's files."""

import json
import shutil
from pathlib import Path

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.sweeps.collect import ARMS, arms_of, gates_of, lost_where_chosen, where_of

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"


def test_a_table_and_a_model(tmp_path):
    for name, model, shape, runtime in (
        ("mock", "mock table", "chained", ""),
        ("bert", "sentence-transformers/all-MiniLM-L6-v2", "8x128", "openvino_int8"),
    ):
        arms, where = arms_of(REFERENCE / name), where_of(REFERENCE / name)
        assert tuple(arms) == ARMS and (where.model, where.shape, where.runtime) == (model, shape, runtime)
        kept = json.loads((REFERENCE / name / "iterative" / "metrics.json").read_text())
        assert arms["iterative"].latency_ms.value == kept["latency_ms"]["value"]
        assert arms["iterative"].quality_drop_pp.value == kept["vs_dense"]["quality_drop_pp"]["value"]
        processor = json.loads((REFERENCE / name / "setup" / "setup.json").read_text())["environment"]["cpu"]["model"]
        assert where.machine.startswith(f"{processor}, 2 cores")
        assert set(gates_of(REFERENCE / name)) == {"smoke", "strict"}


def test_iterative_is_judged_on_the_other_kind_of_text_too():
    for name in ("bert", "bert_domain", "mamba"):
        lock = json.loads((REFERENCE / name / "config.lock.json").read_text())
        other = {"seen": "unseen", "unseen": "seen"}[lock["config"]["codesign"]["budget_on"]]
        arms = arms_of(REFERENCE / name)
        verdict = json.loads((REFERENCE / name / "verdict.json").read_text())
        assert arms["iterative"].other_drop_pp.value == verdict["quality"][other]["own_pp"]["value"]
        assert "alone" in arms["linear"].other_drop_pp.reason
    assert "by construction" in arms_of(REFERENCE / "mock")["iterative"].other_drop_pp.reason


def test_fp8_is_stored_and_not_computed_so_it_has_bytes_and_quality_and_no_latency(tmp_path):
    folder = shutil.copytree(REFERENCE / "bert", tmp_path / "bert")
    lock = json.loads((folder / "config.lock.json").read_text())
    lock["config"]["quantization"]["precision"] = "fp8_storage"
    (folder / "config.lock.json").write_text(json.dumps(lock))
    arms = arms_of(folder)
    assert arms["iterative"].latency_ms.is_missing and "fp8" in arms["iterative"].latency_vs_dense.reason
    assert arms["iterative"].quality_drop_pp.value is not None and arms["dense"].latency_ms.value > 0


def test_the_loss_where_strengths_are_chosen():
    drop, error = lost_where_chosen(REFERENCE / "bert", "iterative")
    kept = json.loads((REFERENCE / "bert" / "iterative" / "solve.json").read_text())["validation"]
    assert (drop, error) == (kept["drop_pp"], kept["se_pp"])
    assert lost_where_chosen(REFERENCE / "mock", "iterative") is None, "a table has no quality to lose"
    assert lost_where_chosen(REFERENCE / "gone", "iterative") is None


def test_a_run_without_figures_is_refused_with_the_cure(tmp_path):
    (tmp_path / "config.lock.json").write_text('{"config": {}}')
    with pytest.raises(ArtifactError, match="no metrics.json of any arm; run the point again with --force"):
        arms_of(tmp_path)
    with pytest.raises(ArtifactError, match="missing or broken"):
        where_of(tmp_path)
