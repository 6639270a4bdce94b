"""The passes on StableHLO text: what they change, what they leave, and that the function stays."""

import numpy as np
import pytest

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from icd_lib.bridge import mlir  # noqa: E402
from icd_lib.bridge.gathers import Gathers  # noqa: E402
from icd_lib.bridge.load import open_iree  # noqa: E402
from icd_lib.errors import ArtifactError  # noqa: E402
from tests.bridge.modules import errors_of_sums, layout, product, two_gathers  # noqa: E402

RNG = np.random.default_rng(0)
PERM = RNG.permutation(64)
CYCLE = np.roll(np.arange(64), 1)
WEIGHT = RNG.normal(size=(48, 64)).astype(np.float32)
X = RNG.normal(size=(2, 4, 64)).astype(np.float32)


def run(module, folder, *arrays) -> np.ndarray:
    (folder / "m.mlir").write_text(mlir.printed(module))
    mlir.lower(folder / "m.mlir", folder / "m.vmfb")
    return open_iree(str(folder / "m.vmfb"), 1)(*arrays)


def test_annotations_say_the_layout_and_come_off_again():
    module = mlir.parse(product(WEIGHT))
    plain = mlir.printed(module)
    assert mlir.annotate(module, layout(48)) == ["w: ffn.0 along dim 0, 48 alive in tiles of 16"]
    assert 'icd.layout = [{axis = "ffn.0", dim = 0 : i64, pi = "abc", tile = 16 : i64, width = 48' in mlir.printed(
        module
    )
    mlir.parse(mlir.printed(module))
    assert mlir.strip(module) == 1 and mlir.printed(module) == plain


def test_a_weight_that_no_layout_names_stays_bare():
    module = mlir.parse(product(WEIGHT))
    assert mlir.annotate(module, {"other": layout(48)["w"]}) == [] and "icd." not in mlir.printed(module)


@pytest.mark.parametrize("perm", [PERM, CYCLE], ids=["random", "cycle"])
def test_what_one_gather_writes_and_the_next_undoes_is_gone(perm):
    module = mlir.parse(two_gathers(perm, np.argsort(perm)))
    assert mlir.gathers(module) == Gathers(permutations=2)
    assert mlir.fold(module) == ["two gathers of 64 along dim 2 cancel"]
    assert mlir.gathers(module) == Gathers() and module.operation.verify()


def test_two_gathers_that_do_not_cancel_are_one_and_right(tmp_path):
    module = mlir.parse(two_gathers(PERM, CYCLE))
    assert mlir.fold(module) == ["two gathers of 64 along dim 2 are one"]
    assert mlir.gathers(module) == Gathers(permutations=1)
    assert np.allclose(run(module, tmp_path, X), np.tanh(X[..., PERM][..., CYCLE]), atol=1e-6)


def test_a_gather_that_a_product_reads_is_its_weights_own(tmp_path):
    module = mlir.parse(product(WEIGHT, PERM))
    assert mlir.gathers(module).permutations == 1
    assert mlir.fold(module) == ["a gather of 64 along dim 2 is its weight's own"]
    assert mlir.gathers(module) == Gathers()
    assert np.allclose(run(module, tmp_path, X), X[..., PERM] @ WEIGHT.T, atol=1e-4)


def test_a_gather_that_is_needed_stays_and_is_counted():
    half = np.concatenate([PERM[:32], PERM[:32]])
    module = mlir.parse(product(WEIGHT, half))
    assert mlir.fold(module) == [] and mlir.gathers(module) == Gathers(permutations=1)


def test_tiles_are_multiples_of_g_and_the_function_stays(tmp_path):
    module = mlir.parse(product(WEIGHT))
    mlir.annotate(module, layout(48))
    assert mlir.tile_products(module, 16) == ["w: 8 × 48 in tiles of 8 × 48, depth 16"]
    text = mlir.printed(module)
    assert "distribution = [8, 48, 0]" in text and "stablehlo.dot " in text
    tiled = run(module, tmp_path, X)
    assert np.allclose(tiled, X @ WEIGHT.T, atol=1e-4)
    assert mlir.strip(module) == 2 and "distribution" not in mlir.printed(module)
    assert np.allclose(run(module, tmp_path, X), tiled, atol=1e-5)


@pytest.mark.parametrize("tiled", [True, False])
def test_a_deep_product_is_summed_in_pieces_that_round_less(tiled, tmp_path):
    weight, x = (RNG.uniform(size=shape).astype(np.float32) for shape in ((48, 2000), (2, 4, 2000)))
    module = mlir.parse(product(weight))
    if tiled:
        mlir.annotate(module, layout(48))
        mlir.tile_products(module, 16)
    assert mlir.sum_pieces(module) == ["w: a depth of 2000 in 16 pieces of at most 128"]
    text = mlir.printed(module, short=True)
    assert text.count("compilation_info = ") == (16 if tiled else 0) and text.count("stablehlo.add") == 15
    given, one = errors_of_sums(x, weight, run(module, tmp_path, x))
    assert given < one / 2


def test_what_is_not_deep_is_one_sum():
    module = mlir.parse(product(WEIGHT))
    before = mlir.printed(module)
    assert mlir.sum_pieces(module) == [] and mlir.printed(module) == before


def test_without_a_layout_nothing_is_tiled():
    module = mlir.parse(product(WEIGHT))
    before = mlir.printed(module)
    assert mlir.tile_products(module, 16) == [] and mlir.printed(module) == before


@pytest.mark.parametrize(
    ("width", "tile", "reason"),
    [
        (48, 32, "ffn.0: 48 is no multiple of the tile 32"),
        (48, 24, "ffn.0: a tile of 24 neither fills nor divides a register of 16"),
        (48, 1, "ffn.0: its elements are single, there is no tile to keep"),
    ],
)
def test_what_the_target_cannot_do_is_taken_back_with_the_reason(width, tile, reason):
    module = mlir.parse(product(WEIGHT))
    mlir.annotate(module, layout(width, tile))
    assert mlir.legalize_layout(module, 16) == [f"w: taken back: {reason}"]
    assert f'icd.refused = "{reason}"' in mlir.printed(module) and mlir.tile_products(module, 16) == []


def test_numbers_that_are_not_float32_are_taken_back():
    module = mlir.parse(product(WEIGHT.astype(np.float64), dtype="f64"))
    mlir.annotate(module, layout(48))
    assert mlir.legalize_layout(module, 16) == ["w: taken back: ffn.0: numbers are f64, and tiles are given for f32"]


def test_what_is_legal_stays():
    module = mlir.parse(product(WEIGHT))
    mlir.annotate(module, layout(48))
    before = mlir.printed(module)
    assert mlir.legalize_layout(module, 16) == [] and mlir.printed(module) == before


def test_a_text_that_is_no_module_is_refused_with_its_fault():
    with pytest.raises(ArtifactError, match=r"the module is no MLIR .*foo"):
        mlir.parse("module { func.func @main() { foo.bar } }")
