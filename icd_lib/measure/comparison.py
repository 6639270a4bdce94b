"""Figures of interleaved samples: the latency of one arm, and of one arm against another."""

from dataclasses import replace

import numpy as np

from icd_lib.measure.statistics import bootstrap_ci, paired_ratio, paired_test, summarise
from icd_lib.metric import Figure, PairedTest, figure, not_measured
from icd_lib.records.measured import Timing


def relative(ratio: dict) -> Figure:
    """Figure of a `paired_ratio`."""
    return figure(ratio["value"], "fraction", "measured", n=ratio["n"], method=ratio["method"], ci95=ratio["ci95"])


def latency_entry(ms, dense_ms, items: int, seed: int, resamples: int, *, item: str = "token") -> Timing:
    """Figures of one arm: latency, throughput in `item`s a second, change against dense; `items` are done per call."""
    summary, interval = summarise(ms), bootstrap_ci(ms, seed=seed, resamples=resamples)
    method = "median of interleaved rounds, moving-block bootstrap"
    ratio = paired_ratio(ms, dense_ms, seed=seed, resamples=resamples)
    low, high = interval
    median = figure(summary["median"], "ms", "measured", n=summary["n"], method=method, ci95=interval)
    return Timing(
        latency_ms=replace(median, **{key: summary[key] for key in ("p50", "p95", "p99")}),
        throughput_tokens_per_s=figure(
            1000 * items / summary["median"],
            f"{item}s/s",
            "measured",
            n=summary["n"],
            method=f"{item}s of the batch / median latency",
            ci95=(1000 * items / high, 1000 * items / low),
        ),
        vs_dense=relative(ratio),
    )


def compare_arms(samples: dict, arm: str, other: str, *, seed: int, resamples: int) -> dict[str, Figure]:
    """Latency of `arm` relative to `other` for every shape in `samples`, from the rounds they shared, and its test."""
    changes = {}
    for label, arms in samples.items():
        if arm not in arms or other not in arms:
            changes[label] = not_measured("fraction", f"the run has no arm {arm if arm not in arms else other!r}")
        else:
            pair = np.array(arms[arm]), np.array(arms[other])
            ratio = paired_ratio(*pair, seed=seed, resamples=resamples)
            changes[label] = replace(relative(ratio), test=PairedTest(**paired_test(*pair)))
    return changes
