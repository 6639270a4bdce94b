"""The time budget of a solve: what fits into it, and whether it cut anything short."""

import time


class Clock:
    """A deadline in `budget_s` seconds from `started` (time.perf_counter); `cut` says whether it ever bound.

    Decisions of the search depend on the arguments alone until the clock binds: it is read between chunks of work, and
    before a step whose predicted time is longer than what is left.
    """

    def __init__(self, budget_s: float, started: float | None = None):
        self.started = time.perf_counter() if started is None else started
        self.deadline = self.started + budget_s
        self.cut = False

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    def is_late(self) -> bool:
        """Whether the budget is spent; remembered in `cut`."""
        late = time.perf_counter() > self.deadline
        self.cut = self.cut or late
        return late

    def allows(self, predicted_s: float) -> bool:
        """Whether a step of that length still fits; if not, remembered in `cut`."""
        fits = time.perf_counter() + predicted_s <= self.deadline
        self.cut = self.cut or not fits
        return fits
