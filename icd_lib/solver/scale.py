"""Graphs on a scale that the solver, and the libraries that get numbers from it, can compute with."""

import numpy as np
import scipy.sparse as sp

# Between these powers of two the heaviest weight may lie; products of two degrees are then far from overflowing.
MOST_EXPONENT = 100
# Lighter than the heaviest by more than this, an edge is below the last digit of every sum that it is in; with the
# bound above no weight that is kept is subnormal, and none has an infinite reciprocal.
LEAST_SHARE = 2.0**-900


def on_scale(graph: sp.csr_array) -> sp.csr_array:
    """A graph that `check_w` returned, or, where its weights are huge, tiny or both, one with the same layouts' J.

    The weights are multiplied by one power of two, so that the heaviest is in [1/2, 1), and those below `LEAST_SHARE`
    of it are left out. J does not depend on the scale of W, and a power of two rounds nothing.

    >>> on_scale(sp.csr_array([[0, 3e-320], [3e-320, 0]])).data
    array([0.74121094, 0.74121094])
    """
    if not graph.nnz:
        return graph
    least, most = float(graph.data.min()), float(graph.data.max())
    exponent = int(np.frexp(most)[1])
    if abs(exponent) <= MOST_EXPONENT and least >= most * LEAST_SHARE:
        return graph
    data = np.ldexp(graph.data, -exponent)
    data[data < LEAST_SHARE] = 0.0
    scaled = sp.csr_array((data, graph.indices.copy(), graph.indptr.copy()), shape=graph.shape)
    scaled.eliminate_zeros()
    return scaled
