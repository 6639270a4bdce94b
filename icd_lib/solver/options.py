"""Options of the solver, and of the cost that it makes small."""

from icd_lib.options import Section, option

# J is computed in float64 and its prices in float32 too; positions are int32.
MOST_WEIGHT, MOST_ELEMENTS = 1e12, 2**31 - 1


class SolverOptions(Section):
    """How layouts are searched for."""

    method: str = option("auto", "ordering to use; auto lets them compete")
    time_budget_s: float = option(120.0, "seconds per permutation", unit="s", above=0)
    refine_steps: int = option(2000, "steps of local search", low=0)
    reuse_perm: str | None = option(None, "file or run folder whose permutations are the starting point")
    cache: bool = option(False, "take layouts that earlier runs solved for exactly the same graph and settings")


class CostOptions(Section):
    """The objective J of a layout: the weights of its terms, and the geometry of the hardware."""

    alpha: float = option(1.0, "weight of C, the distance cost", low=0, high=MOST_WEIGHT)
    beta: float = option(0.2, "weight of R_align", low=0, high=MOST_WEIGHT)
    gamma_s: float = option(0.1, "weight of R_stab", low=0, high=MOST_WEIGHT)
    mu: float = option(0.5, "weight of Q, the modularity", low=0, high=MOST_WEIGHT)
    g: int = option(16, "tile: elements that the hardware touches at once", unit="elements", low=1, high=MOST_ELEMENTS)
    lam: float = option(
        3.0, "distance in tiles up to which cost grows with slope 1", unit="tiles", low=0, high=MOST_WEIGHT
    )
    tau: float = option(0.25, "slope of the cost beyond lam", low=0, high=1)
    gamma: float = option(1.2, "resolution of the modularity", above=0, high=MOST_WEIGHT)
    k: int = option(
        4, "contiguous blocks of the modularity; 0 takes the 4 KB pages of a table of rows", low=0, high=MOST_ELEMENTS
    )
    v: int = option(16, "vector width that R_align aligns to", unit="elements", low=1, high=MOST_ELEMENTS)
    h: int = option(
        0,
        "distance in elements beyond which R_stab counts a move; 0 is half the axis",
        unit="elements",
        low=0,
        high=MOST_ELEMENTS,
    )
