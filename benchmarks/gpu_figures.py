"""Figures of `benchmarks/gpu.py` from its samples; nothing here needs a device."""

from collections.abc import Callable

import numpy as np

from icd_lib.errors import MeasureError
from icd_lib.measure.comparison import latency_entry, relative
from icd_lib.measure.energy import UNIT
from icd_lib.measure.statistics import mean_ci, paired_ratio, ratio_of_means
from icd_lib.metric import Figure, figure

RESAMPLES = 2000
CONTROL = "dense again"
PAIRS = (("masked", "dense"), ("tile_dropped", "masked"), ("compacted", "masked"), ("compacted", "tile_dropped"))


Change = Callable[[dict, str, str], Figure]


def change(samples: dict, arm: str, other: str) -> Figure:
    """What `arm` takes more than `other`, as a fraction with its interval, from the rounds they shared."""
    return relative(paired_ratio(samples[arm], samples[other], resamples=RESAMPLES))


def change_of_few(samples: dict, arm: str, other: str) -> Figure:
    """The same of windows, of which there are too few to be drawn from."""
    return relative(ratio_of_means(samples[arm], samples[other]))


def aa_control(samples: dict, control: str, arm: str, change: Change = change) -> dict:
    """The same arm against itself: {"aa_control", "aa_holds_zero"}."""
    found = change(samples, control, arm)
    low, high = found.ci95 or (np.nan, np.nan)
    return {"aa_control": found, "aa_holds_zero": bool(low <= 0 <= high)}


def latency_figures(samples: dict[str, np.ndarray], tokens: int) -> dict:
    """{"arms": arm → Timing, "pairs": "arm vs other" → Figure, "aa_control", "aa_holds_zero"}."""
    arms = {arm: ms for arm, ms in samples.items() if arm != CONTROL}
    return {
        "arms": {arm: latency_entry(ms, samples["dense"], tokens, 0, RESAMPLES) for arm, ms in arms.items()},
        "pairs": {f"{arm} vs {other}": change(samples, arm, other) for arm, other in PAIRS},
        **aa_control(samples, CONTROL, "dense"),
    }


def energy_figures(joules: dict[str, list[float]], counter: str, window_s: float) -> dict:
    """{"j_per_token": arm → Figure, "compacted vs dense", "aa_control", "aa_holds_zero"} of J per token per window."""
    method = f"{counter}, whole board, mean of interleaved windows of {window_s:g} s"
    arms = {}
    for arm, values in joules.items():
        arms[arm] = figure(float(np.mean(values)), UNIT, "measured", n=len(values), method=method, ci95=mean_ci(values))
    compared = {"compacted vs dense": change_of_few(joules, "compacted", "dense")}
    return {"j_per_token": arms, **compared, **aa_control(joules, CONTROL, "dense", change_of_few)}


def largest_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """max |got − wanted| / max |wanted|; MeasureError where one is not finite."""
    error = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    if not np.isfinite(error):
        raise MeasureError("an output is not finite; the arms cannot be compared")
    return error
