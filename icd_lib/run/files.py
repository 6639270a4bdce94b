"""What the JSON files of a run hold where a later stage relies on it, and the check when one is read back.

The records of `icd_lib.records` are what several rooms read; those here are read in one place. What a record does not
name is free.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from icd_lib.records.attempts import Solved
from icd_lib.records.counted import BoardEnergy, Counted
from icd_lib.records.decoding import Decoding
from icd_lib.records.deploy import Deploy
from icd_lib.records.generation import Generation
from icd_lib.records.masked import Masked
from icd_lib.records.measured import Ladder, Measured, Metrics
from icd_lib.records.verdict import Verdict
from icd_lib.storage.record_json import from_json


@dataclass(frozen=True)
class _Workload:
    sha256: str


@dataclass(frozen=True)
class _Setup:
    model: dict
    badges: list[str]
    environment: dict
    workload: _Workload | None = None
    deploy: Deploy | None = None
    badge_subjects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _WidthCurve:
    kept: list[float]
    saved_ms_per_layer: list[float]


@dataclass(frozen=True)
class _Tables:
    dense_ms: float | None
    curves: dict[str, _WidthCurve]


@dataclass(frozen=True)
class _Sensitivity:
    axis: str
    rate: float


@dataclass(frozen=True)
class _LossCurve:
    axis: str
    kind: str
    kept: list[float]
    loss: list[float]


@dataclass(frozen=True)
class _Permutation:
    D: int
    pi: list[int]
    hash: str


@dataclass(frozen=True)
class _Permutations:
    axes: dict[str, _Permutation]


@dataclass(frozen=True)
class _Samples:
    shapes: dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class _Manifest:
    files: dict[str, str]


@dataclass(frozen=True)
class _Stage:
    status: str
    elapsed_s: float | None = None
    quick: bool | None = None
    config_sha256: str | None = None
    input: str | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    before: dict | None = None


@dataclass(frozen=True)
class _Stages:
    stages: dict[str, _Stage]


SHAPES: dict[str, Any] = {
    r"setup/setup\.json": _Setup,
    r"graph/w\.meta\.json": dict[str, dict],
    r"graph/tables\.json": _Tables,
    r"graph/sensitivity\.json": list[_Sensitivity],
    r"graph/curves\.json": list[_LossCurve],
    r"graph/masked\.json": Masked,
    r"\w+/perm_(before|after)\.json": _Permutations,
    r"\w+/solve\.json": Solved,
    r"\w+/metrics\.json": Metrics,
    r"measure/samples\.json": _Samples,
    r"measure/measure\.json": Measured,
    r"measure/ladder\.json": Ladder | None,
    r"measure/ncu\.json": Counted,
    r"measure/energy\.json": BoardEnergy,
    r"measure/generation\.json": Generation,
    r"measure/decoding\.json": Decoding,
    r"verdict\.json": Verdict,
    r"manifest\.json": _Manifest,
    r"stages\.json": _Stages,
}


def check_shape(value, rel: str, where: str):
    """`value` if the file `rel` of a run may hold it; `ArtifactError` names `where`, the place in it, and the cure."""
    as_record(value, rel, where)
    return value


def as_record(value, rel: str, where: str):
    """What the file `rel` of a run holds, as its record; a file that has none as it is."""
    for pattern, kind in SHAPES.items():
        if re.fullmatch(pattern, rel):
            return from_json(kind, value, where)
    return value
