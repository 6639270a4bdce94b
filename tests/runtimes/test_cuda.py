"""The rows for a CUDA device, as far as a CPU can tell: what they are, what they refuse, and what they leave alone."""

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.runtimes import CUDA, CUDA_ENGINES, RUNTIMES
from icd_lib.runtimes.cuda import DTYPES, GraphOnDevice, OnDevice, PreparedGraph, cuda_runtimes, one_text_a_row
from tests.tiny_decoders import tiny_decoder
from tests.tiny_encoders import batch, prune, tiny_bert

ROWS = cuda_runtimes()
EAGER = {name: replace(row, device="cpu") for name, row in ROWS.items() if type(row) is OnDevice}


def test_rows_are_each_form_in_each_precision_and_in_the_table():
    forms = ("cuda_eager", "cuda_compile", "cuda_graph")
    assert set(ROWS) == {f"{form}{suffix}" for form in forms for suffix in ("", "_bf16", "_fp16")}
    assert set(CUDA) - set(ROWS) == {"cuda_tensorrt_fp16"} and all(RUNTIMES[name] == row for name, row in ROWS.items())
    assert {row.engine for row in ROWS.values()} == set(CUDA_ENGINES) - {"cuda_tensorrt"} == set(forms)
    for name, row in ROWS.items():
        assert row.name == name and row.precision in row.label and row.rounds == (row.precision != "fp32")
        assert name.endswith(row.precision) or row.precision == "fp32"


@pytest.mark.parametrize("name", ROWS)
def test_without_a_device_it_says_so_and_touches_nothing(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = tiny_bert().train()
    with pytest.raises(ResourceError, match=rf"{name}: no CUDA device.*install a CUDA build of torch"):
        ROWS[name].prepare(model, batch(1, 4))
    assert model.training


@pytest.mark.parametrize("name", EAGER)
def test_a_copy_is_made_in_the_precision_and_the_given_model_stays_as_it_is(name):
    model = tiny_bert().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    prepared = EAGER[name].prepare(model, batch(2, 6))
    assert model.training and next(model.parameters()).dtype == torch.float32
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert {parameter.dtype for parameter in prepared.module.parameters()} == {DTYPES[EAGER[name].precision]}
    assert not {p.data_ptr() for p in prepared.module.parameters()} & {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize("name", EAGER)
@pytest.mark.parametrize("change", [lambda model: model, prune], ids=["dense", "pruned"])
def test_it_computes_what_the_model_computes(name, change):
    model, inputs = change(tiny_bert()), batch(3, 9, padded=True)
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    output = EAGER[name].prepare(model, batch(2, 12)).run(inputs)
    assert output.dtype == np.float32 and output.shape == expected.shape
    seen = inputs["attention_mask"].numpy().astype(bool)
    assert abs(output - expected)[seen].max() < EAGER[name].tolerance


def test_a_mask_of_ones_is_no_mask_and_outputs_are_nobody_else_s_memory():
    prepared, inputs = EAGER["cuda_eager"].prepare(tiny_bert(), batch(2, 12)), batch(2, 12)
    assert set(prepared.on_device(inputs)) == {"input_ids"}
    assert set(prepared.on_device(batch(2, 12, padded=True))) == {"input_ids", "attention_mask"}
    output = prepared.run(inputs)
    kept = output.copy()
    assert np.array_equal(prepared.run({"input_ids": inputs["input_ids"]}), kept)
    assert not np.array_equal(prepared.run(batch(2, 12, seed=7)), kept) and np.array_equal(output, kept)


def test_a_call_keeps_its_inputs_and_ends_when_the_device_is_done(monkeypatch):
    prepared, inputs = EAGER["cuda_eager"].prepare(tiny_bert(), batch(2, 12)), batch(2, 12)
    waited = []
    monkeypatch.setattr(prepared, "synchronise", lambda: waited.append(1))
    call, expected = prepared.call(inputs), prepared.run(inputs)
    inputs["input_ids"][:] = 0
    assert np.array_equal(call().numpy(), expected) and waited == [1]


def test_a_model_that_looks_at_its_results_is_no_graph(monkeypatch):
    """Where a capture fails the words are the device's; here those of a torch without CUDA."""
    row = replace(ROWS["cuda_graph"], device="cpu")
    assert isinstance(row, GraphOnDevice)
    if torch.cuda.is_available():
        pytest.skip("a device is there: tests/gpu/test_runtimes.py captures graphs")
    with pytest.raises(ResourceError, match="BertModel cannot be a CUDA graph"):
        row.prepare(tiny_bert(), batch(1, 4))


def test_a_call_of_a_graph_keeps_the_weights_that_the_graph_reads(monkeypatch):
    """Whoever times calls may let the rest of what was prepared go."""
    monkeypatch.setattr(PreparedGraph, "_capture", lambda self, held: (None, held, self.module(**held)))
    module = torch.nn.Flatten()
    prepared = PreparedGraph(module, torch.device("cpu"))
    call, weights = prepared.enqueue({"input": torch.zeros(2, 3)}), weakref.ref(module)
    del prepared, module
    gc.collect()
    assert weights() is not None and call is not None
    del call
    gc.collect()
    assert weights() is None


def test_a_flag_among_the_inputs_stays_a_flag():
    class Flagged(torch.nn.Module):
        def forward(self, input_ids, use_cache):
            assert use_cache is False
            return input_ids.float()[..., None]

    given = {"input_ids": batch(2, 5)["input_ids"], "use_cache": False}
    output = EAGER["cuda_eager"].prepare(Flagged(), given).run(given)
    assert np.array_equal(output[..., 0], given["input_ids"].numpy())


@pytest.mark.parametrize("positions", [False, True])
def test_while_a_graph_is_captured_a_decoder_starts_the_kernels_of_eager(positions, monkeypatch):
    """Transformers cannot look at tensors then; left alone it would make a mask of all pairs."""
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, is_causal=False, **more):
        seen.append((attn_mask is None, is_causal))
        return attend(*args, attn_mask=attn_mask, is_causal=is_causal, **more)

    model, ids = tiny_decoder(dtype=torch.float32), torch.zeros(1, 8, dtype=torch.long)
    inputs = {"input_ids": ids} | ({"position_ids": torch.arange(8)[None]} if positions else {})
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        model(**inputs, use_cache=False)
        eager = set(seen)
        seen.clear()
        monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda tensor=None: True)
        with one_text_a_row(inputs):
            model(**inputs, use_cache=False)
    assert eager == {(True, True)}
    assert set(seen) == ({(False, False)} if positions else eager), "positions of one's own may be several texts"


@pytest.mark.parametrize("raised", [RuntimeError, torch.OutOfMemoryError])
def test_a_capture_that_fails_leaves_no_stream_behind(raised, monkeypatch):
    """As torch does it: what ends a capture raises before the stream of the capture is left."""
    left = []

    @contextmanager
    def stream(_):
        try:
            yield
        finally:
            left.append("stream")

    @contextmanager
    def graph(*_, stream):
        yield
        left.append("capture")
        raise raised("operation not permitted when stream is capturing")

    streams = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in (("stream", stream), ("graph", graph), ("CUDAGraph", object), ("empty_cache", lambda: None)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda device: streams)
    row = replace(ROWS["cuda_graph"], device="cpu")
    with pytest.raises(ResourceError) as error:
        row.prepare(tiny_bert(), batch(1, 4))
    assert left == ["capture", "stream"], "the stream that was current before is so again, whatever the capture did"
    assert ("ran out of memory" in error.value.args[0]) == (raised is torch.OutOfMemoryError)
