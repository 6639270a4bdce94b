import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from icd_lib.axes.permutation import hash_permutation, pack_alive
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign import layouts
from icd_lib.codesign.layouts import (
    SolverSettings,
    apply_layouts,
    check_layouts,
    compare_layouts,
    layouts_folder,
    perm_record,
    read_perm_record,
    realise,
    repermute,
    solve_layout,
    solve_layouts,
    with_dropped,
)
from icd_lib.codesign.loop import at_dense_shape
from icd_lib.errors import ArtifactError, AxisError
from icd_lib.graph.mask import mask_graph
from icd_lib.models.families import find_adapter
from icd_lib.solver.cost import CostConfig, CostReport, evaluate_cost
from icd_lib.transforms.effects import Alive
from icd_lib.transforms.sparsity.prune import zero_elements
from tests.solver_instances import planted_blocks
from tests.tiny_problems import assert_same_state, small_batches, small_model, state_of, three_cycle

SETTINGS = SolverSettings(CostConfig(g=8, v=8, h=24), refine_steps=60)
TILES = {"ffn": 8, "heads": 1}


def random_perms(seed=0):
    rng = np.random.default_rng(seed)
    axes = find_adapter(small_model()).axes()
    return {axis.name: rng.permutation(axis.size) for axis in axes if axis.kind in TILES}


def masked_model(dead_share=0.4, seed=0):
    """A model whose dead elements are exact zeros, and what is alive per axis."""
    model, rng, alive = small_model(), np.random.default_rng(seed), {}
    for axis in find_adapter(model).axes():
        if axis.kind in TILES:
            alive[axis.name] = rng.permutation(axis.size) >= int(dead_share * axis.size)
            zero_elements(model, axis, torch.from_numpy(~alive[axis.name]))
    return model, alive


def mask(alive):
    return Alive.of("ffn.0", "ffn", alive)


def dying(alive):
    """The effects of masks by axis."""
    return {axis: Alive.of(axis, axis.split(".")[0], there) for axis, there in alive.items()}


def test_layouts_are_applied_to_a_copy_with_certificates():
    model, (inputs,), perms = small_model(), small_batches(1), random_perms()
    state, before = state_of(model), model_outputs(model, inputs)
    permuted, certificates = apply_layouts(model, perms, inputs)
    assert_same_state(model, state)
    assert outputs_error(model_outputs(permuted, inputs), before) <= 1e-10
    assert {c["axis"]: c["perm_hash"] for c in certificates} == {a: hash_permutation(p) for a, p in perms.items()}
    rows = torch.from_numpy(perms["ffn.1"])
    assert torch.equal(
        permuted.encoder.layer[1].intermediate.dense.weight, model.encoder.layer[1].intermediate.dense.weight[rows]
    )


def test_a_wrong_layout_is_refused():
    model, (inputs,) = small_model(), small_batches(1)
    with pytest.raises(AxisError):
        apply_layouts(model, {"ffn.0": np.zeros(48, dtype=int)}, inputs)


def test_only_wholly_dead_tiles_are_dropped():
    model, (inputs,) = small_model(), small_batches(1)
    alive = np.zeros(48, dtype=bool)
    alive[[3, 17, 18, 47]] = True
    axis = find_adapter(model).axis("ffn.0")
    zero_elements(model, axis, torch.from_numpy(~alive))
    state, wanted = state_of(model), model_outputs(model, inputs)
    smaller, present = realise(model, dying({"ffn.0": alive}), TILES)
    assert_same_state(model, state)
    assert np.flatnonzero(present["ffn.0"].reshape(-1, 8).all(1)).tolist() == [0, 2, 5]
    assert present["ffn.0"].sum() == smaller.encoder.layer[0].intermediate.dense.out_features == 24
    assert outputs_error(model_outputs(smaller, inputs), wanted) <= 1e-10


def test_a_last_tile_that_is_cut_short_is_a_tile():
    model = small_model(intermediate_size=44)
    alive = np.arange(44) < 40
    smaller, present = realise(model, dying({"ffn.1": alive}), TILES)
    assert np.array_equal(present["ffn.1"], alive)
    assert smaller.encoder.layer[1].output.dense.in_features == 40
    alive[43] = True
    assert realise(model, dying({"ffn.1": alive}), TILES)[1]["ffn.1"].all()


def test_packing_makes_dead_tiles_where_there_were_none():
    model, alive = masked_model()
    (inputs,) = small_batches(1)
    scattered, _ = realise(model, dying(alive), TILES)
    packing = {axis: pack_alive(np.arange(len(mask)), mask) for axis, mask in alive.items()}
    packed, _ = apply_layouts(model, packing, inputs)
    there = {axis: alive[axis][perm] for axis, perm in packing.items()}
    smaller, _ = realise(packed, dying(there), TILES)
    assert scattered.encoder.layer[0].intermediate.dense.out_features == 48
    # 29 of 48 are alive: four tiles of eight.
    assert smaller.encoder.layer[0].intermediate.dense.out_features == 32
    assert outputs_error(model_outputs(smaller, inputs), model_outputs(model, inputs)) <= 1e-10


def test_at_dense_shape_is_one_function_in_any_layout():
    dense, (inputs,) = small_model(), small_batches(1)
    masked, alive = masked_model()
    packing = {axis: pack_alive(random_perms(3)[axis], mask) for axis, mask in alive.items()}
    packed, _ = apply_layouts(masked, packing, inputs)
    small, present = realise(packed, dying({a: alive[a][p] for a, p in packing.items()}), TILES)
    origin = {axis: perm[present[axis]] for axis, perm in packing.items()}
    wanted = model_outputs(masked, inputs)
    identity = {axis: np.arange(len(mask)) for axis, mask in alive.items()}
    for perms in (identity, random_perms(4), {axis: three_cycle(len(p)) for axis, p in identity.items()}):
        whole = at_dense_shape(origin, small, dense, perms)
        assert [p.shape for p in whole.parameters()] == [p.shape for p in dense.parameters()]
        assert outputs_error(model_outputs(whole, inputs), wanted) <= 1e-10
        # In that layout, each element stands at its place: the alive ones are where the layout says.
        rows = whole.encoder.layer[0].intermediate.dense.weight.abs().sum(1) > 0
        assert np.array_equal(rows.numpy(), alive["ffn.0"][perms["ffn.0"]])
    back = at_dense_shape(origin, small, dense, identity)
    assert torch.allclose(back.encoder.layer[0].output.dense.weight, masked.encoder.layer[0].output.dense.weight)


def test_dense_in_a_layout_is_the_permuted_dense_model():
    dense, (inputs,), perms = small_model(), small_batches(1), random_perms(5)
    full = {axis: np.arange(len(perm)) for axis, perm in perms.items()}
    permuted, _ = apply_layouts(dense, perms, inputs)
    assert_same_state(at_dense_shape(full, dense, dense, perms), state_of(permuted))


def test_solving_is_deterministic_and_not_worse_than_the_identity():
    graphs = {"ffn.0": planted_blocks(48, 8)[0], "ffn.1": planted_blocks(48, 8, seed=1)[0]}
    (perms, stats), (again, _) = solve_layouts(graphs, SETTINGS), solve_layouts(graphs, SETTINGS)
    for axis, perm in perms.items():
        assert np.array_equal(perm, again[axis])
        assert stats[axis]["after"]["J"] < stats[axis]["before"]["J"]


def test_a_layout_solved_before_is_taken_and_a_changed_one_refused(tmp_path):
    graphs = {"ffn.0": planted_blocks(48, 8)[0]}
    settings = SolverSettings(CostConfig(g=4), refine_steps=50)
    first, told = solve_layouts(graphs, settings, tmp_path)
    again, said = solve_layouts(graphs, settings, tmp_path)
    fresh, _ = solve_layouts(graphs, settings)
    assert not told["ffn.0"]["cached"] and said["ffn.0"]["cached"]
    assert (first["ffn.0"] == again["ffn.0"]).all() and (first["ffn.0"] == fresh["ffn.0"]).all()
    _, other = solve_layouts(graphs, SolverSettings(CostConfig(g=4), refine_steps=50, seed=1), tmp_path)
    assert not other["ffn.0"]["cached"]
    for file in tmp_path.iterdir():
        file.write_text(file.read_text().replace('"winner"', '"Winner"'))
    with pytest.raises(ArtifactError, match="does not match its hash"):
        solve_layouts(graphs, settings, tmp_path)


def test_shared_layouts_lie_with_what_is_kept_per_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    assert layouts_folder(tmp_path / "run", shared=False) == tmp_path / "run" / "layouts"
    assert layouts_folder(tmp_path / "run", shared=True) == tmp_path / "cache" / "layouts"


def test_small_axes_are_their_own_tiles():
    assert SETTINGS.cost_of(48).g == 8
    assert (SETTINGS.cost_of(4).g, SETTINGS.cost_of(4).v) == (1, 1)


def test_no_reach_given_means_half_the_axis():
    free = SolverSettings(CostConfig(h=0))
    assert (free.cost_of(1536).h, free.cost_of(12).h, SETTINGS.cost_of(48).h) == (768, 6, 24)


def test_re_permuting_packs_the_alive_elements():
    graph, _ = planted_blocks(48, 8)
    alive = np.random.default_rng(0).random(48) < 0.6
    perm = repermute(mask(alive), graph, SETTINGS)
    kept = int(alive.sum())
    assert sorted(perm) == list(range(48))
    assert alive[perm[:kept]].all()
    assert np.array_equal(perm, repermute(mask(alive), graph, SETTINGS))


def cost_on_what_is_left(alive, graph, order):
    size = len(alive)
    return evaluate_cost(mask_graph(alive, base=graph), order, SETTINGS.cost_of(size), np.arange(size))


def test_re_permuting_solves_anew_where_that_pays():
    """The blocks are planted under shuffled labels: the present order is a bad one."""
    graph, _ = planted_blocks(48, 8)
    alive = np.random.default_rng(0).random(48) < 0.6
    packed, chosen = pack_alive(np.arange(48), alive), repermute(mask(alive), graph, SETTINGS)
    before, after = (cost_on_what_is_left(alive, graph, order) for order in (packed, chosen))
    assert after.J < before.J and after.C <= before.C
    gain = before.J - after.J
    assert np.array_equal(repermute(mask(alive), graph, SETTINGS, epsilon=0.9 * gain), chosen)
    assert np.array_equal(repermute(mask(alive), graph, SETTINGS, epsilon=1.1 * gain), packed)


def test_re_permuting_keeps_the_present_order_where_it_is_as_good():
    graph, _ = planted_blocks(48, 8)
    first = solve_layout(graph, SETTINGS)[0]
    base, alive = graph[first][:, first], np.arange(48) < 40
    again = repermute(mask(alive), base, SETTINGS)
    costs = [cost_on_what_is_left(alive, base, order) for order in (again, np.arange(48))]
    assert costs[0].J <= costs[1].J
    assert np.array_equal(repermute(mask(np.ones(48, dtype=bool)), sp.csr_array((48, 48)), SETTINGS), np.arange(48))


@pytest.mark.parametrize(
    ("solved", "taken"),
    [
        ({"C": 0.4, "J": 0.4}, True),
        ({"C": 0.5, "J": 0.4}, True),
        ({"C": 0.6, "J": 0.4}, False),  # J alone can be gamed
        ({"C": 0.4, "J": 0.5}, False),
        ({"C": 0.4, "J": 0.6}, False),
    ],
)
def test_of_two_layouts_the_lower_j_is_taken_unless_its_c_is_higher(monkeypatch, solved, taken):
    alive = np.array([True, False, True, True])
    reports = iter([{"C": 0.5, "J": 0.5}, solved])
    monkeypatch.setattr(layouts, "solve_layout", lambda *_, **__: (np.array([3, 2, 1, 0]), {}))
    monkeypatch.setattr(
        layouts, "evaluate_cost", lambda *_: CostReport(Q=0.1, R_align=0.1, R_stab=0.0, **next(reports))
    )
    chosen = repermute(mask(alive), sp.csr_array((4, 4)), SETTINGS)
    assert chosen.tolist() == ([3, 2, 0, 1] if taken else [0, 2, 3, 1])


def test_dropped_elements_follow_in_the_order_of_the_first_layout():
    assert with_dropped(np.array([4, 1]), np.array([3, 1, 0, 4, 2])).tolist() == [4, 1, 3, 0, 2]


def test_comparison_is_zero_for_the_same_layout_and_falls_for_a_packed_one():
    graph, order = planted_blocks(48, 8)
    first = solve_layout(graph, SETTINGS)[0]
    same = compare_layouts(mask_graph(np.ones(48, dtype=bool), base=graph), first, first, first, SETTINGS)
    assert same.before == same.after
    alive = np.random.default_rng(1).random(48) < 0.5
    left = first[repermute(mask(alive[first]), graph[first][:, first], SETTINGS)][: int(alive.sum())]
    change = compare_layouts(mask_graph(alive, base=graph), first, first, left, SETTINGS)
    assert change.before.R_stab == 0.0
    assert change.after.C < change.before.C
    assert change.after.J < change.before.J


def test_record_of_permutations():
    perms = random_perms()
    record = perm_record(perms, 7)
    assert (record["tag"], record["seed"]) == ("icd/v1", 7)
    entry = record["axes"]["heads.1"]
    assert (entry["D"], entry["pi"]) == (4, perms["heads.1"].tolist())
    assert entry["hash"] == hash_permutation(perms["heads.1"])


def test_kept_permutations_come_back_and_a_changed_one_is_refused(tmp_path):
    perms = {"ffn.0": np.array([2, 0, 1]), "heads.0": np.array([1, 0])}
    record = perm_record(perms, seed=0)
    (tmp_path / "linear").mkdir()
    file = tmp_path / "linear" / "perm_before.json"
    file.write_text(json.dumps(record))
    for where in (file, tmp_path):
        back = read_perm_record(where, "linear")
        assert back.keys() == perms.keys() and all(np.array_equal(back[axis], perms[axis]) for axis in perms)
    record["axes"]["ffn.0"]["pi"] = [0, 1, 2]
    file.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="does not match its hash"):
        read_perm_record(file, "linear")
    with pytest.raises(ArtifactError, match="holds no permutations"):
        read_perm_record(tmp_path / "nowhere.json", "linear")


def test_permutations_of_another_model_are_refused():
    graphs = {"ffn.0": np.zeros((3, 3))}
    assert check_layouts({"ffn.0": [2, 0, 1]}, graphs)["ffn.0"].tolist() == [2, 0, 1]
    with pytest.raises(AxisError, match="another model"):
        check_layouts({"ffn.1": [2, 0, 1]}, graphs)
    with pytest.raises(AxisError, match="3 elements but the permutation has 2"):
        check_layouts({"ffn.0": [1, 0]}, graphs)
