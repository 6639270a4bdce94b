import numpy as np
import pytest

from icd_lib.axes.permutation import check_permutation, hash_permutation, invert_permutation, pack_alive
from icd_lib.errors import AxisError


def test_inverse_undoes_a_gather():
    rng = np.random.default_rng(0)
    for size in (1, 3, 17):
        perm, values = rng.permutation(size), rng.random(size)
        assert np.array_equal(values[perm][invert_permutation(perm)], values)


def test_hash_depends_on_the_order_and_not_on_the_dtype():
    perm = np.array([2, 0, 1])
    assert hash_permutation(perm) == hash_permutation(perm.astype(np.int32))
    assert hash_permutation(perm) != hash_permutation(invert_permutation(perm))
    assert hash_permutation(np.array([0])) == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"


@pytest.mark.parametrize(
    ("perm", "complaint"),
    [
        ([0, 1], "has 3 elements but the permutation has 2"),
        ([0, 1, 1], "index 1 appears more than once"),
        ([0, 1, 3], "index 3 is outside 0..2"),
        ([0, 1, -1], "index -1 is outside"),
        ([0.0, 1.0, 2.0], "1-D integer array"),
        ([[0, 1, 2]], "1-D integer array"),
    ],
)
def test_what_is_no_permutation_is_refused(perm, complaint):
    with pytest.raises(AxisError, match=complaint):
        check_permutation(perm, 3, "ffn.0")


@pytest.mark.parametrize("seed", range(5))
def test_packing_is_a_stable_partition(seed):
    rng = np.random.default_rng(seed)
    perm, alive = rng.permutation(20), rng.random(20) < 0.5
    packed = pack_alive(perm, alive)
    kept = int(alive.sum())
    assert sorted(packed) == list(range(20))
    assert alive[packed[:kept]].all()
    assert not alive[packed[kept:]].any()
    assert packed[:kept].tolist() == [i for i in perm if alive[i]]
    assert packed[kept:].tolist() == [i for i in perm if not alive[i]]


def test_packing_what_is_all_alive_changes_nothing():
    assert pack_alive(np.array([1, 3, 2, 0]), np.ones(4, dtype=bool)).tolist() == [1, 3, 2, 0]
