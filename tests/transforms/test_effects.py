"""What a transform did to an axis: W′, packing, what is there, moved and spread, for all three alike."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import TransformError
from icd_lib.graph import check_w, group_graph, mask_graph
from icd_lib.models.families import find_adapter
from icd_lib.transforms.effects import (
    Alive,
    Groups,
    Pages,
    TransformMeta,
    effect_from_json,
    pack_groups,
    untouched,
)
from icd_lib.transforms.sparsity.prune import zero_elements
from tests.tiny_problems import small_batches, small_model, three_cycle

SIZE = 48
RNG = np.random.default_rng(0)
MASK = RNG.random(SIZE) < 0.6
LABELS = RNG.permutation(SIZE) // 8
PAGED = np.where(MASK, LABELS, -1)
EFFECTS = [
    kind("ffn.0", "ffn", values, RNG.random(SIZE), 0.25)
    for kind, values in ((Alive, MASK), (Groups, LABELS), (Pages, PAGED))
]


def base_graph():
    weights = np.random.default_rng(1).random((SIZE, SIZE))
    return sp.csr_array(np.triu(weights, 1) + np.triu(weights, 1).T)


@pytest.fixture(params=EFFECTS, ids=lambda effect: effect.tag)
def effect(request):
    return request.param


def test_an_effect_moves_with_its_axis(effect):
    """W′ of the effect on the moved axis is the moved W′, and the same elements are there."""
    base, perm = base_graph(), np.roll(three_cycle(SIZE), 5)
    moved = effect.permuted(perm)
    assert np.array_equal(moved.values, effect.values[perm]) and np.array_equal(moved.saliency, effect.saliency[perm])
    here, there = effect.graph(base).toarray()[perm][:, perm], moved.graph(base[perm][:, perm]).toarray()
    assert np.allclose(here, there, rtol=1e-12)
    assert np.array_equal(effect.present(1)[perm], moved.present(1))


def test_a_packed_order_has_what_is_needed_first_and_together(effect):
    order = np.random.default_rng(2).permutation(SIZE)
    packed = effect.packed(order)
    assert sorted(packed) == list(range(SIZE)) and np.array_equal(effect.packed(packed), packed)
    values = effect.values[packed]
    assert np.count_nonzero(np.diff(values)) == len(np.unique(values)) - 1, "side by side"
    needed = effect.present(1)[packed]
    assert needed[: effect.kept].all() and not needed[effect.kept :].any()
    place = {element: at for at, element in enumerate(order)}
    for value in np.unique(values):
        places = [place[element] for element in packed[values == value]]
        assert places == sorted(places), "stable"


def test_spread_over_the_dense_axis_the_missing_are_touched_never(effect):
    origin = np.random.default_rng(3).permutation(60)[:SIZE]
    dense = effect.spread(origin, 60)
    assert np.array_equal(dense.permuted(origin).values, effect.values)
    missing = np.setdiff1d(np.arange(60), origin)
    assert dense.graph(None).sum(axis=1)[missing].sum() == 0 and dense.kept <= effect.size
    assert dense.graph(None).sum() == pytest.approx(effect.graph(None).sum())


def test_json_gives_the_effect_back(effect):
    entry = json.loads(json.dumps(effect.to_json()))
    back = effect_from_json(entry)
    assert type(back) is type(effect) and np.array_equal(back.values, effect.values)
    assert np.allclose(back.saliency, effect.saliency, rtol=1e-5) and back.loss == effect.loss
    assert entry["size"] == SIZE and entry["kept"] == effect.kept
    meta = TransformMeta("some", 8, {"ffn.0": effect}, {"note": 1})
    assert TransformMeta.from_json(json.loads(json.dumps(meta.to_json()))).to_json() == meta.to_json()


def test_what_all_elements_share_is_written_once_and_lists_of_older_runs_are_read():
    whole = untouched("ffn.0", "ffn", SIZE)
    entry = json.loads(json.dumps(whole.to_json()))
    assert entry["alive"] == "all" and entry["saliency"] == 0
    older = entry | {"alive": list(range(SIZE)), "saliency": [0.0] * SIZE}
    for back in map(effect_from_json, (entry, older)):
        assert back.alive.all() and np.array_equal(back.saliency, whole.saliency) and back.size == SIZE


def test_an_unknown_effect_is_refused():
    with pytest.raises(TransformError, match="alive, groups, pages"):
        effect_from_json({"axis": "ffn.0", "kind": "ffn"})


def test_what_is_trivial_asks_for_no_layout():
    zeros = np.zeros(SIZE)
    assert untouched("ffn.0", "ffn", SIZE).is_trivial and not EFFECTS[0].is_trivial
    one, each = np.zeros(SIZE, dtype=int), np.arange(SIZE)
    assert Groups("a", "ffn", one, zeros, 0.0).is_trivial and Groups("a", "ffn", each, zeros, 0.0).is_trivial
    assert Pages("a", "ffn", one, zeros, 0.0).is_trivial and not EFFECTS[2].is_trivial
    meta = TransformMeta("some", 8, {"a": untouched("a", "ffn", 4), "ffn.0": EFFECTS[1]})
    assert list(meta.touched) == ["ffn.0"] and meta.delta_layout
    assert not TransformMeta("some", 8, {"a": untouched("a", "ffn", 4)}).delta_layout


def test_graphs_are_those_of_masks_and_groups():
    base = base_graph()
    assert (EFFECTS[0].graph(base) != mask_graph(MASK, base=base)).nnz == 0
    assert (EFFECTS[1].graph(base) != group_graph(LABELS, base=base)).nnz == 0
    check_w(EFFECTS[2].graph(base))


@pytest.mark.parametrize("tile", [1, 8])
def test_dead_elements_and_evicted_pages_leave_in_whole_granules(tile):
    for effect, there in ((EFFECTS[0], MASK), (EFFECTS[2], PAGED >= 0)):
        tiles = effect.present(tile).reshape(-1, tile)
        assert np.array_equal(tiles.any(1), there.reshape(-1, tile).any(1)) and (tiles.any(1) == tiles.all(1)).all()
    assert EFFECTS[1].present(tile).all(), "a group is whole where it lies together; nothing leaves"


def test_realising_keeps_the_function():
    (inputs,) = small_batches(1)
    for effect in EFFECTS:
        model = small_model()
        axis = find_adapter(model).axis("ffn.0")
        zero_elements(model, axis, torch.from_numpy(~effect.present(1)))
        wanted = model_outputs(model, inputs)
        there = effect.realise(model, axis, 1)
        assert model.encoder.layer[0].intermediate.dense.out_features == there.sum() == effect.kept
        assert outputs_error(model_outputs(model, inputs), wanted) <= 1e-10


def test_once_realised_a_dead_element_in_a_living_tile_counts_as_there():
    there = EFFECTS[0].present(8)
    assert np.array_equal(EFFECTS[0].settled(there).alive, there)
    assert EFFECTS[1].settled(np.ones(SIZE, dtype=bool)) is EFFECTS[1]


def test_groups_follow_each_other_by_the_mean_of_their_places():
    assert pack_groups(np.array([3, 2, 1, 0]), np.array([0, 1, 0, 1])).tolist() == [3, 1, 2, 0]
    assert pack_groups(np.arange(4), np.array([-1, 5, -1, 5])).tolist() == [1, 3, 0, 2]
