"""What every family of models promises, on tiny random models: one suite for all of them, those from outside too.

With `ICD_EXTENSIONS=your_module` it runs over your family as well; its row names the tiny models (`Family.tiny`).
"""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.axes.axis import Axis, slot_index, slot_tensor
from icd_lib.axes.compact import compact
from icd_lib.axes.double import KeepDouble
from icd_lib.axes.expand import expand
from icd_lib.axes.permutation import invert_permutation
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, output_permutation_undone, outputs_error, verify_axes
from icd_lib.errors import ArtifactError, AxisError, ConfigError, ResourceError
from icd_lib.models.adapter import Adapter
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.checkpoint.prepare import prepare
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.export import export_onnx, main_output, run_onnx
from icd_lib.models.families import FAMILIES, find_adapter
from icd_lib.models.family import Family
from icd_lib.workloads.model.contexts import JUDGES
from tests.extend import toy_family
from tests.tiny_families import CASES, FACTORIES, ROWS
from tests.tiny_mambas import random_alive
from tests.tiny_problems import assert_same_state, state_of

EXACT = 1e-10  # relative, float64


@dataclass(frozen=True)
class Case:
    """A tiny model of a family; every test gets its own copy."""

    family: Family
    model: nn.Module
    inputs: dict

    @property
    def adapter(self) -> Adapter:
        return find_adapter(self.model)

    @property
    def removable(self) -> list[str]:
        return [axis.name for axis in self.adapter.axes() if axis.fixed_because is None]

    def outputs(self, model: nn.Module | None = None) -> dict:
        with KeepDouble():
            return model_outputs(self.model if model is None else model, self.inputs)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(FAMILIES._rows, "toy", toy_family.FAMILY)


def make(name: str, kind: str) -> Case:
    model, inputs = FACTORIES[name][kind]()
    return Case(ROWS[name], copy.deepcopy(model), inputs)


@pytest.fixture(params=CASES, ids=" ".join)
def case(request) -> Case:
    return make(*request.param)


@pytest.fixture(params=[(name, next(iter(kinds))) for name, kinds in FACTORIES.items()], ids=" ".join)
def first(request) -> Case:
    """One model of every family, for what takes long."""
    return make(*request.param)


def zero(model: nn.Module, axis: Axis, dead: np.ndarray) -> None:
    for slot in axis.slots:
        index = slot_index(slot, axis.size, torch.from_numpy(np.flatnonzero(dead)))
        slot_tensor(model, slot).index_fill_(slot.dim, index, 0.0)


def make_uneven(case: Case) -> dict[str, np.ndarray]:
    """Drop another share of every axis that can shrink, in place; what is kept of each."""
    kept = {}
    for place, name in enumerate(case.removable):
        axis = case.adapter.axis(name)
        alive = random_alive(axis.size, max(1, axis.size - 1 - place), place)
        compact(case.model, axis, alive)
        kept[name] = np.flatnonzero(alive)
    return kept


def test_a_row_says_what_there_is():
    for name, row in ROWS.items():
        found = {axis.kind for kind in FACTORIES[name] for axis in make(name, kind).adapter.axes()}
        assert (row.name, set(row.kinds), row.judge in JUDGES) == (name, found, True)


def test_one_family_knows_the_model(case):
    assert [row for row in FAMILIES.values() if row.matches(case.model)] == [case.family]
    names = [axis.name for axis in case.adapter.axes()]
    assert len(set(names)) == len(names)


def test_every_axis_is_certified_and_the_model_is_untouched(case):
    state = state_of(case.model)
    for candidate in (case.model, prepare(copy.deepcopy(case.model))):
        certificates = verify_axes(candidate, find_adapter(candidate).axes(), case.inputs)
        assert max(c["max_rel_error"] for c in certificates) <= EXACT
    assert_same_state(case.model, state)


def test_no_axis_changes_the_function_and_every_permutation_can_be_undone(case):
    before, state, rng = case.outputs(), state_of(case.model), np.random.default_rng(0)
    for axis in case.adapter.axes():
        for perm in (rng.permutation(axis.size), np.roll(np.arange(axis.size), 1)):  # a cycle shows the direction
            permute(case.model, axis, perm)
            after = output_permutation_undone(case.outputs(), axis, perm)
            assert outputs_error(after, before) <= EXACT, axis.name
            permute(case.model, axis, invert_permutation(perm))
    now = case.model.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in state.items())


def test_all_axes_at_once(case):
    before, rng, axes = case.outputs(), np.random.default_rng(1), case.adapter.axes()
    perms = {axis.name: rng.permutation(axis.size) for axis in axes}
    for axis in axes:
        permute(case.model, axis, perms[axis.name])
    after = case.outputs()
    for axis in axes:
        after = output_permutation_undone(after, axis, perms[axis.name])
    assert outputs_error(after, before) <= EXACT


def test_compacting_equals_masking(case):
    dense = case.outputs()
    for place, name in enumerate(case.removable):
        axis = case.adapter.axis(name)
        alive = random_alive(axis.size, (axis.size + 1) // 2, place)
        zero(case.model, axis, ~alive)
        masked = case.outputs()
        compact(case.model, axis, alive)
        assert outputs_error(case.outputs(), masked) <= EXACT, name
        assert case.adapter.axis(name).size == alive.sum()
    assert outputs_error(masked, dense) > 1e-3


def test_expanding_undoes_compaction(case):
    dense, axes = copy.deepcopy(case.model), case.adapter.axes()
    state, places, rng = state_of(dense), make_uneven(case), np.random.default_rng(2)
    wanted = case.outputs()
    for layout in (places, {name: rng.permutation(place) for name, place in places.items()}):
        whole = expand(case.model, dense, axes, layout)
        assert [p.shape for p in whole.parameters()] == [p.shape for p in dense.parameters()]
        assert outputs_error(case.outputs(whole), wanted) <= EXACT
    assert_same_state(dense, state)


def test_a_changed_model_is_saved_and_loaded_bit_for_bit(case, tmp_path):
    make_uneven(case)
    model = prepare(case.model.float())
    for axis in case.adapter.axes():
        if axis.token_maps:
            permute(model, axis, np.random.default_rng(3).permutation(axis.size))
    loaded = load_optimized(save_optimized(model, None, tmp_path / "m"))
    found, wanted = model_outputs(loaded, case.inputs), model_outputs(model, case.inputs)
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert find_adapter(loaded).axes() == find_adapter(model).axes()


def test_an_exported_model_says_the_same_or_the_export_is_refused(first, tmp_path):
    make_uneven(first)
    model, inputs = first.model.float(), first.inputs
    if first.family.no_onnx is not None:
        with pytest.raises(ResourceError, match=f"cannot be exported: {first.family.no_onnx}"):
            export_onnx(model, inputs, tmp_path / "m.onnx")
        return
    path = export_onnx(model, inputs, tmp_path / "m.onnx")
    for shorter in (inputs, {name: value[:1, -3:] for name, value in inputs.items()}):
        wanted, found = main_output(model(**shorter))[1], torch.from_numpy(run_onnx(path, shorter))
        assert torch.allclose(found[valid(shorter)], wanted[valid(shorter)], rtol=0, atol=1e-4)


def valid(inputs: dict) -> torch.Tensor:
    return inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()


@pytest.mark.parametrize("padded", ["nowhere", "here", "on the other side"])
@pytest.mark.parametrize("uneven", [False, True])
@torch.inference_mode()
def test_the_blocks_replay_the_model(case, uneven, padded):
    """Every consumer gets from its block what it gets in the model, and the stream ends where the model's does."""
    if uneven:
        make_uneven(case)
    blocks, caught = list(case.adapter.blocks()), {}
    for block in blocks:
        block.consumer.register_forward_pre_hook(lambda module, args: caught.setdefault(module, args[0]))
    with KeepDouble():
        inputs = dict(case.inputs)
        if padded != "here":
            mask = inputs.pop("attention_mask", None)
            if padded != "nowhere" and mask is not None:
                inputs["attention_mask"] = mask.flip(1)
        outputs, (hidden, context) = case.model(**inputs), case.adapter.embed(inputs)
        kept, seen = valid(inputs), dict(caught)
        for block in blocks:
            inner = block.inner(hidden, context)[kept]
            assert torch.allclose(inner, seen[block.consumer][kept], rtol=0, atol=EXACT), block.axis
            assert block.elements * block.unit == block.consumer.in_features
            assert block.consumer.in_features % case.adapter.axis(block.axis).size == 0
            hidden = block.forward(hidden, context)
        logits = case.adapter.logits(hidden)
    if logits is not None:
        assert outputs_error({"logits": logits[kept]}, {"logits": outputs.logits[kept]}) <= EXACT
    elif getattr(outputs, "last_hidden_state", None) is not None and case.family.judge == "encoder":
        assert torch.allclose(hidden[kept], outputs.last_hidden_state[kept], rtol=0, atol=EXACT)


def test_bad_permutations_masks_and_names_are_refused(case):
    state = state_of(case.model)
    for axis in case.adapter.axes():
        long, twice = np.arange(axis.size + 1), np.zeros(axis.size + 1, dtype=int)[: max(2, axis.size)]
        for perm in (long, twice, np.arange(float(axis.size))):
            with pytest.raises(AxisError):
                permute(case.model, axis, perm)
        with pytest.raises(AxisError, match="cannot be compacted|bool array of shape"):
            compact(case.model, axis, np.ones(axis.size + (axis.fixed_because is None), dtype=bool))
    with pytest.raises(AxisError, match="no axis 'ghost'.*find_axes"):
        case.adapter.axis("ghost")
    assert_same_state(case.model, state)


def test_a_stale_axis_is_refused(case):
    stale = [axis for axis in map(case.adapter.axis, case.removable) if axis.size > 1]
    for axis in stale:
        compact(case.model, axis, np.arange(axis.size) > 0)
        with pytest.raises(AxisError, match="find_axes again"):
            permute(case.model, axis, np.arange(axis.size))


def spoiled(case: Case) -> str:
    """Put a NaN into the last block's consumer; the parameter's name."""
    *_, block = case.adapter.blocks()
    block.consumer.weight[0, 0] = float("nan")
    return next(name for name, value in case.model.named_parameters() if value is block.consumer.weight)


def test_weights_that_are_not_numbers_are_never_certified(case):
    spoiled(case)
    with pytest.raises(AxisError, match="changes the outputs by nan"):
        verify_axes(case.model, case.adapter.axes(), case.inputs)


def test_checkpoints_are_found_or_refused_by_name(case, tmp_path):
    folder, kind = str(tmp_path / "m"), case.model.config.model_type
    case.model.save_pretrained(folder)
    if kind not in case.family.model_types:
        with pytest.raises(ConfigError, match=f"model_type '{kind}'.*; family '{case.family.name}' takes"):
            resolve_checkpoint(folder, family=case.family.name)
        return
    assert resolve_checkpoint(folder, family=case.family.name).family == case.family.name
    other = next(name for name in FAMILIES if name != case.family.name)
    with pytest.raises(ConfigError, match=f"model_type '{kind}'; family '{other}' takes"):
        resolve_checkpoint(folder, family=other)
    name = spoiled(case)
    case.model.save_pretrained(folder)
    with pytest.raises(ArtifactError, match=f"tensor '.*{name.rpartition('layer')[2]}' in .* holds NaN"):
        resolve_checkpoint(folder, family=case.family.name)
