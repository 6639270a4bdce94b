"""What is known of a dense model: computed once, and kept where the caller says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.transforms import observed as module
from tests.tiny_problems import small_problem


def test_moments_are_kept_where_the_inputs_say_and_taken_from_there(tmp_path, monkeypatch):
    file = tmp_path / "moments.safetensors"
    first = small_problem(keep_moments=file).inputs.observe()
    computed = first.moments
    assert file.is_file() and first.moments is computed
    monkeypatch.setattr(module, "consumer_moments", None)  # computing them again would fail
    again = small_problem(keep_moments=file).inputs.observe()
    assert all(torch.equal(again.moments[axis].gram, found.gram) for axis, found in computed.items())
    for axis, path in first.element_paths.items():
        assert again.element_paths[axis].order == path.order


def test_goals_and_teacher_states_are_those_of_the_model():
    observed = small_problem().inputs.observe()
    sums = list(observed.goals)
    assert len(sums) == len(list(observed.adapter.blocks())) and observed.goals is observed.goals
    with torch.no_grad():
        hidden = observed.model(**observed.distill_batches[1]).last_hidden_state
    assert torch.allclose(observed.teacher_states(1)[-1], hidden, atol=1e-5)


def test_elimination_paths_are_kept_beside_the_moments(tmp_path, monkeypatch):
    inputs = replace(small_problem().inputs, keep_moments=tmp_path / "moments-x.safetensors")
    paths = inputs.observe().element_paths
    monkeypatch.setattr(module, "eliminations", lambda *given: pytest.fail("computed again"))
    kept = inputs.observe().element_paths
    assert {axis: (path.order, path.loss) for axis, path in kept.items()} == {
        axis: (path.order, path.loss) for axis, path in paths.items()
    }
    assert paths and all(type(path.order[0]) is int for path in kept.values())
    other = replace(inputs, settings=inputs.settings.but(ridge=0.5)).observe()
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        other.element_paths  # noqa: B018 (another ridge is another path)


def test_paths_of_granules_in_a_layout_are_kept_by_layout_granule_and_ridge(tmp_path, monkeypatch):
    observed = replace(small_problem().inputs, keep_moments=tmp_path / "moments-x.safetensors").observe()
    sizes = {block.axis: block.elements for block in observed.adapter.prunable()}
    tiles = {block.kind: 2 for block in observed.adapter.prunable()}
    order = {axis: np.random.default_rng(0).permutation(size) for axis, size in sizes.items()}
    plain = {axis: np.arange(size) for axis, size in sizes.items()}
    found = {name: observed.granule_paths(tiles, given, 0.01) for name, given in (("order", order), ("plain", plain))}
    assert {a: p.loss for a, p in found["order"].items()} != {a: p.loss for a, p in found["plain"].items()}
    wanted = module.eliminations(observed.adapter, observed.moments, tiles, 0.01, order)
    monkeypatch.setattr(module, "eliminations", lambda *given: pytest.fail("computed again"))
    again = observed.granule_paths(tiles, order, 0.01)
    assert {a: (p.order, p.loss) for a, p in again.items()} == {a: (p.order, p.loss) for a, p in wanted.items()}
    for granule, ridge in ((tiles, 0.5), (dict.fromkeys(tiles, 1), 0.01)):
        with pytest.raises(pytest.fail.Exception, match="computed again"):
            observed.granule_paths(granule, order, ridge)
