"""Rows by engine and precision, what a processor emulates, and a model in the form in which it is judged."""

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.runtimes import ENGINES, OWN, PRECISIONS, RUNTIMES, rows_of
from icd_lib.runtimes.emulation import NEEDED, emulated
from icd_lib.runtimes.target import EAGER, Target
from tests.tiny_encoders import batch, tiny_bert


def test_names_say_engine_and_precision():
    assert ENGINES == ("eager", "compile", "onnxruntime", "openvino")
    for name in OWN:
        engine, _, precision = name.partition("_")
        assert rows_of(engine, precision or "fp32") == [name] and RUNTIMES[name].precision in PRECISIONS
        assert RUNTIMES[name].precision == (precision or "fp32")
    assert rows_of("auto", "auto") == list(OWN)
    assert rows_of("auto", "int8") == ["onnxruntime_int8", "openvino_int8"]
    assert rows_of("compile", "int8") == []


@pytest.mark.parametrize(("precision", "flag"), [(name, flag) for name, flags in NEEDED.items() for flag in flags])
def test_any_one_instruction_set_will_do(precision, flag):
    assert emulated(precision, {"avx2", flag}) is None
    assert f"no {precision} instructions" in emulated(precision, {"avx2"})
    assert emulated("fp32", {"avx2"}) is None and emulated(precision, set()) is None, "unknown is not called emulated"


def test_instructions_above_the_limit_count_as_missing(monkeypatch):
    flags = {"avx512_vnni", "avx512_bf16"}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    assert emulated("int8", flags) is None
    assert emulated("bf16", flags).startswith("this processor, with ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI, has no bf16")


def test_the_reference_gives_the_model_itself():
    model = tiny_bert()
    with EAGER.judged_form(model, batch(2, 12)) as judged:
        assert judged is model


@pytest.mark.parametrize("name", ["eager_bf16", "onnxruntime", "openvino"])
def test_the_judged_form_has_the_outputs_of_the_runtime(name):
    model, inputs = tiny_bert(), batch(3, 9, padded=True)
    target = Target.named(name)
    prepared = target.prepare(model, inputs)
    expected = prepared.run(inputs)
    with target.judged_form(model, inputs) as judged, torch.no_grad():
        found = judged(**inputs).last_hidden_state.float().numpy()
    assert np.array_equal(found, expected)
    assert next(model.parameters()).dtype == torch.float32, "the model is not changed"


def test_a_model_with_a_head_is_judged_by_its_encoder():
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_model, self.head = tiny_bert(), nn.Linear(2, 2)

        def forward(self, **inputs):
            raise AssertionError("the judge reads the encoder")

    model, inputs = WithHead().eval(), batch(2, 12)
    with Target.named("onnxruntime").judged_form(model, inputs) as judged, torch.no_grad():
        difference = judged(**inputs).last_hidden_state - model.base_model(**inputs).last_hidden_state
    assert difference.abs().max() < 1e-4


def test_a_call_for_the_clock_needs_no_example_of_its_own():
    inputs = batch(2, 12)
    assert np.asarray(Target.named("onnxruntime").call(tiny_bert(), inputs)()).shape[:2] == (2, 12)
