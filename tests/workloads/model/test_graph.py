"""How a variant is timed while a plan is made."""

from types import SimpleNamespace

import pytest

from icd_lib.axes.kinds import granules
from icd_lib.workloads.model.graph import call_for_clock, measure_tables
from tests.tiny_domains import toy_encoder


def test_width_curves_are_timed_where_models_are_deployed_at_every_shape_of_the_plan(make):
    context, dense, seen = make("deploy.shapes=[[2, 8], [1, 4]]"), toy_encoder(), []

    def call(model, inputs):
        seen.append((tuple(inputs["input_ids"].shape), model))
        return lambda: model(**inputs)

    context.target = SimpleNamespace(row=SimpleNamespace(name="another_place", precision="fp32"), call=call)
    settings = SimpleNamespace(tiles=granules(context.get("transform.tile")))
    tables = measure_tables(context, SimpleNamespace(dense=dense, settings=settings), lambda line: None)
    assert {shape for shape, _ in seen} == {(2, 8), (1, 4)} and len(seen) > 2, "the dense model and narrower ones"
    assert tables["runtime"] == "another_place" and tables["shapes"] == [[2, 8], [1, 4]]
    assert tables["dense_ms"] > 0 and tables["curves"]


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
