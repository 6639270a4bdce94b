"""The loop's numbers are a scenario's options: the same names, defaults and bounds."""

import inspect
from typing import get_args

import pytest

import icd_lib as icd
from icd_lib.axes.kinds import KINDS
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.codesign.loop import MODES as LOOP_MODES
from icd_lib.codesign.options import CodesignOptions, ModeName, Settings
from icd_lib.errors import ConfigError
from icd_lib.experiment.arms import MODES
from icd_lib.run.options import check_config
from icd_lib.run.scenario import load_scenario
from icd_lib.solver.cost import CostConfig
from icd_lib.solver.options import SolverOptions


def test_a_scenario_that_gives_nothing_and_python_have_the_same_numbers():
    config = check_config({"scenario": "x"})
    assert Settings.of(config) == Settings()
    cost = CostConfig()
    assert SolverSettings.of(config["solver"], cost, 0) == SolverSettings(cost)
    assert SolverSettings(cost).time_budget_s == SolverOptions().time_budget_s
    assert vars(cost) | {"h": 0} == config["cost"], "only h has another default: a cost without a graph has no axis"
    named = {name: argument.default for name, argument in inspect.signature(icd.optimize).parameters.items()}
    options = CodesignOptions()
    assert (named["budget_pp"], named["latency_target_rel"]) == (options.quality_budget_pp, options.latency_target_rel)


def test_the_numbers_of_a_scenario_are_taken():
    overrides = ["transform.distill_steps=7", "codesign.selection_z=2", "graph.nnz_cap=5", "transform.axes=[heads]"]
    settings = Settings.of(load_scenario("bert", overrides, seed=3).config)
    assert (settings.distill_steps, settings.selection_z, settings.nnz_cap, settings.seed) == (7, 2.0, 5, 3)
    assert settings.axes == ("heads",) and Settings().axes == tuple(KINDS)


def test_strengths_go_from_the_weakest_to_the_strongest():
    assert Settings(strengths=(-0.3, -0.1, -0.2)).strengths == (-0.1, -0.2, -0.3)
    assert list(Settings().strengths) == sorted(CodesignOptions().strengths, reverse=True)


@pytest.mark.parametrize("name", ["budget_on", "distill_tokens", "dead_share", "pilots"])
def test_what_the_loop_does_not_read_is_none_of_its_numbers(name):
    with pytest.raises(ConfigError, match=f"unknown key '{name}'"):
        Settings(**{name: 1})


def test_a_rate_is_absent_unless_it_is_given_and_bounds_nothing_where_it_is():
    assert "rate" not in check_config({"scenario": "x"})["transform"] and Settings().is_bounded
    given = Settings.of(load_scenario("bert", ["transform.rate=0.5"]).config)
    assert given.rate == 0.5 and not given.is_bounded and not Settings(latency_target_rel=-0.1).is_bounded


def test_the_modes_are_those_of_the_loop_and_of_the_experiment():
    assert get_args(ModeName) == MODES == tuple(LOOP_MODES)
