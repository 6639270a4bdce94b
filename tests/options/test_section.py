"""A section takes what a scenario takes, in the same words, and holds it unchangeably."""

from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError, create_model

from icd_lib.errors import ConfigError
from icd_lib.options import OMITTED, OneOf, Section, option
from icd_lib.options.check import check_values, key_paths
from icd_lib.options.field import aliases, fields
from icd_lib.run.scenario import load_scenario

NAMES = ["red", "green"]


class Inner(Section):
    """Within another."""

    depth: int = option(2, "how deep", low=1)


class Paint(Section):
    """Options of a test."""

    colour: Annotated[str, OneOf(NAMES)] = option("red", "of the wall")
    tone: Literal["dark", "light"] | None = option(None, "of the colour")
    thickness: float = option(0.5, "of the layer", unit="mm", above=0, high=2)
    layers: tuple[Annotated[float, Field(ge=0)], ...] = option((1.0, 2.0), "one after the other", least=1)
    sizes: tuple[Annotated[tuple[int, ...], Field(min_length=2, max_length=2)], ...] = option((), "of the wall")
    note: str | None = option(OMITTED, "for the painter")
    inner: Inner = Field(default_factory=Inner)
    wet: bool = option(False, "still", also="wet_paint")
    finish: Literal["any", "matt", "glossy"] = option(
        "any", "of the wall", also="shines", also_means={True: "glossy", False: "matt"}
    )


def test_a_section_and_a_configuration_have_the_same_defaults():
    paint = Paint()
    config = check_values({}, Paint)
    assert config == {
        "colour": "red",
        "tone": None,
        "thickness": 0.5,
        "layers": [1.0, 2.0],
        "sizes": [],
        "inner": {"depth": 2},
        "wet": False,
        "finish": "any",
    }
    assert Paint(**config) == paint and paint.layers == (1.0, 2.0) and paint.note is None
    own = ["colour", "tone", "thickness", "layers", "sizes", "note", "inner.depth", "wet", "finish"]
    assert key_paths(Paint) == own


def test_a_section_cannot_be_changed_but_copied_with_changes():
    paint = Paint(thickness=1, note="dry")
    with pytest.raises(ValidationError):
        paint.thickness = 2.0
    thin = paint.but(thickness=0.25)
    assert (thin.thickness, thin.note, paint.thickness) == (0.25, "dry", 1.0)
    with pytest.raises(ConfigError, match="out of range"):
        paint.but(thickness=3)


def test_numbers_of_numpy_and_tuples_are_taken_from_python():
    paint = Paint(thickness=np.float64(0.5), layers=(np.float32(0.5), 1), inner={"depth": np.int64(3)})
    assert paint.layers == (0.5, 1.0) and type(paint.inner.depth) is int and type(paint.thickness) is float
    assert Paint(inner=Inner(depth=3)) == Paint(inner={"depth": 3})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"color": "red"}, "unknown key 'color'; did you mean 'colour'?"),
        ({"depth": 3}, "unknown key 'depth'; did you mean 'inner.depth'? valid keys here: colour, tone"),
        ({"colour": "gren"}, "colour takes one of red, green; got 'gren' (str); did you mean 'green'?"),
        ({"tone": "loud"}, "tone takes one of dark, light (or null); got 'loud' (str)"),
        ({"thickness": 0}, "thickness is out of range: it takes a number, more than 0, at most 2; got 0"),
        ({"thickness": True}, "thickness takes a number, more than 0, at most 2; got True (bool)"),
        ({"thickness": float("nan")}, "thickness takes a finite number; got nan"),
        ({"layers": []}, "layers takes a list of at least 1, each a number, at least 0; got [] (list)"),
        ({"layers": [1, -1]}, "layers[1] is out of range: it takes a number, at least 0; got -1"),
        ({"sizes": [[1]]}, "sizes[0] takes a list of 2, each an integer; got [1] (list)"),
        ({"inner": 5}, "inner takes a mapping of keys, got 5 (int)"),
        ({"inner": {"depth": 0}}, "inner.depth is out of range: it takes an integer, at least 1; got 0"),
    ],
)
def test_what_an_option_does_not_take_is_refused_with_the_cure(given, says):
    for refuse in (lambda: Paint(**given), lambda: check_values(given, Paint)):
        with pytest.raises(ConfigError) as caught:
            refuse()
        assert says in str(caught.value)


def test_names_of_a_table_are_read_when_they_are_needed():
    NAMES.append("blue")
    try:
        assert Paint(colour="blue").colour == "blue" and "blue" in fields(Paint)["colour"].takes()
    finally:
        NAMES.remove("blue")
    assert list(OneOf("icd_lib.graph.mock:SIZE_KINDS")) == ["equal", "heavy"]


def test_suggested_names_are_for_editors_only():
    class Text(Section):
        """Options of a test."""

        domain: Annotated[str, OneOf(["news"], suggested=True)] = option("news", "of text")

    assert Text(domain="other").domain == "other"
    assert Text.model_json_schema()["properties"]["domain"]["enum"] == ["news"]


@pytest.mark.parametrize("kind", [int | str, list[int], list, tuple[int, str], dict, Literal[1, 2], None])
def test_a_type_that_no_option_can_have_is_refused_where_it_is_declared(kind):
    odd = create_model("Odd", __base__=Section, either=(kind, option(None, "one or the other")))
    with pytest.raises(TypeError, match="Odd.either: an option is an int, float"):
        fields(odd)


def test_an_option_may_be_given_by_its_other_name_and_is_held_by_its_own():
    assert Paint(wet_paint=True) == Paint(wet=True) == Paint(wet=True, wet_paint=True)
    assert check_values({"wet_paint": True}, Paint, partial=True) == {"wet": True}
    assert aliases(Paint) == {"wet_paint": "wet", "shines": "finish"} and "wet_paint" not in fields(Paint)
    assert Paint.model_json_schema()["properties"]["wet_paint"]["type"] == "boolean"


@pytest.mark.parametrize(("shines", "finish"), [(True, "glossy"), (False, "matt")])
def test_another_name_may_take_true_or_false_for_what_the_option_calls_by_name(shines, finish):
    assert Paint(shines=shines) == Paint(finish=finish) == Paint(finish=finish, shines=shines)
    assert check_values({"shines": shines}, Paint, partial=True) == {"finish": finish}
    assert Paint.model_json_schema()["properties"]["shines"] == {"type": "boolean"}


def test_such_a_name_takes_nothing_else_and_does_not_contradict_the_option():
    with pytest.raises(ConfigError, match="hall.finish=any and hall.shines=True are two names of one option"):
        check_values({"shines": True, "finish": "any"}, Paint, "hall")
    for value in ("glossy", 1, None):
        with pytest.raises(ConfigError, match=f"hall.shines takes true or false; got {value!r}"):
            check_values({"shines": value}, Paint, "hall")


@pytest.mark.parametrize(("given", "clocks"), [("true", "fixed"), ("false", "unlocked")])
def test_fixed_clock_of_the_specification_is_measure_clocks(tmp_path, given, clocks):
    own = load_scenario("bert", [f"measure.clocks={clocks}"])
    other = load_scenario("bert", [f"measure.fixed_clock={given}"])
    assert other.config == own.config and other.sha256 == own.sha256 and other.get("measure.clocks") == clocks
    path = tmp_path / "mine.yaml"
    path.write_text(f"measure: {{fixed_clock: {given}}}\n")
    assert load_scenario(path).get("measure.clocks") == clocks
    with pytest.raises(ConfigError, match="measure.clocks and measure.fixed_clock are two names of one option"):
        load_scenario("bert", ["measure.clocks=auto", f"measure.fixed_clock={given}"])
    with pytest.raises(ConfigError, match="measure.fixed_clock takes true or false; got 'fixed'"):
        load_scenario("bert", ["measure.fixed_clock=fixed"])


def test_two_names_of_an_option_with_two_values_are_refused():
    with pytest.raises(ConfigError, match="hall.wet=False and hall.wet_paint=True are two names of one option"):
        check_values({"wet_paint": True, "wet": False}, Paint, "hall")
    with pytest.raises(ConfigError, match="wet takes true or false; got 'yes'"):
        Paint(wet_paint="yes")
