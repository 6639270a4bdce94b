"""Counters of a GPU in a run, with stand-ins for ncu and NVML and PyTorch on the CPU in the device's place."""

import importlib
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from icd_lib.experiment.counters import energy_by_windows, hit_change
from icd_lib.experiment.gates import judge
from icd_lib.measure import profiled
from icd_lib.records.counted import ENERGY, NCU, POWER, BoardEnergy, Counted, from_csv
from icd_lib.records.measured import MEASURED, Measured
from icd_lib.run.artifacts import open_run
from icd_lib.runtimes.cuda import cuda_runtimes
from icd_lib.runtimes.target import Target
from icd_lib.scrub.text import find_leaks
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.workloads.model import counters, measure
from icd_lib.workloads.model.validate import claim
from tests.gpu_stand_ins import lines_of, put_ncu, put_pynvml
from tests.tiny_domains import toy_encoder
from tests.tiny_encoders import shrink

SHORT = ("measure.energy_windows=3", "measure.energy_window_s=0.12", "measure.shapes=[[2, 8]]", "measure.ncu_rounds=3")
ARMS = ("dense", "linear", "oneshot", "iterative")


def narrowed(width: int):
    """A toy encoder of narrower FFNs."""
    model = toy_encoder()
    for layer in model.encoder.layer:
        layer.intermediate.dense = shrink(layer.intermediate.dense, rows=width)
        layer.output.dense = shrink(layer.output.dense, columns=width)
    return model.eval()


@pytest.fixture
def run(make, tmp_path, monkeypatch):
    """Measures the counters of a run's arms; ncu and nvml: how the stand-ins behave."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    monkeypatch.setattr(counters, "SETTLE_S", 0.01)
    monkeypatch.setattr(counters, "is_on_gpu", lambda context: True)
    monkeypatch.setattr(measure, "is_on_gpu", lambda context: True)

    def measured(*overrides, ncu="counts", nvml="counts", real=False, arms=ARMS):
        put_ncu(folder, ncu)
        put_pynvml(folder, nvml)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)
        importlib.invalidate_caches()
        if not real:
            idle = [sys.executable, "-c", ""]
            monkeypatch.setattr(profiled, "program", lambda folder, *_: [*idle, str(folder)])
        context = make(*SHORT, *overrides)
        context._loaded = (toy_encoder(), context.tokenizer)
        context.target = Target(replace(cuda_runtimes()["cuda_graph"], device="cpu"))
        eager = replace(cuda_runtimes()["cuda_eager"], device="cpu")
        monkeypatch.setattr(context.target.row.__class__, "prepare", lambda self, *given, **more: eager.prepare(*given))
        models = {"dense": context.model} | {arm: narrowed(24) for arm in arms[1:]}
        return context, measure.from_counters(context, models | {"same_transform": narrowed(40)})

    measured.log = folder / "ncu.jsonl"
    yield measured
    sys.modules.pop("pynvml", None)


def report_of(found: dict) -> Measured:
    """What measure.json would hold, as it is read back."""
    rest = {"latency": {"threads": 1, "shapes": {}}, "quality": {"reason": "not asked"}, "equality": {}, "sizes": {}}
    return from_json(Measured, as_json(rest | found), MEASURED)


def sections_of(report: Measured) -> dict:
    sections = {key: {} for key in ("same_transform", "same_quality", "vs_dense", "vs_oneshot")}
    claim(sections, report)
    return sections


def test_every_arm_has_a_hit_rate_and_an_energy_and_what_gates_judge_has_an_interval(run):
    context, found = run()
    report = report_of(found)
    assert set(report.l2_hit_pct) == set(report.energy) == {*ARMS, "same_transform"}
    for arm in report.energy:
        assert report.hits_of(arm).kind == report.energy[arm].kind == "measured"
        assert report.hits_of(arm).value == pytest.approx(np.mean(report.rounds_of("l2_hit_pct", arm)))
        assert len(report.rounds_of("energy_j_per_token", arm)) == 3
    assert "same kernels as in the graph" in report.hits_of("dense").method
    section = sections_of(report)["same_transform"]
    gain = report.hits_of("iterative").value - report.hits_of("same_transform").value
    assert section["l2_pp"].value == pytest.approx(gain) and gain > 0
    assert section["l2_pp"].ci95[0] < gain < section["l2_pp"].ci95[1]
    change = report.energy["iterative"].value / report.energy["same_transform"].value - 1
    assert section["ept_rel"].value == pytest.approx(change) and section["ept_rel"].ci95 is not None
    assert judge({"l2_pp": 0.0}, {"l2_pp": section["l2_pp"]}).checks == {"l2_pp": "pass"}
    assert judge({"l2_pp": 50.0}, {"l2_pp": section["l2_pp"]}).checks == {"l2_pp": "fail"}


def test_the_files_beside_it_say_how_it_was_read_and_give_no_machine_away(run):
    context, found = run()
    counted, energy = context.run.read(Counted, NCU), context.run.read(BoardEnergy, ENERGY)
    assert counted.form.startswith("PyTorch eager on CUDA") and set(counted.arms) == {*ARMS, "same_transform"}
    readings = from_csv((context.run.dir / POWER).read_text())
    assert {"idle before", "idle after", "dense_again", *ARMS} <= {reading.phase for reading in readings}
    assert energy.windows == 3 and energy.aa_control.ci95 and energy.idle_w["before"].value > 0
    for rel in (NCU, ENERGY, POWER):
        assert not find_leaks((context.run.dir / rel).read_text())
    assert any("6 arms" in line and "s in all" in line for line in context.lines), "how long it takes is said before"
    assert any("GPU slowed down" in line and "dense_again" in line for line in context.lines)


@pytest.mark.parametrize(("given", "replay"), [((), "kernel"), (("measure.ncu_replay=application",), "application")])
def test_how_ncu_takes_its_passes_is_an_option_and_stands_in_the_file(run, given, replay):
    context, _ = run("measure.ncu_rounds=1", *given)
    assert {line["options"]["--replay-mode"] for line in lines_of(run.log)} == {replay}
    arms = context.run.read(Counted, NCU).arms.values()
    assert {record.replay for entry in arms for record in entry.rounds} == {replay}


def test_a_run_that_is_stopped_leaves_the_profiles_that_it_had(run, monkeypatch):
    real, taken = profiled.profile, []

    def stops(*given, **how):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(True)
        return real(*given, **how)

    monkeypatch.setattr(profiled, "profile", stops)
    with pytest.raises(KeyboardInterrupt):
        run("gates.comparison=same_quality")
    (file,) = run.log.parent.parent.glob(f"**/{NCU}")
    arms = from_json(Counted, json.loads(file.read_text()), NCU).arms
    assert {arm: len(entry.rounds) for arm, entry in arms.items() if entry.rounds} == {"iterative": 2, "linear": 1}
    assert from_csv((file.parent / "power.csv").read_text()) and (file.parent / "energy.json").is_file()


def test_the_readings_of_the_board_are_in_their_file_while_energy_is_measured(run, monkeypatch):
    real, sizes = counters.board_windows, []

    def looks(*given, say, **how):
        def enter(arm):
            sizes.append([file.stat().st_size for file in run.log.parent.parent.glob(f"**/{POWER}")])
            say(arm)

        return real(*given, say=enter, **how)

    monkeypatch.setattr(counters, "board_windows", looks)
    run("measure.ncu=false")
    assert len(sizes) == 3 * 6 and all(len(found) == 1 for found in sizes) and sizes == sorted(sizes)


def test_the_judged_arms_are_profiled_before_the_others(run):
    run("gates.comparison=same_quality")
    arms = [line["program"][-1].rstrip("/").split("/")[-1] for line in lines_of(run.log)]
    assert arms[:4] == ["iterative", "linear"] * 2 and set(arms) == {*ARMS, "same_transform"}


@pytest.mark.parametrize(
    ("given", "metric", "says"),
    [
        ({"ncu": "refused"}, "l2_pp", "run as root"),
        ({"ncu": "no kernels"}, "l2_pp", "entered"),
        ({"nvml": "no counter"}, "ept_rel", "no energy counter here"),
        ({"nvml": "divided"}, "ept_rel", "a board without MIG"),
        ({"nvml": "lost"}, "ept_rel", "GPU is lost"),
        ({"nvml": "reset"}, "ept_rel", "went back"),
    ],
)
def test_what_is_refused_or_lost_is_not_measured_and_the_other_counter_stands(run, given, metric, says):
    _, found = run(**given)
    section = sections_of(report_of(found))["same_transform"]
    other = {"l2_pp": "ept_rel", "ept_rel": "l2_pp"}[metric]
    assert section[metric].is_missing and says in section[metric].reason
    assert section[other].kind == "measured"


def test_what_is_switched_off_is_not_asked_for(run):
    context, found = run("measure.ncu_enable=false", "measure.power_enable=false", ncu="hang", nvml="lost")
    report = report_of(found)
    assert "measure.ncu" in report.hits_of("iterative").reason and "measure.energy" in report.energy["dense"].reason
    assert not any((context.run.dir / rel).exists() for rel in (NCU, ENERGY, POWER))


def test_an_arm_that_fails_leaves_the_comparison_without_it_and_the_others_with_theirs(run):
    _, found = run(ncu="fails for same_transform")
    report = report_of(found)
    assert hit_change(report, "same_transform").is_missing and hit_change(report, "linear").kind == "measured"
    assert energy_by_windows(report, "same_transform").ci95 is not None


def test_one_window_or_profile_has_no_interval_and_is_not_judged(run):
    _, found = run("measure.energy_windows=1", "measure.ncu_rounds=1")
    section = sections_of(report_of(found))["same_transform"]
    for key in ("l2_pp", "ept_rel"):
        verdict = judge({key: 0.0}, {key: section[key]})
        assert verdict.checks[key] == "not_measured" and "no 95 % interval" in verdict.reasons[key]


@pytest.mark.wide
def test_the_whole_measurement_runs_its_arms_in_processes_of_their_own(run):
    context, found = run("measure.ncu_rounds=1", real=True, arms=("dense", "iterative"))
    assert report_of(found).hits_of("same_transform").kind == "measured"
    assert [line["rc"] for line in lines_of(run.log)] == [0] * 3


def test_a_quick_run_takes_fewer_windows_unless_it_says(tmp_path):
    def found(**how):
        run = open_run("bert", out=tmp_path, **how)
        return [counters.option(run, name) for name in ("energy_windows", "energy_window_s", "ncu_rounds")]

    assert found() == [5, 5.0, 5] and found(quick=True) == [2, 5.0, 2]
    assert found(quick=True, overrides=["measure.energy_windows=4"]) == [4, 5.0, 2]
