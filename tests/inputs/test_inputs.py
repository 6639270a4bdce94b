"""Inputs from the field: each kind ends as the table says, over every family that it concerns."""

import copy
import re

import pytest

from icd_lib.models.families import FAMILIES
from tests.extend import toy_family
from tests.inputs.case import Case, Ground
from tests.inputs.cases import all_cases
from tests.tiny_families import FACTORIES

pytestmark = pytest.mark.usefixtures("unsettled")
RUNS = [(case, family) for case in all_cases() for family in case.families or FACTORIES]


@pytest.fixture(scope="module")
def tiny_models() -> dict:
    """Family → the first of its tiny models and its inputs."""
    return {family: next(iter(kinds.values()))() for family, kinds in FACTORIES.items()}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(FAMILIES._rows, "toy", toy_family.FAMILY)


@pytest.mark.parametrize("case, family", RUNS, ids=[f"{case.door}: {case.what} [{family}]" for case, family in RUNS])
def test_an_input_from_the_field_ends_as_the_table_says(case: Case, family: str, tiny_models, tmp_path):
    model, inputs = copy.deepcopy(tiny_models[family])
    ground = Ground(tmp_path, family, model, inputs)
    if case.refused is None:
        case.holds(case.run(ground))
        return
    with pytest.raises(case.refused) as caught:
        case.run(ground)
    for pattern in case.message:
        assert re.search(pattern, str(caught.value)), f"{pattern!r} is not in: {caught.value}"


def test_no_input_stands_in_the_table_twice():
    names = [(case.door, case.what) for case in all_cases()]
    assert len(names) == len(set(names))
