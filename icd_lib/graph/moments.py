"""Co-activation W from second moments that were collected anyway (no second pass over the data)."""

import numpy as np
import scipy.sparse as sp

from icd_lib.graph.contract import check_w
from icd_lib.graph.sparsify import build_symmetric, check_nnz_cap, find_heaviest

BYTES_PER_ELEMENT = 4


def correlation_graph(gram: np.ndarray, unit: int = 1, nnz_cap: int = 200_000) -> sp.csr_array:
    """W_ij = |corr(i, j)| × bytes × tokens, csr_array (D, D), from gram (D·unit + 1)², last row = column sums.

    Elements of several columns (heads) correlate by the Frobenius norm of their cross-covariance over that of their own
    (the RV coefficient's root; Robert & Escoufier 1976).
    """
    tokens = gram[-1, -1]
    mean = gram[-1, :-1] / tokens
    covariance = gram[:-1, :-1] / tokens - np.outer(mean, mean)
    size = len(covariance) // unit
    shared = np.sqrt(np.square(covariance).reshape(size, unit, size, unit).sum((1, 3)))
    scale = np.sqrt(np.diag(shared))
    correlation = np.divide(shared, np.outer(scale, scale), out=np.zeros_like(shared), where=np.outer(scale, scale) > 0)
    rows, cols = np.triu_indices(size, 1)
    strength = np.minimum(correlation[rows, cols], 1.0).astype(np.float32).astype(np.float64)
    keep = find_heaviest(strength, check_nnz_cap(nnz_cap))
    weights = strength[keep] * (BYTES_PER_ELEMENT * unit * tokens)
    return check_w(build_symmetric(rows[keep], cols[keep], weights, size))
