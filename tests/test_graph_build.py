"""The dispatch of build_w."""

import numpy as np
import pytest

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph import CoactivationStream, build_w, mask_graph


def test_each_kind_equals_its_builder():
    X, alive = np.random.default_rng(0).normal(size=(50, 6)), np.array([True, False, True, True])
    direct = CoactivationStream(6, 12).update(X).graph().toarray()
    np.testing.assert_array_equal(build_w(X, nnz_cap=12).toarray(), direct)
    np.testing.assert_allclose(build_w(iter([X[:20], X[20:]]), kind="co-activation", nnz_cap=12).toarray(), direct)
    np.testing.assert_array_equal(build_w(alive).toarray(), mask_graph(alive).toarray())


def test_refusals():
    with pytest.raises(ConfigError, match="did you mean 'co-activation'"):
        build_w(np.zeros((2, 2)), kind="coactivation")
    with pytest.raises(SolverNotConverged, match="no batches"):
        build_w([])
    with pytest.raises(TypeError, match="nnz_kap"):
        build_w(np.array([True, True]), nnz_kap=3)
