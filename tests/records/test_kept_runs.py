"""The records against the kept runs: all of them is read, and what is written again is the same, byte by byte."""

import json
from pathlib import Path

import pytest

from icd_lib.experiment.arms import MODES
from icd_lib.metric import Figure
from icd_lib.paths import project_root
from icd_lib.records.attempts import Attempt, Pair, Round, SolvedModel, SolvedRows, Validation
from icd_lib.records.losses import SplitLoss
from icd_lib.records.measured import MEASURED, Measured, Timing
from icd_lib.records.verdict import (
    VERDICT,
    CostChange,
    Determinism,
    GateVerdict,
    Predicted,
    Section,
    Stability,
    Verdict,
)
from icd_lib.run.artifacts import LOCK
from icd_lib.run.files import as_record
from icd_lib.storage.atomic import to_json
from icd_lib.storage.record_json import from_json

RUNS = sorted(lock.parent for lock in (project_root() / "outputs" / "reference").glob(f"*/{LOCK}"))
named = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def same(kind, value) -> None:
    """Read as a record and written again it is the same text."""
    assert to_json(from_json(kind, value, "a file")) == to_json(value)


def figures(value):
    """Every figure in a nested value."""
    if isinstance(value, dict) and {"value", "unit", "kind"} <= value.keys():
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from figures(item)


@named
def test_every_figure_is_written_as_it_was(run):
    count = 0
    for path in run.rglob("*.json"):
        for item in figures(read(path)):
            same(Figure, item)
            count += 1
    assert count > 100


@named
def test_every_part_of_the_verdict_is_written_as_it_was(run):
    value = read(run / VERDICT)
    record = from_json(Verdict, value, "a file")
    for kind, key in ((CostChange, "cost"), (Determinism, "determinism"), (Stability, "stability")):
        same(kind, value[key])
    for gate in ("smoke", "strict"):
        same(GateVerdict, value[gate])
        assert record.gate(gate).status == value[gate]["status"]
    for entry in value["prediction"].values():
        same(Predicted, entry)
    assert set(record.sections) >= {"same_transform", "same_quality", "vs_dense", "vs_oneshot", "placebo", "aa_control"}
    for key, section in record.sections.items():
        assert list(section.shapes) == list(value[key].get("shapes", value[key])), key
        assert section == from_json(Section, value[key], "a file")


@named
def test_what_was_measured_is_written_as_it_was(run):
    value = read(run / MEASURED)
    record = from_json(Measured, value, "a file")
    for label, arms in value["latency"]["shapes"].items():
        for arm, entry in arms.items():
            same(Timing, entry)
            assert record.latency.shapes[label][arm].vs_dense.value == entry["vs_dense"]["value"]
    assert list(record.sizes) == list(value["sizes"]) and list(record.energy) == list(value["energy"])
    for arm, splits in record.quality.lost.items():
        for split, loss in splits.items():
            assert isinstance(loss, SplitLoss) and loss.own.drop_pp == value["quality"][arm][split]["own"]["drop_pp"]


def solved():
    """Every run with each of the arms that its scenario names."""
    return [(run, mode) for run in RUNS for mode in read(run / LOCK)["config"]["codesign"].get("arms", MODES)]


@pytest.mark.parametrize(("run", "mode"), solved(), ids=lambda value: getattr(value, "name", value))
def test_every_attempt_is_written_as_it_was(run, mode):
    value = read(run / mode / "solve.json")
    record = as_record(value, f"{mode}/solve.json", "a file")
    is_table = "sizes" in value
    assert isinstance(record, SolvedRows if is_table else SolvedModel)
    for entry, attempt in zip(value["attempts"], record.attempts, strict=True):
        assert isinstance(attempt, Round if is_table else Attempt)
        again = json.loads(to_json(attempt))
        if "why" not in entry:  # runs of before there was one
            assert [reason["code"] for reason in again.pop("why")] == [None] * len(entry["reasons"])
        assert to_json(again) == to_json(entry)
        if "validation" in entry:  # not where no plan was in reach
            same(Validation, entry["validation"])
    for pair in value["objective"]["axes"].values():
        same(Pair, pair)
