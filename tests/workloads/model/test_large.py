"""Models of random weights on a GPU: refused before anything is allocated, or through all stages to a verdict."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.models.shapes import SHAPES, Shape
from icd_lib.run.artifacts import open_run
from icd_lib.stages import run_stage
from icd_lib.storage.devices import Device
from icd_lib.workloads import make_workload
from icd_lib.workloads.model import context, room
from icd_lib.workloads.model.contexts import make_context
from tests.pretended import DEVICE, pretending
from tests.tiny_domains import toy_encoder

pytestmark = pytest.mark.wide

GB = 10**9
LARGE = ("bert_large", "mamba_3b")
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}


@pytest.fixture
def gpus(monkeypatch):
    """Says that there are GPUs with so many bytes free, and that this machine has so much memory and disk."""

    def there(*free, memory=10**15, disk=10**15):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], free[index]))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
        monkeypatch.setattr(room, "free_memory", lambda: memory)
        monkeypatch.setattr(context, "fitting_dtype", lambda checkpoint, wanted: getattr(torch, wanted))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))

    return there


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("weights were allocated before it was known whether there is room")

    monkeypatch.setattr(context, "load_model", refuse)


def refused(name: str, tmp_path, *overrides) -> str:
    with pytest.raises(ResourceError) as error:
        make_workload(open_run(name, overrides, out=tmp_path), lambda line: None).describe()
    assert error.value.exit_code == 3
    return error.value.args[0]


@pytest.mark.parametrize("name", LARGE)
def test_without_a_gpu_it_ends_before_anything_is_loaded(name, gpus, nothing_is_loaded, tmp_path):
    gpus()
    told = refused(name, tmp_path)
    assert told.startswith("device=cuda: torch") and "set device to cpu" in told


@pytest.mark.parametrize("name", LARGE)
def test_a_gpu_with_too_little_memory_is_refused_with_what_is_needed(name, gpus, nothing_is_loaded, tmp_path):
    gpus(4 * GB)
    told = refused(name, tmp_path)
    assert "GPU 0 has 4.0 GB free, and the run needs about" in told
    gpus(4 * GB, 4 * GB)
    assert "the memory of 2 GPUs is not put together" in refused(name, tmp_path)


@pytest.mark.parametrize("name", LARGE)
def test_one_gpu_of_80_gb_and_a_machine_of_128_gib_suffice(name, gpus, nothing_is_loaded, tmp_path):
    gpus(79 * GB, memory=120 * 2**30, disk=64 * 2**30)
    found = make_context(open_run(name, out=tmp_path), lambda line: None)
    assert found.find_device().name == "cuda:0"


def test_in_fp32_the_largest_does_not_fit_into_80_gb(gpus, nothing_is_loaded, tmp_path):
    gpus(79 * GB)
    assert "GPU 0 has 79.0 GB free" in refused("mamba_3b", tmp_path, "model.dtype=float32")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"memory": 20 * GB}, "20.0 GB of this machine's memory are free"),
        ({"disk": 9 * GB}, "on a disk that has 9.0 GB"),
    ],
)
def test_the_machine_beside_the_gpu_is_asked_too(given, says, gpus, nothing_is_loaded, tmp_path):
    gpus(79 * GB, **given)
    told = refused("mamba_3b", tmp_path)
    assert told.startswith("device=cuda: 2.77 billion parameters need about") and says in told
    found = make_context(open_run("mamba_3b", ["device=auto"], out=tmp_path), lambda line: None).find_device()
    assert found.is_cpu and says in found.why


def test_what_is_needed_is_what_the_outline_says(gpus, tmp_path):
    gpus(79 * GB)
    large = make_context(open_run("mamba_3b", out=tmp_path), lambda line: None).needs
    held = 2 * large.parameters
    assert large.solving > 7 * held + 8 * large.parameters, "copies of the loop, one of them in float64"
    assert large.timing > 11 * held, "the timed arms, the reference and dense"
    smaller = make_context(open_run("mamba_3b", ["measure.shapes=[[1, 1]]"], out=tmp_path), lambda line: None).needs
    assert smaller.timing < large.timing and smaller.solving == large.solving
    less = make_context(open_run("bert_large", ["data.distill_texts=1"], out=tmp_path), lambda line: None).needs
    rounded = make_context(open_run("bert_large", out=tmp_path), lambda line: None).needs
    assert less == rounded, "what is not distilled reads no text for it"
    assert rounded.timing > (9 * 2 + 4 * 4) * rounded.parameters, "what rounds is compared with fp32"


@pytest.mark.parametrize(
    ("dtype", "reference", "rounds"),
    [(torch.bfloat16, "cuda_eager_bf16", False), (torch.float32, "cuda_eager", True)],
)
def test_a_model_in_bfloat16_is_compared_with_itself_in_bfloat16(make, dtype, reference, rounds):
    found = make("device=cuda", "deploy.precision=bf16", out=str(dtype))
    found.device, found._loaded = Device("cuda:0", "a GPU"), (toy_encoder().to(dtype), found.tokenizer)
    assert found.target.row.name == "cuda_eager_bf16" and found.rounds is rounds
    assert found.reference.row.name == found.plain_target.row.name == reference


def stages_of(run) -> list[str]:
    """All stages, as the notebooks call them; what they said."""
    lines: list[str] = []
    with pretending():
        for name in ("setup", "graph"):
            run_stage(name, run, lines.append)
        for mode in ("linear", "oneshot", "iterative"):
            run_stage("solve", run, mode, lines.append)
        for name in ("measure", "validate"):
            run_stage(name, run, lines.append)
    return lines


SMALL = (
    "data.seen=[news, films, manual, products]",
    "data.calibration_texts=24",
    "data.max_length=16",
    "transform.tile=8",
    "deploy.runtime=eager",
    "measure.bootstrap=100",
    "measure.repeats=3",
    "measure.max_repeats=3",
    "measure.warmup=1",
    "threads=1",
    "graph.nnz_cap=5000",
    "solver.refine_steps=20",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_small_one_of_the_family_goes_from_set_up_to_verdict(name, monkeypatch, tmp_path):
    """On a pretended device, in the precision of the large one."""
    family, sizes = {"bert_large": ("bert", BERT), "mamba_3b": ("mamba", MAMBA)}[name]
    config = next(shape.config for shape in SHAPES.values() if shape.family == family)
    monkeypatch.setitem(SHAPES._rows, "tiny", Shape(family, config | sizes))
    more = {
        "bert_large": ("measure.shapes=[[2, 8]]", "measure.runtimes=[cuda_eager, cuda_eager_bf16]"),
        "mamba_3b": (
            "measure.shapes=[[1, 16], [1, 4]]",
            "measure.runtimes=[cuda_eager_bf16]",
            "decode.clock=[[1, 16]]",
        ),
    }[name]
    more += ("decode.rounds=1", "decode.steps=3", "decode.greedy=4") if name == "mamba_3b" else ()
    run = open_run(name, ["model.shape=tiny", *SMALL, *more], out=tmp_path)
    lines = stages_of(run)
    read = run.read_json
    setup, measure, verdict = read("setup/setup.json"), read("measure/measure.json"), read("verdict.json")
    assert setup["device"]["name"] == DEVICE.name and setup["needs"]["parameters"] < 10**7
    assert any("need about" in line for line in lines), "what is needed is said"
    assert measure["quality"] == {"reason": context.RANDOM_WEIGHTS}
    arms = set(next(iter(measure["latency"]["shapes"].values())))
    assert {"dense", "linear", "oneshot", "iterative", "same_transform", "dense_again", "dense_eager"} <= arms
    # A model in bfloat16 has no fp32 to be compared with; one in fp32 that is deployed in bf16 has.
    assert ({"iterative_fp32"} <= arms) == (name == "bert_large")
    for arm in ("dense", "linear", "oneshot", "iterative"):
        metrics = read(f"{arm}/metrics.json")
        assert metrics["quality_pct"]["kind"] == "not_measured" and metrics["quality_pct"]["reason"]
        for figure in (metrics["latency_ms"], metrics["throughput_tokens_per_s"], metrics["vs_dense"]["latency_rel"]):
            assert figure["kind"] == "measured" and len(figure["ci95"]) == 2
    assert verdict["determinism"]["pi_hash_equal"] and verdict["smoke"]["checks"]["latency_rel"] in ("pass", "fail")
    ladder = read("measure/ladder.json")["runtimes"]
    assert {entry["status"] for entry in ladder.values()} == {"measured"}
    if name == "mamba_3b":
        assert any("weights in bfloat16" in badge for badge in setup["badges"])
        (timed,) = (entry["shapes"].values() for entry in ladder.values())
        assert all("vs_eager" in arm for shape in timed for arm in shape["arms"].values()), "eager in bf16 is beside it"
        (shape,) = read("measure/decoding.json")["clock"]
        assert "iterative" in shape["arms"] and shape["arms"]["dense"]["label"].endswith("on CUDA, bf16)")
