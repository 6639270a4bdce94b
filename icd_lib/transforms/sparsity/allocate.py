"""How much to remove where: the least predicted loss for a latency, from measured tables (ZipLM, section 3.2).

A table gives, for one axis kind, milliseconds of the whole model as a function of how many elements each layer keeps;
a loss curve gives, for one axis, the predicted loss as a function of what it keeps. The choice per axis is a multiple-
choice knapsack, solved exactly by dynamic programming over time bins.
"""

from dataclasses import asdict, dataclass

import numpy as np

from icd_lib.axes.kinds import KINDS
from icd_lib.errors import TransformError

BINS = 4000


@dataclass(frozen=True)
class PrunePlan:
    """How many elements of each axis stay: `{"ffn.0": 640, "heads.0": 10, ...}` and what the tables say of it."""

    kept: dict[str, int]
    predicted_latency_rel: float | None = None
    predicted_loss: float | None = None

    def to_json(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class LatencyTable:
    """`saved_ms[i]`: what one layer saves when it keeps `kept[i]` elements (ascending; the last keeps all, saves 0).

    step: a width costs what the next multiple of it does
    """

    kind: str
    kept: np.ndarray
    saved_ms: np.ndarray
    step: int = 1

    @classmethod
    def of(cls, kind: str, kept, saved_ms, step: int = 1) -> "LatencyTable":
        """Table from plain lists."""
        return cls(kind, np.asarray(kept), np.asarray(saved_ms, dtype=float), step)

    def saved(self, kept: np.ndarray) -> np.ndarray:
        """Milliseconds saved per layer, linear between measured widths; all widths of a step save the same."""
        return np.interp(self._paid(kept), self._paid(self.kept), self.saved_ms)

    def _paid(self, kept: np.ndarray) -> np.ndarray:
        return np.minimum(-(-kept // self.step) * self.step, self.kept[-1])


@dataclass(frozen=True)
class LossCurve:
    """`loss[i]`: predicted loss of the network when the axis keeps `kept[i]` elements (ascending)."""

    axis: str
    kind: str
    kept: np.ndarray
    loss: np.ndarray

    def at(self, kept: int) -> float:
        return float(np.interp(kept, self.kept, self.loss))

    def up_to(self, limit: int | None) -> "LossCurve":
        """The curve without what is wider than `limit`."""
        if limit is None:
            return self
        allowed = self.kept <= limit
        return LossCurve(self.axis, self.kind, self.kept[allowed], self.loss[allowed])

    def to_json(self) -> dict:
        return {"axis": self.axis, "kind": self.kind, "kept": self.kept.tolist(), "loss": self.loss.tolist()}

    @classmethod
    def from_json(cls, entry: dict) -> "LossCurve":
        return cls(entry["axis"], entry["kind"], np.array(entry["kept"]), np.array(entry["loss"]))


def allocate(
    tables: dict[str, LatencyTable], curves: list[LossCurve], dense_ms: float, latency_rel: float
) -> PrunePlan:
    """Plan with the least summed loss whose predicted latency is at most (1 + latency_rel) × dense_ms.

    Raises `TransformError` when even the smallest widths are too slow.
    """
    needed = max(0.0, -latency_rel * dense_ms)
    options = [(tables[curve.kind].saved(curve.kept), curve) for curve in curves]
    possible = sum(float(saved.max()) for saved, _ in options)
    if possible < needed:
        raise TransformError(
            f"latency target {latency_rel:+.0%} is out of reach: the smallest widths give {-possible / dense_ms:+.0%}; "
            "ask for less, or allow more axes in transform.axes"
        )
    bin_ms = max(possible, 1e-9) / BINS
    chosen = _knapsack(
        [(np.floor(saved / bin_ms).astype(int), curve.loss) for saved, curve in options], needed / bin_ms
    )
    kept = {curve.axis: int(curve.kept[i]) for (_, curve), i in zip(options, chosen, strict=True)}
    return describe(tables, curves, dense_ms, kept)


def allocate_evenly(
    tables: dict[str, LatencyTable], curves: list[LossCurve], dense_ms: float, latency_rel: float, step: int = 1
) -> PrunePlan:
    """One width of the tiled axes for every layer, all else kept: the widest that reaches the predicted latency.

    step: widths are multiples of it. Raises `TransformError` when no width reaches the latency.
    """
    wide = tiled(curves)
    size = int(wide[0].kept[-1])
    widths = np.arange(step, size + 1, step)
    saved = sum(tables[curve.kind].saved(widths) for curve in wide)
    enough = widths[saved >= -latency_rel * dense_ms]
    if not len(enough):
        raise TransformError(f"no uniform width reaches {latency_rel:+.0%} on this machine; ask for less")
    kept = {curve.axis: int(enough[-1]) if KINDS[curve.kind].tiled else int(curve.kept[-1]) for curve in curves}
    return describe(tables, curves, dense_ms, kept)


def allocate_rate(
    tables: dict[str, LatencyTable], curves: list[LossCurve], dense_ms: float, rate: float, step: int | None = None
) -> PrunePlan:
    """Plan that removes at least `rate` of the tiled axes' elements with the least summed loss, all else kept.

    step: one width for every layer instead, a multiple of it. Raises `TransformError` when the smallest widths keep
    more.
    """
    wide = tiled(curves)
    kept = {curve.axis: int(curve.kept[-1]) for curve in curves}
    if step is not None:
        kept |= {curve.axis: max(int(curve.kept[-1] * (1 - rate) + 1e-9) // step, 1) * step for curve in wide}
        return describe(tables, curves, dense_ms, kept)
    gains = [curve.kept[-1] - curve.kept for curve in wide]
    needed, possible = rate * sum(int(curve.kept[-1]) for curve in wide), sum(int(gain[0]) for gain in gains)
    if possible < needed - 1e-9:
        raise TransformError(
            f"transform.rate {rate:g} is out of reach: the smallest widths remove {possible / needed * rate:.0%} of "
            "the elements; ask for less"
        )
    unit = int(np.gcd.reduce(np.concatenate(gains))) or 1
    items = [(gain // unit, curve.loss) for gain, curve in zip(gains, wide, strict=True)]
    chosen = _knapsack(items, needed / unit)
    kept |= {curve.axis: int(curve.kept[i]) for curve, i in zip(wide, chosen, strict=True)}
    return describe(tables, curves, dense_ms, kept)


def tiled(curves: list[LossCurve]) -> list[LossCurve]:
    """The curves of axes that a rate is of; `TransformError` where there are none."""
    found = [curve for curve in curves if KINDS[curve.kind].tiled]
    if not found:
        raise TransformError(
            "one rate for all layers is a rate of FFN neurons or inner channels; add ffn or inner to transform.axes"
        )
    return found


def describe(
    tables: dict[str, LatencyTable], curves: list[LossCurve], dense_ms: float, kept: dict[str, int]
) -> PrunePlan:
    """The plan with its predicted latency and loss."""
    saved = sum(float(tables[curve.kind].saved(kept[curve.axis])) for curve in curves)
    return PrunePlan(kept, -saved / dense_ms, sum(curve.at(kept[curve.axis]) for curve in curves))


def _knapsack(options: list[tuple[np.ndarray, np.ndarray]], needed: float) -> list[int]:
    """Index per item minimising the summed loss with summed gain ≥ needed (gains are capped at the bin of `needed`)."""
    goal = int(np.ceil(needed - 1e-9))
    best = np.full(goal + 1, np.inf)
    best[0] = 0.0
    choices = []
    reach = np.arange(goal + 1)
    for gains, losses in options:
        candidate = np.full((len(gains), goal + 1), np.inf)
        for i, (gain, loss) in enumerate(zip(gains, losses, strict=True)):
            np.minimum.at(candidate[i], np.minimum(reach + gain, goal), best + loss)
        choices.append((candidate.argmin(0), gains, best, losses))
        best = candidate.min(0)
    return _trace(choices, goal)


def _trace(choices: list, goal: int) -> list[int]:
    """Walk back from the goal; at the cap several predecessors lead there, take the cheapest."""
    picked, at = [], goal
    for index, gains, before, losses in reversed(choices):
        option = int(index[at])
        gain = int(gains[option])
        if at < goal:
            at -= gain
        else:
            low = max(goal - gain, 0)
            at = low + int((before[low : goal + 1] + losses[option]).argmin())
        picked.append(option)
    return picked[::-1]
