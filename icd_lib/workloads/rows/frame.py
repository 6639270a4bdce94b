"""J of a table as it is laid out: places instead of positions, so that dropped tiles shorten distances."""

import dataclasses

import numpy as np
import scipy.sparse as sp

from icd_lib.solver.cost import CostConfig, CostReport, distance_penalty, evaluate_cost
from icd_lib.workloads.rows.arms import Arm


def table_cost(graph: sp.csr_array, arm: Arm, cost: CostConfig, first: np.ndarray) -> CostReport:
    """J of the arm's table on `graph`, csr (D, D) of accesses to living rows; R_stab counts moves from π₀ (`first`).

    Every row counts where it lies in memory: distances are between places, a block of Q is D / k places, in every arm.
    """
    return evaluate_cost(graph, laid_out(arm), cost, first)


def laid_out(arm: Arm) -> np.ndarray:
    """The layout over all rows in which those that the table holds come first, place by place, then the dropped ones.

    >>> pi, alive = np.array([3, 2, 1, 0]), np.array([True, False, False, False])
    >>> laid_out(Arm.of(pi, alive, 2))
    array([1, 0, 3, 2])
    """
    held = arm.rows[arm.pi] >= 0
    return np.concatenate([arm.pi[held], arm.pi[~held]])


def shrunk_cost(cost: CostConfig, places: int, size: int) -> CostConfig:
    """The cost under which a plain solve of the first `places` of `size` rows minimises their part of the whole's J.

    C loses its normaliser's share, and as many blocks of Q remain as `places` fill.
    """
    longest, whole = (float(distance_penalty((n - 1) // cost.g, cost)) for n in (places, size))
    share = longest / whole if whole else 1.0
    blocks = max(1, round(cost.k * places / size))
    return dataclasses.replace(cost, alpha=cost.alpha * share, k=blocks, h=max(1, cost.h * places // size))
