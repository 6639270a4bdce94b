"""Factors: an option with its values, or a name with levels; each checked as a scenario's options are."""

import pytest

from icd_lib.errors import ConfigError
from icd_lib.run.configuration import parse_override
from icd_lib.sweeps.factors import read_factor, settings


def test_an_option_with_its_values(tmp_path):
    factor = read_factor("transform.rate", [0.3, 0.5], tmp_path)
    assert [(level.name, level.overrides) for level in factor.levels] == [
        ("0.3", ("transform.rate=0.3",)),
        ("0.5", ("transform.rate=0.5",)),
    ]


def test_a_name_of_ones_own_sets_several_options_flat_or_nested(tmp_path):
    given = {"256": {"data.max_length": 256, "measure": {"shapes": [[4, 256]]}}, "none": {}}
    first, second = read_factor("length", given, tmp_path).levels
    assert first.overrides == ("data.max_length=256", "measure.shapes=[[4, 256]]") and second.overrides == ()
    assert first.keys == {"data.max_length", "measure.shapes"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("codesign.min_cosine", None),
        ("measure.energy", True),
        ("codesign.quality_budget_pp", 1e-05),
        ("data.seen", ["news", "films"]),
        ("model.checkpoint", "a #1: b"),
    ],
)
def test_values_arrive_as_they_are(tmp_path, key, value):
    (text,) = settings({key: value}, "here", tmp_path)
    section, name = key.split(".")
    assert parse_override(text)[section][name] == value


def test_a_path_counts_from_the_sweeps_folder(tmp_path):
    (text,) = settings({"graph.trace": "my.jsonl"}, "here", tmp_path)
    assert text == f"graph.trace={tmp_path / 'my.jsonl'}"


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("transform.rat", [0.3], "grid.transform.rat: unknown key 'transform.rat'; did you mean 'transform.rate'"),
        ("transform.rate", [3], "out of range"),
        ("transform.rate", [], "grid.transform.rate has no level"),
        ("transform.rate", 0.3, "takes a list of the option's values"),
        ("transform.rate", [0.3, 0.3], "has the level '0.3' twice"),
        ("precision", {"int8": 5}, "grid.precision.int8 takes options"),
        ("precision", {"int8": {"deploy.precison": "int8"}}, "did you mean 'deploy.precision'"),
        ("scenario", ["bert"], "leave out 'scenario'"),
    ],
)
def test_what_is_no_factor_is_refused_by_name(tmp_path, name, given, says):
    with pytest.raises(ConfigError) as caught:
        read_factor(name, given, tmp_path)
    assert says in str(caught.value)
