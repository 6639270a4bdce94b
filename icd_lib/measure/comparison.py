"""Figures of interleaved samples: the latency of one arm, and of one arm against another."""

import numpy as np

from icd_lib.measure.statistics import bootstrap_ci, paired_ratio, paired_test, summarise
from icd_lib.metric import figure, not_measured


def relative(ratio: dict) -> dict:
    """Figure of a `paired_ratio`."""
    return figure(ratio["value"], "fraction", "measured", n=ratio["n"], method=ratio["method"], ci95=ratio["ci95"])


def latency_entry(ms, dense_ms, items: int, seed: int, resamples: int, *, item: str = "token") -> dict:
    """Figures of one arm: latency, throughput in `item`s a second, change against dense; `items` are done per call."""
    found, interval = summarise(ms), bootstrap_ci(ms, seed=seed, resamples=resamples)
    method = "median of interleaved rounds, moving-block bootstrap"
    ratio = paired_ratio(ms, dense_ms, seed=seed, resamples=resamples)
    low, high = interval
    return {
        "latency_ms": figure(found["median"], "ms", "measured", n=found["n"], method=method, ci95=interval)
        | {key: found[key] for key in ("p50", "p95", "p99")},
        "throughput_tokens_per_s": figure(
            1000 * items / found["median"],
            f"{item}s/s",
            "measured",
            n=found["n"],
            method=f"{item}s of the batch / median latency",
            ci95=(1000 * items / high, 1000 * items / low),
        ),
        "vs_dense": relative(ratio),
    }


def compare_arms(samples: dict, arm: str, other: str, *, seed: int, resamples: int) -> dict:
    """Latency of `arm` relative to `other` for every shape in `samples`, from the rounds they shared, and its test."""
    found = {}
    for label, arms in samples.items():
        if arm not in arms or other not in arms:
            found[label] = not_measured("fraction", f"the run has no arm {arm if arm not in arms else other!r}")
        else:
            pair = np.array(arms[arm]), np.array(arms[other])
            ratio = paired_ratio(*pair, seed=seed, resamples=resamples)
            found[label] = relative(ratio) | {"test": paired_test(*pair)}
    return found
