"""In what steps a device's time follows the width of a layer: tensor cores multiply whole tiles, and round up to them.

On a CPU widths cost what they are; there nothing is looked for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from icd_lib.axes.kinds import KINDS
from icd_lib.measure.latency import SETTLE_MS, TimeRound, measure_interleaved
from icd_lib.measure.tables import WARM_UP, Call, narrowed_copy
from icd_lib.models.adapter import Adapter

STEPS = (128, 64, 32)  # that are looked for, the widest first
MOST_OF = 0.75  # of what a whole step costs; the first tile of it costs so much, or the step is none
CLEAR = 0.9  # of the rounds in which a step costs something at all


@dataclass(frozen=True)
class Steps:
    """step: widths cost what the next multiple of it does; model_ms[i]: the model with every layer at width[i]."""

    step: int
    width: list[int]
    model_ms: list[float]


def widths_of_steps(size: int, tile: int) -> list[int]:
    """Widths that show steps: a multiple of the widest, a tile more, and each step more; none where an axis is short.

    >>> widths_of_steps(1536, 16), widths_of_steps(100, 16)
    ([896, 912, 928, 960, 1024], [])
    """
    wider = [step for step in reversed(STEPS) if step > tile]
    first = size * 5 // 8 // STEPS[0] * STEPS[0]
    if not wider or not first or first + wider[-1] > size:
        return []
    return [first, first + tile, *(first + step for step in wider)]


def find_step(samples: dict[int, np.ndarray], tile: int) -> int:
    """The widest step that `samples` (width → ms of each round, as `widths_of_steps` names them) show; else `tile`."""
    first = min(samples)
    beyond = {width: ms - samples[first] for width, ms in samples.items()}
    for step in STEPS:
        if step <= tile:
            break
        whole = beyond[first + step]
        if np.mean(whole > 0) >= CLEAR and np.median(beyond[first + tile]) >= MOST_OF * np.median(whole):
            return step
    return tile


def measure_steps(
    adapter: Adapter,
    inputs: dict,
    tiles: dict[str, int],
    *,
    call: Call,
    repeats: int,
    seed: int,
    settle_ms: float = SETTLE_MS,
    time_round: TimeRound | None = None,
) -> dict[str, Steps]:
    """Axis kind → its steps where models are deployed; without kinds of which single elements go, and short ones.

    tiles: of each kind that is looked at; the rest as in `measure_width_curves`
    """
    sizes = {item.kind: item.elements for item in adapter.prunable()}
    clock: dict[str, Any] = {"settle_ms": settle_ms, "time_round": time_round}
    found = {}
    for kind, tile in tiles.items():
        widths = widths_of_steps(sizes[kind], tile) if KINDS[kind].tiled else []
        if not widths:
            continue
        arms = {width: call(narrowed_copy(adapter, kind, width), inputs) for width in widths}
        samples = measure_interleaved(arms, repeats=repeats, warmup=WARM_UP, seed=seed, **clock)
        del arms  # and what they hold of the device, before the next kind's
        ms = [float(np.median(samples[width])) for width in widths]
        found[kind] = Steps(find_step(samples, tile), widths, ms)
    return found
