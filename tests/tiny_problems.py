"""Tiny random BERT models, batches and co-design problems for the tests of axes, transforms and the loop."""

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from icd_lib.codesign.evidence import Problem, gather
from icd_lib.codesign.inputs import Inputs, Judgement
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.codesign.options import Settings
from icd_lib.solver.cost import CostConfig
from icd_lib.transforms.observed import Findings
from icd_lib.transforms.sparsity.allocate import LatencyTable
from icd_lib.transforms.sparsity.transform import TRANSFORM as SPARSITY

FFN, HEADS, HIDDEN, LAYERS, VOCAB = 48, 4, 32, 2, 61
CLASSES = {
    "encoder": BertModel,
    "sequence": BertForSequenceClassification,
    "masked_lm": BertForMaskedLM,
    "token": BertForTokenClassification,
    "question": BertForQuestionAnswering,
}


def small_model(kind="encoder", seed=0, dtype=torch.float64, spread=0.3, **changes):
    """Random model whose biases and LayerNorms are random too, so that a forgotten slot cannot hide."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "max_position_embeddings": 24,
    }
    torch.manual_seed(seed)
    model = CLASSES[kind](BertConfig(**(sizes | changes))).eval().to(dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
    return model.requires_grad_(False)


def small_batches(count=3, rows=6, length=16, seed=3, padded=True):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        mask = torch.ones(rows, length, dtype=torch.long)
        if padded:
            mask[0, length // 2 :] = 0
        ids = torch.randint(1, VOCAB, (rows, length), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


def small_tables():
    """Hand-made: an FFN layer saves up to 4 ms of 20, a layer's heads up to 2 ms, a little less than linearly."""
    ffn, heads = np.arange(8, FFN + 1, 8), np.arange(1, HEADS + 1)
    return {
        "ffn": LatencyTable("ffn", ffn, 4.8 * (1 - ffn / FFN) ** 0.9),
        "heads": LatencyTable("heads", heads, 2.6 * (1 - heads / HEADS) ** 0.9),
    }


def small_problem(
    judge=lambda model: Judgement(0.0, 0.0),
    model=None,
    log=lambda event, **meta: None,
    transforms=(SPARSITY,),
    keep_moments=None,
    **changes,
):
    dense = small_model(dtype=torch.float32) if model is None else model
    settings = {
        "tile": 8,
        "distill_steps": 3,
        "strengths": (-0.1, -0.2, -0.3, -0.4),
        "max_rounds": 3,
    }
    batches = small_batches()
    rates = {f"{kind}.{layer}": 1.0 + layer for kind in ("ffn", "heads") for layer in range(LAYERS)}
    inputs = Inputs(
        dense=dense,
        batches=batches,
        distill_batches=batches,
        example=batches[0],
        judge=judge,
        settings=Settings(**(settings | changes)),
        solver=SolverSettings(CostConfig(g=8, v=8, h=24), refine_steps=60),
        log=log,
        keep_moments=keep_moments,
    )
    return Problem(inputs, gather(inputs, Findings(small_tables(), 20.0, rates)), tuple(transforms))


def three_cycle(size):
    """Its own inverse it is not, so that a wrong direction shows."""
    perm = np.arange(size)
    perm[[0, 1, size - 1]] = perm[[1, size - 1, 0]]
    return perm


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(model, state):
    now = model.state_dict()
    assert list(now) == list(state)
    for name, tensor in state.items():
        assert torch.equal(now[name], tensor), name


@torch.inference_mode()
def encode(model, inputs):
    """Hidden states of valid tokens, (tokens, width)."""
    return model(**inputs).last_hidden_state[inputs["attention_mask"].bool()]
