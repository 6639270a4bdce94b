"""J of a table as it is laid out: places instead of positions, so that dropped tiles shorten distances."""

import dataclasses

import numpy as np
import scipy.sparse as sp

from icd_lib.axes.permutation import invert_permutation
from icd_lib.solver.cost import CostConfig, CostReport, distance_penalty, evaluate_cost
from icd_lib.stages.table.arms import Arm


def table_cost(graph: sp.csr_array, arm: Arm, cost: CostConfig, first: np.ndarray) -> CostReport:
    """C, Q, R_align and J of the rows that the arm's table holds; graph csr (D, D) of accesses to living rows.

    d_ij counts tiles between *places* of the table. C is normalised by the length of the whole table of D rows in every
    arm, so that a shorter table is nearer; the k blocks of Q divide the table that there is. R_stab counts rows that
    moved more than h positions from π₀ (`first`). Where nothing is removed this is `evaluate_cost`.
    """
    inner, order = held_rows(graph, arm)
    report = evaluate_cost(inner, order, cost)
    c = report.C * shrinking(len(order), graph.shape[0], cost)
    moved = np.abs(invert_permutation(arm.pi) - invert_permutation(first)) > cost.h
    r_stab = float(np.mean(moved))
    j = cost.alpha * c + cost.beta * report.R_align + cost.gamma_s * r_stab - cost.mu * report.Q
    return CostReport(C=c, Q=report.Q, R_align=report.R_align, R_stab=r_stab, J=j)


def held_rows(graph: sp.csr_array, arm: Arm) -> tuple[sp.csr_array, np.ndarray]:
    """The graph among the rows that the table holds, in old order, and their layout in that numbering."""
    held = np.flatnonzero(arm.rows >= 0)
    return graph[held][:, held], invert_permutation(arm.rows[held])


def shrinking(places: int, size: int, cost: CostConfig) -> float:
    """φ of the longest distance in a table of `places` rows, relative to one of `size` rows (1 when that is one tile).

    >>> shrinking(8, 8, CostConfig(g=1)), shrinking(4, 8, CostConfig(g=1, tau=1.0))
    (1.0, 0.42857142857142855)
    """
    longest = float(distance_penalty((size - 1) // cost.g, cost))
    return float(distance_penalty((places - 1) // cost.g, cost)) / longest if longest else 1.0


def shrunk_cost(cost: CostConfig, places: int, size: int) -> CostConfig:
    """The cost under which a plain solve of `places` rows minimises the J of `table_cost`."""
    return dataclasses.replace(
        cost, alpha=cost.alpha * shrinking(places, size, cost), h=max(1, cost.h * places // size)
    )
