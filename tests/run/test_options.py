"""The sections as one scenario: all described, the JSON Schema like the checks, and sections from outside."""

import os
import subprocess
import sys

import jsonschema
import pytest

from icd_lib.errors import ConfigError
from icd_lib.options import Section, option
from icd_lib.options.field import Field, fields
from icd_lib.registry import Registry
from icd_lib.run import options
from icd_lib.run.configuration import parse_override, read_yaml
from icd_lib.run.options import check_config, json_schema, key_paths, scenario_options
from icd_lib.run.scenario import list_scenarios, load_scenario, parameters_dir


class ToyOptions(Section):
    """A transform from outside."""

    bits: int = option(8, "bits of a weight", unit="bits", low=2, high=8)


@pytest.fixture
def own(monkeypatch):
    """A table of sections without those that other tests added."""
    table = Registry("sections", options.OWN)
    monkeypatch.setattr(options, "SECTIONS", table)
    return table


@pytest.fixture
def toy(own):
    own.add("toy", ToyOptions)


def leaves(section) -> list[tuple[str, Field]]:
    found = []
    for key, field in fields(section).items():
        found += leaves(field.section) if field.section is not None else [(key, field)]
    return found


def test_every_default_is_accepted():
    config = check_config({"scenario": "x"})
    assert check_config(config) == config


def test_every_option_and_every_section_says_what_it_means():
    assert [key for key, field in leaves(scenario_options()) if not field.doc] == []
    assert [name for name, section in options.sections().items() if not section.__doc__] == []


def test_reading_a_scenario_needs_no_torch():
    code = "import sys, icd_lib; icd_lib.load_scenario('bert'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize("name", list_scenarios())
def test_the_json_schema_takes_every_shipped_scenario(name):
    path = parameters_dir() / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    jsonschema.validate(read_yaml(text, path.name), json_schema())
    assert text.splitlines()[1] == "# yaml-language-server: $schema=scenario.schema.json"


@pytest.mark.parametrize(
    "given",
    [
        {"sed": 1},
        {"seed": -1},
        {"seed": True},
        {"model": {"family": "brt"}},
        {"model": {"shape": "large"}},
        {"measure": {"shapes": [[8]]}},
        {"transform": {"axes": []}},
        {"transform": {"ridge": 0}},
        {"codesign": {"strengths": [0.1]}},
        {"gates": {"smoke": {"l2_pp": 101}}},
        {"quick": {"scenario": "other"}},
        {"quick": {"measure": {"repeat": 3}}},
    ],
)
def test_the_json_schema_refuses_what_a_scenario_refuses(given, tmp_path):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, json_schema())
    with pytest.raises(ConfigError):
        quick = given.get("quick", {})
        check_config(quick, "quick", partial=True, quick=True)
        check_config({key: value for key, value in given.items() if key != "quick"}, partial=True)


def test_the_json_schema_offers_names_meanings_and_defaults():
    found = json_schema()
    assert "required" not in found and not found["additionalProperties"]
    codesign = found["$defs"]["CodesignOptions"]
    assert codesign["properties"]["selection_z"]["default"] == 1.0 and codesign["description"]
    assert "news" in found["$defs"]["DataOptions"]["properties"]["seen"]["items"]["enum"]


def test_a_section_from_outside_is_an_option_like_the_others_where_it_is_given(toy, tmp_path):
    before = load_scenario("bert_domain")
    assert "toy" not in before.config, "what is installed changes no hash"
    path = tmp_path / "mine.yaml"
    path.write_text("toy: {}\nquick: {toy: {bits: 2}}")
    assert load_scenario(path).config["toy"] == {"bits": 8}
    assert load_scenario(path, quick=True).get("toy.bits") == 2
    assert load_scenario(path, ["toy.bits=4"]).get("toy.bits") == 4
    assert "toy.bits" in key_paths() and "ToyOptions" in json_schema()["$defs"]
    for override, says in (("toy.bit=4", "did you mean 'toy.bits'?"), ("toy.bits=1", "at least 2, at most 8")):
        with pytest.raises(ConfigError) as caught:
            parse_override(override)
        assert says in str(caught.value)


def test_without_the_extension_its_section_is_unknown(own):
    with pytest.raises(ConfigError, match="unknown key 'toy.bits'"):
        parse_override("toy.bits=4")


EXTENSION = """
from icd_lib.experiment.metrics import METRICS, Metric
from icd_lib.models.families import FAMILIES
from icd_lib.options import Section, option
from icd_lib.run.options import SECTIONS

class ToyOptions(Section):
    "A transform from outside."

    bits: int = option(8, "bits of a weight", low=2, high=8)

SECTIONS.add("toy", ToyOptions)
METRICS.add("warmth", Metric("warmth", "warmth", "warmth", "K"))
FAMILIES.add("toy", "nowhere:FAMILY")
"""


def test_rows_of_an_extension_are_options(tmp_path):
    (tmp_path / "toy_options.py").write_text(EXTENSION)
    (tmp_path / "mine.yaml").write_text("toy: {bits: 4}\nmodel: {family: toy}\ngates: {smoke: {warmth: 3}}")
    code = "import icd_lib; config = icd_lib.load_scenario('mine.yaml').config; print(config['toy'], config['gates'])"
    place = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "ICD_EXTENSIONS": "toy_options"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | place, capture_output=True, text=True, check=True
    )
    assert "{'bits': 4}" in found.stdout and "'warmth': 3.0" in found.stdout
    assert found.stdout.count("warmth") == 1, "absent from the gate that does not name it"
