"""Checkpoints whose pruning nobody made permanent load as what they compute; the masked model made here is the same."""

import pytest
import torch
from torch.nn.utils import prune

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import mask_checkpoint, resolve_checkpoint
from icd_lib.models.families.bert.mask import put_mask
from tests.inputs.checkpoints import loaded, written
from tests.tiny_problems import small_batches, small_model, state_of


def pruned_model():
    model = small_model(dtype=torch.float32)
    for layer in model.encoder.layer:
        prune.ln_structured(layer.intermediate.dense, "weight", 0.5, n=2, dim=0)
        prune.l1_unstructured(layer.output.dense, "weight", 0.3)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
def test_masks_beside_their_weights_are_multiplied_out(tmp_path, dtype):
    model = pruned_model()
    wanted = model(**small_batches(1)[0]).last_hidden_state

    def change(config, weights):
        masks = [name for name in weights if name.endswith("_mask")]
        assert len(masks) == 4 and "encoder.layer.0.output.dense.weight" not in weights
        weights.update({name: weights[name].to(dtype) for name in masks})

    found = loaded(written(tmp_path, model, change), dtype=torch.float32)
    torch.testing.assert_close(found(**small_batches(1)[0]).last_hidden_state, wanted)
    assert int((found.encoder.layer[1].intermediate.dense.weight == 0).all(1).sum()) == 24
    assert not [name for name in state_of(found) if name.endswith(("_orig", "_mask"))]


@pytest.mark.parametrize("change", [lambda mask: mask * 0.5, lambda mask: mask[:-1].clone()])
def test_a_mask_that_is_none_is_refused_with_the_cure(tmp_path, change):
    name = "encoder.layer.0.output.dense.weight_mask"

    def spoil(config, weights):
        weights[name] = change(weights[name])

    with pytest.raises(ArtifactError, match=f"'{name}' is no mask .*prune.remove"):
        loaded(written(tmp_path, pruned_model(), spoil))


def test_a_pair_of_a_layer_that_the_model_does_not_have_is_refused(tmp_path):
    def further(config, weights):
        config["num_hidden_layers"] = 1

    with pytest.raises(ArtifactError, match="weights that BertModel does not take"):
        loaded(written(tmp_path, pruned_model(), further))


def test_the_masked_model_made_here_says_so_and_is_the_same_every_time(tmp_path):
    folder = written(tmp_path, small_model(dtype=torch.float32, vocab_size=70))
    mask = {"neurons": 0.25, "heads": 1, "scattered": 0.2}
    plain = resolve_checkpoint(str(folder))
    first, other = (mask_checkpoint(plain, mask | {"heads": heads}) for heads in (1, 2))
    assert first.source == "made here" and first.name.endswith(", masked here")
    assert first == mask_checkpoint(plain, mask) and len({plain.sha256, first.sha256, other.sha256}) == 3
    models = [load_model(first)[0] for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*(state_of(model).values() for model in models), strict=True))
    layer = models[0].encoder.layer[0]
    assert int((layer.intermediate.dense.weight == 0).all(1).sum()) == 12
    assert int((layer.attention.output.dense.weight == 0).all(0).sum()) == 8, "a head of eight columns"
    assert not (load_model(plain)[0].encoder.layer[0].intermediate.dense.weight == 0).any()


def test_at_least_one_head_stays():
    model = small_model(dtype=torch.float32)
    put_mask(model, neurons=0.0, heads=9, scattered=0.0)
    assert int((model.encoder.layer[0].attention.output.dense.weight == 0).all(0).sum()) == 24


def test_a_family_whose_models_are_not_masked_here_is_refused():
    with pytest.raises(ConfigError, match="no masked model of the family 'mamba' is made here; name a checkpoint"):
        mask_checkpoint(resolve_checkpoint(None, family="mamba"), {"heads": 1})
