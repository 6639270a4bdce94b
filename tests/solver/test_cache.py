"""Kept layouts: reused for exactly the same case, never on a mismatch, never damaged."""

import json

import numpy as np
import pytest
from solver_instances import planted_blocks

from icd_lib.errors import ArtifactError, SolverTimeout
from icd_lib.solver import CostConfig, cache
from icd_lib.solver.cache import layout_key, solve_cached

W = planted_blocks(64, 16)[0]
SETTINGS = {"cost": CostConfig(g=4), "refine_steps": 20, "seed": 1}


@pytest.fixture
def solves(monkeypatch):
    calls, real = [], cache.fit_or_stop

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(cache, "fit_or_stop", counted)
    return calls


def test_the_same_case_is_solved_once(tmp_path, solves):
    pi, stats = solve_cached(W, tmp_path, context={"model": "m"}, **SETTINGS)
    again, kept = solve_cached(W.copy(), tmp_path, context={"model": "m"}, **SETTINGS)
    np.testing.assert_array_equal(pi, again)
    assert len(solves) == 1 and kept["cached"] and not stats["cached"]
    assert kept["after"] == stats["after"]


def test_anything_that_matters_makes_another_case():
    changed = W.copy()
    changed.data = changed.data * 2
    cases = [
        (W, SETTINGS, {"model": "m"}),
        (changed, SETTINGS, {"model": "m"}),
        (planted_blocks(64, 16, seed=1)[0], SETTINGS, {"model": "m"}),
        (W, SETTINGS | {"seed": 2}, {"model": "m"}),
        (W, SETTINGS | {"cost": CostConfig(g=8)}, {"model": "m"}),
        (W, SETTINGS | {"method": "rcm"}, {"model": "m"}),
        (W, SETTINGS | {"initial": np.arange(64)[::-1]}, {"model": "m"}),
        (W, SETTINGS, {"model": "n"}),
        (W, SETTINGS, {"model": "m", "transform": "S"}),
    ]
    assert len({layout_key(*case) for case in cases}) == len(cases)
    assert layout_key(W, SETTINGS, {"a": 1, "b": 2}) == layout_key(W.copy(), SETTINGS, {"b": 2, "a": 1})


def damage(change):
    def apply(file):
        entry = json.loads(file.read_text())
        change(entry)
        file.write_text(json.dumps(entry))

    return apply


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        (lambda file: file.write_text(file.read_text()[:-40]), "truncated"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "truncated"),
        (damage(lambda e: e["pi"].reverse()), "does not match its hash"),
        (damage(lambda e: e["stats"]["after"].update(J=-9.0)), "does not match its hash"),
        (damage(lambda e: e.update(key="0" * 64)), "does not match its hash"),
        (damage(lambda e: e.pop("hash")), "truncated or not a layout"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, hurt, message):
    solve_cached(W, tmp_path, **SETTINGS)
    (file,) = tmp_path.iterdir()
    hurt(file)
    with pytest.raises(ArtifactError, match=message):
        solve_cached(W, tmp_path, **SETTINGS)


def test_a_file_of_another_case_is_refused(tmp_path):
    solve_cached(W, tmp_path, **SETTINGS)
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / f"layout-{layout_key(W, SETTINGS | {'seed': 2})}.json")
    with pytest.raises(ArtifactError, match="does not match"):
        solve_cached(W, tmp_path, **SETTINGS | {"seed": 2})


def test_nothing_is_kept_of_a_solve_that_was_cut_short(tmp_path):
    with pytest.raises(SolverTimeout):
        solve_cached(W, tmp_path, time_budget_s=0, **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_costs_only_the_cache(tmp_path):
    (tmp_path / "file").write_text("")
    pi, stats = solve_cached(W, tmp_path / "file", **SETTINGS)
    assert sorted(pi) == list(range(64)) and not stats["cached"]
