"""The passes on a Relax module: what they change, what they leave, and that the function stays."""

import numpy as np
import pytest

tvm = pytest.importorskip("tvm")
from tvm import relax as R  # noqa: E402

from icd_lib.bridge import relax  # noqa: E402
from icd_lib.bridge.gathers import Gathers  # noqa: E402
from icd_lib.bridge.load import open_tvm  # noqa: E402
from tests.bridge.modules import errors_of_sums  # noqa: E402

RNG = np.random.default_rng(0)
PERM, CYCLE = RNG.permutation(64), np.roll(np.arange(64), 1)
WEIGHT = RNG.normal(size=(48, 64)).astype(np.float32)
X = RNG.normal(size=(2, 4, 64)).astype(np.float32)


def built(steps, dtype="float32"):
    """x (2, 4, 64) through steps, times the transposed weight w (48, 64)."""
    builder = R.BlockBuilder()
    x, w = R.Var("x", R.TensorType([2, 4, 64], dtype)), R.Var("w", R.TensorType([48, 64], dtype))
    with builder.function("main", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            value = x
            for step in steps:
                value = builder.emit(step(value))
            product = builder.emit(R.op.matmul(value, builder.emit(R.op.permute_dims(w))))
            output = builder.emit_output(product)
        builder.emit_func_output(output)
    return builder.get()


def take(indices):
    return lambda value: R.op.take(value, R.const(indices, "int64"), axis=2)


def layout(width=48, tile=16):
    return {"weight": [{"axis": "ffn.0", "dim": 0, "tile": tile, "width": width, "pi": "abc"}]}


def run(module, folder, offers=None):
    relax.lower(module, {"w": tvm.runtime.tensor(WEIGHT)}, offers or {}, 16, folder / "m.so")
    return open_tvm(str(folder / "m.so"), 1)(X)


def test_annotations_say_the_layout_and_come_off_again():
    plain = built([])
    module, log = relax.annotate(plain, layout(), {"w": "weight"})
    assert log == ["weight: ffn.0 along dim 0, 48 alive in tiles of 16"]
    assert relax.layout_on(module) == {"w": layout()["weight"]} and relax.layout_on(plain) == {}
    tvm.ir.assert_structural_equal(relax.strip(module), plain)


@pytest.mark.parametrize("between", [[], [R.op.tanh]], ids=["next", "through tanh"])
def test_what_one_gather_writes_and_the_next_undoes_is_gone(between):
    module = built([take(PERM), *between, take(np.argsort(PERM))])
    assert relax.gathers(module) == Gathers(permutations=2)
    folded, log = relax.fold(module)
    assert relax.gathers(folded) == Gathers() and log


def test_gathers_that_do_not_cancel_are_the_weights_own_and_right(tmp_path):
    module, log = relax.fold(built([take(PERM), take(CYCLE)]))
    assert log[-1] == "a gather of 64 along dim 2 is its weight's own" and relax.gathers(module) == Gathers()
    assert np.allclose(run(module, tmp_path), X[..., PERM][..., CYCLE] @ WEIGHT.T, atol=1e-4)


def test_a_gather_that_is_needed_stays_and_is_counted():
    half = np.concatenate([PERM[:32], PERM[:32]])
    module, log = relax.fold(built([take(half)]))
    assert log == [] and relax.gathers(module) == Gathers(permutations=1)


def test_a_single_index_is_a_slice_and_no_gather():
    builder = R.BlockBuilder()
    x = R.Var("x", R.TensorType([1, 64], "float32"))
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            output = builder.emit_output(R.op.take(x, R.const(0, "int64"), axis=0))
        builder.emit_func_output(output)
    module, log = relax.fold(builder.get())
    assert log == [] and relax.gathers(module) == Gathers()
    assert [int(size) for size in module["main"].ret_ty.shape] == [64]


def test_tiles_are_offered_and_the_function_stays(tmp_path):
    module, _ = relax.annotate(built([]), layout(), {"w": "weight"})
    offers, log = relax.offered_tiles(module)
    assert offers == {(64, 48): 48} and log == ["w: 64 × 48 in tiles of 48 columns"]
    expected = X @ WEIGHT.T
    assert np.allclose(run(module, tmp_path, offers), expected, atol=1e-4)
    assert np.allclose(run(module, tmp_path), expected, atol=1e-4)


# Rows that no tile of four, or two, divides within one matrix; widths without a divisor that is a vector; both.
PRODUCTS = {
    "texts of 7 tokens": ((2, 7, 64), (64, 48)),
    "heads of 7 tokens": ((1, 4, 7, 7), (1, 4, 7, 16)),
    "an odd width": ((5, 16), (16, 5)),
    "an odd width of one text": ((1, 7, 16), (16, 7)),
    "an odd width of heads": ((1, 4, 33, 16), (1, 4, 16, 33)),
    "three rows at once": ((2, 33, 16), (16, 48)),
    "one row for each text": ((6, 1, 64), (64, 48)),
    "a depth in pieces": ((2, 7, 384), (384, 48)),
    "a depth in pieces and an odd width": ((1, 7, 96), (96, 5)),
    "a depth in pieces and heads": ((1, 4, 33, 96), (1, 4, 96, 16)),
    "one row and a depth in pieces": ((1, 1, 96), (96, 7)),
    "a depth without pieces": ((2, 4, 97), (97, 48)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_right_whatever_its_sizes(name, tmp_path):
    given = [RNG.normal(size=shape).astype(np.float32) for shape in PRODUCTS[name]]
    assert np.allclose(multiplied(given, tmp_path), np.matmul(*given), atol=1e-4)


def test_a_deep_product_is_summed_in_pieces_that_round_less(tmp_path):
    weight, x = (RNG.uniform(size=shape).astype(np.float32) for shape in ((48, 2000), (2, 4, 2000)))
    given, one = errors_of_sums(x, weight, multiplied([x, np.ascontiguousarray(weight.T)], tmp_path))
    assert given < one / 2


def multiplied(arrays, folder):
    """The product of two arrays as TVM computes it."""
    builder = R.BlockBuilder()
    x, w = (R.Var(name, R.TensorType(list(array.shape), "float32")) for name, array in zip("xw", arrays, strict=True))
    with builder.function("main", [x, w], attrs={"num_input": 2}):
        with builder.dataflow():
            output = builder.emit_output(R.op.matmul(x, w))
        builder.emit_func_output(output)
    relax.lower(builder.get(), {}, {}, 16, folder / "m.so")
    return open_tvm(str(folder / "m.so"), 1)(*arrays)


@pytest.mark.parametrize(
    ("tile", "dtype", "reason"),
    [
        (32, "float32", "ffn.0: 48 is no multiple of the tile 32"),
        (1, "float32", "ffn.0: its elements are single, there is no tile to keep"),
        (16, "float64", "ffn.0: numbers are f64, and tiles are given for f32"),
    ],
)
def test_what_the_target_cannot_do_is_taken_back_with_the_reason(tile, dtype, reason):
    module, _ = relax.annotate(built([], dtype), layout(tile=tile), {"w": "weight"})
    module, log = relax.legalize_layout(module, 16)
    assert log == [f"w: taken back: {reason}"] and relax.layout_on(module) == {}
    assert relax.offered_tiles(module) == ({}, [])
