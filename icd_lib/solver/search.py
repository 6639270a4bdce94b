"""The strategy of a solve: which starts compete, how the effort is shared out, what is refined to the end."""

import math
from dataclasses import dataclass

import numpy as np

from icd_lib.axes.permutation import invert_permutation
from icd_lib.errors import ResourceError, SolverNotConverged
from icd_lib.solver.clock import Clock
from icd_lib.solver.cost import CostConfig, CostReport, score_positions
from icd_lib.solver.orderings import ORDERINGS
from icd_lib.solver.refine import Refiner
from icd_lib.solver.windows import EXACT_SIZE, MOST_POSITIONS

# A layout is better when J falls by more than the rounding of J.
LEAST_GAIN = 1e-12
# Up to this size all D! layouts are tried.
EXHAUSTIVE_SIZE = 8
# Work of a refinement step, in proposals per element.
PROPOSALS_PER_STEP = 1.0
# Starts and what they take, in seconds per non-zero on a slow core: first those that usually find what there is to
# find, then, where refinement still gained much, those that add variety, the dear one only beside a long refinement.
FIRST_STARTS = {"identity": 0.0, "rcm": 1e-8, "backbone": 1e-7, "louvain": 1e-7, "spectral": 3e-7, "bisection": 4e-7}
MORE_STARTS = {"fine_louvain": 1e-7, "leiden": 9e-7}
SECONDS_PER_STEP = 3e-8  # and element
# Up to so many starts whose J is within this share of the fall of J are tried, each with this share of the work.
CONTENDERS, CONTEST_SHARE, TRIAL_SHARE = 5, 0.4, 0.1
# Where a trial gains less than this share of the fall, the start had found the structure: the search ends there.
WORTH_SHARE = 0.03
# Temperatures, in the annealer's units: of trials and of the segments of the long annealing; of small graphs.
TRIAL_HEAT, SEGMENT_HEATS, SMALL_HEAT = 0.22, (0.22, 0.16, 0.1), 0.9
SMALL_ROUNDS = 24
LINE_RUNS = 2
# While C is above its bound, C weighs this much more from one annealing to the next; excess counts in a contest.
C_STEP, MOST_C_WEIGHT, EXCESS_PRICE = 1.2, 4.0, 2.0
C_ROUNDS = 4
# With C weighing so much more, a descent from a good start lowers J and C alike.
DESCENT_C_WEIGHT = 8.0


@dataclass(frozen=True)
class Candidate:
    """A layout the solver may return: where it came from, pi int64 (D,), and its cost."""

    name: str
    pi: np.ndarray
    report: CostReport

    @property
    def J(self) -> float:
        return self.report.J

    @property
    def C(self) -> float:
        return self.report.C

    @property
    def start(self) -> str:
        return self.name.partition("+")[0]


class Search:
    """One solve: the graph, the clock, and the candidates so far, the first of which is the given layout."""

    def __init__(self, graph, cost: CostConfig, pi_prev, seed: int, clock: Clock, steps: int, guard_c: bool):
        self.graph, self.cost, self.pi_prev, self.seed, self.clock = graph, cost, pi_prev, seed, clock
        self.pos_prev = None if pi_prev is None else invert_permutation(pi_prev)
        self.size, self.steps = graph.shape[0], steps
        self.guard_c = guard_c and self.size > EXACT_SIZE
        self.work = steps * PROPOSALS_PER_STEP * self.size
        self.candidates: list[Candidate] = []
        self.skipped: dict[str, str] = {}
        self.curve: list[tuple[float, float]] = []
        self.done = 0.0
        self.trades = self.draws = 0
        self.weight_c = 1.0

    @property
    def most_c(self) -> float:
        """What C may be: that of the best start, so that refinement never buys J with distance."""
        return min(self.starts, key=lambda c: c.J).C if self.guard_c and self.starts else math.inf

    @property
    def starts(self) -> list[Candidate]:
        return [c for c in self.candidates if c.start == c.name]

    def add(self, name: str, pi: np.ndarray) -> Candidate:
        """Score a layout and keep it."""
        report = score_positions(self.graph, invert_permutation(pi), self.cost, self.pos_prev)
        if not math.isfinite(report.J):
            raise SolverNotConverged(f"J of layout {name!r} is {report.J}; give smaller weights of the cost")
        found = Candidate(name, pi, report)
        self.candidates.append(found)
        if not self.curve or report.J < self.curve[-1][1]:
            self.curve.append((self.clock.elapsed_s, report.J))
        return found

    def run(self, method: str) -> None:
        """Fill the candidates: every start of `method`, and what refinement makes of them."""
        auto = method == "auto"
        self.refiner = Refiner(self.graph, self.cost, self.clock, self.pi_prev)
        if self.size <= EXHAUSTIVE_SIZE and self.steps and not self.clock.is_late():
            self.add("exhaustive", self.refiner.best_of_all())
            return
        self.try_starts(FIRST_STARTS if auto else {method: 0.0}, optional=auto)
        if not self.steps or self.clock.is_late():
            return
        if self.size <= EXACT_SIZE:
            self.try_starts(MORE_STARTS if auto else {}, optional=True)
            self.refine_small()
        else:
            self.refine_large(auto)
        self.lower_c()

    def try_starts(self, prices: dict[str, float], optional: bool) -> None:
        for name, price in prices.items():
            predicted_s = price * self.graph.nnz
            if not self.clock.allows(predicted_s):
                self.skipped[name] = f"takes about {predicted_s:.2g} s, more than is left of the budget"
                continue
            try:
                self.add(name, ORDERINGS[name](self.graph, self.cost, self.seed))
            except (SolverNotConverged, ResourceError) as error:
                if not optional:
                    raise
                self.skipped[name] = str(error)

    def refine_small(self) -> None:
        """Many short annealings from all starts: on a small graph luck beats length."""
        starts = sorted(self.starts, key=self.value)
        for turn in range(SMALL_ROUNDS):
            if self.clock.is_late():
                return
            start = starts[turn % len(starts)]
            self.anneal(start, self.moved_lines(start).pi, 1 / SMALL_ROUNDS, SMALL_HEAT)

    def refine_large(self, auto: bool) -> None:
        """Descend from the best start and try it; if that paid, let more starts compete and refine the winner."""
        best = min(self.starts, key=self.value)
        low = self.descend(best)
        top = min(low, self.trial(best, line_runs=1), key=self.value)
        if self.pays(best, top):
            one_window = self.size <= MOST_POSITIONS
            if auto and one_window:
                affordable = SECONDS_PER_STEP * self.steps * self.size
                more = {name: price for name, price in MORE_STARTS.items() if price * self.graph.nnz <= affordable}
                self.try_starts(more, optional=True)
                trials = [top, *(self.trial(start) for start in self.contenders(tried=best))]
                top = min(trials, key=self.value)
            share = 1 - TRIAL_SHARE * (CONTENDERS if one_window else 1)
            for turn, heat in enumerate(SEGMENT_HEATS):
                if self.clock.is_late():
                    break
                share_now = share / len(SEGMENT_HEATS)
                refined = self.anneal(top, top.pi, share_now, heat, shift=turn % 2 == 0 and not one_window)
                top = min(top, refined, key=self.value)
            if not self.clock.is_late():
                self.add(f"{top.start}+refine", self.refiner.polish(top.pi, self.draw()).pi)

    def pays(self, start: Candidate, found: Candidate) -> bool:
        """Whether refinement gained so much over a start that the start cannot have found the structure."""
        return start.J - self.value(found) > WORTH_SHARE * (self.candidates[0].J - found.J)

    def descend(self, start: Candidate) -> Candidate:
        """Descent from a start with C weighing so much that J and C fall together."""
        if self.clock.is_late():
            return start
        usual, self.weight_c = self.weight_c, DESCENT_C_WEIGHT if self.guard_c else 1.0
        found = self.anneal(start, start.pi, TRIAL_SHARE, 0.0)
        self.weight_c = usual
        return found

    def contenders(self, tried: Candidate) -> list[Candidate]:
        """The next best starts whose J is not hopeless, without duplicates."""
        starts = sorted(self.starts, key=lambda c: c.J)
        limit = starts[0].J + CONTEST_SHARE * (self.candidates[0].J - starts[0].J)
        chosen = [tried]
        for start in starts:
            if start.J <= limit and not any(np.array_equal(start.pi, other.pi) for other in chosen):
                chosen.append(start)
        return chosen[1:CONTENDERS]

    def trial(self, start: Candidate, line_runs: int = LINE_RUNS) -> Candidate:
        if self.clock.is_late():
            return start
        return self.anneal(start, self.moved_lines(start, line_runs).pi, TRIAL_SHARE, TRIAL_HEAT)

    def moved_lines(self, start: Candidate, runs: int = LINE_RUNS) -> Candidate:
        """The best of some annealings of whole lines, be it worse than the start."""
        moved = [
            self.add(f"{start.start}+lines", self.refiner.move_lines(start.pi, self.draw(), self.weight_c))
            for _ in range(runs if self.size <= MOST_POSITIONS else 1)
        ]
        return min(moved, key=self.value)

    def anneal(self, origin: Candidate, pi: np.ndarray, share: float, heat: float, shift=False) -> Candidate:
        """Anneal pi with a share of the work; afterwards C weighs more if it was too high, else less."""
        refined = self.refiner.anneal(pi, self.draw(), share * self.work, heat, self.weight_c, shift)
        self.done += share
        self.trades += refined.trades
        found = self.add(f"{origin.start}+refine", refined.pi)
        step = C_STEP if found.C > self.most_c else 1 / math.sqrt(C_STEP)
        self.weight_c = min(max(self.weight_c * step, 1.0), MOST_C_WEIGHT)
        return found

    def value(self, candidate: Candidate) -> float:
        """J, and a price on what C exceeds its bound by."""
        return candidate.J + EXCESS_PRICE * max(candidate.C - self.most_c, 0.0) if self.guard_c else candidate.J

    def lower_c(self) -> None:
        """While the best layout has too high a C, and refinement pays: anneal it again with C weighing more."""
        start, top = min(self.starts, key=lambda c: c.J), min(self.candidates, key=self.value)
        self.weight_c = 1.0
        for _ in range(C_ROUNDS if self.pays(start, top) else 0):
            if top.C <= self.most_c or self.clock.is_late():
                return
            self.weight_c = max(self.weight_c, C_STEP)
            top = self.anneal(top, top.pi, TRIAL_SHARE, SEGMENT_HEATS[-1])

    def draw(self) -> int:
        """A seed of its own for every step."""
        self.draws += 1
        return int(np.random.SeedSequence([self.seed, self.draws]).generate_state(1)[0])


def choose(before: Candidate, candidates: list[Candidate], most_c: float) -> Candidate:
    """Lowest J among the layouts whose C does not exceed the given layout's and `most_c`, else among those whose C does
    not rise, else among all; the given layout unless J falls."""
    better = [c for c in candidates if c.J < before.J - LEAST_GAIN]
    calm = [c for c in better if c.C <= before.C + LEAST_GAIN]
    guarded = [c for c in calm if c.C <= most_c + LEAST_GAIN]
    return min(guarded or calm or better or [before], key=lambda c: c.J)
