"""Profiles of arms: each in a process of its own, as many as its interval asks for, and where one fails."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.measure import profiled
from icd_lib.measure.profiled import count_arms, eager_form, hit_figure, load_inputs, save_inputs
from icd_lib.metric import figure
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.records.counted import NcuRecord
from icd_lib.runtimes.cuda import cuda_runtimes
from icd_lib.scrub.text import find_leaks
from icd_lib.storage.atomic import to_json
from icd_lib.storage.json_text import parse_text
from icd_lib.storage.record_json import as_json, from_json
from tests.gpu_stand_ins import lines_of, put_ncu
from tests.tiny_encoders import batch, prune, tiny_bert

ROW = replace(cuda_runtimes()["cuda_eager"], device="cpu")
MODULE = "transformers.models.bert.modeling_bert"
INPUTS = batch(2, 6, padded=True) | {"use_cache": False}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    save_inputs({key: value for key, value in INPUTS.items() if key != "use_cache"}, folder / "inputs.safetensors")
    models = {"dense": tiny_bert(), "iterative": prune(tiny_bert())}
    return {arm: save_optimized(model, None, folder / arm) for arm, model in models.items()}


@pytest.fixture
def count(saved, tmp_path, monkeypatch):
    """Counts the arms with a program in ncu's place; what it runs does nothing, unless `real`."""

    def idle(folder, *_):
        return [sys.executable, "-c", "", str(folder)]

    def run(mode="counts", style="new", real=False, **changes):
        if not real:
            monkeypatch.setattr(profiled, "program", idle)
        put_ncu(tmp_path, mode, style)
        given = {"groups": [["iterative"], ["dense"]], "rounds": 3, "budget_s": 600.0, "timeout_s": 120.0, **changes}
        inputs = saved["dense"].parent / "inputs.safetensors"
        return count_arms(saved, inputs, MODULE, ROW, ncu=str(tmp_path / "ncu"), **given)

    return run


def rate(folder, turn: int) -> float:
    """What the stand-in counts for a folder."""
    misses = (folder / "model.safetensors").stat().st_size // 32 + 10 * turn
    return 100 * (1 - misses / 4_000_000)


def test_every_arm_is_profiled_in_processes_of_its_own_until_its_interval_is_narrow(count, saved, tmp_path):
    found = count()
    assert list(found.arms) == ["iterative", "dense"]
    for arm, entry in found.arms.items():
        assert entry.hit_pct == pytest.approx([rate(saved[arm], turn) for turn in range(2)])
        item = hit_figure(found, arm)
        assert item.value == pytest.approx(sum(entry.hit_pct) / 2) and item.n == 2
        assert item.ci95[0] < item.value < item.ci95[1] and "the runtime that is timed" in item.method
        assert entry.figures["dram_read_mb"].value > 0 and entry.rounds[0].passes == 3
    ran = lines_of(tmp_path / "ncu.jsonl")
    assert [line["program"][-1].rpartition("/")[2] for line in ran] == ["iterative"] * 2 + ["dense"] * 2
    assert all(line["rc"] == 0 and line["options"]["--nvtx-include"] == "icd_measure/" for line in ran)
    assert hit_figure(found, "iterative").value > hit_figure(found, "dense").value


@pytest.mark.wide
def test_what_is_kept_is_read_back_and_names_no_folder(count, tmp_path):
    found = count(real=True, rounds=1)
    assert [line["rc"] for line in lines_of(tmp_path / "ncu.jsonl")] == [0, 0], "the programs load and run their arms"
    text = to_json(as_json(found))
    assert not find_leaks(text) and "icd_lib.measure.profiled" in text
    assert from_json(type(found), parse_text(text), "a file") == found
    assert hit_figure(found, "dense").ci95 is None, "one profile has no interval"


@pytest.mark.parametrize("style", ["old", "scaled"])
def test_reports_of_other_versions_and_units_count_the_same(count, style):
    plain, other = (hit_and_bytes(count(style=name, rounds=1)) for name in ("new", style))
    assert other == pytest.approx(plain)


def hit_and_bytes(found) -> list[float]:
    return [found.arms["dense"].figures[name].value for name in ("l2_hit_pct", "l2_read_mb", "dram_read_mb")]


@pytest.fixture
def timed(count, saved, monkeypatch):
    """Counts with profiles that take so many seconds of a clock of their own, one after the other; gives the arms."""

    def run(*seconds, groups, budget_s, rounds=3):
        now, lasting, taken = [0.0], iter(seconds), []
        monkeypatch.setattr(profiled, "time", SimpleNamespace(monotonic=lambda: now[0]))

        def profile(command, **_):
            now[0] += next(lasting)
            taken.append(Path(command[-1]).name)
            return NcuRecord(
                metrics={"l2_hit_pct": figure(60.0 + 5 * len(taken), "%", "measured", n=1, method="ncu")},
                kernels=1,
                passes=3,
                replay="kernel",
                cache_control="none",
                clock_control="none",
                version=None,
                command=[],
            )

        monkeypatch.setattr(profiled, "profile", profile)
        return taken, count(groups=groups, budget_s=budget_s, rounds=rounds)

    return run


def test_a_round_is_begun_only_where_all_of_it_is_likely_to_fit(timed):
    taken, found = timed(*[44.0] * 9, groups=[["iterative", "dense"]], budget_s=120.0)
    assert taken == ["iterative", "dense"], "two more would have ended after 176 s"
    taken, _ = timed(*[44.0] * 9, groups=[["iterative", "dense"]], budget_s=176.0)
    assert taken == ["iterative", "dense"] * 2
    taken, _ = timed(30.0, 50.0, *[30.0] * 9, groups=[["iterative", "dense"]], budget_s=179.0)
    assert taken == ["iterative", "dense"], "the longest counts"


def test_a_group_whose_round_does_not_fit_says_so(timed):
    _, found = timed(*[44.0] * 9, groups=[["iterative"], ["dense"]], budget_s=100.0, rounds=2)
    assert len(found.arms["iterative"].rounds) == 2
    assert "did not suffice" in hit_figure(found, "dense").reason


def test_what_was_counted_is_kept_after_each_profile(count):
    kept = []
    found = count("fails for dense", groups=[["iterative", "dense"]], rounds=2, keep=kept.append)
    counted = [[len(one.arms[arm].rounds) for arm in ("iterative", "dense")] for one in kept]
    assert counted == [[1, 0], [1, 0], [2, 0]] and kept[-1] == found
    assert "ended with 9" in kept[1].arms["dense"].reason and hit_figure(kept[0], "iterative").n == 1


def test_a_refusal_later_on_leaves_what_was_counted(count, monkeypatch):
    first, real = [], profiled.profile

    def refuses_later(*given, **how):
        if first:
            raise ResourceError("ncu: another tool holds the counters")
        first.append(True)
        return real(*given, **how)

    monkeypatch.setattr(profiled, "profile", refuses_later)
    found = count(groups=[["iterative", "dense"]])
    assert hit_figure(found, "iterative").n == 1 and "another tool" in hit_figure(found, "dense").reason


@pytest.mark.parametrize("replay", ["kernel", "application"])
def test_how_passes_are_taken_is_asked_of_ncu_and_told(count, tmp_path, replay):
    found = count(groups=[["dense"]], rounds=1, replay=replay)
    assert [line["options"]["--replay-mode"] for line in lines_of(tmp_path / "ncu.jsonl")] == [replay]
    assert found.arms["dense"].rounds[0].replay == replay
    assert hit_figure(found, "dense").method.endswith(f"{replay} replay")


def test_a_refusal_is_not_of_one_arm_and_is_not_tried_again(count, tmp_path):
    found = count("refused")
    assert not lines_of(tmp_path / "ncu.jsonl")
    for arm in ("dense", "iterative"):
        item = hit_figure(found, arm)
        assert (
            item.is_missing and "run as root" in item.reason and "NVreg_RestrictProfilingToAdminUsers=0" in item.reason
        )


def test_without_ncu_the_reason_says_how_to_get_it(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = count_arms(
        saved, saved["dense"].parent / "inputs.safetensors", MODULE, ROW, groups=[["dense"]], rounds=2, budget_s=9.0
    )
    assert "not on the PATH; install" in hit_figure(found, "dense").reason


def test_what_fails_for_one_arm_leaves_the_others(count):
    found = count("fails for dense", groups=[["dense", "iterative"]], rounds=2)
    assert "ended with 9" in hit_figure(found, "dense").reason and not found.arms["dense"].rounds
    assert hit_figure(found, "iterative").n == 2


def test_a_program_without_kernels_is_no_hit_rate(count):
    assert "entered" in hit_figure(count("no kernels", groups=[["dense"]]), "dense").reason


def test_a_program_that_hangs_is_ended(count):
    found = count("hang", groups=[["dense"]], timeout_s=0.5)
    assert "longer than 0.5 s" in hit_figure(found, "dense").reason


def test_no_profile_is_begun_when_the_time_is_spent(count, tmp_path):
    found = count(budget_s=1e-9)
    assert "measure.ncu_budget_s" in hit_figure(found, "dense").reason and not lines_of(tmp_path / "ncu.jsonl")


@pytest.mark.parametrize(
    ("name", "form", "says"),
    [
        ("cuda_eager", "cuda_eager", "the runtime that is timed"),
        ("cuda_graph_bf16", "cuda_eager_bf16", "the same kernels as in the graph"),
        ("cuda_compile_fp16", "cuda_eager_fp16", "other kernels than those of torch.compile"),
    ],
)
def test_graphs_and_compiled_models_are_counted_in_eager_of_their_precision_and_it_says_so(name, form, says):
    row, note = eager_form(replace(cuda_runtimes()[name], device="cuda:3"))
    assert (row.name, row.device) == (form, "cuda:3") and says in note


def test_a_precision_that_eager_has_not_is_refused():
    with pytest.raises(ResourceError, match="cuda_int8 computes in int8, which PyTorch eager on CUDA does not"):
        eager_form(replace(ROW, name="cuda_int8", precision="int8"))


def test_inputs_come_back_as_they_were_given(tmp_path):
    save_inputs(INPUTS, tmp_path / "inputs.safetensors")
    found = load_inputs(tmp_path / "inputs.safetensors")
    assert set(found) == set(INPUTS) and found["use_cache"] is False
    assert all(torch.equal(found[name], INPUTS[name]) for name in ("input_ids", "attention_mask"))


def test_the_profiled_process_does_one_call_more_than_it_warms_up_for(saved, monkeypatch):
    calls = []
    row = cuda_runtimes()["cuda_eager"]

    class Counting(type(row)):
        def prepare(self, model, inputs, **_):
            prepared = super().prepare(model, inputs)
            run = prepared.call

            def call(given):
                start = run(given)
                return lambda: calls.append(start().shape)

            prepared.call = call
            return prepared

    counting = Counting("cuda_eager", "counting")
    monkeypatch.setattr(profiled, "cuda_runtimes", lambda: {"cuda_eager": counting})
    profiled.main(MODULE, "cuda_eager", "cpu", str(saved["dense"].parent / "inputs.safetensors"), str(saved["dense"]))
    assert calls == [(2, 6, tiny_bert().config.hidden_size)] * (profiled.WARM_CALLS + 1)


def test_its_command_runs_this_python(saved):
    words = profiled.program(saved["dense"], saved["dense"], MODULE, ROW)
    assert words[1:3] == ["-m", "icd_lib.measure.profiled"] and os.access(words[0], os.X_OK)
