"""Smaller heads: lower the rank of every head's scores and the width of its values, to one head size for all.

A head touches its Q/K weights only through AᵀB (A = queries, B = keys of all tokens) and its V/O weights only through
W C (W = the consumer's columns, C = contexts). Either product of inner width d is replaced by the best one of width k,
which needs no more than the two d × d Gramians. All algebra is float64.
"""

import copy

import torch
from torch import nn

from icd_lib.errors import TransformError
from icd_lib.models.adapter import Attention
from icd_lib.models.families import FAMILIES, family_of, find_adapter, labels
from icd_lib.transforms.effects import Alive, TransformMeta
from icd_lib.transforms.sparsity.obs import Moments, affine, refit, solvable
from icd_lib.transforms.sparsity.prune import collect
from icd_lib.transforms.streams import ResidualStream


@solvable()
def reduce_head_dim(
    model: nn.Module, target: nn.Module, kept: int, batches: list[dict], *, ridge: float = 0.01
) -> tuple[nn.Module, TransformMeta]:
    """Copy of `model` whose heads have `kept` dimensions each, and what each head's scores and values lost.

    batches: the model's inputs, (B, L) each. Block after block on the stream of the already changed network:
    scores qᵢ·kⱼ get the best rank `kept` over the second moments of queries (bias included) and of keys less their
    mean in the sequence, which softmax cannot see; values the best projection for what the consumer writes; then
    every consumer is refit to `target`'s residual stream with a ridge toward its weights. The softmax scale stays.
    In the report, elements of axis `qk.l.h` and `v.l.h` are the head's singular directions, largest first, and
    saliency is the relative squared error of leaving one out; it is 0 for the directions that stay.
    Raises `TransformError` (nothing changed) unless the model has attention with head_dim > `kept` ≥ 1 everywhere.
    Source: Eckart & Young 1936; balanced truncation, Moore 1981; rotate and cut, Ashkboos et al. 2024 (SliceGPT).
    """
    check_head_dim(model, kept)
    reduced = copy.deepcopy(model)
    adapter, goals = find_adapter(reduced), find_adapter(target)
    reference, stream = ResidualStream(goals, batches), ResidualStream(adapter, batches)
    meta = TransformMeta("head_dim", 1, notes={"ridge": ridge, "kept": kept})
    for goal, block in zip(goals.blocks(), adapter.blocks(), strict=True):
        goal_sums = reference.sums(goal, reference.inner(goal))
        attention = block.attention
        if attention is not None:
            sigma = _reduce_scores(attention, kept, stream)
            _record(meta, f"qk.{block.layer}", "qk", sigma, kept)
        moments = collect(stream, block, stream.inner(block), goal_sums)
        if attention is None:
            _write(block.consumer, refit(moments, affine(block.consumer), ridge))
        else:
            sigma = _reduce_values(attention, block.consumer, kept, moments, ridge)
            _record(meta, f"v.{block.layer}", "v", sigma, kept)
        stream.run(block)
        reference.advance(goal, goal_sums)
    return reduced, meta


def check_head_dim(model: nn.Module, kept: int) -> None:
    """Raise `TransformError` unless `model` has attention, and 1 ≤ kept < head_dim in every layer."""
    family = family_of(model)
    blocks = family.adapter(model).blocks() if family is not None else ()
    sizes = [block.attention.head_size for block in blocks if block.attention is not None]
    if not sizes:
        able = labels(row for row in FAMILIES.values() if "qk" in row.kinds)
        raise TransformError(f"{type(model).__name__} has no attention whose head_dim can be reduced; only {able} has")
    smallest = min(sizes)
    if isinstance(kept, bool) or not isinstance(kept, int) or not 1 <= kept < smallest:
        raise TransformError(
            f"the heads have {smallest} dimensions and kept is {kept!r}; keep a whole number from 1 to {smallest - 1}"
        )


def balance(left: torch.Tensor, right: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Best inner width `kept` of products AᵀB, from left = AAᵀ and right = BBᵀ, (H, d, d) each, positive semidefinite.

    Returns T_left and T_right (H, kept, d) and σ (H, d), the singular values of AᵀB: (T_left A)ᵀ(T_right B) is the
    nearest matrix of rank `kept` in the Frobenius norm, and both sides of it have the Gramian diag(σ[:kept]). With
    left^½ right^½ = U Σ Vᵀ, T_left = Σ^-½ Vᵀ right^½ and T_right = Σ^-½ Uᵀ left^½; null directions become zero rows.
    Source: Eckart & Young 1936; square-root balancing, Moore 1981.
    """
    left, right = _root(left), _root(right)
    u, sigma, vh = torch.linalg.svd(left @ right)
    noise = sigma.shape[-1] * torch.finfo(sigma.dtype).eps * sigma[:, :1]
    scale = torch.where(sigma > noise, sigma.rsqrt(), 0.0)[:, :kept, None]
    return scale * (vh[:, :kept] @ right), scale * (u.mT[:, :kept] @ left), sigma


def _root(gram: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()[:, None, :] @ vectors.mT


def _reduce_scores(attention: Attention, kept: int, stream: ResidualStream) -> torch.Tensor:
    """Leave `kept` non-zero rows per head in query and key, the heads as wide as before; returns σ (H, d).

    The values still have the old width here, and stock attention reads one head size.
    """
    to_query, to_key, sigma = balance(*_score_gramians(attention, stream), kept)
    padding = (0, 0, 0, attention.head_size - kept)
    _map_rows(attention.query, nn.functional.pad(to_query, padding))
    _map_rows(attention.key, nn.functional.pad(to_key, padding))
    if attention.key.bias is not None:
        with torch.no_grad():
            attention.key.bias.zero_()  # adds the same to all scores of a query
    return sigma


@torch.inference_mode()
def _score_gramians(attention: Attention, stream: ResidualStream) -> tuple[torch.Tensor, torch.Tensor]:
    """Second moments (H, d, d) of queries, and of keys around the mean key of their sequence."""
    heads, dim = attention.heads, attention.head_size
    queries, keys = torch.zeros(2, heads, dim, dim, dtype=torch.float64)
    for hidden, valid in zip(stream.hidden, stream.valid, strict=True):
        mask = valid[..., None].double()
        query = attention.query(hidden).double() * mask
        key = attention.key(hidden).double() * mask
        key = (key - key.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)) * mask
        for gram, tensor in ((queries, query), (keys, key)):
            columns = tensor.reshape(-1, heads, dim).transpose(0, 1)
            gram += columns.mT @ columns
    return queries, keys


def _reduce_values(
    attention: Attention, consumer: nn.Linear, kept: int, moments: Moments, ridge: float
) -> torch.Tensor:
    """Cut query, key, value and the consumer to `kept` dimensions per head and refit the consumer; returns σ (H, d)."""
    weights, dim = refit(moments, affine(consumer), ridge), attention.head_size
    columns = consumer.in_features
    by_head = weights[:, :-1].unflatten(1, (-1, dim)).transpose(0, 1)
    mean = moments.gram[:-1, -1] / moments.tokens
    spread = moments.gram[:-1, :-1] - moments.tokens * mean.outer(mean)
    diagonal = torch.arange(columns // dim)
    contexts = spread.unflatten(1, (-1, dim)).unflatten(0, (-1, dim))[diagonal, :, diagonal]
    to_consumer, to_value, sigma = balance(by_head.mT @ by_head, contexts, kept)
    # Orthonormal value maps leave the ridge of the refit as strong as it was before the cut.
    basis, factor = torch.linalg.qr(to_value.mT)
    up = torch.block_diag(*(factor @ to_consumer))
    down = torch.block_diag(*basis.mT)
    bias = weights[:, -1] + weights[:, :-1] @ (mean - up.T @ (down @ mean))
    start = torch.cat([weights[:, :-1] @ up.T, bias[:, None]], dim=1)
    _write(consumer, refit(_project(moments, down), start, ridge))
    _map_rows(attention.value, basis.mT)
    rows = torch.eye(kept, dim, dtype=torch.float64).expand(len(by_head), -1, -1)
    _map_rows(attention.query, rows)
    _map_rows(attention.key, rows)
    attention.set_head_size(kept)
    return sigma


def _project(moments: Moments, down: torch.Tensor) -> Moments:
    """Moments of the inputs `down` x, with down (columns after, columns before)."""
    down = torch.block_diag(down, torch.ones(1, 1, dtype=down.dtype))
    gram, cross = down @ moments.gram @ down.T, moments.cross @ down.T
    return Moments(gram, cross, moments.target_sum, moments.target_square, moments.tokens)


def _map_rows(linear: nn.Linear, maps: torch.Tensor) -> None:
    """Multiply head h's rows of weight and bias by maps[h], maps (H, rows after, rows before)."""
    rows = affine(linear).unflatten(0, (len(maps), -1))
    _write(linear, (maps @ rows).flatten(0, 1))


def _write(linear: nn.Linear, weights: torch.Tensor) -> None:
    """Give `linear` the tensors of [weight | bias], (out, in + 1), and their sizes."""
    for name, value in (("weight", weights[:, :-1]), ("bias", weights[:, -1])):
        old = getattr(linear, name)
        if old is not None:
            new = value.to(old.dtype, copy=True, memory_format=torch.contiguous_format)
            setattr(linear, name, nn.Parameter(new, requires_grad=old.requires_grad))
    linear.out_features, linear.in_features = linear.weight.shape


def _record(meta: TransformMeta, prefix: str, kind: str, sigma: torch.Tensor, kept: int) -> None:
    alive = torch.arange(sigma.shape[1]) < kept
    for head, values in enumerate(sigma.square()):
        lost = (values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)).masked_fill(alive, 0.0)
        name = f"{prefix}.{head}"
        meta.axes[name] = Alive(name, kind, alive.numpy().copy(), lost.numpy(), float(lost.sum()))
