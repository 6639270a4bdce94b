"""What every runtime of the table keeps, those from outside too: the same function, its own buffers, a cure."""

import sys

import numpy as np
import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.runtimes import REFERENCE, RUNTIMES
from tests.tiny_encoders import batch, prune, tiny_bert

pytestmark = pytest.mark.wide

SHAPES = {"first": (2, 12), "other": (3, 9)}
CALIBRATION = [batch(2, 12, seed=seed) for seed in range(4)]
MODELS = {"dense": tiny_bert(), "pruned": prune(tiny_bert())}
PACKAGES = [(name, package) for name, row in RUNTIMES.items() for package in row.needs]


def expected(arm: str, inputs: dict) -> np.ndarray:
    with torch.no_grad():
        return MODELS[arm](**inputs).last_hidden_state.numpy()


LONG = {"compile_bf16"}  # compiles as `compile` does, for a minute
ROWS = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in RUNTIMES]


@pytest.fixture(scope="module", params=ROWS)
def row(request):
    return RUNTIMES[request.param]


@pytest.fixture(scope="module")
def prepared(row, tmp_path_factory):
    """Both models in the runtime at once, ready for both shapes."""
    found = {}
    try:
        row.check()
        row.reset()
        for arm, model in MODELS.items():
            folder = tmp_path_factory.mktemp(arm)
            found[arm] = row.prepare(model, batch(2, 12), workdir=folder, calibration=CALIBRATION, threads=1)
            for shape in SHAPES.values():
                found[arm].warm(batch(*shape))
    except ResourceError as error:
        if row is RUNTIMES[REFERENCE]:
            raise
        pytest.skip(f"{row.name} is not available here: {error.args[0]}")
    yield found
    for one in found.values():
        one.close()


def test_a_row_says_what_it_is(row):
    assert RUNTIMES[row.name] is row and row.label and row.tolerance > 0
    assert row.rounds == (row.precision != "fp32")


def test_the_reference_is_exact():
    assert not RUNTIMES[REFERENCE].rounds


@pytest.mark.parametrize("arm", MODELS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_computes_what_the_model_computes(row, prepared, arm, shape):
    inputs = batch(*shape, padded=True)
    output, reference = prepared[arm].run(inputs), expected(arm, inputs)
    assert output.shape == reference.shape and output.dtype == np.float32
    seen = inputs["attention_mask"].numpy().astype(bool)  # what lies at padded places is nobody's output
    assert abs(output - reference)[seen].max() < row.tolerance


def test_a_missing_mask_is_all_ones(prepared):
    inputs = batch(2, 12)
    without = {"input_ids": inputs["input_ids"]}
    assert np.array_equal(prepared["dense"].run(without), prepared["dense"].run(inputs))


def test_runs_share_no_memory(prepared):
    one, first = prepared["dense"], batch(2, 12)
    output = one.run(first)
    kept, other = output.copy(), one.run(batch(2, 12, seed=7))
    assert np.array_equal(output, kept) and not np.array_equal(other, kept)
    prepared["pruned"].run(batch(2, 12, seed=8))
    one.call(batch(2, 12, seed=9))()
    assert np.array_equal(output, kept) and np.array_equal(one.run(first), kept)


def test_inputs_are_read_at_every_call_and_never_written(prepared):
    one, inputs = prepared["dense"], batch(2, 12)
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    call, before = one.call(inputs), one.run(inputs)
    call()
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)
    inputs["input_ids"][:] = batch(2, 12, seed=7)["input_ids"]
    call()
    assert not np.array_equal(one.run(inputs), before)
    assert np.array_equal(one.run(copies), before)


def test_what_it_holds_is_a_size_or_unknown(prepared):
    sizes = [one.memory_bytes for one in prepared.values()]
    assert sizes == [None, None] or sizes[0] > sizes[1] > 0
    assert [one.synchronise() for one in prepared.values()] == [None, None]


@pytest.mark.parametrize(("name", "package"), PACKAGES)
def test_a_missing_package_is_named_with_the_cure(name, package, monkeypatch, tmp_path):
    for other in RUNTIMES[name].needs:
        monkeypatch.setitem(sys.modules, other, None if other == package else sys)
    install = RUNTIMES[name].installs.get(package, package)
    cure = rf"package {package}\b.*; run pip install {install}$"
    with pytest.raises(ResourceError, match=cure):
        RUNTIMES[name].check()
    with pytest.raises(ResourceError, match=cure):
        RUNTIMES[name].prepare(MODELS["dense"], batch(2, 12), workdir=tmp_path, calibration=CALIBRATION)
    assert not list(tmp_path.iterdir()), "nothing is exported for a runtime that is not there"
