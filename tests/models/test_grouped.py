"""Weights in groups of columns: what they can be, wherever rows and columns go, and in files."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error, verify_axes
from icd_lib.errors import ArtifactError, TransformError
from icd_lib.measure.memory import parameter_bytes
from icd_lib.models.bits import pack_bits, unpack_bits
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.grouped import (
    BITS,
    GroupedLinear,
    GroupGrid,
    check_bits,
    check_contiguous,
    check_group,
    grid_of,
    grouped_modules,
)
from icd_lib.models.quantized import (
    as_float,
    check_scales,
    has_eight_bits,
    is_quantized,
    quantized_like,
    replace_linear,
)
from icd_lib.transforms.weights.gptq import round_in_groups
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.rounding import EMBEDDING, round_embeddings
from tests.tiny_grouped import batches, decoder
from tests.tiny_problems import three_cycle

pytestmark = pytest.mark.wide
N, OUT, GROUP = 32, 7, 8


def random_linear(seed=0, bias=True, columns=N):
    torch.manual_seed(seed)
    return nn.Linear(columns, OUT, bias)


def grouped(spec=None, seed=0, order=None, columns=N):
    plain = random_linear(seed, columns=columns)
    result = round_in_groups(plain.weight.detach(), None, spec or Spec(4, GROUP), order)
    return GroupedLinear.of(plain, result.grid, result.grid.codes_of(result.values)), plain


def round_all(model, order=None, spec=None):
    """Every Linear of a model's blocks at its nearest points, in groups of an order of its columns."""
    made, generator = copy.deepcopy(model), torch.Generator().manual_seed(4)
    for module in find_adapter(made).trunk().modules():
        if type(module) is nn.Linear:
            path = next(key for key, other in made.named_modules() if other is module)
            columns = torch.randperm(module.in_features, generator=generator) if order == "random" else None
            result = round_in_groups(module.weight.detach(), None, spec or Spec(4, GROUP), columns)
            replace_linear(made, path, GroupedLinear.of(module, result.grid))
    return made


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [1, 8, 13])
def test_codes_in_bytes_and_back(bits, count):
    codes = torch.randint(0, 2**bits, (5, count), dtype=torch.uint8, generator=torch.Generator().manual_seed(bits))
    packed = pack_bits(codes, bits)
    assert packed.shape == (5, -(-count * bits // 8)) and torch.equal(unpack_bits(packed, bits, count), codes)
    with pytest.raises(ArtifactError, match=rf"{count + 9} codes of {bits} bits take"):
        unpack_bits(packed, bits, count + 9)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_weight_is_scale_times_code_less_zero(bits, symmetric):
    made, plain = grouped(Spec(bits, GROUP, symmetric))
    codes = made.grid.codes_of(made.weight)
    for row in range(OUT):
        for column in range(N):
            scale, zero = made.group_scale[row, column // GROUP], made.group_zero[row, column // GROUP]
            assert made.weight[row, column] == scale * (int(codes[row, column]) - int(zero))
    assert made.grid.is_symmetric == symmetric and int(codes.max()) <= 2**bits - 1
    step = made.group_scale.abs()[:, made.column_group.long()]
    assert bool(((made.weight - plain.weight).abs() <= (2 if symmetric else 0.7 + 8 * (bits < 8)) * step).all())
    x = torch.randn(3, N)
    assert torch.equal(made(x), nn.functional.linear(x, made.weight, made.bias))


def test_bits_per_weight_count_scales_and_zeros_and_a_map_where_there_is_one():
    asymmetric, _ = grouped(Spec(4, GROUP))
    assert asymmetric.bits_per_weight == 4 + 16 / GROUP + 4 * N / GROUP / N
    symmetric, _ = grouped(Spec(4, GROUP, symmetric=True))
    assert symmetric.bits_per_weight == 4 + 16 / GROUP
    scattered, _ = grouped(Spec(4, GROUP, symmetric=True), order=torch.from_numpy(three_cycle(N)))
    assert scattered.bits_per_weight == 4 + 16 / GROUP + 32 / OUT
    wide, _ = grouped(Spec(8, None, symmetric=True, half=False))
    assert wide.bits_per_weight == 8 + 32 / N


def test_groups_are_contiguous_when_every_group_is_one_stretch():
    scattered, _ = grouped(order=torch.from_numpy(three_cycle(N)))
    assert not scattered.grid.is_contiguous and grouped()[0].grid.is_contiguous
    folded = scattered.grid.permuted(torch.from_numpy(three_cycle(N)))
    assert folded.is_contiguous
    renumbered = GroupGrid(4, folded.scale[:, [2, 0, 1, 3]], folded.zero[:, [2, 0, 1, 3]], folded.group)
    back = GroupGrid(4, renumbered.scale, renumbered.zero, torch.tensor([1, 2, 0, 3], dtype=torch.int32)[folded.group])
    assert back.is_contiguous and not torch.equal(back.group, folded.group)
    assert torch.equal(back.canonical().scale, folded.scale) and torch.equal(back.canonical().group, folded.group)
    codes = torch.randint(0, 16, (OUT, N), dtype=torch.uint8)
    assert torch.equal(back.weight_of(codes), folded.weight_of(codes))
    model = decoder()
    replace_linear(model, "model.layers.0.mlp.down_proj", grouped(order=torch.from_numpy(three_cycle(N)))[0])
    with pytest.raises(TransformError, match=r"groups of 'model.layers.0.mlp.down_proj' are not stretches"):
        check_contiguous(model)


@pytest.mark.parametrize("order", [None, "random"])
def test_every_axis_takes_scales_zeros_and_groups_along(order):
    model = round_all(decoder(dtype=torch.float64), order)
    axes = find_adapter(model).axes()
    check_scales(model, axes)
    certificates = verify_axes(model, axes, batches(1)[0])
    assert max(entry["max_rel_error"] for entry in certificates) <= 1e-6
    for name in ("ffn.1", "v.0.1", "kv_groups.1", "q_heads.0.2", "residual"):
        moved, axis = copy.deepcopy(model), find_adapter(model).axis(name)
        permute(moved, axis, three_cycle(axis.size))
        changed = [key for key in grouped_modules(model) if not torch.equal(*(weight(m, key) for m in (model, moved)))]
        assert changed, name
        for key, module in grouped_modules(moved).items():
            assert torch.equal(module.on_grid(module.weight), module.weight), key
            if order is None:
                regrouped = grid_of(module).group
                assert regrouped.sort().values.equal(model.get_submodule(key).column_group)
    moved, axis = copy.deepcopy(model), find_adapter(model).axis("ffn.0")
    permute(moved, axis, three_cycle(axis.size))
    perm = torch.from_numpy(three_cycle(axis.size))
    before, after = model.model.layers[0].mlp, moved.model.layers[0].mlp
    assert torch.equal(after.down_proj.column_group, before.down_proj.column_group[perm])
    assert torch.equal(after.gate_proj.group_scale, before.gate_proj.group_scale[perm])
    assert torch.equal(after.gate_proj.group_zero, before.gate_proj.group_zero[perm])
    assert torch.equal(after.gate_proj.column_group, before.gate_proj.column_group)


def weight(model, name):
    return model.get_submodule(name).weight


@pytest.mark.parametrize("spec", [Spec(4, 8), Spec(4, 16, symmetric=True), Spec(3, 8), Spec(8, 16, half=False)])
@pytest.mark.parametrize("order", [None, "random"])
@pytest.mark.parametrize("tied", [True, False])
def test_saved_as_codes_and_loaded_bit_for_bit(tmp_path, spec, order, tied):
    model = round_all(decoder(tie_word_embeddings=tied), order, spec)
    ends = round_embeddings(model, EMBEDDING if spec.bits == 4 else Spec(8, 16, searched=False))
    assert ends == ["model.embed_tokens"] + ([] if tied else ["lm_head"])
    loaded = load_optimized(save_optimized(model, None, tmp_path / "model"))
    assert list(grouped_modules(loaded)) == list(grouped_modules(model)) and len(grouped_modules(model)) == 14 + len(
        ends
    )
    for name, module in grouped_modules(model).items():
        found = loaded.get_submodule(name)
        assert torch.equal(found.weight, module.weight) and type(found) is type(module)
        assert int(found.code_bits) == (8 if name in ends else spec.bits)
        assert torch.equal(grid_of(found).weight_of(grid_of(found).codes_of(found.weight)), module.weight)
        assert torch.equal(found.column_group, grid_of(module).canonical().group)
    for inputs in batches(2):
        wanted, got = (model_outputs(item, inputs) for item in (model, loaded))
        assert outputs_error(got, wanted) == 0
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    again = load_optimized(save_optimized(loaded, None, tmp_path / "again"))
    assert all(torch.equal(weight(again, name), weight(model, name)) for name in grouped_modules(model))


def test_permuted_then_saved_it_is_the_same(tmp_path):
    model = round_all(decoder())
    for name in ("ffn.0", "vocab"):
        axis = find_adapter(model).axis(name)
        permute(model, axis, np.random.default_rng(3).permutation(axis.size))
    round_embeddings(model)
    loaded = load_optimized(save_optimized(model, None, tmp_path / "model"))
    assert outputs_error(model_outputs(loaded, batches(1)[0]), model_outputs(model, batches(1)[0])) == 0


def test_bytes_are_those_of_the_file(tmp_path):
    model = round_all(decoder(), spec=Spec(4, 16))
    round_embeddings(model)
    folder = save_optimized(model, None, tmp_path / "model")
    size, header = (
        (folder / "model.safetensors").stat().st_size,
        int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little"),
    )
    assert parameter_bytes(model) == size - header - 8
    assert parameter_bytes(model) < 0.3 * parameter_bytes(decoder())


def test_it_is_a_quantised_model():
    model = round_all(decoder())
    assert is_quantized(model) and not is_quantized(decoder())
    plain = as_float(model)
    assert not is_quantized(plain)
    assert outputs_error(model_outputs(plain, batches(1)[0]), model_outputs(model, batches(1)[0])) == 0
    assert not has_eight_bits(model), "its inputs are not rounded: no runtime's int8 computes it"
    like = quantized_like(decoder(), model)
    assert list(dict(like.named_parameters())) == list(dict(model.named_parameters()))


def test_an_embedding_on_a_grid_becomes_plain_and_stays_tied():
    model = round_all(decoder())
    assert round_embeddings(model) == ["model.embed_tokens"]
    plain = as_float(model)
    assert not is_quantized(plain) and plain.lm_head.weight is plain.model.embed_tokens.weight
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in decoder().named_parameters()]
    assert outputs_error(model_outputs(plain, batches(1)[0]), model_outputs(model, batches(1)[0])) == 0


def test_a_shorter_last_group_where_it_is_allowed():
    plain = random_linear(columns=20)
    result = round_in_groups(plain.weight.detach(), None, Spec(4, 8, ragged=True))
    assert result.grid.is_contiguous and result.grid.group.tolist() == [0] * 8 + [1] * 8 + [2] * 4
    made = GroupedLinear.of(plain, result.grid)
    assert torch.equal(made.weight.double(), result.values)


def test_what_codes_and_groups_cannot_be():
    with pytest.raises(TransformError, match="codes have 3, 4 or 8 bits, got 5"):
        check_bits(5)
    with pytest.raises(TransformError, match="codes have 3, 4 or 8 bits, got 5"):
        Spec(5)
    with pytest.raises(
        TransformError, match="576 columns of 'down' do not fall into groups of 128.* 64, 32, 16, 8 would"
    ):
        check_group(576, 128, "down")
    with pytest.raises(TransformError, match="7 columns of 'w' do not fall into groups of 4 .*pad or prune the axis"):
        round_in_groups(torch.ones(2, 7), None, Spec(4, 4), name="w")


def test_a_file_with_more_codes_than_its_config_has_weights_is_refused(tmp_path):
    folder = save_optimized(round_all(decoder()), None, tmp_path / "model")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"intermediate_size": 80', '"intermediate_size": 72'))
    with pytest.raises(ArtifactError):
        load_optimized(folder)
