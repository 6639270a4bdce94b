from dataclasses import replace

import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.axes.double import KeepDouble
from icd_lib.axes.verify import model_outputs, outputs_error, verify_axes
from icd_lib.errors import AxisError, ConfigError
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.families.mamba.mamba2 import Mamba2Adapter
from icd_lib.transforms.sparsity.prune import zero_elements
from tests.tiny_mambas import STATES, VOCAB, make_uneven, random_alive, tiny_mamba, tiny_mamba2, tokens
from tests.tiny_problems import three_cycle

INPUTS = {"input_ids": tokens()}


def exact_outputs(model, inputs=INPUTS):
    with KeepDouble():
        return model_outputs(model, inputs)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_axes_by_name_and_size_are_certified(groups):
    model = tiny_mamba2(n_groups=groups, use_bias=groups == 1)
    axes = find_adapter(model).axes()
    layer = {"heads": 4 // groups, "head_dim": 12, "state": STATES}
    wanted = {f"{kind}.{index}": size for index in range(2) for kind, size in layer.items()}
    assert {axis.name: axis.size for axis in axes} == wanted | {"residual": 24, "vocab": VOCAB}
    assert max(c["max_rel_error"] for c in verify_axes(model, axes, INPUTS)) <= 1e-12


def test_every_slot_matters():
    model = tiny_mamba2(n_groups=1)
    for name in ("heads.0", "head_dim.1", "state.0", "residual"):
        axis = find_adapter(model).axis(name)
        for i in range(len(axis.slots)):
            wrong = replace(axis, slots=axis.slots[:i] + axis.slots[i + 1 :])
            with pytest.raises(AxisError, match=f"axis '{name}' changes the outputs"):
                verify_axes(model, [wrong], INPUTS, perms={name: three_cycle(axis.size)})


def test_state_dimensions_can_be_removed():
    model = tiny_mamba2()
    for index in range(2):
        axis, alive = find_adapter(model).axis(f"state.{index}"), random_alive(STATES, 3, index)
        zero_elements(model, axis, torch.from_numpy(~alive))
        masked = exact_outputs(model)
        compact(model, axis, alive)
        assert outputs_error(exact_outputs(model), masked) <= 1e-12
        mixer = model.backbone.layers[index].mixer
        assert (mixer.ssm_state_size, mixer.conv_dim) == (3, 48 + 2 * 2 * 3)


def test_uneven_states_generate_and_reload(tmp_path):
    model = make_uneven(tiny_mamba2(dtype=torch.float32))
    assert [layer.mixer.ssm_state_size for layer in model.backbone.layers] != [STATES, STATES]
    loaded = load_optimized(save_optimized(model, None, tmp_path / "m"))
    assert torch.equal(loaded(**INPUTS).logits, model(**INPUTS).logits)
    whole = model.generate(tokens(2, 6), max_new_tokens=12, do_sample=False)
    assert torch.equal(loaded.generate(tokens(2, 6), max_new_tokens=12, do_sample=False), whole)


@pytest.mark.parametrize("name", ["heads.0", "head_dim.1"])
def test_what_the_gated_norm_averages_over_cannot_be_removed(name):
    model = tiny_mamba2()
    axis = find_adapter(model).axis(name)
    with pytest.raises(AxisError, match="gated RMSNorm"):
        compact(model, axis, random_alive(axis.size, 1))


def test_a_mamba1_model_is_refused():
    with pytest.raises(ConfigError, match="MambaForCausalLM has no layers with a Mamba2Mixer"):
        Mamba2Adapter(tiny_mamba())
