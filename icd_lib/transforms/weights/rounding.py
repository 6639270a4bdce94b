"""A copy of a model whose Linears lie on grids in groups, block after block on what the blocks before give by then."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from icd_lib.errors import TransformError
from icd_lib.models.adapter import Block
from icd_lib.models.families import find_adapter
from icd_lib.models.grouped import GroupedLinear, GroupGrid, grid_of, hold
from icd_lib.models.quantized import replace_linear
from icd_lib.progress import DETAIL
from icd_lib.transforms.streams import ResidualStream
from icd_lib.transforms.weights.gptq import relative_error, round_in_groups
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.orders import Columns, order_of
from icd_lib.transforms.weights.readings import inputs_of, readings

EMBEDDING = Spec(8, None, symmetric=True, searched=False)  # a scale for every token
RIDGE = 0.03  # toward the weight as it is, relative to the mean diagonal, where the dense stream is followed


@dataclass(frozen=True)
class Recipe:
    """How weights are rounded.

    spec_of(name): what a matrix is rounded to, None: it stays float
    order: one of `ORDERS`; folded: an order that the model's axes can take, else one of each matrix alone
    shared: activity of axes that several matrices read at different places (`shared_activity`); a folded order follows
    it there
    compensate: GPTQ, else each weight to its nearest point
    follow: the rounded model's inputs differ from the dense model's by now, and each weight is fitted to the dense
    outputs first
    compared: axes of blocks whose matrices are tried in other orders too, for the record
    """

    spec_of: Callable[[str], Spec | None] = lambda name: Spec()
    order: str = "descending"
    folded: bool = True
    shared: Mapping[str, np.ndarray] = field(default_factory=dict)
    compensate: bool = True
    follow: bool = False
    compared: frozenset[str] = frozenset()
    seed: int = 0


@dataclass(frozen=True)
class Held:
    """What was done to one matrix of the block of `axis`.

    error: squared error of its output on the rounded model's inputs, relative to the output's energy; orders: that of
    other orders and of rounding to nearest points, where they were tried.
    """

    axis: str
    bits: int
    group: int
    error: float
    bytes: int
    weights: int
    orders: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class RoundedModel:
    """The copy, in the order of the model it is of; what was done to each matrix; what its axes' orders are.

    perms: axis → gather under which the groups are contiguous; activity: axis → (D,), what it was chosen by.
    """

    model: nn.Module
    done: dict[str, Held] = field(default_factory=dict)
    perms: dict[str, np.ndarray] = field(default_factory=dict)
    activity: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def bits_per_weight(self) -> float:
        """Of the rounded matrices, scales and zeros counted."""
        return 8 * sum(item.bytes for item in self.done.values()) / sum(item.weights for item in self.done.values())


@torch.no_grad()
def round_weights(
    model: nn.Module, batches: list[dict], recipe: Recipe, progress: Callable[[str], None] = lambda line: None
) -> RoundedModel:
    """Copy of `model` whose blocks' Linears lie on grids; embeddings and heads are left as they are.

    Raises `TransformError` (nothing changed) where an input is not finite, or a group does not divide the columns.
    """
    rounded = copy.deepcopy(model)
    stream = ResidualStream(find_adapter(rounded), batches)
    row = ResidualStream.of_one_row(find_adapter(rounded), batches)
    goal = ResidualStream(find_adapter(model), batches) if recipe.follow else None
    names = {module: name for name, module in rounded.named_modules()}
    columns, generator = Columns.in_model(find_adapter(rounded).axes()), np.random.default_rng(recipe.seed)
    work = _Pass(RoundedModel(rounded), recipe, columns, names, generator)
    for original, block in zip(find_adapter(model).blocks(), find_adapter(rounded).blocks(), strict=True):
        for stage, linears in enumerate(readings(block, row)):
            dense = readings(original, goal)[stage][0] if goal else None
            moments = gather_moments(
                inputs_of(linears[0], block, stream), inputs_of(dense, original, goal) if dense and goal else None
            )
            work.put(block.axis, linears, moments)
        inner = stream.inner(block)
        wanted = goal.inner(original) if goal else None
        work.put(
            block.axis,
            [block.consumer],
            gather_moments(stream.flat(inner), goal.flat(wanted) if goal and wanted else None),
        )
        now = replace(block, consumer=rounded.get_submodule(work.names[block.consumer]))
        stream.advance(now, stream.sums(now, inner))
        row.run(now)
        if goal and wanted:
            goal.advance(original, goal.sums(original, wanted))
        work.tell(block, progress)
    return work.found


@dataclass(frozen=True, eq=False)
class Moments:
    """gram = X̂ᵀX̂ of what a rounded model reads; cross = XᵀX̂ with what the dense one reads there, or None."""

    gram: torch.Tensor
    cross: torch.Tensor | None = None

    def fitted(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with which X̂ gives what X gives with `weight` (out, in), with a ridge toward it."""
        if self.cross is None:
            return weight
        ridge = RIDGE * self.gram.diagonal().mean() * torch.eye(len(self.gram), dtype=torch.float64)
        return torch.linalg.solve(self.gram + ridge, (weight @ (self.cross + ridge)).T).T


def gather_moments(parts: Iterable[torch.Tensor], wanted: Iterable[torch.Tensor] | None = None) -> Moments:
    """Of (tokens, n) parts, and of what a dense model has in their place; summed in float64."""
    gram, cross = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    others = iter(wanted) if wanted is not None else None
    for part in parts:
        gram = gram + (part.T @ part).double()
        if others is not None:
            cross = cross + (next(others).T @ part).double()
    return Moments(gram, None if others is None else cross)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One way through the model."""

    found: RoundedModel
    recipe: Recipe
    columns: Columns
    names: dict[nn.Module, str]
    generator: np.random.Generator

    def put(self, axis: str, linears: list[nn.Linear], moments: Moments) -> None:
        """Round Linears that read one input, in one order, and put them into the model."""
        specs = {linear: self.recipe.spec_of(self.names[linear]) for linear in linears}
        if not any(specs.values()):
            return
        name, diagonal = self.names[linears[0]], moments.gram.diagonal()
        if not bool(diagonal.isfinite().all()):
            raise TransformError(
                f"what {name!r} reads is not finite on the calibration text, so that it has no second moments; take "
                "weights and inputs that are"
            )
        order = self.order(name, diagonal)
        for spec in dict.fromkeys(filter(None, specs.values())):
            self.round_rows(axis, [linear for linear in linears if specs[linear] == spec], spec, moments, order)

    def order(self, name: str, diagonal: torch.Tensor) -> torch.Tensor:
        """The order of the columns of a matrix; a folded one is noted as that of its axes."""
        recipe, found = self.recipe, self.found
        if not recipe.folded:
            return torch.from_numpy(order_of(recipe.order, diagonal.numpy(), self.generator))
        for axis, activity in self.columns.evidence(name, diagonal).items():
            if axis not in found.perms:
                found.activity[axis] = recipe.shared.get(axis, activity)
                found.perms[axis] = order_of(recipe.order, found.activity[axis], self.generator)
        return self.columns.order(name, len(diagonal), found.perms)

    def round_rows(
        self, axis: str, linears: list[nn.Linear], spec: Spec, moments: Moments, order: torch.Tensor
    ) -> None:
        """Linears of one spec: no row of a matrix touches another, so all are rounded as one."""
        names = [self.names[linear] for linear in linears]
        weights = [linear.weight.detach().double() for linear in linears]
        whole, gram = torch.cat(weights), moments.gram if self.recipe.compensate else None
        wanted = moments.fitted(whole) if self.recipe.compensate else whole
        result = round_in_groups(wanted, gram, spec, order, names[0])
        sizes = [len(weight) for weight in weights]
        parts = [part.split(sizes) for part in (result.values, result.grid.scale, result.grid.zero)]
        for name, linear, weight, values, scale, zero in zip(names, linears, weights, *parts, strict=True):
            grid = GroupGrid(spec.bits, scale.clone(), zero.clone(), result.grid.group.clone())
            made = GroupedLinear.of(linear, grid, grid.codes_of(values))
            replace_linear(self.found.model, name, made)
            self.found.done[name] = Held(
                axis,
                spec.bits,
                spec.group or linear.in_features,
                relative_error(weight, made.weight, moments.gram),
                replace(grid, group=torch.sort(grid.group).values).packed_bytes,
                weight.numel(),
                self.other_orders(weight, spec, moments.gram) if axis in self.recipe.compared else {},
            )

    def other_orders(self, weight: torch.Tensor, spec: Spec, gram: torch.Tensor) -> dict[str, float]:
        """Errors of a matrix rounded to nearest points, and in orders that no axis has to take."""
        tried = {"nearest": round_in_groups(weight, None, spec)}
        for name in ("stored", "random", "descending"):
            order = order_of(name, gram.diagonal().numpy(), np.random.default_rng(self.recipe.seed))
            tried[name] = round_in_groups(weight, gram, spec, torch.from_numpy(order))
        return {name: relative_error(weight, found.values, gram) for name, found in tried.items()}

    def tell(self, block: Block, progress: Callable[[str], None]) -> None:
        done = [item for item in self.found.done.values() if item.axis == block.axis]
        if done:
            shown = ", ".join(f"{item.bits} bits {item.error:.5f}" for item in done)
            progress(f"{DETAIL}{block.axis}: relative errors {shown}")


@torch.no_grad()
def round_embeddings(model: nn.Module, spec: Spec = EMBEDDING) -> list[str]:
    """Put the token embeddings and a head of their own on grids, in place, to the nearest points; the names of both.

    A head that is tied to the embeddings multiplies with their weight, and needs no grid of its own. Rows that are no
    multiple of the groups get one scale.
    """
    names, done = {module: name for name, module in model.named_modules()}, []
    for module in _ends(model):
        if any(module.weight is model.get_submodule(name).weight for name in done):
            continue
        divides = spec.group is not None and module.weight.shape[1] % spec.group == 0
        fitting = replace(spec, group=spec.group if divides else None, ragged=False)
        result = round_in_groups(module.weight.detach(), None, fitting, name=names[module])
        grid = GroupGrid(spec.bits, result.grid.scale, result.grid.zero, result.grid.group)
        done.append(names[module])
        if type(module) is nn.Linear:
            replace_linear(model, names[module], GroupedLinear.of(module, grid))
            continue
        hold(module, grid)  # an embedding of whatever class, or rows that a token map leads to
        held = grid_of(module)
        module.weight.copy_(held.weight_of(held.codes_of(result.values.to(module.weight.dtype))))
    return done


def _ends(model: nn.Module) -> list[nn.Module]:
    """The embeddings of a model's inputs and outputs, those that it has."""
    found = []
    for name in ("get_input_embeddings", "get_output_embeddings"):
        with contextlib.suppress(AttributeError, NotImplementedError):  # a bare decoder has no head
            found.append(getattr(model, name)())
    return [module for module in found if module is not None]
