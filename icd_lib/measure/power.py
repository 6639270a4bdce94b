"""How small a change of latency the rounds of a measurement can detect, and how many rounds a given change takes."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from icd_lib.measure.latency import SETTLE_MS, TimeRound, measure_interleaved
from icd_lib.measure.statistics import Z95, paired_ratio

POWER, Z_POWER = 0.8, 0.8416212335729143  # the normal quantile of 0.8
MOST_EXTENSIONS = 3


def detectable(ratio: dict) -> float:
    """Smallest relative change that a two-sided 5 % test finds with power 0.8, from a `paired_ratio`'s interval.

    (z_0.975 + z_0.8) standard errors, the standard error being half the 95 % interval over z_0.975 (Cohen 1988,
    chapter 2); the interval is a block bootstrap's, so the correlation of neighbouring rounds is in it.
    """
    low, high = ratio["ci95"]
    return (Z95 + Z_POWER) * (high - low) / (2 * Z95)


def rounds_needed(ratio: dict, effect: float) -> int:
    """Rounds after which a change of `effect` would be detectable, if the noise stays: n (detectable / effect)^2.

    >>> rounds_needed({"ci95": [-0.1, 0.1], "n": 10}, 0.2)
    6
    """
    return max(1, math.ceil(ratio["n"] * (detectable(ratio) / effect) ** 2))


def power_analysis(
    samples: dict, pairs: Iterable[tuple[str, str]], effect: float, *, seed: int, resamples: int
) -> dict:
    """What `samples` (arm -> (rounds,) ms) can tell of the arms in `pairs`.

    Returns {"rounds", "needed", "effect", "power", "detectable": {"arm vs other": fraction}}; `needed` is that of the
    noisiest pair. It depends on the spread alone, never on the differences found, so that measuring on until it is
    reached does not favour any result.
    """
    smallest, needed = {}, 1
    for arm, other in pairs:
        ratio = paired_ratio(samples[arm], samples[other], seed=seed, resamples=resamples)
        smallest[f"{arm} vs {other}"] = detectable(ratio)
        needed = max(needed, rounds_needed(ratio, effect))
    rounds = len(next(iter(samples.values())))
    return {"rounds": rounds, "needed": needed, "effect": effect, "power": POWER, "detectable": smallest}


def measure_until_clear(
    arms: dict[str, Callable[[], object]],
    pairs: Iterable[tuple[str, str]],
    *,
    repeats: int,
    max_repeats: int,
    effect: float,
    warmup: int,
    seed: int,
    resamples: int,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    settle_ms: float = SETTLE_MS,
    time_round: TimeRound | None = None,
) -> tuple[dict[str, np.ndarray], dict]:
    """`measure_interleaved`, and more rounds up to `max_repeats` while a change of `effect` could be missed.

    pairs: (arm, other) whose difference matters; one with an arm that is not in `arms` is left out.

    Returns the samples and their power analysis, which also holds "planned" (`repeats`) and "cap" (`max_repeats`).
    """
    clock: dict[str, Any] = {"settle_ms": settle_ms, "time_round": time_round}
    samples = measure_interleaved(arms, repeats=repeats, warmup=warmup, seed=seed, progress=progress, **clock)
    pairs = [pair for pair in pairs if set(pair) <= set(arms)]
    analysis = power_analysis(samples, pairs, effect, seed=seed, resamples=resamples)
    for extension in range(1, MOST_EXTENSIONS + 1):
        more = min(analysis["needed"], max_repeats) - analysis["rounds"]
        if more <= 0:
            break
        say(f"the noise asks for {analysis['needed']} rounds to see {effect:.1%}; {more} more are taken")
        added = measure_interleaved(arms, repeats=more, warmup=1, seed=seed + extension, progress=progress, **clock)
        samples = {arm: np.concatenate([ms, added[arm]]) for arm, ms in samples.items()}
        analysis = power_analysis(samples, pairs, effect, seed=seed, resamples=resamples)
    return samples, analysis | {"planned": repeats, "cap": max(repeats, max_repeats)}
