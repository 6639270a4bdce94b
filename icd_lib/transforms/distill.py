"""Label-free layer-wise distillation: let the pruned network follow the dense one's hidden states and output.

Closed-form compensation fixes each block given the ones before it; a few hundred steps of gradient descent let the
blocks adapt to each other (hidden-state matching as in Jiao et al. 2020, TinyBERT, section 3.1; no labels are used).
Weights, their gradients' sums and what is compared are float32; products inside the blocks can be in bf16.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import check_trainable
from icd_lib.progress import DETAIL
from icd_lib.storage.devices import device_of, telling_of_memory
from icd_lib.transforms.streams import room

POOLED_WEIGHT = 20.0  # the mean over tokens is what most heads read; weighted so that both terms start alike
PAIR_WEIGHT = 200.0  # squared differences of similarities are of the order of 0.001
TOKEN_WEIGHT = 1.0
WARMUP_STEPS = 20


class TeacherStates:
    """The teacher's hidden states on every batch, (B, L, D) after each layer; computed once while memory allows."""

    def __init__(self, teacher: Adapter, batches: list[dict]):
        self.teacher, self.batches = teacher, batches
        self._kept: dict[int, list[torch.Tensor]] = {}
        self._room = room(device_of(teacher.model))

    def __call__(self, index: int) -> list[torch.Tensor]:
        """States on batch `index`."""
        if index in self._kept:
            return self._kept[index]
        with torch.no_grad():
            states = _layer_states(self.teacher, self.batches[index])
        size = sum(state.numel() * state.element_size() for state in states)
        if size <= self._room:
            self._room -= size
            self._kept[index] = states
        return states


def distill(
    student: nn.Module,
    teacher: nn.Module,
    batches: list[dict],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    bf16: bool = False,
    states: TeacherStates | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> nn.Module:
    """Copy of `student` after `steps` Adam steps on the blocks' weights; embeddings and heads stay as they are.

    Deterministic for a seed: steps are counted, not seconds. The rate warms up, then falls linearly to zero. bf16: the
    student's blocks multiply in it. `states` of this teacher on these batches can be handed from one call to the next.
    """
    check_trainable(student)
    learner = copy.deepcopy(student)
    follower = find_adapter(learner)
    states = states or TeacherStates(find_adapter(teacher), batches)
    trained = _trainable(learner, follower)
    optimizer = torch.optim.Adam(trained, lr=learning_rate, betas=(0.9, 0.98))
    order = _order(len(batches), steps, seed)
    for step, index in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / steps)
        shape = "x".join(map(str, batches[index]["input_ids"].shape))
        with telling_of_memory(f"a batch of {shape} tokens was distilled", "lower transform.distill_tokens"):
            loss, distance = _loss(states.teacher, follower, states(index), batches[index], bf16)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            progress(f"{DETAIL}distil step {step + 1}/{steps}: {_measure_of(follower)} {distance:.4f}")
    return learner.requires_grad_(False).eval()


def _trainable(model: nn.Module, adapter: Adapter) -> list[nn.Parameter]:
    model.requires_grad_(False)
    trained = list(adapter.trunk().parameters())
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _order(batches: int, steps: int, seed: int) -> list[int]:
    generator = np.random.default_rng(seed)
    epochs = -(-steps // batches)
    return np.concatenate([generator.permutation(batches) for _ in range(epochs)])[:steps].tolist()


def _loss(
    teacher: Adapter, student: Adapter, goals: list[torch.Tensor], inputs: dict, bf16: bool
) -> tuple[torch.Tensor, float]:
    mask = inputs.get("attention_mask")
    with torch.autocast(inputs["input_ids"].device.type, dtype=torch.bfloat16, enabled=bf16):
        states = _layer_states(student, inputs)
    valid = None if mask is None else mask.bool()
    error = sum(
        _tokens(s - g, valid).square().mean() / _tokens(g, valid).var() for s, g in zip(states, goals, strict=True)
    )
    output, distance = _output_distance(teacher, student, goals[-1], states[-1], valid)
    return error / len(goals) + output, distance


def _tokens(tensor: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The valid tokens of (B, L, …), one after the other."""
    return tensor.flatten(0, 1) if valid is None else tensor[valid]


def _output_distance(teacher: Adapter, student: Adapter, goal, state, valid) -> tuple[torch.Tensor, float]:
    """Distance of what the models are read by, and the part of it that is reported.

    Next-token distributions, else the mean over tokens: its direction, and its similarities to the other texts of the
    batch, both among the student's and with the teacher's (what retrieval in an old index sees).
    """
    with torch.no_grad():
        wanted = teacher.logits(goal)
    if wanted is None:
        left, right = (nn.functional.normalize(_mean(x, valid), dim=-1) for x in (state, goal))
        distance = 1 - (left * right).sum(-1).mean()
        pairs = right @ right.T
        error = (left @ left.T - pairs).square().mean() + (left @ right.T - pairs).square().mean()
        return POOLED_WEIGHT * distance + PAIR_WEIGHT * error, float(distance.detach())
    distance = _Divergence.apply(*(_tokens(logits, valid) for logits in (student.logits(state), wanted)))
    return TOKEN_WEIGHT * distance, float(distance.detach())


class _Divergence(torch.autograd.Function):
    """KL(softmax(wanted) ‖ softmax(ours)), mean over the rows of (tokens, V); its gradient for `ours` is q − p."""

    @staticmethod
    def forward(ctx, ours, wanted):
        ours, wanted = ours.log_softmax(-1), wanted.log_softmax(-1)
        p = wanted.exp()
        distance = wanted.sub_(ours).mul_(p).sum() / len(p)
        ctx.save_for_backward(ours.exp_().sub_(p).div_(len(p)))
        return distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return ctx.saved_tensors[0] * grad, None


def _measure_of(adapter: Adapter) -> str:
    return "1 − cosine to dense" if type(adapter).logits is Adapter.logits else "KL to dense"


def _layer_states(adapter: Adapter, inputs: dict) -> list[torch.Tensor]:
    """Hidden state after the last block of every layer."""
    hidden, context = adapter.embed(inputs)
    states, layer = [], 0
    for block in adapter.blocks():
        if block.layer != layer:
            states.append(hidden)
            layer = block.layer
        hidden = block.forward(hidden, context)
    return [*states, hidden]


def _mean(hidden: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    if valid is None:
        return hidden.mean(1)
    weights = valid.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
