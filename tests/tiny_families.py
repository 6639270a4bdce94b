"""Tiny random models of every family, in float64, with inputs that have padded rows; those of the toy family too."""

from functools import partial

import torch
from torch import nn

from icd_lib.models.families import FAMILIES
from tests.extend import toy_family
from tests.tiny_decoders import tiny_decoder
from tests.tiny_mambas import tiny_mamba, tiny_mamba2, tokens
from tests.tiny_problems import CLASSES, small_batches, small_model


def bert(kind: str, **changes) -> tuple[nn.Module, dict]:
    return small_model(kind, **changes), small_batches(1)[0]


def mamba(build, *kind, **changes) -> tuple[nn.Module, dict]:
    mask = torch.ones(3, 17, dtype=torch.long)
    mask[0, :5] = 0
    return build(*kind, **changes), {"input_ids": tokens(3, 17), "attention_mask": mask}


def decoder(kind: str, **changes) -> tuple[nn.Module, dict]:
    mask = torch.ones(3, 17, dtype=torch.long)
    mask[0, :5] = 0
    return tiny_decoder(kind, **changes), {"input_ids": tokens(3, 17), "attention_mask": mask}


TINY = {
    "bert": {kind: partial(bert, kind) for kind in CLASSES}
    | {"untied": partial(bert, "masked_lm", tie_word_embeddings=False)},
    "mamba": {
        "causal": partial(mamba, tiny_mamba),
        "backbone": partial(mamba, tiny_mamba, "backbone"),
        "biases": partial(mamba, tiny_mamba, use_bias=True, use_conv_bias=False),
        "untied": partial(mamba, tiny_mamba, tie_word_embeddings=False),
        "one state": partial(mamba, tiny_mamba, state_size=1, time_step_rank=1),
        "other sizes": partial(mamba, tiny_mamba, "backbone", expand=3, conv_kernel=2),
        "mamba2": partial(mamba, tiny_mamba2),
        "mamba2 one group": partial(mamba, tiny_mamba2, n_groups=1, use_bias=True),
        "mamba2 four groups": partial(mamba, tiny_mamba2, n_groups=4),
    },
    "llama": {
        "causal": partial(decoder, "llama"),
        "backbone": partial(decoder, "backbone"),
        "untied, biases": partial(decoder, "llama", tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
        "one group": partial(decoder, "llama", num_key_value_heads=1),
        "ungrouped": partial(decoder, "llama", num_key_value_heads=6),
        "mistral, sliding": partial(decoder, "mistral", sliding_window=4),
        "qwen2, biases": partial(decoder, "qwen2"),
        "qwen2, some layers sliding": partial(
            decoder, "qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1
        ),
        "qwen3, norms in heads": partial(decoder, "qwen3"),
        "gemma": partial(decoder, "gemma"),
    },
}
ROWS = {**FAMILIES, "toy": toy_family.FAMILY}
FACTORIES = {
    name: TINY.get(name) or {k: partial(tuple, v) for k, v in row.tiny().items()} for name, row in ROWS.items()
}
CASES = [(name, kind) for name, kinds in FACTORIES.items() for kind in kinds]
