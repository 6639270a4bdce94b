"""The solver: several starting layouts, local search from the best, never a layout worse than the given one."""

import difflib
import math
import time
from dataclasses import asdict

import numpy as np

from icd_lib.axes.permutation import check_permutation
from icd_lib.errors import ConfigError, SolverTimeout
from icd_lib.graph.contract import check_w
from icd_lib.solver.clock import Clock
from icd_lib.solver.cost import CostConfig
from icd_lib.solver.orderings import ORDERINGS
from icd_lib.solver.refine import warm_up
from icd_lib.solver.scale import on_scale
from icd_lib.solver.search import LEAST_GAIN, Search, choose


def fit_permutation(
    W,
    cost: CostConfig = CostConfig(),  # noqa: B008 (frozen)
    time_budget_s: float = 300,
    refine_steps: int = 2000,
    seed: int = 0,
    method: str = "auto",
    initial=None,
    pi_prev=None,
    guard_c: bool = True,
) -> tuple[np.ndarray, dict]:
    """Find a layout of W (csr (D, D)) with low J: returns pi int64 (D,), pi[new_position] = old_index, and stats.

    method: "auto" lets the orderings of `ORDERINGS` compete, else one of them by name; the best are refined with up to
    `refine_steps` steps of local search (a step proposes one trade per element; the search ends early where a trial
    shows that there is little to gain). initial (default: identity) is the layout to beat; pi_prev the one R_stab
    compares with. guard_c: a layout whose C exceeds that of the best start is only returned where no other improves J
    (graphs of more than 256 elements). The result depends on the arguments alone, unless the budget runs out: then it
    is the best layout so far.

    stats: before, after (C, Q, R_align, R_stab, J), winner, starts (J by name), skipped (reason by name), iterations
    (steps done), trades, elapsed_s, compile_s (not in the budget), improved, timed_out (the budget cut it short),
    flagged (J fell while C rose), curve (seconds and J whenever the best J fell).
    Raises `SolverNotConverged` on a bad W, `AxisError` on a bad initial or pi_prev, `ConfigError` on bad settings.
    """
    entered = time.perf_counter()
    _check_settings(time_budget_s, refine_steps, seed, method)
    compile_s = warm_up()
    clock = Clock(time_budget_s, entered + compile_s)
    graph = on_scale(check_w(W))
    D = graph.shape[0]
    given = np.arange(D, dtype=np.int64) if initial is None else check_permutation(initial, D, "initial")
    previous = None if pi_prev is None else check_permutation(pi_prev, D, "pi_prev")
    search = Search(graph, cost, previous, seed, clock, refine_steps, guard_c)
    before = search.add("initial", given)
    if D > 1 and graph.nnz:
        search.run(method)
    best = choose(before, search.candidates, search.most_c)
    stats = {
        "before": asdict(before.report),
        "after": asdict(best.report),
        "winner": best.name,
        "starts": {c.name: c.J for c in search.starts},
        "skipped": search.skipped,
        "iterations": round(search.done * refine_steps),
        "trades": search.trades,
        "elapsed_s": clock.elapsed_s,
        "compile_s": compile_s,
        "improved": best is not before,
        "timed_out": clock.cut,
        "flagged": best.J < before.J and best.C > before.C + LEAST_GAIN,
        "method": method,
        "seed": seed,
        "curve": search.curve,
    }
    return best.pi, stats


def fit_or_stop(W, name: str = "the graph", **settings) -> tuple[np.ndarray, dict]:
    """`fit_permutation`, tried once more when the budget ran out before anything better than the initial layout.

    Raises `SolverTimeout` when the second try fails likewise. `settings` go to `fit_permutation`.
    """
    pi, stats = fit_permutation(W, **settings)
    if stats["timed_out"] and not stats["improved"]:
        pi, stats = fit_permutation(W, **settings)
        if stats["timed_out"] and not stats["improved"]:
            raise SolverTimeout(
                f"twice no layout of {name} ({len(pi)} elements) better than the initial one was found within "
                f"{settings.get('time_budget_s', 300)} s; raise solver.time_budget_s"
            )
    return pi, stats


def _check_settings(time_budget_s, refine_steps, seed, method) -> None:
    number = isinstance(time_budget_s, int | float | np.number) and not isinstance(time_budget_s, bool)
    if not (number and 0 <= time_budget_s < math.inf):
        raise ConfigError(f"time_budget_s is a finite number of seconds >= 0, got {time_budget_s!r}")
    for name, value in (("refine_steps", refine_steps), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise ConfigError(f"{name} is a whole number >= 0, got {value!r}")
    if method != "auto" and method not in ORDERINGS:
        near = difflib.get_close_matches(str(method), ["auto", *ORDERINGS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"solver method {method!r} is unknown, expected auto or one of {list(ORDERINGS)}{hint}")
