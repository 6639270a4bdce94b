"""A sweep file as the list of its points: which, in which order, under which names, and what is refused."""

import datetime
from types import SimpleNamespace

import pytest
import yaml
from tiny_mambas import tiny_mamba
from transformers import BertConfig, BertModel

from icd_lib.errors import ConfigError
from icd_lib.run.scenario import is_sweep, list_scenarios, list_sweeps, load_scenario
from icd_lib.sweeps.outcome import status_of
from icd_lib.sweeps.plan import MANY, read_sweep, sweep_of
from icd_lib.workloads.model.setup import check_lengths

GRID = {"transform.dead_share": [0.3, 0.5], "codesign.max_rounds": [1, 2]}


def sweep(grid=None, **more):
    return sweep_of({"base": "mock", "grid": grid or GRID} | more, "mine")


def test_a_grid_is_every_combination_the_first_factor_slowest():
    points = sweep().points
    assert [point.name for point in points] == [
        "dead-share-0.3_max-rounds-1",
        "dead-share-0.3_max-rounds-2",
        "dead-share-0.5_max-rounds-1",
        "dead-share-0.5_max-rounds-2",
    ]
    assert points[1].levels == {"transform.dead_share": "0.3", "codesign.max_rounds": "2"}
    scenario = points[1].scenario()
    assert scenario.name == points[1].name and scenario.get("transform.dead_share") == 0.3
    assert scenario.get("codesign.max_rounds") == 2 and scenario.get("workload.kind") == "mock"


def test_what_all_points_have_lies_below_the_levels_and_seeds_are_a_factor():
    made = sweep(overrides={"measure.repeats": 7, "codesign": {"max_rounds": 9}}, repeat=[3, 4])
    assert len(made.points) == 8 and made.factors["seed"] == ("3", "4")
    scenario = made.points[0].scenario()
    assert (scenario.get("measure.repeats"), scenario.get("codesign.max_rounds"), scenario.get("seed")) == (7, 1, 3)
    assert len({point.scenario().sha256 for point in made.points}) == 8


def test_several_bases_are_a_factor_with_options_of_their_own():
    given = {"mock": {"workload.rows": 4096}, "trace": {}}
    made = sweep_of({"base": given, "grid": {"codesign.max_rounds": [1]}}, "mine")
    assert [point.name for point in made.points] == ["mock_max-rounds-1", "trace_max-rounds-1"]
    first, second = (point.scenario() for point in made.points)
    assert first.get("workload.rows") == 4096 and second.get("workload.kind") == "trace"
    assert sweep_of({"base": ["mock", "trace"], "grid": GRID}, "mine").factors["base"] == ("mock", "trace")


def test_a_list_gives_the_points_one_by_one():
    given = {"base": "mock", "list": [{"codesign.max_rounds": 1}, {"codesign.max_rounds": 2, "seed": 5}]}
    made = sweep_of(given, "mine")
    assert [point.name for point in made.points] == ["max-rounds-1", "max-rounds-2_seed-5"]
    assert made.factors == {"codesign.max_rounds": ("1", "2"), "seed": ("–", "5")}
    assert made.points[1].scenario().get("seed") == 5


def test_points_that_are_the_same_run_are_merged_and_said():
    grid = {"name": {"one": {"codesign.max_rounds": 2}, "two": {}, "three": {"codesign.max_rounds": 1}}}
    made = sweep(grid)
    assert [(point.name, point.merged) for point in made.points] == [("name-one", ("name-two",)), ("name-three", ())]
    assert made.merged == 1


def test_names_are_folders_also_where_levels_are_long_or_alike():
    grid = {"graph.trace": ["/data/" + "x" * 200], "codesign.max_rounds": [1, 2]}
    names = [point.name for point in sweep_of({"base": "trace", "grid": grid}, "mine").points]
    assert len(set(names)) == 2 and max(map(len, names)) <= 120
    alike = {"graph.trace": ["/data/a-b", "/data/a/b"]}
    with pytest.raises(ConfigError, match="twice"):
        sweep_of({"base": "trace", "grid": alike}, "mine")
    listed = [{"graph.trace": "/data/a-b"}, {"graph.trace": "/data/a/b"}]
    names = [point.name for point in sweep_of({"base": "trace", "list": listed}, "mine").points]
    assert len(set(names)) == 2 and all(name.startswith("trace-data-a-b_") for name in names)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"grid": GRID}, "base is missing"),
        ({"base": "mock"}, "either grid"),
        ({"base": "mock", "grid": GRID, "list": [{}]}, "either grid"),
        ({"base": "mock", "grid": {}}, "grid is empty"),
        ({"base": "mock", "list": []}, "list is empty"),
        ({"base": "mok", "grid": GRID}, "did you mean 'mock'"),
        ({"base": {}, "grid": GRID}, "base names no scenario"),
        ({"base": "mock", "gird": GRID}, "unknown key 'gird'; did you mean 'grid'"),
        ({"base": "mock", "grid": GRID, "budget_minutes": 0}, "budget_minutes is out of range"),
        ({"base": "mock", "grid": GRID, "repeat": [-1]}, "repeat[0] is out of range"),
        ({"base": "mock", "grid": GRID | {"seed": [1]}, "repeat": [2]}, "keep one of them"),
        ({"base": "mock", "grid": GRID, "prune": {"max_drop": 1}}, "did you mean 'prune.max_drop_pp'"),
        ({"base": "mock", "grid": GRID, "prune": {"along": ["rate"]}}, "'rate', which is no factor"),
        ({"base": "mock", "grid": GRID, "sweep": "a/b"}, "folder name"),
        ({"base": "mock", "list": [{"codesign.max_round": 1}]}, "list[0]: unknown key"),
        ({"base": "mock", "list": [5]}, "list[0] takes options"),
        ({"base": "mock", "grid": GRID, "quick": {"gird": {}}}, "unknown key 'quick.gird'; did you mean 'quick.grid'"),
        ({"base": "mock", "grid": GRID, "quick": 5}, "quick takes keys of the sweep"),
        ({"base": "mock", "grid": {"codesign.max_rounds": [datetime.date(2024, 1, 1)]}}, "takes an integer"),
    ],
)
def test_bad_files_are_refused_with_the_key_and_the_cure(given, says):
    with pytest.raises(ConfigError) as caught:
        sweep_of(given, "mine")
    assert says in str(caught.value)


def test_a_million_points_are_counted_and_not_made():
    grid = {f"cost.{key}": [i / 1000 for i in range(100)] for key in ("alpha", "beta", "mu")}
    with pytest.raises(ConfigError, match=r"has 1,000,000 points; .* --yes"):
        sweep(grid)
    grid = {"seed": list(range(MANY + 1))}
    with pytest.raises(ConfigError, match="--yes"):
        sweep(grid)
    assert len(sweep_of({"base": "mock", "grid": grid}, "mine", yes=True).points) == MANY + 1


def test_an_override_of_what_the_points_differ_in_is_refused():
    with pytest.raises(ConfigError, match="the factor 'codesign.max_rounds' varies it"):
        sweep_of({"base": "mock", "grid": GRID}, "mine", overrides=["codesign.max_rounds=3"])
    made = sweep_of({"base": "mock", "grid": GRID}, "mine", overrides=["measure.repeats=9"])
    assert made.points[0].scenario().get("measure.repeats") == 9


def test_quick_lays_its_block_over_the_file_and_is_every_points_own(tmp_path):
    given = {"base": "mock", "grid": GRID, "quick": {"grid": {"codesign.max_rounds": [1]}}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(given))
    made = read_sweep(path, quick=True)
    assert [point.name for point in made.points] == ["max-rounds-1"] and made.name == "mine"
    assert made.points[0].scenario(made.quick).quick and len(read_sweep(path).points) == 4


def test_a_scenario_and_a_sweep_are_told_apart(tmp_path):
    assert "ablation" in list_sweeps() and "ablation" not in list_scenarios() and "mock" not in list_sweeps()
    assert is_sweep("ablation") and not is_sweep("mock") and not is_sweep(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="ablation.yaml is a sweep of many runs"):
        load_scenario("ablation")


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_ablation_is_what_the_specification_asks_for(quick):
    made = read_sweep("ablation", quick=quick)
    assert made.merged == 0 and {"base", "length", "precision", "transform.rate"} == set(made.factors)
    scenarios = [point.scenario(quick) for point in made.points]
    assert {scenario.get("transform.rate") for scenario in scenarios} >= ({0.3, 0.7} if quick else {0.3, 0.5, 0.7})
    assert all(scenario.get("codesign.quality_budget_pp") == 100 for scenario in scenarios)
    assert not any("decode" in scenario.config for scenario in scenarios), "nobody reads what it measures"
    assert quick or {scenario.get("data.max_length") for scenario in scenarios} == {256, 1024}
    int8 = [one for one, point in zip(scenarios, made.points, strict=True) if point.levels["precision"] == "int8"]
    assert all(one.get("deploy.precision") == one.get("quantization.precision") == "int8" for one in int8)


def test_berts_points_at_1024_tokens_cannot_be_had_and_mambas_can():
    made = read_sweep("ablation")
    small = BertConfig(vocab_size=97, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=80)
    models = {"bert": BertModel(small), "mamba": tiny_mamba()}
    for point in made.points:
        scenario = point.scenario()
        context = SimpleNamespace(model=models[point.levels["base"]], get=scenario.get)
        if (point.levels["base"], point.levels["length"]) == ("bert", "1024"):
            with pytest.raises(ConfigError, match="has 1024 tokens but BertModel has positions for 512") as no:
                check_lengths(context)
            assert status_of(no.value) == "not_measured"
        else:
            check_lengths(context)
