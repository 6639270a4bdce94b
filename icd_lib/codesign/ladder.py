"""Which strengths are tried, and in which order: the same way for every arm.

Drafts (closed form, no pass over the calibration text) say how strong; whole attempts then go on from there: weaker
until one is accepted, stronger from there until one is refused. A latency target is aimed at in two steps and nowhere
else.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from icd_lib.codesign.options import Settings


@dataclass(frozen=True)
class Rung:
    """One thing to try: a `draft` or a whole `attempt` at a strength (change of latency, negative)."""

    what: Literal["draft", "attempt"]
    strength: float


class Ladder:
    """The strengths of the settings, handed out one by one: `next` is told what became of the last.

    drafts: whether a candidate can be drafted; decisive: whether a draft that is accepted gives what an attempt gives,
    so that the strongest is only laid out; onward: whether an attempt goes on from the best candidate so far. Where
    each begins anew, what was refused is not tried again.

    >>> ladder = Ladder(Settings(strengths=(-0.1, -0.2, -0.3)), drafts=False)
    >>> [ladder.next().strength, ladder.next(accepted=True).strength, ladder.next(accepted=False)]
    [-0.2, -0.3, None]
    """

    def __init__(self, settings: Settings, *, drafts: bool, decisive: bool = False, onward: bool = True):
        self.settings, self.drafts, self.decisive, self.onward = settings, drafts, decisive, onward
        self.strengths = sorted(settings.strengths, reverse=True)
        self._rungs = self._climb() if settings.latency_target_rel is None else self._aim()

    def next(self, accepted: bool | None = None) -> Rung | None:
        """The next rung, given what became of the last (None: there is none yet); None when all is tried."""
        try:
            return self._rungs.send(accepted)
        except StopIteration:
            return None

    def _aim(self) -> Generator[Rung, bool, None]:
        target = self.settings.latency_target_rel
        for strength in (target / 2, target):
            yield Rung("attempt", strength)

    def _climb(self) -> Generator[Rung, bool, None]:
        at = (yield from self._draft()) if self.drafts else middle(self.strengths)
        step, refused = -1, set()
        for _ in range(self.settings.max_rounds):
            if not 0 <= at < len(self.strengths) or (at in refused and not self.onward):
                return
            accepted = yield Rung("attempt", self.strengths[at])
            if accepted:
                step = 1
            else:
                refused.add(at)
            if step == 1 and (self.decisive or not accepted):
                return
            at += step

    def _draft(self) -> Generator[Rung, bool, int]:
        """Index of the strongest rung whose draft is accepted, looked for from the middle; the weakest if none is."""
        at, accepted, refused = middle(self.strengths), -1, len(self.strengths)
        while accepted < at < refused:
            if (yield Rung("draft", self.strengths[at])):
                at, accepted = at + 1, at
            else:
                at, refused = at - 1, at
        return max(accepted, 0)


def middle(strengths: list[float]) -> int:
    """The rung from which the search starts."""
    return (len(strengths) - 1) // 2
