"""A quantised copy of a model, block after block on what the blocks before it give now that they are rounded.

For every Linear: the channels of its input are evened out where that helps, the input gets the range with the least
error, the weight is rounded with compensation on the moments of the *rounded* input, and the bias takes up the mean of
what is left to what the unrounded model gives there.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from icd_lib.errors import TransformError
from icd_lib.models.adapter import Block
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import LARGEST, QuantizedLinear, replace_linear
from icd_lib.progress import DETAIL
from icd_lib.transforms.quantization.evening import Spread, even_factors
from icd_lib.transforms.quantization.options import ALPHA
from icd_lib.transforms.quantization.ranges import least_error_grid, row_steps
from icd_lib.transforms.quantization.rounding import round_compensated
from icd_lib.transforms.sparsity.obs import Moments, affine
from icd_lib.transforms.streams import ResidualStream

DAMPING = 0.01  # of the moments, relative to their mean diagonal, when weights are rounded


@dataclass(frozen=True)
class Recipe:
    """alpha: exponent of the factors that even out channels, None: they stay as they are.

    compensate: weights are rounded in view of the inputs' moments, else to the nearest point. left(axis, importance):
    bool (n,), columns of the axis's consumer that stay float, or None; importance: how far each channel sticks out.
    """

    alpha: float | None = ALPHA
    compensate: bool = True
    left: Callable[[str, np.ndarray], np.ndarray | None] = lambda axis, importance: None


@dataclass(frozen=True, eq=False)
class Rounded:
    """What was done to one Linear of the block of `axis`.

    error: squared error of its output on rounded inputs, relative to the output's energy; spread: of its input's
    channels; unrounded: bool (n,) or None.
    """

    axis: str
    error: float
    spread: Spread
    step: float
    zero: int
    unrounded: np.ndarray | None = None

    def to_json(self) -> dict:
        """What a run's file holds of it."""
        count = 0 if self.unrounded is None else int(self.unrounded.sum())
        told = {"axis": self.axis, "error": self.error, "step": self.step, "zero": self.zero}
        return told | {"unrounded_columns": count}


@torch.no_grad()
def quantize(
    model: nn.Module,
    batches: list[dict],
    recipe: Recipe,
    kept: Collection[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[nn.Module, dict[str, Rounded]]:
    """Copy of `model` whose blocks' Linears, but for those named in `kept`, are int8; what was done to each by name.

    Raises `TransformError` (nothing changed) where an input is not finite on the batches.
    """
    quantized = copy.deepcopy(model)
    work = _Pass(quantized, ResidualStream(find_adapter(quantized), batches), recipe, frozenset(kept))
    goal = ResidualStream(find_adapter(model), batches)
    for original, block in zip(find_adapter(model).blocks(), find_adapter(quantized).blocks(), strict=True):
        readers = readers_of(block, work.stream)
        if readers:
            work.round_readers(block.axis, readers, goal)
        sums = goal.sums(original, goal.inner(original))
        inner = work.stream.inner(block)
        block = work.round_consumer(block, inner, sums)
        work.stream.advance(block, work.stream.sums(block, inner))
        goal.advance(original, sums)
        names = (name for name, found in work.done.items() if found.axis == block.axis)
        progress(f"{DETAIL}{block.axis}: int8, relative errors {', '.join(f'{work.done[n].error:.5f}' for n in names)}")
    return quantized, work.done


@torch.inference_mode()
def readers_of(block: Block, stream: ResidualStream) -> list[nn.Linear]:
    """The Linears that read the stream itself inside the block, in the order they are called."""
    hidden, seen = stream.hidden[0], []
    inside = [part for part in _modules_of(block.inner) if isinstance(part, nn.Linear)]

    def note(module: nn.Module, args: tuple) -> None:
        if args[0] is hidden and module not in seen:
            seen.append(module)

    handles = [module.register_forward_pre_hook(note) for module in inside]
    try:
        block.inner(hidden, stream.contexts[0])
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _modules_of(inner: Callable) -> list[nn.Module]:
    """The modules that a block's `inner`, a partial or a module, runs."""
    held = [inner, *getattr(inner, "args", ())]
    return [part for module in held if isinstance(module, nn.Module) for part in module.modules()]


@dataclass(frozen=True, eq=False)
class _Pass:
    """One way through the model. `done`: what was rounded so far."""

    model: nn.Module
    stream: ResidualStream
    recipe: Recipe
    kept: frozenset[str]
    done: dict[str, Rounded] = field(default_factory=dict)

    def name_of(self, linear: nn.Module) -> str:
        return next(name for name, module in self.model.named_modules() if module is linear)

    def round_readers(self, axis: str, readers: list[nn.Linear], goal: ResidualStream) -> None:
        """Those that read one input share its factors and its grid, so that a runtime rounds it once."""
        chosen = [linear for linear in readers if self.name_of(linear) not in self.kept]
        if not chosen:
            return
        parts, weight = self.valid(self.stream.hidden, axis), torch.cat([item.weight.detach() for item in chosen])
        spread, columns = self.evened(parts, weight)
        grid = least_error_grid(_Evened(parts, columns), _divided(weight, columns).square().sum(0))
        for linear in chosen:
            made = QuantizedLinear.of(linear, row_steps(_divided(linear.weight.detach(), columns)), grid, columns)
            self.put(axis, linear, made, parts, [linear(hidden) for hidden in goal.hidden], spread)

    def round_consumer(self, block: Block, inner: list[torch.Tensor], sums: list[torch.Tensor]) -> Block:
        """The block with its consumer rounded, which follows `sums`, the unrounded model's."""
        linear = block.consumer
        if self.name_of(linear) in self.kept:
            return block
        parts, weight = self.valid(inner, block.axis), linear.weight.detach()
        spread, columns = self.evened(parts, weight)
        divided, far = _divided(weight, columns), _Evened(parts, columns).far()
        left = self.recipe.left(block.axis, far.numpy())
        inside = torch.ones(len(far), dtype=torch.bool) if left is None else ~torch.from_numpy(left)
        grid = least_error_grid(_Evened(parts, columns, inside), divided[:, inside].square().sum(0))
        if left is not None:
            columns = columns | {"unrounded": (~inside).to(weight.dtype)}
        made = QuantizedLinear.of(linear, row_steps(divided[:, inside]), grid, columns)
        targets = [total - hidden for total, hidden in zip(sums, self.stream.hidden, strict=True)]
        self.put(block.axis, linear, made, parts, targets, spread, left)
        return replace(block, consumer=made)

    def valid(self, inputs: list[torch.Tensor], axis: str) -> list[torch.Tensor]:
        """Valid tokens per batch, (tokens, n); `TransformError` where one is not finite."""
        parts = list(self.stream.flat(inputs))
        if not all(bool(part.isfinite().all()) for part in parts):
            raise TransformError(
                f"what block {axis!r} reads is not finite on the calibration text, so it has no range; take weights "
                "and inputs that are"
            )
        return parts

    def evened(self, parts: list[torch.Tensor], weight: torch.Tensor) -> tuple[Spread, dict[str, torch.Tensor]]:
        """How far an input's channels reach, and their shift and factors."""
        spread, alpha = Spread.of(parts), self.recipe.alpha
        if alpha is None:
            return spread, {}
        return spread, {"shift": spread.middle, "smooth": even_factors(spread, weight, alpha)}

    def put(
        self,
        axis: str,
        linear: nn.Linear,
        made: QuantizedLinear,
        parts: list[torch.Tensor],
        targets: list[torch.Tensor],
        spread: Spread,
        left: np.ndarray | None = None,
    ) -> None:
        """Fit `made`'s weight and bias, put it into the model and note it. targets: what it is to give, per batch."""
        moments = Moments.empty(linear.in_features, linear.out_features)
        for read, target in zip(parts, self.stream.flat(targets), strict=True):
            moments.update(made.rounded(read), target)
        current = affine(linear)
        fitted = current.clone()
        fitted[:, :-1] = made.weight.double()
        if self.recipe.compensate:
            fitted = _compensated(made, current, moments)
        mean = moments.gram[-1] / max(moments.tokens, 1)
        if linear.bias is not None:
            fitted[:, -1] = moments.target_sum / max(moments.tokens, 1) - fitted[:, :-1] @ mean[:-1]
        made.weight.data.copy_(fitted[:, :-1])
        if made.bias is not None:
            made.bias.data.copy_(fitted[:, -1])
        name = self.name_of(linear)
        replace_linear(self.model, name, made)
        error = _error(moments, fitted)
        self.done[name] = Rounded(axis, error, spread, float(made.step), int(made.zero), left)


@dataclass(frozen=True, eq=False)
class _Evened:
    """What is rounded of an input, part after part, as often as asked for: without a copy of all of it."""

    parts: list[torch.Tensor]
    columns: dict[str, torch.Tensor]
    inside: torch.Tensor | None = None

    def __iter__(self) -> Iterator[torch.Tensor]:
        for part in self.parts:
            found = (part - self.columns["shift"]) * self.columns["smooth"] if "smooth" in self.columns else part
            yield found if self.inside is None else found[:, self.inside]

    def far(self) -> torch.Tensor:
        """Largest absolute value of every channel, (n,)."""
        return torch.stack([part.abs().amax(0) for part in self]).amax(0)


def _divided(weight: torch.Tensor, columns: dict) -> torch.Tensor:
    """The weight (out, n) for an input whose channels are evened out."""
    return weight / columns["smooth"] if "smooth" in columns else weight


def _compensated(made: QuantizedLinear, current: torch.Tensor, moments: Moments) -> torch.Tensor:
    """[weight | bias] (out, n + 1) of which the weight lies on the grid of `made`."""
    scale, free = made.row_scale.double(), torch.zeros(made.in_features + 1, dtype=torch.bool)
    factors = torch.ones(made.in_features, dtype=torch.float64) if made.smooth is None else made.smooth.double()
    free[-1] = True
    if made.unrounded is not None:
        free[:-1] = made.unrounded > 0

    def nearest(values: torch.Tensor, column: int) -> torch.Tensor:
        step = scale * factors[column]
        return (values / step).round().clamp(-LARGEST, LARGEST) * step

    return round_compensated(current, moments.damped(DAMPING), free, nearest)


def _error(moments: Moments, fitted: torch.Tensor) -> float:
    """‖T − X̂ Vᵀ‖² / ‖T − mean‖²."""
    lost = moments.target_square - 2 * (moments.cross * fitted).sum() + ((fitted @ moments.gram) * fitted).sum()
    return float(lost) / max(moments.energy, 1e-12)
