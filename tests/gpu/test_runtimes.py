"""The rows for a CUDA device: the same function, their own buffers, and a call that ends when the device is done."""

import gc

import numpy as np
import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.runtimes.cuda import cuda_runtimes
from icd_lib.runtimes.tensorrt import FP16 as TENSORRT
from tests.tiny_encoders import batch, prune, tiny_bert

pytestmark = pytest.mark.gpu

ROWS = cuda_runtimes()
MODELS = {"dense": tiny_bert, "pruned": lambda: prune(tiny_bert())}


@pytest.fixture(scope="module", params=[name for name in ROWS if "compile" not in name])
def row(request):
    return ROWS[request.param]


@pytest.fixture(scope="module")
def prepared(row):
    found = {arm: row.prepare(make(), batch(2, 12)) for arm, make in MODELS.items()}
    yield found
    for one in found.values():
        one.close()


@pytest.mark.parametrize("arm", MODELS)
@pytest.mark.parametrize("shape", [(2, 12), (3, 9)])
@pytest.mark.parametrize("padded", [False, True])
def test_it_computes_what_the_model_computes_on_the_cpu(row, prepared, arm, shape, padded):
    inputs = batch(*shape, padded=padded)
    with torch.no_grad():
        expected = MODELS[arm]()(**inputs).last_hidden_state.numpy()
    output = prepared[arm].run(inputs)
    assert output.dtype == np.float32 and output.shape == expected.shape
    seen = inputs["attention_mask"].numpy().astype(bool)
    assert abs(output - expected)[seen].max() < row.tolerance


def test_the_given_model_stays_on_its_device(row):
    model = tiny_bert()
    held = row.prepare(model, batch(2, 12))
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
    assert all(p.is_cuda for p in held.module.parameters())


def test_calls_keep_their_own_inputs_and_outputs_their_own_memory(prepared):
    one, first, second = prepared["dense"], batch(2, 12), batch(2, 12, seed=7)
    wanted, other = one.run(first), one.run(second)
    kept = wanted.copy()
    calls = {"first": one.call(first), "second": one.call(second)}
    for name, expected in (("first", wanted), ("second", other), ("first", wanted)):
        assert np.array_equal(calls[name]().float().cpu().numpy(), expected)
    assert np.array_equal(wanted, kept) and not np.array_equal(wanted, other)


def test_a_call_goes_on_when_what_was_prepared_for_it_is_gone(row):
    inputs = batch(2, 12)
    held = row.prepare(tiny_bert(), inputs)
    wanted, call = held.run(inputs), held.enqueue(inputs)
    del held
    gc.collect()
    torch.cuda.empty_cache()
    others = [torch.full((1 << 20,), 7.0, device="cuda") for _ in range(8)]
    assert np.array_equal(call().float().cpu().numpy(), wanted) and len(others) == 8


def test_a_call_ends_when_the_device_is_done(prepared):
    call = prepared["dense"].call(batch(2, 12))
    torch.cuda._sleep(200_000_000)  # cycles, about a tenth of a second
    call()
    assert torch.cuda.current_stream().query()


@pytest.mark.parametrize("name", ["cuda_compile", "cuda_compile_bf16"])
def test_compiled_it_computes_what_the_model_computes(name):
    """One shape: each takes a compilation of some seconds."""
    row, inputs = ROWS[name], batch(2, 12)
    row.check()
    row.reset()
    for make in MODELS.values():
        with torch.no_grad():
            expected = make()(**inputs).last_hidden_state.numpy()
        assert abs(row.prepare(make(), inputs).run(inputs) - expected).max() < row.tolerance


def test_tensorrt_computes_what_the_model_computes_where_it_is_installed(tmp_path):
    try:
        TENSORRT.check()
    except ResourceError as error:
        pytest.skip(error.args[0])
    model, inputs = tiny_bert(), batch(2, 12)
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    prepared = TENSORRT.prepare(model, inputs, workdir=tmp_path)
    assert prepared.session.get_providers()[0] == "TensorrtExecutionProvider"
    assert abs(prepared.run(inputs) - expected).max() < TENSORRT.tolerance


class ReadsOnTheCpu(torch.nn.Module):
    """A model that no graph can hold: it looks at a number of its own."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, input_ids, attention_mask=None):
        return self.weight * (2.0 if bool(self.weight.sum() > 0) else 1.0) + input_ids.sum()


def test_a_capture_that_is_refused_leaves_the_stream_as_it_was():
    before = torch.cuda.current_stream()
    with pytest.raises(ResourceError, match="cannot be a CUDA graph"):
        ROWS["cuda_graph"].prepare(ReadsOnTheCpu(), batch(1, 4))
    assert torch.cuda.current_stream() == before
