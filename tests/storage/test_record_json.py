"""Records as JSON: written by their declaration, read back by it, and refused with the place where they do not fit."""

import json
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.storage.atomic import to_json
from icd_lib.storage.record_json import as_json, from_json


@dataclass(frozen=True, kw_only=True)
class Point:
    x: float
    y: float | None
    word: Literal["a", "b"] = "a"
    label: str | None = None

    def __post_init__(self):
        if self.label == "":
            raise ValueError("label is empty")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    title: str
    points: dict[str, Point] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    first: Point | dict[str, int] | None = None
    marks: list[int] = field(default_factory=list)
    SPREAD: ClassVar[str] = "points"

    def to_json(self):
        return {"title": self.title, **self.points, "span": self.span, "first": self.first, "marks": self.marks}

    @classmethod
    def arranged(cls, value):
        own = ("title", "span", "first", "marks")
        return value | {"points": {key: item for key, item in value.items() if key not in own}}


WHOLE = Drawing(
    title="t", points={"p": Point(x=1, y=None), "q": Point(x=0.5, y=2, word="b", label="l")}, span=(0, 1), marks=[3]
)


def test_what_is_written_is_read_back_the_same():
    made = json.loads(to_json(WHOLE))
    assert made["p"] == {"x": 1, "y": None, "word": "a"}, "null where it has no default, left out where that is None"
    assert from_json(Drawing, made, "a file") == WHOLE
    assert isinstance(from_json(Drawing, made, "a file").points["p"].x, int), "an integer stays one"
    assert as_json([WHOLE, {"deep": (WHOLE,)}])[1]["deep"][0]["p"]["x"] == 1


def test_what_a_record_does_not_name_is_free_and_what_has_a_default_may_be_null_or_absent():
    assert from_json(Point, {"x": 1.0, "y": 2.0, "more": [1], "word": None}, "a file") == Point(x=1.0, y=2.0)
    assert from_json(Drawing, {"title": "t", "marks": None}, "a file") == Drawing(title="t")


def test_a_union_is_read_as_what_the_value_looks_like():
    first = from_json(Drawing, {"title": "t", "first": {"x": 1, "y": 2}}, "a file").first
    assert first == Point(x=1, y=2)
    assert from_json(Drawing, {"title": "t", "first": {"any": 5}}, "a file").first == {"any": 5}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "it takes an object, it holds a list"),
        ({"title": "t", "p": {"x": 1}}, "'p' has no 'y'"),
        ({"title": "t", "p": {"x": True, "y": 1}}, "'p.x' takes a number, it holds true or false"),
        ({"title": "t", "p": {"x": float("nan"), "y": 1}}, "'p.x' takes a number"),
        ({"title": "t", "p": {"x": float("inf"), "y": 1}}, "'p.x' takes a number"),
        ({"title": "t", "p": {"x": 2**63, "y": 1}}, "'p.x' takes a number"),
        ({"title": "t", "p": {"x": None, "y": 1}}, "'p.x' takes a number, it holds null"),
        ({"title": "t", "p": {"x": 1, "y": "1"}}, "'p.y' takes a number, it holds a text"),
        ({"title": "t", "p": {"x": 1, "y": 1, "word": "c"}}, "'p.word' takes one of a, b; it holds 'c'"),
        ({"title": "t", "p": {"x": 1, "y": 1, "label": ""}}, r"'p' contradicts itself \(label is empty\)"),
        ({"title": "t", "span": [1]}, "'span' takes 2 items, it holds 1"),
        ({"title": "t", "span": {"0": 1}}, "'span' takes a list"),
        ({"title": "t", "marks": [1, 0.5]}, r"'marks\[1\]' takes an integer, it holds a number"),
        ({"title": 5}, "'title' takes a text, it holds an integer"),
    ],
)
def test_what_does_not_fit_is_named_with_file_place_and_cure(value, says):
    with pytest.raises(
        ArtifactError, match=rf"^\[E_IO_501\] a/b.json is damaged.*{says}.*; make it again with --force"
    ):
        from_json(Drawing, value, "a/b.json")
