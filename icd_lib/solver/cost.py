"""The objective J of a layout, exactly as design §4 defines it."""

from dataclasses import dataclass, fields

import numpy as np

from icd_lib.axes.permutation import check_permutation, invert_permutation
from icd_lib.errors import ConfigError
from icd_lib.graph.contract import check_w
from icd_lib.solver.options import MOST_ELEMENTS, MOST_WEIGHT
from icd_lib.solver.scale import on_scale


@dataclass(frozen=True)
class CostConfig:
    """Weights and geometry of J. g, lam, v, h are in positions or tiles; the others are dimensionless.

    alpha, beta, gamma_s, mu weigh C, R_align, R_stab, Q. g: elements per tile (default: a 64-byte line of float32);
    lam: tiles up to which distance counts in full, tau: slope beyond; gamma: resolution of the modularity;
    k: contiguous blocks of the modularity; v: vector width for alignment; h: positions an element may move freely.
    """

    alpha: float = 1.0
    beta: float = 0.2
    gamma_s: float = 0.1
    mu: float = 0.5
    g: int = 16
    lam: float = 3.0
    tau: float = 0.25
    gamma: float = 1.2
    k: int = 4
    v: int = 16
    h: int = 64

    def __post_init__(self):
        least = {"g": 1, "k": 1, "v": 1, "h": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise ConfigError(f"cost.{field.name} is a number, got {value!r}")
            low, high = least.get(field.name, 0), MOST_ELEMENTS if field.name in least else MOST_WEIGHT
            if not low <= value <= high:  # NaN is neither
                raise ConfigError(f"cost.{field.name} is at least {low} and at most {high:.12g}, got {value!r}")
            if field.name in least and value != int(value):
                raise ConfigError(f"cost.{field.name} is a whole number, got {value!r}")


@dataclass(frozen=True)
class CostReport:
    """C in [0, 1], Q, R_align in [0, 1], R_stab in [0, 1] and J = alpha C + beta R_align + gamma_s R_stab - mu Q."""

    C: float
    Q: float
    R_align: float
    R_stab: float
    J: float


def distance_penalty(d, cost: CostConfig):
    """phi(d) = d up to lam tiles, then lam + tau (d - lam); elementwise.

    >>> distance_penalty(np.array([0, 3, 7]), CostConfig())
    array([0., 3., 4.])
    """
    d = np.asarray(d, dtype=np.float64)
    return np.where(d <= cost.lam, d, cost.lam + cost.tau * (d - cost.lam))


def block_of_position(D: int, k: int) -> np.ndarray:
    """Block number (int64, shape (D,)) of each position: k contiguous blocks, sizes equal up to one; at most D.

    >>> block_of_position(5, 2)
    array([0, 0, 0, 1, 1])
    """
    return np.arange(D, dtype=np.int64) * min(int(k), D) // D


def evaluate_cost(W, pi, cost: CostConfig = CostConfig(), pi_prev=None) -> CostReport:  # noqa: B008 (frozen)
    """Cost of layout pi (int (D,), pi[new_position] = old_index) on W (csr (D, D)); pi_prev is the layout of R_stab.

    C = sum_{i<j} W_ij phi(|pos_i - pos_j| // g) / (phi((D-1) // g) sum_{i<j} W_ij);
    Q = (1/2m) sum_ij (W_ij - gamma k_i k_j / 2m) [same block] (Newman 2006);
    R_align = weighted share of edges with pos_i != pos_j (mod v); R_stab = share of elements moved more than h.
    A graph without edges has C = Q = R_align = 0; without pi_prev R_stab = 0. O(nnz).
    Raises `SolverNotConverged` on a bad W, `AxisError` on a bad permutation.
    """
    graph = on_scale(check_w(W))
    D = graph.shape[0]
    pos = invert_permutation(check_permutation(pi, D))
    pos_prev = None if pi_prev is None else invert_permutation(check_permutation(pi_prev, D, "pi_prev"))
    return score_positions(graph, pos, cost, pos_prev)


def score_positions(graph, pos: np.ndarray, cost: CostConfig, pos_prev: np.ndarray | None = None) -> CostReport:
    """As `evaluate_cost`, for a graph that `check_w` returned and pos[old_index] = new_position, both unchecked."""
    from icd_lib.solver import kernels  # numba loads slowly, and only graphs that are scored need it

    D = graph.shape[0]
    r_stab = 0.0 if pos_prev is None else float(np.mean(np.abs(pos - pos_prev) > cost.h))
    c = q = r_align = 0.0
    degree = kernels.sum_rows(graph.indptr, graph.data)
    two_m = float(degree.sum())
    if two_m > 0:
        penalty = distance_penalty(np.arange(D) // cost.g, cost)
        block, askew = block_of_position(D, cost.k), np.arange(D) % cost.v != 0
        parts = (graph.indptr, graph.indices, graph.data)
        far, apart, inside = kernels.sum_edges(*parts, np.asarray(pos, np.int32), block, penalty, askew)
        c = 2 * far / (penalty[-1] * two_m) if penalty[-1] > 0 else 0.0
        r_align = 2 * apart / two_m
        block_degree = np.bincount(block[pos], weights=degree, minlength=int(block[-1]) + 1)
        q = 2 * inside / two_m - float(cost.gamma) * float(((block_degree / two_m) ** 2).sum())
    j = cost.alpha * c + cost.beta * r_align + cost.gamma_s * r_stab - cost.mu * q
    return CostReport(C=float(c), Q=float(q), R_align=float(r_align), R_stab=r_stab, J=float(j))
