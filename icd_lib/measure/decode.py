"""The clock of decoding: time to first token and time per token of several arms on the same prompts, interleaved.

The arms hold their caches at the same time and take turns at every token, so that drift of the machine hits all alike
and every step is a pair of samples. They are given the tokens of a text and not their own, so that all do the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from icd_lib.decoding.base import Decoder
from icd_lib.errors import MeasureError
from icd_lib.measure.comparison import relative
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.statistics import bootstrap_ci, paired_ratio
from icd_lib.metric import Figure, figure


@dataclass(frozen=True, eq=False)
class DecodeTimes:
    """Samples of one arm, ms: first_ms (rounds,), until the logits after the prompts; step_ms (rounds, steps)."""

    first_ms: np.ndarray
    step_ms: np.ndarray


def measure_decoding(
    arms: Mapping[str, Decoder],
    ids: np.ndarray,
    *,
    context: int,
    steps: int,
    rounds: int,
    warmup: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, DecodeTimes]:
    """Time every arm: `rounds` times the prompts and then `steps` tokens one by one; arm → samples.

    ids      int64 (B, at least context + warmup + steps): prompts of `context` tokens, and the tokens that follow them
    warmup   tokens of a round that are not kept; the prompts and a few tokens come once before the first round

    Raises `MeasureError` where there is nothing to measure or the texts are too short.
    """
    needed = context + warmup + steps
    if not arms or rounds < 1 or steps < 1 or context < 1:
        raise MeasureError(
            f"expected arms, rounds, steps and context of at least one; got {len(arms)} arms, rounds {rounds}, steps "
            f"{steps}, context {context}"
        )
    if ids.ndim != 2 or ids.shape[1] < needed:
        raise MeasureError(f"texts of {needed} tokens are needed for each row of the batch, got shape {ids.shape}")
    prompts = np.ascontiguousarray(ids[:, :context])
    first: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    step: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        # An arm forgets its earlier texts inside the call: only then is the place for the new ones free.
        reading = measure_interleaved(
            {name: _reads(arm, prompts) for name, arm in arms.items()}, repeats=1, warmup=0, seed=seed + number
        )
        places = {name: iter(range(context, needed)) for name in arms}
        writing = measure_interleaved(
            {name: _goes_on(arm, ids, places[name]) for name, arm in arms.items()},
            repeats=steps if number else 1,
            warmup=warmup,
            seed=seed + number,
        )
        if number:
            for name in arms:
                first[name].append(reading[name])
                step[name].append(writing[name])
        if progress is not None:
            progress(number + 1, rounds + 1)
    for arm in arms.values():
        arm.reset()
    return {name: DecodeTimes(np.concatenate(first[name]), np.stack(step[name])) for name in arms}


def _reads(arm: Decoder, prompts: np.ndarray) -> Callable[[], object]:
    return lambda: arm.prefill(prompts)


def _goes_on(arm: Decoder, ids: np.ndarray, places) -> Callable[[], object]:
    return lambda: arm.step(ids[:, next(places)])


def time_figure(samples_ms: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Figure:
    """Figure of one arm's samples, (rounds,) or (rounds, steps): their median, ms."""
    flat = np.asarray(samples_ms).reshape(-1)
    return figure(
        float(np.median(flat)),
        "ms",
        "measured",
        n=len(flat),
        method="median of interleaved calls, moving-block bootstrap",
        ci95=bootstrap_ci(flat, seed=seed, resamples=resamples),
    )


def change_figure(samples_ms: np.ndarray, other_ms: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Figure:
    """Figure of one arm against another on the same prompts and tokens: ratio of medians − 1."""
    pair = (np.asarray(one).reshape(-1) for one in (samples_ms, other_ms))
    return relative(paired_ratio(*pair, seed=seed, resamples=resamples))
