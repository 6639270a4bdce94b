"""How a variant is timed while a plan is made."""

from types import SimpleNamespace

import pytest

from icd_lib.workloads.model.graph import call_for_clock


@pytest.mark.parametrize(
    "section, row, plain",
    [
        (None, "int8", True),
        ({"precision": "int8", "alpha": None}, "fp32", True),
        ({"precision": "int8", "alpha": None}, "int8", False),
        ({"precision": "int4_weights", "alpha": None}, "int8", True),
        ({"precision": "int8_weights", "alpha": None}, "int8", True),
        ({"precision": "mixed_weights", "alpha": None}, "int8", True),
    ],
)
def test_only_eight_bit_products_are_rounded_for_the_clock(section, row, plain):
    target = SimpleNamespace(row=SimpleNamespace(precision=row), call=lambda model, inputs: None)
    context = SimpleNamespace(target=target, config={"quantization": section})
    assert (call_for_clock(context) is target.call) == plain
