"""Solved layouts kept on disk by content: the same graph and the same settings are not solved twice."""

import hashlib
import json
from pathlib import Path

import numpy as np

from icd_lib.axes.permutation import hash_permutation
from icd_lib.errors import ArtifactError
from icd_lib.graph.contract import check_w
from icd_lib.solver.portfolio import fit_or_stop
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.version import VERSION

TAG = "icd/layout/v1"


def layout_key(W, settings: dict, context: dict | None = None) -> str:
    """sha256 of everything a layout depends on: the canonical bytes of W, the settings, the context, the version.

    settings: keyword arguments of `fit_permutation` (cost, seed, method, initial, ...); context: whatever else names
    the case (model, task, transform), JSON types.
    """
    graph = check_w(W)
    digest = hashlib.sha256(f"{TAG} {VERSION} {graph.shape[0]}".encode())
    for part, kind in ((graph.indptr, "<i8"), (graph.indices, "<i8"), (graph.data, "<f8")):
        digest.update(np.ascontiguousarray(part, dtype=kind).tobytes())
    digest.update(json.dumps([settings, context or {}], sort_keys=True, default=_plain).encode())
    return digest.hexdigest()


def solve_cached(W, folder, name: str = "the graph", context: dict | None = None, **settings) -> tuple:
    """`fit_or_stop(W, name, **settings)`, or what it returned before for exactly this case: (pi, stats).

    A layout lies in `folder` under the hash of its case (see `layout_key`). Only a whole solve is kept, not one that
    the budget cut short. stats["cached"] says where it came from. A truncated or tampered file raises `ArtifactError`;
    a folder that cannot be written leaves the layout unkept.
    """
    key = layout_key(W, settings, context)
    file = Path(folder) / f"layout-{key}.json"
    if file.exists():
        pi, stats = read_layout(file, key, W.shape[0])
        return pi, stats | {"cached": True}
    pi, stats = fit_or_stop(W, name, **settings)
    if not stats["timed_out"]:
        keep_layout(file, key, pi, stats)
    return pi, stats | {"cached": False}


def keep_layout(file: Path, key: str, pi: np.ndarray, stats: dict) -> bool:
    """Write a layout wholly or not at all; False where the folder cannot be written."""
    entry = {"tag": TAG, "key": key, "D": len(pi), "pi": pi.tolist(), "stats": stats}
    try:
        atomic_write(file, to_json(entry | {"hash": _seal(key, pi, stats)}))
    except ArtifactError:
        return False
    return True


def read_layout(file: Path, key: str, D: int) -> tuple[np.ndarray, dict]:
    """(pi, stats) of a kept layout; `ArtifactError` unless it is whole, belongs to `key` and matches its hash."""
    try:
        entry = read_text(file)
        pi, stats = np.array(entry["pi"], dtype=np.int64), entry["stats"]
        fits = entry["tag"] == TAG and entry["key"] == key and entry["hash"] == _seal(key, pi, stats)
        whole = fits and np.array_equal(np.sort(pi), np.arange(D))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{file} is truncated or not a layout ({error}); delete it to solve again") from error
    if not whole:
        raise ArtifactError(f"the layout in {file} does not match its hash; it was changed, delete it to solve again")
    return pi, stats


def _seal(key: str, pi: np.ndarray, stats: dict) -> str:
    told = json.dumps(stats, sort_keys=True, default=_plain)
    return hashlib.sha256(f"{key} {hash_permutation(pi)} {told}".encode()).hexdigest()


def _plain(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    return vars(value)
