import itertools

import numpy as np
import pytest

from icd_lib.errors import TransformError
from icd_lib.transforms.sparsity.allocate import BINS, LatencyTable, LossCurve, allocate, allocate_rate, describe
from tests.tiny_problems import small_tables


def random_curves(seed, layers=2):
    rng = np.random.default_rng(seed)
    curves = []
    for kind, kept in (("ffn", np.arange(8, 49, 8)), ("heads", np.arange(1, 5))):
        for layer in range(layers):
            loss = np.append(np.sort(rng.random(len(kept) - 1) ** 2)[::-1], 0.0)
            curves.append(LossCurve(f"{kind}.{layer}", kind, kept, loss))
    return curves


def best_by_brute_force(tables, curves, needed_ms):
    best = np.inf
    for widths in itertools.product(*(range(len(curve.kept)) for curve in curves)):
        pairs = list(zip(widths, curves, strict=True))
        saved = sum(float(tables[curve.kind].saved(curve.kept[i])) for i, curve in pairs)
        if saved >= needed_ms:
            best = min(best, sum(float(curve.loss[i]) for i, curve in pairs))
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("latency_rel", [-0.05, -0.17, -0.3, -0.45, -0.55])
def test_least_loss_for_a_latency(seed, latency_rel):
    tables, curves, dense_ms = small_tables(), random_curves(seed), 20.0
    plan = allocate(tables, curves, dense_ms, latency_rel)
    assert set(plan.kept) == {curve.axis for curve in curves}
    assert plan.predicted_latency_rel <= latency_rel + 1e-12
    possible = sum(tables[curve.kind].saved_ms.max() for curve in curves)
    bin_ms, needed = possible / BINS, -latency_rel * dense_ms
    assert plan.predicted_loss >= best_by_brute_force(tables, curves, needed) - 1e-12
    # Every gain is rounded down to a bin and the need up.
    assert plan.predicted_loss <= best_by_brute_force(tables, curves, needed + (len(curves) + 1) * bin_ms) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_a_target_at_the_very_end_of_reach_is_met(seed):
    tables, curves = small_tables(), random_curves(seed)
    possible = sum(tables[curve.kind].saved_ms.max() for curve in curves)
    for share in (1.0, 0.9998, 0.999, 0.995):
        plan = allocate(tables, curves, 20.0, -share * possible / 20.0)
        assert plan.predicted_latency_rel <= -share * possible / 20.0 + 1e-12, share
    plan = allocate(tables, curves, 20.0, -possible / 20.0)
    assert plan.kept == {"ffn.0": 8, "ffn.1": 8, "heads.0": 1, "heads.1": 1}


@pytest.mark.parametrize("seed", range(3))
def test_rounding_to_bins_never_misses_the_target(seed):
    """Ask for a hair more than a plan saves, less than a bin: that plan is no longer good enough."""
    tables, curves = small_tables(), random_curves(seed)
    bin_ms = sum(tables[curve.kind].saved_ms.max() for curve in curves) / BINS
    for latency_rel in np.linspace(-0.1, -0.5, 9):
        found = allocate(tables, curves, 20.0, latency_rel).predicted_latency_rel
        asked = found - 0.3 * bin_ms / 20.0
        assert allocate(tables, curves, 20.0, asked).predicted_latency_rel <= asked


def test_nothing_asked_nothing_removed():
    curves = random_curves(0)
    plan = allocate(small_tables(), curves, 20.0, 0.0)
    assert plan.kept == {"ffn.0": 48, "ffn.1": 48, "heads.0": 4, "heads.1": 4}
    assert (plan.predicted_latency_rel, plan.predicted_loss) == (0.0, 0.0)


def test_out_of_reach_is_refused_with_what_is_possible():
    tables, curves = small_tables(), random_curves(0)
    possible = sum(tables[curve.kind].saved_ms.max() for curve in curves)
    with pytest.raises(TransformError, match=f"out of reach: the smallest widths give {-possible / 20:+.0%}"):
        allocate(tables, curves, 20.0, -possible / 20.0 - 0.01)


def test_the_layer_that_hurts_less_gives_more():
    kept = np.arange(8, 49, 8)
    shape = (1 - kept / 48) ** 2
    curves = [LossCurve("ffn.0", "ffn", kept, 100 * shape), LossCurve("ffn.1", "ffn", kept, shape)]
    plan = allocate(small_tables(), curves, 20.0, -0.15)
    assert plan.kept["ffn.1"] < plan.kept["ffn.0"] == 48


def test_tables_interpolate_between_measured_widths_and_stop_at_the_ends():
    table = LatencyTable("ffn", np.array([16, 32, 48]), np.array([4.0, 1.0, 0.0]))
    assert table.saved(np.array([8, 16, 24, 40, 48])).tolist() == [4.0, 4.0, 2.5, 0.5, 0.0]


def test_describe_adds_up():
    curves = random_curves(1)
    kept = {"ffn.0": 8, "ffn.1": 48, "heads.0": 2, "heads.1": 4}
    plan = describe(small_tables(), curves, 20.0, kept)
    tables = small_tables()
    assert plan.predicted_latency_rel == pytest.approx(-(tables["ffn"].saved(8) + tables["heads"].saved(2)) / 20)
    assert plan.predicted_loss == pytest.approx(curves[0].loss[0] + curves[2].loss[1])
    assert plan.to_json()["kept"] == kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7])
def test_a_rate_is_removed_with_the_least_loss_and_from_nothing_but_the_tiled_axes(seed, rate):
    curves = random_curves(seed)
    plan = allocate_rate(small_tables(), curves, 20.0, rate)
    wide = [curve for curve in curves if curve.kind == "ffn"]
    removed = {curve.axis: 48 - plan.kept[curve.axis] for curve in wide}
    assert sum(removed.values()) >= rate * 96 and plan.kept["heads.0"] == plan.kept["heads.1"] == 4
    least = min(
        sum(float(curve.loss[i]) for i, curve in pairs)
        for pairs in (list(zip(chosen, wide, strict=True)) for chosen in itertools.product(range(6), repeat=2))
        if sum(48 - int(curve.kept[i]) for i, curve in pairs) >= rate * 96
    )
    assert plan.predicted_loss == pytest.approx(least)
    assert plan.predicted_latency_rel == describe(small_tables(), curves, 20.0, plan.kept).predicted_latency_rel


@pytest.mark.parametrize(("step", "width"), [(1, 33), (8, 32)])
def test_a_rate_can_be_the_same_in_every_layer(step, width):
    plan = allocate_rate(small_tables(), random_curves(0), 20.0, 0.3, step)
    assert plan.kept == {"ffn.0": width, "ffn.1": width, "heads.0": 4, "heads.1": 4}


def test_a_rate_out_of_reach_or_of_nothing_is_refused():
    with pytest.raises(TransformError, match="rate 0.9 is out of reach: the smallest widths remove 83%"):
        allocate_rate(small_tables(), random_curves(0), 20.0, 0.9)
    heads = [curve for curve in random_curves(0) if curve.kind == "heads"]
    with pytest.raises(TransformError, match="add ffn or inner"):
        allocate_rate(small_tables(), heads, 20.0, 0.3)


def test_a_plan_takes_widths_at_the_end_of_a_step():
    kept = np.arange(16, 257, 16)
    table = LatencyTable.of("ffn", [32, 112, 192, 256], [7.5, 5.0, 2.5, 0.0], step=64)
    assert table.saved(kept).tolist() == [7.5] * 4 + [5.0] * 4 + [2.5] * 4 + [0.0] * 4
    curves = [LossCurve(f"ffn.{layer}", "ffn", kept, np.linspace(1.0, 0.0, 16) ** 2) for layer in range(3)]
    for latency_rel in (-0.1, -0.3, -0.5):
        plan = allocate({"ffn": table}, curves, 20.0, latency_rel)
        assert (
            all(width % 64 == 0 for width in plan.kept.values()) and plan.predicted_latency_rel <= latency_rel + 1e-12
        )
