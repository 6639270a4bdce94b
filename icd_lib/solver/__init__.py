"""Layouts: what an order costs and how to find a good one (design §4)."""

from icd_lib.solver.bound import lower_bound
from icd_lib.solver.cost import CostConfig, CostReport, evaluate_cost
from icd_lib.solver.orderings import ORDERINGS
from icd_lib.solver.portfolio import fit_or_stop, fit_permutation

__all__ = [
    "ORDERINGS",
    "CostConfig",
    "CostReport",
    "evaluate_cost",
    "fit_or_stop",
    "fit_permutation",
    "lower_bound",
]
