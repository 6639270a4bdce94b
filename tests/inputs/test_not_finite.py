"""NaN and infinity are refused by name wherever a scenario has a number."""

import math

import pytest

from icd_lib.errors import ConfigError
from icd_lib.run.scenario import load_scenario


def leaves(options: dict, prefix: str = ""):
    for name, value in options.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("scenario", ["bert", "mock"])
@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
def test_every_number_of_a_scenario(scenario, number):
    numbers = [key for key, value in leaves(load_scenario(scenario).config) if isinstance(value, float)]
    assert len(numbers) > 10
    for key in numbers:
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
            load_scenario(scenario, [f"{key}={number}"])
    for key, _ in leaves(load_scenario(scenario).config):
        try:
            given = load_scenario(scenario, [f"{key}={number}"]).get(key)
        except ConfigError:
            continue
        assert not isinstance(given, float) or math.isfinite(given), key  # a text may be called so
