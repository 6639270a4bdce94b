"""The page of a check on a GPU: figures beside the gates' limits, and which claims are settled."""

import json
import shutil

import pytest
import report_factory

from icd_lib.errors import ArtifactError
from icd_lib.metric import figure
from icd_lib.records.measured import AtShape, InRuntime, Ladder
from icd_lib.release import gpu_page
from icd_lib.release.claims import Claim
from icd_lib.release.gpu_page import main, page, settles
from icd_lib.report.results import Results
from icd_lib.scrub.text import find_leaks

DEVICE = "NVIDIA H200 with CUDA 13.0 torch 2.11"
CLAIM = Claim(
    id="gpu.faster",
    says="compacted against dense",
    where="docs/GPU.md",
    stated="-40.0 %",
    source="outputs/reference/gpu/gpu.json : pair / value",
    shown_as="percent",
    command="python benchmarks/gpu.py",
    minutes=5,
    hardware="CUDA: NVIDIA H200",
    tolerance=0.05,
    verdict="no target",
)


def put(folder, value, device="NVIDIA H200", **more):
    folder.mkdir(parents=True, exist_ok=True)
    found = {"device": {"name": device}, "pair": {"value": value} if value is not None else {}, **more}
    (folder / "gpu.json").write_text(json.dumps(found))


@pytest.fixture
def root(tmp_path, monkeypatch):
    put(tmp_path / "outputs/reference/gpu", -0.4)
    monkeypatch.setattr(gpu_page, "load_claims", lambda root: [CLAIM, OTHER])
    return tmp_path


OTHER = Claim(**vars(CLAIM) | {"id": "cpu.faster", "hardware": "any CPU"})


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "check"
    found.mkdir()
    (found / "gpu_check.txt").write_text(
        f"{DEVICE}\ntests/gpu: exit 0 after 240 s\nbenchmarks/gpu.py: exit 0 after 200 s\nbert: exit 1 after 300 s\n"
    )
    return found


@pytest.mark.parametrize(
    ("value", "device", "says"),
    [
        (-0.42, "NVIDIA H200", "yes: it holds"),
        (-0.2, "NVIDIA H200", "yes: BROKEN"),
        (-0.42, "NVIDIA A100", "no: it is of NVIDIA H200, and this is NVIDIA A100"),
        (-0.42, "NVIDIA H200 NVL", "no: it is of NVIDIA H200, and this is NVIDIA H200 NVL"),
        (None, "NVIDIA H200", "run `python benchmarks/gpu.py`"),
    ],
)
def test_a_claim_is_settled_by_its_own_source_on_its_own_device(root, folder, value, device, says):
    put(folder, value, device)
    here, settled = settles(CLAIM, folder, root, device)
    assert says in settled and (value is None or f"{value:.4g}" in here)


def test_figures_that_this_check_did_not_make_settle_nothing(root, folder):
    put(folder, -0.42)
    ledger = folder / "gpu_check.txt"
    ledger.write_text(ledger.read_text().replace("benchmarks/gpu.py: exit 0", "benchmarks/gpu.py: skipped, 0"))
    assert "it was not made again here" in settles(CLAIM, folder, root, "NVIDIA H200")[1]


def test_a_claim_of_counters_that_may_not_be_read_says_so_with_the_cure(root, folder):
    put(folder, None, not_measured=[{"step": "ncu: bert, dense", "where": "ncu", "reason": "run as root"}])
    counted = Claim(**vars(CLAIM) | {"source": "outputs/reference/gpu/gpu.json : ncu / value"})
    assert settles(counted, folder, root, "NVIDIA H200")[1] == "no: not measured here, run as root"
    assert "not made again here" in settles(CLAIM, folder, root, "NVIDIA H200")[1]


def test_a_claim_of_any_gpu_is_settled_on_each():
    anywhere = Claim(**vars(CLAIM) | {"hardware": "CUDA"})
    assert anywhere.is_of("NVIDIA A100") and not CLAIM.is_of("NVIDIA H200 NVL")


def ladder_of(result, dense, rows=("row", "row")):
    names = dict.fromkeys(rows)
    arms = {name: {} for name in names}
    arms[rows[0]]["iterative"], arms[rows[1]]["dense"] = result, dense
    entries = {
        name: InRuntime(label=name, status="measured", shapes={"8x128": AtShape(arms=found)})
        for name, found in arms.items()
    }
    return Ladder(baseline="dense", threads=1, runtimes=entries)


def change_of(value, low, high):
    return figure(value, "fraction", "measured", n=9, method="ratio", ci95=(low, high))


def test_the_ratio_of_two_in_one_runtime_has_the_interval_of_their_rounds():
    ladder = ladder_of({"vs_baseline": change_of(-0.2, -0.25, -0.15)}, {})
    assert gpu_page.ratio_between(ladder, "row", "row", "8x128") == (0.8, " (95 %: 0.750 to 0.850)")


def test_the_ratio_across_runtimes_has_the_uncertainty_of_both():
    rows = ("one", "other")
    ladder = ladder_of({"vs_eager": change_of(-0.5, -0.52, -0.48)}, {"vs_eager": change_of(0.0, 0.0, 0.0)}, rows)
    assert gpu_page.ratio_between(ladder, *rows, "8x128") == (0.5, " (95 %: 0.480 to 0.520)")
    wider = ladder_of({"vs_eager": change_of(-0.5, -0.52, -0.48)}, {"vs_eager": change_of(0.0, -0.05, 0.05)}, rows)
    assert gpu_page.ratio_between(wider, *rows, "8x128") == (0.5, " (95 %: 0.469 to 0.533)")
    alone = ladder_of(*({"latency_ms": figure(ms, "ms", "measured", n=9, method="median")} for ms in (3, 4)), rows)
    assert gpu_page.ratio_between(alone, *rows, "8x128")[0] == 0.75
    assert "no interval" in gpu_page.ratio_between(alone, *rows, "8x128")[1]


def test_the_page_has_the_steps_the_claims_that_take_a_gpu_and_no_others(root, folder):
    put(folder, -0.41)
    text = page(folder, root)
    assert DEVICE in text and "- bert: exit 1 after 300 s" in text
    assert "`gpu.faster`" in text and "yes: it holds" in text and "cpu.faster" not in text
    assert "No scenario has left a run." in text


def test_figures_stand_beside_the_limits_of_both_gates(root, folder):
    report_factory.write_run(folder / "reference" / "bert", gpu=True, deployed=True)
    text = page(folder, root)
    results = Results.load(folder / "reference" / "bert")
    assert "### bert" in text and "iterative vs" in text
    for name, words in (("latency_rel", "latency"), ("l2_pp", "L2 hit rate"), ("quality_drop_pp", "quality lost")):
        if any(name in results.verdict.gate(gate).checks for gate in ("smoke", "strict")):
            assert f"| {words}" in text
    assert "all at once" in text and results.verdict.strict.status == "partial" and "**not decided**" in text
    assert "the best of" in text and ": × 0.600 (95 %: " in text


def test_a_run_that_ended_early_says_so(root, folder):
    run = report_factory.write_run(folder / "reference" / "bert")
    (run / "verdict.json").unlink()
    assert "It ended before there was a verdict" in page(folder, root)


def test_without_a_check_it_is_an_error_and_with_one_a_page_without_leaks(root, folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_page, "project_root", lambda: root)
    with pytest.raises(ArtifactError, match="holds no check"):
        page(tmp_path, root)
    assert main([str(tmp_path)]) == 7 and "gpu_check.sh" in capsys.readouterr().err
    assert main([]) == 2
    shutil.copytree(report_factory.write_run(tmp_path / "run"), folder / "reference" / "bert")
    assert main([str(folder)]) == 0
    text = (folder / "gpu-check.md").read_text()
    assert not find_leaks(text) and text.startswith("# What a check on a GPU settles")
