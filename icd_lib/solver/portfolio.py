"""The solver: several starting layouts, local search from the best, never a layout worse than the given one."""

import difflib
import math
import time
from dataclasses import asdict, dataclass

import numpy as np

from icd_lib.axes.permutation import check_permutation, invert_permutation
from icd_lib.errors import ConfigError, ResourceError, SolverNotConverged
from icd_lib.graph.contract import check_w
from icd_lib.solver.cost import CostConfig, CostReport, score_positions
from icd_lib.solver.orderings import ORDERINGS
from icd_lib.solver.refine import PROPOSALS_PER_STEP, refine_layout, warm_up

# A layout is better when J falls by more than the rounding of J.
LEAST_GAIN = 1e-12
# One annealing cycle proposes each pair of elements this often before another cycle is worth more than a longer one.
PROPOSALS_PER_PAIR = 200
MOST_CYCLES = 16


@dataclass(frozen=True)
class Candidate:
    """A layout the portfolio may return: where it came from, pi int64 (D,), and its cost."""

    name: str
    pi: np.ndarray
    report: CostReport


def fit_permutation(
    W,
    cost: CostConfig = CostConfig(),  # noqa: B008 (frozen)
    time_budget_s: float = 300,
    refine_steps: int = 2000,
    seed: int = 0,
    method: str = "auto",
    initial=None,
    pi_prev=None,
) -> tuple[np.ndarray, dict]:
    """Find a layout of W (csr (D, D)) with low J: returns pi int64 (D,), pi[new_position] = old_index, and stats.

    method: "auto" tries every ordering in `ORDERINGS`, else one of them by name; the best start (on small graphs:
    several) is refined by `refine_steps` steps of local search. initial (default: identity) is the layout to beat;
    pi_prev the one R_stab compares with. The result depends on the arguments alone, unless the budget runs out: then
    it is `initial`.

    stats: before, after (C, Q, R_align, R_stab, J), winner, starts (J by name), skipped (reason by name), iterations
    (steps done), trades, elapsed_s, compile_s (not in the budget), improved, timed_out, flagged (J fell while C rose).
    Raises `SolverNotConverged` on a bad W, `AxisError` on a bad initial or pi_prev, `ConfigError` on bad settings.
    """
    graph = check_w(W)
    _check_settings(time_budget_s, refine_steps, seed, method)
    D = graph.shape[0]
    given = np.arange(D, dtype=np.int64) if initial is None else check_permutation(initial, D, "initial")
    previous = None if pi_prev is None else check_permutation(pi_prev, D, "pi_prev")
    compile_s = warm_up()
    started = time.perf_counter()
    deadline = started + time_budget_s

    search = _Search(graph, cost, previous, seed, deadline)
    before = search.score("initial", given)
    if D > 1 and graph.nnz:
        search.try_orderings(method, before)
        search.refine_best(refine_steps)
    best = before if search.timed_out else _choose(before, search.candidates)
    stats = {
        "before": asdict(before.report),
        "after": asdict(best.report),
        "winner": best.name,
        "starts": {c.name: c.report.J for c in search.candidates if "+" not in c.name},
        "skipped": search.skipped,
        "iterations": search.steps,
        "trades": search.trades,
        "elapsed_s": time.perf_counter() - started,
        "compile_s": compile_s,
        "improved": best is not before,
        "timed_out": search.timed_out,
        "flagged": best.report.J < before.report.J and best.report.C > before.report.C + LEAST_GAIN,
        "method": method,
        "seed": seed,
    }
    return best.pi, stats


class _Search:
    """One run of the portfolio: the problem, the clock, and the candidates so far."""

    def __init__(self, graph, cost, pi_prev, seed, deadline):
        self.graph, self.cost, self.pi_prev, self.seed, self.deadline = graph, cost, pi_prev, seed, deadline
        self.pos_prev = None if pi_prev is None else invert_permutation(pi_prev)
        self.candidates: list[Candidate] = []
        self.skipped: dict[str, str] = {}
        self.steps = self.trades = 0
        self.timed_out = False

    def score(self, name: str, pi: np.ndarray) -> Candidate:
        report = score_positions(self.graph, invert_permutation(pi), self.cost, self.pos_prev)
        if not math.isfinite(report.J):
            raise SolverNotConverged(f"J of layout {name!r} is {report.J}; rescale W, its weights overflow float64")
        return Candidate(name, pi, report)

    def try_orderings(self, method: str, before: Candidate) -> None:
        self.candidates = [before]
        for name in ORDERINGS if method == "auto" else [method]:
            if time.perf_counter() > self.deadline:
                self.timed_out = True
                return
            try:
                self.candidates.append(self.score(name, ORDERINGS[name](self.graph, self.cost, self.seed)))
            except (SolverNotConverged, ResourceError) as error:
                if method != "auto":
                    raise
                self.skipped[name] = str(error)

    def refine_best(self, steps: int) -> None:
        """Refine the best start; a small graph shares the steps among several starts, each annealed afresh."""
        if self.timed_out or steps == 0:
            return
        starts = sorted(self.candidates, key=lambda c: c.report.J)
        D = self.graph.shape[0]
        cycles = min(max(steps * PROPOSALS_PER_STEP // (PROPOSALS_PER_PAIR * D * D), 1), MOST_CYCLES, steps)
        for cycle in range(cycles):
            start = starts[cycle % len(starts)]
            refined = refine_layout(
                self.graph,
                start.pi,
                self.cost,
                steps=steps // cycles + int(cycle < steps % cycles),
                seed=self.seed + cycle,
                pi_prev=self.pi_prev,
                deadline=self.deadline,
            )
            self.steps += refined.steps
            self.trades += refined.trades
            if refined.timed_out:
                self.timed_out = True
                return
            self.candidates.append(self.score(f"{start.name}+refine", refined.pi))


def _choose(before: Candidate, candidates: list[Candidate]) -> Candidate:
    """Lowest J among the layouts that do not raise C, else lowest J; the given layout unless J falls."""
    better = [c for c in candidates if c.report.J < before.report.J - LEAST_GAIN]
    calm = [c for c in better if c.report.C <= before.report.C + LEAST_GAIN]
    return min(calm or better or [before], key=lambda c: c.report.J)


def _check_settings(time_budget_s, refine_steps, seed, method) -> None:
    if not (isinstance(time_budget_s, int | float) and time_budget_s >= 0):
        raise ConfigError(f"time_budget_s is a number of seconds >= 0, got {time_budget_s!r}")
    for name, value in (("refine_steps", refine_steps), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise ConfigError(f"{name} is a whole number >= 0, got {value!r}")
    if method != "auto" and method not in ORDERINGS:
        near = difflib.get_close_matches(str(method), ["auto", *ORDERINGS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"solver method {method!r} is unknown, expected auto or one of {list(ORDERINGS)}{hint}")
