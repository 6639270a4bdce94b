"""Interleaving: every arm once per round, in a seeded random order, and only rounds after the warm-up are kept."""

import gc
import time

import numpy as np
import pytest

from icd_lib.errors import MeasureError
from icd_lib.measure.latency import measure_interleaved


def record(calls: list, names: str) -> dict:
    return {name: (lambda name=name: calls.append(name)) for name in names}


def test_every_round_runs_every_arm_once_and_orders_vary():
    calls = []
    samples = measure_interleaved(record(calls, "abc"), repeats=20, warmup=3, seed=1)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 23 and all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1
    assert list(samples) == ["a", "b", "c"]
    assert all(
        sample.shape == (20,) and sample.dtype == np.float64 and (sample >= 0).all() for sample in samples.values()
    )


def test_the_seed_fixes_the_order():
    first, second, other = [], [], []
    measure_interleaved(record(first, "abcd"), repeats=10, warmup=0, seed=5)
    measure_interleaved(record(second, "abcd"), repeats=10, warmup=0, seed=5)
    measure_interleaved(record(other, "abcd"), repeats=10, warmup=0, seed=6)
    assert first == second != other


def test_samples_go_to_the_arm_that_took_the_time():
    work = {"none": lambda: None, "much": lambda: sum(range(20000))}
    samples = measure_interleaved(work, repeats=15, warmup=2, seed=0)
    assert np.median(samples["much"]) > 5 * np.median(samples["none"])


def test_a_short_call_is_made_until_the_arm_has_settled_and_a_long_one_once():
    calls = []

    def long():
        calls.append("long")
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass

    arms = {"short": lambda: calls.append("short"), "long": long}
    samples = measure_interleaved(arms, repeats=2, warmup=0, settle_ms=5)
    assert calls.count("long") == 2 and calls.count("short") > 4, "the same arm again, until 5 ms have passed"
    assert samples["short"].shape == (2,) and (samples["short"] < 5).all(), "the last call alone counts"
    together = [name for name, before in zip(calls, [None, *calls], strict=False) if name != before]
    assert len(together) <= 4, "one arm's calls follow each other"


def test_garbage_collection_is_off_inside_and_back_on_after_an_error():
    def fail():
        assert not gc.isenabled()
        raise RuntimeError("arm broke")

    with pytest.raises(RuntimeError, match="arm broke"):
        measure_interleaved({"a": fail}, repeats=1, warmup=0)
    assert gc.isenabled()


def test_progress_counts_every_round():
    seen = []
    measure_interleaved(
        {"a": lambda: None}, repeats=2, warmup=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("bad", [{"arms": {}, "repeats": 1}, {"arms": {"a": int}, "repeats": 0}])
def test_nothing_to_measure_is_refused(bad):
    with pytest.raises(MeasureError, match="at least one arm"):
        measure_interleaved(**bad)


def test_a_round_can_be_timed_by_another_clock():
    def ten_and_one(callables, settle_ns):
        assert settle_ns == 3_000_000 and not gc.isenabled()
        return [10_000_000 if call() == "slow" else 1_000_000 for call in callables]

    arms = {"slow": lambda: "slow", "fast": lambda: "fast"}
    samples = measure_interleaved(arms, repeats=7, warmup=1, time_round=ten_and_one, settle_ms=3)
    assert samples["slow"].tolist() == [10.0] * 7 and samples["fast"].tolist() == [1.0] * 7
