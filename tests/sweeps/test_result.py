"""The result: rows, the frontier within a setting, the best within a loss, and the frame."""

from dataclasses import replace

import pytest
from sweep_factory import HERE, arm, done, write_sweep

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.metric import figure
from icd_lib.sweeps.figures import frontier_picture, setting_words
from icd_lib.sweeps.result import SweepResult

FACTORS = {"rate": ["0.3", "0.5", "0.7", "0.9"]}


def point(rate, given):
    return ({"rate": rate}, given)


POINTS = {
    "a": point("0.3", (10.0, 0.05, 900)),
    "b": point("0.5", (8.0, 0.4, 700)),
    "c": point("0.7", (9.0, 0.6, 500)),
    "d": point("0.9", {"status": "failed", "reason": "it broke", "code": "E_MSR_401"}),
}


def names(rows):
    return [(row.point, row.arm) for row in rows]


def test_rows_are_the_measured_arms_of_finished_points_numbered_as_planned(tmp_path):
    result = write_sweep(tmp_path / "s", POINTS, FACTORS)
    assert [(row.number, row.arm) for row in result.rows if row.point == "b"] == [
        (2, "dense"),
        (2, "linear"),
        (2, "iterative"),
    ]
    assert (result.count("done"), result.count("failed"), result.outcome("zz").status) == (3, 1, "not_run")


def test_the_frontier_is_of_latency_or_of_size(tmp_path):
    result = write_sweep(tmp_path / "s", POINTS, FACTORS)
    assert names(result.pareto()) == [("a", "iterative"), ("b", "iterative")]
    assert ("c", "iterative") in names(result.pareto("size"))
    with pytest.raises(ConfigError, match="takes latency, size, energy; got 'speed'"):
        result.pareto("speed")


def test_the_frontier_of_energy_has_those_whose_energy_was_measured(tmp_path):
    points = {}
    for (name, joules), (levels, given) in zip(
        {"a": 2e-3, "b": 1e-3, "c": None}.items(), POINTS.values(), strict=False
    ):
        fields = done(*given)
        if joules is not None:
            spent = figure(joules, "J/token", "measured", n=9, method="made up", ci95=(joules / 2, joules * 2))
            fields["arms"]["iterative"] = replace(fields["arms"]["iterative"], energy_j_per_token=spent)
        points[name] = (levels, fields)
    result = write_sweep(tmp_path / "s", points, FACTORS)
    assert names(result.pareto("energy")) == [("a", "iterative"), ("b", "iterative")]
    drawn = frontier_picture(result, "energy")
    assert drawn.name == "frontier_energy" and drawn.alt.endswith("on the frontier: 1 iterative; 2 iterative.")


def test_what_dense_beats_is_on_no_frontier(tmp_path):
    slow = {"iterative": arm(30.0, 0.2, 10, vs_dense=0.5), "dense": arm(20.0, 0.0, 100, 0.0)}
    given = {"status": "done", "where": HERE, "arms": slow}
    result = write_sweep(tmp_path / "s", {"a": point("0.3", given)}, FACTORS)
    assert result.pareto() == [] and names(result.pareto("size")) == [("a", "iterative")]


def test_each_runtime_has_a_frontier_of_its_own_and_the_best_is_of_all(tmp_path):
    points = {
        "a": point("0.3", (10.0, 0.05, 900)),
        "b": point("0.5", (5.0, 0.02, 500, replace(HERE, runtime="openvino"))),
    }
    result = write_sweep(tmp_path / "s", points, FACTORS)
    assert names(result.pareto()) == [("a", "iterative"), ("b", "iterative")], "b beats a, but in another runtime"
    assert [setting_words(result, one).rpartition(", ")[2] for one in result.settings] == ["eager", "openvino"]
    assert result.best().point == "b" and result.best(setting=result.settings[0]).point == "a"


def test_machines_of_one_kind_are_told_apart_and_named_where_there_are_several(tmp_path):
    points = {"a": point("0.3", (10.0, 0.05, 900, replace(HERE, host="aaaaaa")))}
    one = write_sweep(tmp_path / "s", points, FACTORS)
    assert "aaaaaa" not in setting_words(one, one.settings[0])
    points["b"] = point("0.5", (5.0, 0.02, 500, replace(HERE, host="bbbbbb")))
    result = write_sweep(tmp_path / "t", points, FACTORS)
    assert names(result.pareto()) == [("a", "iterative"), ("b", "iterative")]
    assert "2 cores, machine bbbbbb" in setting_words(result, result.settings[1])
    assert list(result.frame()["machine"]) == [f"{HERE.machine}, machine {host}" for host in ("aaaaaa", "bbbbbb")]
    with pytest.raises(ConfigError, match="not compared"):
        result.best()


def test_figures_of_different_machines_models_or_calls_are_never_compared(tmp_path):
    points = dict(POINTS)
    points["d"] = point("0.9", (99.0, 5.0, 9999, replace(HERE, machine="another CPU")))
    result = write_sweep(tmp_path / "s", points, FACTORS)
    assert ("d", "iterative") in names(result.pareto()), "alone where it was measured, nothing beats it"
    assert len(result.settings) == 2
    with pytest.raises(ConfigError, match="not compared; name one of"):
        result.best()
    assert result.best(1.0, result.settings[0]).point == "b"


@pytest.mark.parametrize(("most", "best"), [(0.05, "a"), (0.4, "b"), (9.0, "b")])
def test_the_best_is_the_fastest_that_loses_no_more(tmp_path, most, best):
    assert write_sweep(tmp_path / "s", POINTS, FACTORS).best(max_drop_pp=most).point == best


def test_where_none_loses_so_little_the_least_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"loses at most 0.01 pp; the least that one loses is \+0.050 pp"):
        write_sweep(tmp_path / "s", POINTS, FACTORS).best(0.01)


def test_without_quality_size_stands_in_its_place(tmp_path):
    points = {
        "a": point("0.3", (10.0, None, 500)),
        "b": point("0.5", (8.0, None, 700)),
        "c": point("0.7", (9.0, None, 800)),
    }
    result = write_sweep(tmp_path / "s", points, FACTORS)
    assert names(result.pareto()) == [("a", "iterative"), ("b", "iterative")] and result.best().point == "b"


def test_the_frame_has_one_row_a_point(tmp_path):
    frame = write_sweep(tmp_path / "s", POINTS, FACTORS).frame()
    assert list(frame["point"]) == list("abcd") and list(frame["factor.rate"]) == FACTORS["rate"]
    assert frame["iterative_latency_ms"][0] == 10.0 and frame["iterative_latency_ms"].isna()[3]
    assert list(frame["on_frontier"]) == [True, True, False, False] and frame["reason"][3] == "it broke"


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="holds no sweep"):
        SweepResult.load(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ArtifactError, match="truncated or not JSON"):
        SweepResult.load(tmp_path)
