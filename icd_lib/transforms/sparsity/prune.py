"""S: structured sparsity by optimal brain surgeon, block after block on the stream of the already pruned network.

For every block: least squares to the *dense* residual stream with a ridge toward the current weights, then greedy
elimination at the plan's granularity, then the closed-form optimum on what is left. Dead elements become exact zeros;
`icd.compact` removes them physically afterwards.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis, slot_index, slot_tensor
from icd_lib.errors import TransformError
from icd_lib.models.adapter import Adapter, Block, Terms
from icd_lib.models.families import find_adapter
from icd_lib.models.grouped import GroupedLinear
from icd_lib.models.quantized import QuantizedLinear
from icd_lib.progress import DETAIL
from icd_lib.transforms.effects import Alive, TransformMeta, untouched
from icd_lib.transforms.sparsity.allocate import PrunePlan
from icd_lib.transforms.sparsity.obs import Elimination, Moments, affine, eliminate, refit, restrict, term_moments
from icd_lib.transforms.streams import Goals, ResidualStream

TERM_TOKENS = 8192


def prune(
    model: nn.Module,
    target: nn.Module,
    plan: PrunePlan,
    batches: list[dict],
    *,
    tile: dict[str, int],
    ridge: float = 0.01,
    compensate: bool = True,
    goals: Goals | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[nn.Module, TransformMeta]:
    """Masked copy of `model` that follows `target`'s residual stream, and what happened to each axis.

    plan.kept: elements to keep per axis; tile: elements removed together, per axis kind (1 = single elements).
    `compensate=False` keeps the surviving weights as they were (for attribution only). `goals` of this target on these
    batches can be handed from one call to the next.
    Raises `TransformError` (nothing changed) when the plan does not fit the model.
    """
    pruned = copy.deepcopy(model)
    adapter = find_adapter(pruned)
    axes = {axis.name: axis for axis in adapter.axes()}
    check_plan(plan, axes, tile)
    goals, stream = goals or Goals(find_adapter(target), batches), ResidualStream(adapter, batches)
    meta = TransformMeta("sparsity", max(tile.values()), notes={"ridge": ridge, "compensate": compensate})
    for goal_sums, block in zip(goals, adapter.blocks(), strict=True):
        for terms in block.terms:
            if plan.kept.get(terms.axis, terms.elements) == terms.elements:
                meta.axes[terms.axis] = untouched(terms.axis, terms.kind, terms.elements)
                continue
            meta.axes[terms.axis] = _prune_terms(terms, plan, ridge, compensate, collect_terms(stream, terms))
            zero_elements(pruned, axes[terms.axis], ~torch.from_numpy(meta.axes[terms.axis].alive))
        inner = stream.inner(block)
        state = _prune_block(block, plan, tile, ridge, compensate, collect(stream, block, inner, goal_sums))
        if block.readers and not state.alive.all():
            inner = _follow_readers(pruned, axes[block.axis], block, state, ridge, compensate, stream, goal_sums)
        zero_elements(pruned, axes[block.axis], ~torch.from_numpy(state.alive))
        meta.axes[block.axis] = state
        stream.advance(block, stream.sums(block, inner))
        progress(f"{DETAIL}{block.axis}: kept {state.kept} of {len(state.alive)}, relative error {state.loss:.4f}")
    return pruned, meta


def prune_closed_form(
    model: nn.Module,
    plan: PrunePlan,
    moments: dict[str, Moments],
    paths: dict[str, Elimination],
    *,
    tile: dict[str, int],
    ridge: float,
    orders: dict[str, np.ndarray] | None = None,
) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """Masked copy of the dense `model` and what is alive per axis, bool (D,): every block imitates itself, alone.

    A draft of `prune` from moments alone: later blocks do not make up for earlier ones. `paths` say in which order
    groups of `tile[kind]` elements go, counted in the layout `orders[axis]` (default: as the model has them).
    """
    pruned, orders, alive = copy.deepcopy(model), orders or {}, {}
    adapter = find_adapter(pruned)
    axes = {axis.name: axis for axis in adapter.axes()}
    check_plan(plan, axes, tile)
    for block in adapter.blocks():
        kept = plan.kept.get(block.axis, block.elements)
        granule = tile[block.kind] if kept < block.elements else 1
        mask = np.ones(block.elements, dtype=bool)
        if kept < block.elements:
            inside = paths[block.axis].alive(block.elements // granule, kept // granule).repeat_interleave(granule)
            mask[orders.get(block.axis, np.arange(block.elements))] = inside.numpy()
            columns = torch.from_numpy(mask).repeat_interleave(block.unit).nonzero()[:, 0]
            _write(block.consumer, columns, restrict(moments[block.axis].damped(ridge), block.weights(), columns))
            zero_elements(pruned, axes[block.axis], ~torch.from_numpy(mask))
        alive[block.axis] = mask
    return pruned, alive


def collect(stream: ResidualStream, block: Block, inner: list[torch.Tensor], goal_sums: list[torch.Tensor]) -> Moments:
    """Moments of the consumer's input and of what it must add to the present stream to reach the goal."""
    residuals = [goal - hidden for goal, hidden in zip(goal_sums, stream.hidden, strict=True)]
    return _moments(stream, inner, residuals, block.consumer.bias is not None)


@torch.inference_mode()
def collect_terms(stream: ResidualStream, terms: Terms) -> Moments:
    """Moments of the terms' outputs: how much each adds to the stream, and how much of that others could add.

    Every term is one scan and one product over all tokens, for a matrix of a few hundred numbers: about `TERM_TOKENS`
    tokens, of batches that lie evenly over the calibration, tell it.
    """
    moments = Moments.empty(terms.elements, 1, bias=False)
    sizes = [int(valid.sum()) for valid in stream.valid]
    every = max(1, round(sum(sizes) / TERM_TOKENS))
    for index in range(0, len(sizes), every):
        hidden, context, valid = stream.hidden[index], stream.contexts[index], stream.valid[index]
        moments.add(term_moments((part[valid] for part in terms.parts(hidden, context)), terms.consumer.weight))
    return moments


def _prune_terms(terms: Terms, plan: PrunePlan, ridge: float, compensate: bool, moments: Moments) -> Alive:
    """Remove whole terms, cheapest first; factors on the others make up for them as well as they can."""
    kept, gram = plan.kept[terms.axis], moments.damped(ridge)
    elimination = eliminate(gram, terms.weights(), 1, terms.elements - kept)
    alive = elimination.alive(terms.elements, kept)
    factors = torch.zeros(terms.elements, dtype=torch.float64)
    columns = alive.nonzero()[:, 0]
    factors[columns] = restrict(gram, terms.weights(), columns)[0, :-1] if compensate else 1.0
    terms.scale(factors)
    saliency = torch.zeros(terms.elements, dtype=torch.float64)
    saliency[elimination.order] = torch.tensor(elimination.loss, dtype=torch.float64).diff()
    loss = elimination.loss[-1] / max(moments.energy, 1e-12)
    return Alive(terms.axis, terms.kind, alive.numpy(), saliency.numpy(), loss)


@torch.inference_mode()
def _moments(stream: ResidualStream, inner: list[torch.Tensor], targets: list[torch.Tensor], bias: bool) -> Moments:
    moments = Moments.empty(inner[0].shape[-1], targets[0].shape[-1], bias, inner[0].device)
    for x, y in zip(stream.flat(inner), stream.flat(targets), strict=True):
        moments.update(x, y)
    return moments.on_cpu()


def _follow_readers(
    model: nn.Module,
    axis: Axis,
    block: Block,
    state: Alive,
    ridge: float,
    compensate: bool,
    stream: ResidualStream,
    goal_sums: list[torch.Tensor],
) -> list[torch.Tensor]:
    """Let the block's other readers do without the dead elements, refit the consumer on what it then gets, return that.

    A reader keeps its own outputs as well as it can: least squares on its alive columns.
    """
    alive = torch.from_numpy(state.alive)
    columns = alive.repeat_interleave(block.unit).nonzero()[:, 0]
    for reader in block.readers if compensate else ():
        inputs = [reader.inputs(h, context) for h, context in zip(stream.hidden, stream.contexts, strict=True)]
        outputs = [torch.nn.functional.linear(x, reader.linear.weight) for x in inputs]
        gram = _moments(stream, inputs, outputs, reader.linear.bias is not None).damped(ridge)
        _write(reader.linear, columns, restrict(gram, affine(reader.linear), columns))
    current = affine(block.consumer)
    zero_elements(model, axis, ~alive)
    inner = stream.inner(block)
    if compensate:
        kept = torch.cat([columns, torch.tensor([-1])])
        moments = collect(stream, block, inner, goal_sums).at(columns)
        _write(block.consumer, columns, refit(moments, current[:, kept], ridge))
    return inner


def _prune_block(
    block: Block, plan: PrunePlan, tile: dict[str, int], ridge: float, compensate: bool, moments: Moments
) -> Alive:
    elements = block.elements
    kept = plan.kept.get(block.axis, elements)
    granule = tile[block.kind] if kept < elements else 1
    current = affine(block.consumer)
    weights = refit(moments, current, ridge) if compensate else current
    gram = moments.damped(ridge)
    elimination = eliminate(gram, weights, block.unit * granule, (elements - kept) // granule)
    alive = elimination.alive(elements // granule, kept // granule).repeat_interleave(granule)
    columns = alive.repeat_interleave(block.unit).nonzero()[:, 0]
    chosen = restrict(gram, weights, columns) if compensate else current[:, torch.cat([columns, torch.tensor([-1])])]
    _write(block.consumer, columns, chosen)
    saliency = torch.zeros(elements // granule, dtype=torch.float64)
    saliency[elimination.order] = torch.tensor(elimination.loss, dtype=torch.float64).diff()
    loss = elimination.loss[-1] / max(moments.energy, 1e-12)
    return Alive(block.axis, block.kind, alive.numpy(), saliency.repeat_interleave(granule).numpy(), loss)


def _write(consumer: nn.Linear, columns: torch.Tensor, weights: torch.Tensor) -> None:
    with torch.no_grad():
        consumer.weight.zero_()
        consumer.weight[:, columns.to(consumer.weight.device)] = weights[:, :-1].to(consumer.weight)
        if isinstance(consumer, QuantizedLinear | GroupedLinear):
            consumer.weight.copy_(consumer.on_grid(consumer.weight))
        if consumer.bias is not None:
            consumer.bias.copy_(weights[:, -1])


def zero_elements(model: nn.Module, axis: Axis, dead: torch.Tensor) -> None:
    """Set every weight of the dead elements (bool (D,)) to exactly zero."""
    elements = dead.nonzero()[:, 0]
    for slot in axis.slots:
        with torch.no_grad():
            tensor = slot_tensor(model, slot)
            tensor.index_fill_(slot.dim, slot_index(slot, axis.size, elements).to(tensor.device), 0.0)


def check_plan(plan: PrunePlan, axes: dict[str, Axis], tile: dict[str, int]) -> None:
    """Raise `TransformError` unless the plan names real axes and keeps whole tiles of them."""
    for name, kept in plan.kept.items():
        if name not in axes:
            raise TransformError(f"the plan names axis {name!r}, which the model does not have; see icd.find_axes")
        size, granule = axes[name].size, tile[axes[name].kind]
        if not 1 <= kept <= size:
            raise TransformError(f"axis {name!r} has {size} elements; the plan keeps {kept}; keep between 1 and {size}")
        if kept < size and (kept % granule or size % granule):
            raise TransformError(
                f"axis {name!r} ({size} elements) is pruned in tiles of {granule}; {kept} is no whole number of them"
            )


def consumer_moments(adapter: Adapter, batches: list[dict]) -> dict[str, Moments]:
    """Moments of every block of an unpruned model over the batches, in one pass."""
    stream, moments = ResidualStream(adapter, batches), {}
    for block in adapter.blocks():
        inner = stream.inner(block)
        sums = stream.sums(block, inner)
        for terms in block.terms:
            moments[terms.axis] = collect_terms(stream, terms)
        moments[block.axis] = collect(stream, block, inner, sums)
        stream.advance(block, sums)
    return moments
