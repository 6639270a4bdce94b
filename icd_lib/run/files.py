"""What the JSON files of a run hold where a later stage relies on it, and the check when one is read back.

A shape is a type, a tuple of types, `{key: shape}` (a key ending in "?" may be absent or null), `Each(shape)` for a
mapping of any keys, or `[shape]` for a list. What a shape does not name is free.
"""

import math
import re
from dataclasses import dataclass

from icd_lib.errors import ArtifactError


@dataclass(frozen=True)
class Each:
    """A mapping whose values all have one shape."""

    shape: object


NUMBER = (int, float)
_TERMS = {"C": NUMBER, "Q": NUMBER, "R_align": NUMBER, "R_stab": NUMBER, "J": NUMBER}
_RECORD = {"status": str, "elapsed_s?": NUMBER, "quick?": bool, "config_sha256?": str, "input?": str}
_GATE = {"status": str}
_NAMED = {"dense_ms": NUMBER, "curves": Each({"kept": [NUMBER], "saved_ms_per_layer": [NUMBER]})}
SHAPES = {
    r"setup/setup\.json": {
        "model": dict,
        "badges": [str],
        "environment": dict,
        "workload?": {"sha256": str},
        "badge_subjects?": Each(str),
    },
    r"graph/w\.meta\.json": Each(dict),
    r"graph/tables\.json": _NAMED,
    r"graph/sensitivity\.json": [{"axis": str, "rate": NUMBER}],
    r"graph/curves\.json": [{"axis": str, "kind": str, "kept": [NUMBER], "loss": [NUMBER]}],
    r"\w+/perm_(before|after)\.json": {"axes": Each({"D": int, "pi": [int], "hash": str})},
    r"\w+/solve\.json": {
        "widths": Each(int),
        "attempts": [dict],
        "solver": Each({"timed_out": bool}),
        "objective": {"mean": {"before": _TERMS, "after": _TERMS}, "axes": dict},
        "certificates": [dict],
        "plan?": {"predicted_latency_rel": NUMBER},
        "validation?": dict,
        "unfit?": [str],
    },
    r"measure/samples\.json": {"shapes": Each(Each([NUMBER]))},
    r"measure/measure\.json": {
        "latency": {
            "shapes": Each(Each({"latency_ms": dict, "vs_dense": dict})),
            "taken?": Each({"warnings": [str]}),
            "clocks?": {"locked": bool},
        },
        "quality": dict,
        "equality": dict,
        "sizes": Each(dict),
        "energy": Each(dict),
    },
    r"verdict\.json": {"smoke": _GATE, "strict": _GATE},
    r"manifest\.json": {"files": Each(str)},
    r"stages\.json": {"stages": Each(_RECORD | {"outputs?": Each(str), "before?": dict})},
}
_WORDS = {dict: "an object", list: "a list", str: "a text", int: "an integer", bool: "true or false"}
_WORDS[NUMBER] = "a number"


def check_shape(value, rel: str, where: str):
    """`value` if the file `rel` of a run may hold it; `ArtifactError` names `where`, the place in it, and the cure."""
    for pattern, shape in SHAPES.items():
        if re.fullmatch(pattern, rel):
            _check(value, shape, "", where)
            break
    return value


def _check(value, shape, at: str, where: str) -> None:
    if isinstance(shape, Each):
        _check(value, dict, at, where)
        for key, item in value.items():
            _check(item, shape.shape, f"{at}.{key}", where)
    elif isinstance(shape, dict):
        _check(value, dict, at, where)
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if value.get(name) is None and key.endswith("?"):
                continue
            if name not in value:
                raise _wrong(where, at, f"has no {name!r}")
            _check(value[name], inner, f"{at}.{name}", where)
    elif isinstance(shape, list):
        _check(value, list, at, where)
        for i, item in enumerate(value):
            _check(item, shape[0], f"{at}[{i}]", where)
    elif not _is(value, shape):
        raise _wrong(where, at, f"takes {_WORDS[shape]}, it holds {_WORDS.get(type(value), type(value).__name__)}")


def _is(value, kind) -> bool:
    """Whether a JSON value is of a type; true and false are no numbers, and a number is finite and fits 64 bits."""
    if kind not in (int, NUMBER):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return -(2**63) <= value < 2**63 if type(value) is int else math.isfinite(value)


def _wrong(where: str, at: str, what: str) -> ArtifactError:
    place = at.lstrip(".")
    place = f"{place[:80]!r} " if place else "it "
    return ArtifactError(f"{where} is damaged or of another version: {place}{what}; make it again with --force")
