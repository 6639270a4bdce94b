"""What a device's name means on this machine, and on machines that are only said to be there."""

import pytest
import torch

from icd_lib.axes.double import copied
from icd_lib.codesign.batches import check_runs
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.models.replay import check_replay
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes import CUDA, OWN, row_on, rows_of
from icd_lib.runtimes.target import Target
from icd_lib.storage.devices import (
    Device,
    back_on_cpu,
    check_device,
    device_of,
    find_device,
    needed_bytes,
    placed,
    telling_of_memory,
)
from tests.tiny_encoders import batch, tiny_bert

GB = 10**9


@pytest.fixture
def gpus(monkeypatch):
    """Says that there are GPUs with so many bytes free, and nothing else of them."""

    def there(*free):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 80 * GB))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")

    return there


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", 0, True, "cuda:01"])
def test_what_names_no_device_is_refused_with_what_does(name):
    with pytest.raises(ConfigError, match=r"device takes auto, cpu, cuda or cuda:N") as refused:
        check_device(name)
    assert refused.value.exit_code == 2


def test_a_device_that_is_not_there_says_what_to_do(gpus):
    gpus()
    with pytest.raises(ResourceError, match="device=cuda: .*install a CUDA build of torch.*or set device to cpu"):
        find_device("cuda")
    gpus(9 * GB, 9 * GB)
    with pytest.raises(ResourceError, match=r"device=cuda:7: there is no such device; torch sees cuda:0 \(GPU 0\), "):
        find_device("cuda:7")
    with pytest.raises(ResourceError, match=r"GPU 1 has 9.0 GB free, and the run needs about 10.0 GB"):
        find_device("cuda:1", 10 * GB)


def test_auto_takes_a_gpu_only_where_its_memory_suffices(gpus):
    gpus()
    assert find_device("auto", GB).is_cpu
    gpus(1 * GB, 5 * GB)
    assert find_device("auto", 4 * GB).name == "cuda:1"
    found = find_device("auto", 6 * GB)
    assert found.is_cpu and "5.0 GB free, and the run needs about 6.0 GB" in found.why


def test_the_cpu_is_no_question_of_gpus(gpus):
    gpus(9 * GB)
    assert find_device(None) == find_device("cpu") and find_device("cpu", 10**18).is_cpu
    assert find_device("cpu").key == {} and find_device("cuda").key == {"device": "GPU 0"}


def test_a_scenario_that_does_not_ask_is_as_it_was_and_one_that_does_is_another():
    plain = load_scenario("bert")
    assert "device" not in plain.config
    assert load_scenario("bert", ["device=auto"]).sha256 != plain.sha256


@pytest.mark.parametrize(
    ("scenario", "what"),
    [("mock", "workload.kind=mock"), ("smollm2", "the section kv"), ("masked", "the section masked")],
)
def test_what_computes_on_the_cpu_alone_refuses_a_gpu_by_name(scenario, what):
    with pytest.raises(ConfigError, match=f"device=cuda: not with {what}"):
        load_scenario(scenario, ["device=cuda"])
    assert load_scenario(scenario, ["device=auto"]).get("device") == "auto"


def test_a_quantization_for_int8_alone_is_no_hindrance():
    assert load_scenario("bert", ["device=cuda"]).get("quantization.only_in") == "int8"
    with pytest.raises(ConfigError, match="not with the section quantization"):
        load_scenario("bert", ["device=cuda", "quantization.only_in=null"])


def test_rows_are_those_of_the_device():
    assert rows_of("auto", "auto", "cuda:0") == list(CUDA) and rows_of("auto", "auto") == list(OWN)
    assert rows_of("eager", "bf16", "cuda:1") == ["cuda_eager_bf16"] == rows_of("cuda_eager", "bf16", "cuda:1")
    assert rows_of("cuda_graph", "auto", "cuda:0") == ["cuda_graph", "cuda_graph_bf16", "cuda_graph_fp16"]
    assert rows_of("cuda_graph", "fp32") == [] == rows_of("openvino", "fp32", "cuda:0")
    assert row_on("cuda_graph", "cuda:1").device == "cuda:1" and row_on("eager", "cuda:1") is row_on("eager")


def test_a_target_knows_its_device_and_its_clock():
    assert Target.named("cuda_eager", device="cuda:1").device == "cuda:1" and Target.named("compile").device == "cpu"
    assert Target.named("cuda_eager", device="cuda:1").time_round is not None
    assert Target.named("eager").time_round is None and Target.named("cuda_eager", device="cpu").time_round is None


def test_a_model_is_judged_where_the_target_computes():
    model, inputs = tiny_bert(), batch(2, 6)
    target = Target.named("cuda_eager_bf16", device="cpu")
    with target.judged_form(model, inputs) as judged, torch.no_grad():
        assert next(judged.parameters()).dtype == torch.bfloat16 and judged(**inputs).last_hidden_state.shape[1] == 6
    with Target.named("cuda_eager", device="cpu").judged_form(model, inputs) as judged:
        assert judged is model
    assert next(model.parameters()).dtype == torch.float32


def test_what_is_needed_grows_with_model_and_text():
    model = tiny_bert()
    held = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    assert needed_bytes(model, 0, 64) >= 3 * held
    assert needed_bytes(model, 2000, 64) - needed_bytes(model, 1000, 64) >= 4 * 1000 * 64


def test_moving_leaves_what_is_no_tensor_and_what_is_there_already():
    inputs = {"input_ids": torch.zeros(1, 2, dtype=torch.long), "use_cache": False}
    assert Device().place(inputs) is inputs
    moved = placed(inputs, torch.device("meta"))
    assert moved["input_ids"].device.type == "meta" and moved["use_cache"] is False
    model = tiny_bert()
    assert back_on_cpu(model) is model and back_on_cpu(None) is None
    assert device_of(object()).type == "cpu" == device_of(torch.nn.Identity()).type


def test_memory_that_runs_out_is_told_with_what_was_done_and_the_cure(gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(
        ResourceError, match=r"ran out of memory while judging: CUDA out of memory.*; take less, or set"
    ):
        with telling_of_memory("judging", "take less"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def certify(model, inputs):
    copied(model)


def check_text(model, inputs):
    check_runs(model, [inputs])


def replay(model, inputs):
    check_replay(model, [inputs])


@pytest.mark.parametrize("work", [certify, check_text, replay])
@pytest.mark.parametrize("place", ["forward", "__deepcopy__"])
def test_memory_that_runs_out_is_never_told_as_a_fault_of_model_or_text(work, place, monkeypatch):
    model, inputs = tiny_bert(), batch(2, 6)
    part = model if place == "__deepcopy__" else model.embeddings
    monkeypatch.setattr(part, place, out_of_memory, raising=False)
    if (work, place) in ((certify, "forward"), (check_text, "__deepcopy__")):
        work(model, inputs)
    else:
        with pytest.raises(torch.OutOfMemoryError):
            work(model, inputs)
