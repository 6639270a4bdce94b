"""The section of the bridge: off unless asked for, checked like the others, in nobody else's hash."""

import pytest

from icd_lib.errors import ConfigError
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes import BRIDGE, RUNTIMES, rows_of


def test_it_is_absent_unless_a_scenario_asks():
    assert "bridge" not in load_scenario("bert").config
    asked = load_scenario("bert", overrides=["bridge.enable=true"])
    assert asked.config["bridge"] == {
        "enable": True,
        "tiles": True,
        "compile_timeout_s": 600.0,
        "max_module_mb": 1900,
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("bridge.enabled=true", "unknown key 'bridge.enabled'; did you mean 'bridge.enable'"),
        ("bridge.enable=1", "bridge.enable takes true or false"),
        ("bridge.compile_timeout_s=0", "bridge.compile_timeout_s is out of range"),
        ("bridge.max_module_mb=4096", "bridge.max_module_mb is out of range"),
    ],
)
def test_what_it_does_not_take_is_named(override, words):
    with pytest.raises(ConfigError, match=words):
        load_scenario("bert", overrides=[override])


def test_its_rows_are_timed_where_asked_and_never_deployed():
    assert set(BRIDGE) < set(RUNTIMES)
    assert not set(BRIDGE) & set(rows_of("auto", "auto"))
    assert not set(BRIDGE) & set(load_scenario("bert").get("measure.runtimes"))
    with pytest.raises(ConfigError, match=r"deploy\.runtime takes one of"):
        load_scenario("bert", overrides=["deploy.runtime=stablehlo"])
    assert all(RUNTIMES[name].fixed_shapes for name in BRIDGE)
