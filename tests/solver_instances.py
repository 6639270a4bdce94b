"""Graphs that the solver tests share."""

import numpy as np
import scipy.sparse as sp

from icd_lib.graph import check_w


def random_graph(D, seed=0, density=0.4):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((D, D)) * (rng.random((D, D)) < density), 1)
    return sp.csr_array(upper + upper.T)


def planted_blocks(D, block, seed=0, noise=0.02):
    """Blocks of equal size under shuffled labels, with background noise: (W, the planted order)."""
    rng = np.random.default_rng(seed)
    same = np.equal.outer(np.arange(D) // block, np.arange(D) // block)
    upper = np.triu(np.where(same, rng.random((D, D)), (rng.random((D, D)) < noise) * 0.5), 1)
    label = rng.permutation(D)
    W = sp.csr_array(upper + upper.T)[label][:, label]
    return check_w(W), np.argsort(label)


def path(D, seed=0):
    label = np.random.default_rng(seed).permutation(D)
    W = np.diag(np.ones(D - 1), 1) + np.diag(np.ones(D - 1), -1)
    return check_w(sp.csr_array(W[label][:, label])), np.argsort(label)


def two_parts_and_a_loner():
    W = np.zeros((9, 9))
    W[np.ix_([1, 4, 6, 8], [1, 4, 6, 8])] = 1.0
    W[np.ix_([2, 3], [2, 3])] = 9.0
    W[np.ix_([0, 7], [0, 7])] = 1.0
    np.fill_diagonal(W, 0)
    return check_w(sp.csr_array(W))


ODD_GRAPHS = {
    "one": sp.csr_array((1, 1)),
    "empty": sp.csr_array((7, 7)),
    "pair": sp.csr_array(np.array([[0, 1.0], [1.0, 0]])),
    "disconnected": two_parts_and_a_loner(),
    "all equal": sp.csr_array(np.ones((20, 20)) - np.eye(20)),
    "large all equal": sp.csr_array(np.ones((90, 90)) - np.eye(90)),
    "random": random_graph(100),
    "path": path(80)[0],
}
