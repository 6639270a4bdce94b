"""Statistics of paired samples: medians and percentiles, block-bootstrap intervals, clustered paired differences."""

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata, t, wilcoxon

from icd_lib.errors import MeasureError

Z95 = 1.959963984540054


def summarise(ms) -> dict:
    """Median, p50, p95, p99, mean, standard deviation (ddof 1) and n of a 1-D sample, in the sample's unit.

    >>> summarise([1.0, 2.0, 3.0])["median"]
    2.0
    """
    sample = _sample(ms, "sample")
    p50, p95, p99 = np.percentile(sample, [50, 95, 99])
    return {
        "median": float(p50),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "mean": float(sample.mean()),
        "std": float(sample.std(ddof=1)) if len(sample) > 1 else 0.0,
        "n": len(sample),
    }


def bootstrap_ci(
    samples,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    seed: int = 0,
    resamples: int = 2000,
    block: int | None = None,
) -> list[float]:
    """95 % percentile interval of `statistic` (default: the median) by the moving-block bootstrap (Künsch 1989).

    samples    shape (n,) or (n, k); rows are resampled in blocks of `block` consecutive rows (default: n^(1/3)), which
               keeps the correlation of neighbouring rounds
    statistic  maps (resamples, n[, k]) to (resamples,), reducing axis 1
    """
    data = np.asarray(samples, dtype=np.float64)
    _sample(data.reshape(-1), "sample")
    statistic = statistic or (lambda drawn: np.median(drawn, axis=1))
    rows = _block_rows(len(data), resamples, block, np.random.default_rng(seed))
    low, high = np.percentile(statistic(data[rows]), [2.5, 97.5])
    return [float(low), float(high)]


def paired_ratio(a, b, *, seed: int = 0, resamples: int = 2000) -> dict:
    """Relative change median(a) / median(b) - 1 with its 95 % interval: {"value", "ci95", "n", "method"}.

    a, b: shape (n,), entry i of both from the same round (positive). Rounds are resampled together, in blocks.

    >>> paired_ratio([2.0, 2.0], [4.0, 4.0])["value"]
    -0.5
    """
    first, second = _pair(a, b)
    if (first <= 0).any() or (second <= 0).any():
        raise MeasureError("paired_ratio takes positive durations; found one that is zero or negative")

    def ratio(drawn: np.ndarray) -> np.ndarray:
        medians = np.median(drawn, axis=1)
        return medians[..., 0] / medians[..., 1] - 1

    pairs = np.stack([first, second], axis=-1)
    return {
        "value": float(ratio(pairs[None])[0]),
        "ci95": bootstrap_ci(pairs, ratio, seed=seed, resamples=resamples),
        "n": len(first),
        "method": "ratio of medians - 1, interleaved pairs, moving-block bootstrap",
    }


def paired_test(a, b) -> dict:
    """Whether a and b differ, from their rounds: {"p", "effect", "method"}.

    p       two-sided Wilcoxon signed-rank test on log(a / b); it takes rounds as independent, the interval of
            `paired_ratio` does not: where they disagree, believe the interval
    effect  matched-pairs rank-biserial correlation (Kerby 2014): -1 when a is faster in every round, 1 when slower

    >>> paired_test([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])["effect"]
    -1.0
    """
    change = np.log(np.divide(*_pair(a, b)))
    change = change[change != 0]
    method = "Wilcoxon signed-rank on log ratios; rank-biserial correlation"
    if not len(change):
        return {"p": 1.0, "effect": 0.0, "method": method}
    ranks = rankdata(np.abs(change))
    effect = float((ranks * np.sign(change)).sum() / ranks.sum())
    return {"p": float(wilcoxon(change).pvalue), "effect": effect, "method": method}


def paired_difference(reference, candidate, *, clusters=None) -> dict:
    """Loss of `candidate` against `reference` in percentage points: {"drop_pp", "se_pp", "ci95", "n", "n_clusters"}.

    reference, candidate  shape (n,), 0/1 correctness of the same items; drop_pp = 100 * mean(reference - candidate)
    clusters              shape (n,), label of the independent unit each item belongs to (default: every item its own)

    se = sqrt(K / (K - 1) * sum_k (sum_{i in k} (d_i - mean(d)))^2) / n over the K clusters (Cameron & Miller 2015,
    one-way, for a mean); ci95 = drop_pp -/+ 1.96 se_pp. Raises MeasureError on unequal or too short samples.
    """
    first, second = _pair(reference, candidate)
    difference = first - second
    labels = np.arange(len(difference)) if clusters is None else np.asarray(clusters)
    if labels.shape != difference.shape:
        raise MeasureError(f"clusters need one label per item: expected {difference.shape}, got {labels.shape}")
    codes = np.unique(labels, return_inverse=True)[1]
    count = int(codes.max()) + 1
    if count < 2:
        raise MeasureError("a standard error takes at least two independent items, got one; use more test items")
    sums = np.bincount(codes, weights=difference - difference.mean(), minlength=count)
    standard_error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(difference)
    drop_pp, se_pp = 100 * float(difference.mean()), 100 * standard_error
    return {
        "drop_pp": drop_pp,
        "se_pp": se_pp,
        "ci95": [drop_pp - Z95 * se_pp, drop_pp + Z95 * se_pp],
        "n": len(difference),
        "n_clusters": count,
    }


def mean_ci(values) -> list[float] | None:
    """95 % interval of the mean of a few independent values by Student's t; None of a single one.

    >>> [round(bound, 2) for bound in mean_ci([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    sample = _sample(values, "sample")
    if len(sample) < 2:
        return None
    half = float(t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample)))
    return [float(sample.mean()) - half, float(sample.mean()) + half]


def mean_difference(a, b) -> dict:
    """mean(a) - mean(b) of independent samples of any lengths: {"value", "ci95", "n", "method"}; n: of the shorter one.

    The interval is Welch's: t with nu degrees of freedom times the root of va + vb, where va and vb are the squared
    standard errors and nu = (va + vb)^2 / (va^2 / (na - 1) + vb^2 / (nb - 1)). None where a sample has a single value.
    """
    first, second = _sample(a, "first sample"), _sample(b, "second sample")
    value, n = float(first.mean() - second.mean()), min(len(first), len(second))
    interval = None
    if n > 1:
        squares = [sample.var(ddof=1) / len(sample) for sample in (first, second)]
        both = sum(squares)
        weights = sum(v**2 / (len(s) - 1) for v, s in zip(squares, (first, second), strict=True))
        half = float(t.ppf(0.975, both**2 / weights) * math.sqrt(both)) if weights else 0.0
        interval = [value - half, value + half]
    return {"value": value, "ci95": interval, "n": n, "method": "difference of means, Welch's t"}


def ratio_of_means(a, b) -> dict:
    """mean(a) / mean(b) - 1 of few positive pairs: {"value", "ci95", "n", "method"}; ci95 is None of a single pair.

    With R the ratio of the means, the interval is Student's of the residuals (a_i - R b_i) / mean(b), of mean 0.

    >>> ratio_of_means([1.0, 2.0], [2.0, 4.0])["ci95"]
    [-0.5, -0.5]
    """
    first, second = _pair(a, b)
    if (first <= 0).any() or (second <= 0).any():
        raise MeasureError("ratio_of_means takes positive values; found one that is zero or negative")
    ratio = float(first.mean() / second.mean())
    interval = mean_ci((first - ratio * second) / second.mean())
    return {
        "value": ratio - 1,
        "ci95": interval and [ratio - 1 + bound for bound in interval],
        "n": len(first),
        "method": "ratio of means - 1, interleaved pairs, Student's t",
    }


def _block_rows(n: int, resamples: int, block: int | None, rng: np.random.Generator) -> np.ndarray:
    """Row indices of shape (resamples, n) made of runs of `block` consecutive rows."""
    block = min(n, max(1, round(n ** (1 / 3)) if block is None else block))
    starts = rng.integers(0, n - block + 1, size=(resamples, math.ceil(n / block)))
    return (starts[..., None] + np.arange(block)).reshape(resamples, -1)[:, :n]


def _sample(values, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise MeasureError(f"{name}: expected a 1-D array with at least one value, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise MeasureError(f"{name}: value {int(np.argmax(~np.isfinite(array)))} is not finite")
    return array


def _pair(a, b) -> tuple[np.ndarray, np.ndarray]:
    first, second = _sample(a, "first sample"), _sample(b, "second sample")
    if len(first) != len(second):
        raise MeasureError(f"paired samples have equal length, got {len(first)} and {len(second)}")
    return first, second
