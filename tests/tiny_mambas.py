"""Tiny random Mamba models, stock and uneven, that several test modules share."""

import numpy as np
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM, MambaModel

from icd_lib.axes.compact import compact
from icd_lib.models.families import find_adapter

INNER, STATES, RANK, HIDDEN, LAYERS, VOCAB = 50, 5, 3, 25, 2, 61
CLASSES = {"causal": MambaForCausalLM, "backbone": MambaModel}

# The fields of config.json of `state-spaces/mamba-130m-hf`: those of mamba_ssm are among them.
CONFIG_130M = {
    "bos_token_id": 0,
    "conv_kernel": 4,
    "d_inner": 1536,
    "d_model": 768,
    "eos_token_id": 0,
    "expand": 2,
    "fused_add_norm": True,
    "hidden_act": "silu",
    "hidden_size": 768,
    "initializer_range": 0.1,
    "intermediate_size": 1536,
    "layer_norm_epsilon": 1e-05,
    "n_layer": 24,
    "num_hidden_layers": 24,
    "pad_token_id": 0,
    "pad_vocab_size_multiple": 8,
    "rescale_prenorm_residual": False,
    "residual_in_fp32": True,
    "rms_norm": True,
    "ssm_cfg": {},
    "state_size": 16,
    "time_step_floor": 0.0001,
    "time_step_init_scheme": "random",
    "time_step_max": 0.1,
    "time_step_min": 0.001,
    "time_step_rank": 48,
    "time_step_scale": 1.0,
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
    "vocab_size": 50280,
}
NARROW = {"d_inner": 64, "d_model": 32, "hidden_size": 32, "intermediate_size": 64, "time_step_rank": 2}
SHALLOW = {"n_layer": 2, "num_hidden_layers": 2}


def tiny_mamba(kind="causal", seed=0, dtype=torch.float64, spread=0.2, **changes):
    """Random model of odd sizes whose norms, biases and D are random too, so that a forgotten slot cannot hide."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "state_size": STATES,
        "time_step_rank": RANK,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    torch.manual_seed(seed)
    return _roughen(CLASSES[kind](MambaConfig(**(sizes | changes))), seed, dtype, spread)


def tiny_mamba2(seed=0, dtype=torch.float64, spread=0.2, **changes):
    """Random Mamba-2 with two groups of two heads."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "num_hidden_layers": LAYERS,
        "state_size": STATES,
        "num_heads": 4,
        "head_dim": 12,
        "n_groups": 2,
        "chunk_size": 8,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    torch.manual_seed(seed)
    return _roughen(Mamba2ForCausalLM(Mamba2Config(**(sizes | changes))), seed, dtype, spread)


def _roughen(model, seed, dtype, spread):
    model = model.eval().to(dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
    return model.requires_grad_(False)


def tokens(rows=3, length=17, seed=3):
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def random_alive(size, kept, seed=0):
    return np.isin(np.arange(size), np.random.default_rng(seed).permutation(size)[:kept])


def make_uneven(model, seed=0):
    """Drop a different share of every inner, state and dt_rank axis, in place."""
    for place, axis in enumerate(find_adapter(model).axes()):
        if axis.kind in ("inner", "state", "dt_rank"):
            compact(model, axis, random_alive(axis.size, max(1, axis.size - 1 - place), seed + place))
    return model
