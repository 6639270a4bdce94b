"""Linears that runtimes compute in int8: a weight on a grid, an input that is rounded, and how a model holds them.

The tensors lie in the model like any others, so that what permutes, removes, saves or exports a model finds them. A
graph exporter sees QuantizeLinear and DequantizeLinear around the product, which runtimes make one int8 kernel of.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn
from torch.nn.functional import linear

from icd_lib.axes.axis import Axis, Slot
from icd_lib.errors import TransformError
from icd_lib.models.grouped import GROUPS, let_go
from icd_lib.models.holding import Holding, Tensors, fixed

LEVELS = 255  # of an input, uint8
LARGEST = 127  # of a weight, int8; −128 is left out, so that the grid is symmetric
LARGEST_FP8 = 448.0  # of float8_e4m3fn
INT8, FP8 = "int8", "fp8"
_SMALLEST = torch.finfo(torch.float32).tiny
COLUMNS = ("shift", "smooth", "unrounded")
MARK = ".row_scale"  # what names a quantised Linear in a file
_LEFT = "unrounded_weight"


class QuantizedLinear(nn.Linear):
    """y = W x̂ + b with x̂ = q((x − shift) · smooth) / smooth + shift and W / smooth on a grid of each row.

    codes: "int8", or "fp8": then W alone is on a grid, of float8_e4m3 numbers, and the input is not rounded.
    row_scale (out,): one step of a row's grid; step, zero: q(x) = step · (clamp(round(x/step) + zero, 0, 255) − zero).
    shift, smooth (in,): what centres and evens out the input's channels, or None. unrounded (in,): 1 where a column and
    its input stay as they are, or None. Zeros in row_scale and smooth stand for rows and columns that are not there.

    `weight` is what x is multiplied by, whatever the grid: without rounding this is the Linear that it says it is. No
    tensor but it and the bias has a gradient.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, codes: str = INT8, **where):
        super().__init__(in_features, out_features, bias, **where)
        self.codes = codes
        self.row_scale = fixed(torch.ones(out_features, **where))
        if codes == INT8:
            self.step, self.zero = fixed(torch.ones((), **where)), fixed(torch.zeros((), **where))
        for name in COLUMNS:
            self.register_parameter(name, None)

    @classmethod
    def of(
        cls,
        original: nn.Linear,
        row_scale: torch.Tensor,
        grid: tuple[float, int] | None = None,
        columns: Mapping[str, torch.Tensor | None] = MappingProxyType({}),
    ) -> "QuantizedLinear":
        """`original` with its weight at the nearest point of the grid.

        grid: step and zero of the input, None for fp8; columns: those of `COLUMNS` that there are (shift and smooth
        together).
        """
        weight, bias = original.weight.detach(), original.bias
        made = cls(
            original.in_features,
            original.out_features,
            bias is not None,
            FP8 if grid is None else INT8,
            device=weight.device,
            dtype=weight.dtype,
        )
        made.row_scale.data.copy_(row_scale)
        if grid is not None:
            made.step.data.fill_(grid[0])
            made.zero.data.fill_(grid[1])
        for name, values in columns.items():
            setattr(made, name, None if values is None else fixed(values.detach().to(weight.dtype).clone()))
        made.weight.data.copy_(made.on_grid(weight))
        if bias is not None:
            made.bias.data.copy_(bias.detach())
        return made.train(original.training).requires_grad_(False)

    def on_grid(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest weight (out, in) that this Linear can hold."""
        found = weight_of(self.codes_of(weight), self.row_scale, self.smooth)
        return found if self.unrounded is None else torch.where(self.unrounded > 0, weight, found)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """x̂ (..., in)."""
        if self.codes == FP8:
            return x
        found = self._quantised(self.evened(x))
        if self.smooth is not None:
            found = found * _inverse(self.smooth) + self.shift
        return found if self.unrounded is None else torch.where(self.unrounded > 0, x, found)

    def evened(self, x: torch.Tensor) -> torch.Tensor:
        """What is rounded of an input (..., in)."""
        return x if self.smooth is None else x * self.smooth - self.shift * self.smooth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.codes == INT8 and torch.onnx.is_in_onnx_export():
            return self._traced(x)
        return linear(self.rounded(x), self.weight, self.bias)

    @property
    def saved_bytes(self) -> int:
        """How many bytes fewer than the tensor `weight` its codes take: columns that are not rounded save none."""
        columns = self.in_features - (0 if self.unrounded is None else int((self.unrounded > 0).sum()))
        return columns * self.out_features * (self.weight.element_size() - 1)

    def extra_repr(self) -> str:
        held = [name for name in COLUMNS if getattr(self, name) is not None]
        return ", ".join([super().extra_repr(), f"codes={self.codes}", *held])

    def _traced(self, x: torch.Tensor) -> torch.Tensor:
        """The same, written as the operators that runtimes look for; what stays float is a product of its own."""
        grid, bias, evened = self.weight, self.bias, self.evened(x)
        left = None if self.unrounded is None else self.unrounded > 0
        if left is not None and not left.any():  # all that stayed float were removed
            left = None
        if self.smooth is not None:
            grid = self.weight * _inverse(self.smooth)
            inside = self.shift if left is None else self.shift * ~left
            moved = self.weight @ inside
            bias = moved if bias is None else bias + moved
        if left is None:
            product = self._product(evened, grid)
        elif left.all():
            product = x @ self.weight.t()
        else:
            inside, outside = _columns(~left), _columns(left)
            product = (
                self._product(evened[..., inside], grid[:, inside]) + x[..., outside] @ self.weight[:, outside].t()
            )
        return product if bias is None else product + bias

    def _product(self, evened: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        scale = self.row_scale.clamp_min(_SMALLEST)
        zeros = torch.zeros(self.out_features, dtype=torch.int32, device=grid.device)
        # The weight is transposed before it is rounded: behind its DequantizeLinear runtimes expect the product itself.
        weight = torch.fake_quantize_per_channel_affine(grid.t(), scale, zeros, 1, -LARGEST - 1, LARGEST)
        return self._quantised(evened) @ weight

    def _quantised(self, evened: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(evened, float(self.step), int(self.zero), 0, LEVELS)

    def codes_of(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest points of the grid, int8 or float8_e4m3 (out, in)."""
        smaller = weight if self.smooth is None else weight * _inverse(self.smooth)
        smaller = smaller / self.row_scale.clamp_min(_SMALLEST)[:, None]
        if self.codes == FP8:
            return smaller.clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn)
        return smaller.round().clamp(-LARGEST, LARGEST).to(torch.int8)


def weight_of(codes: torch.Tensor, row_scale: torch.Tensor, smooth: torch.Tensor | None) -> torch.Tensor:
    """What the points `codes` (out, in) of a grid stand for."""
    weight = codes.to(row_scale.dtype) * row_scale[:, None]
    return weight if smooth is None else weight * smooth


def _inverse(smooth: torch.Tensor) -> torch.Tensor:
    """1 / smooth, 0 where that is 0."""
    return torch.where(smooth > 0, 1 / smooth.clamp_min(_SMALLEST), torch.zeros_like(smooth))


def _columns(mask: torch.Tensor) -> slice | torch.Tensor:
    """Where a bool (n,) is true: a slice where that is one stretch, which costs a runtime nothing, else indices."""
    places = mask.nonzero()[:, 0]
    first, last = int(places[0]), int(places[-1]) + 1
    return slice(first, last) if last - first == len(places) else places


def quantized_linears(model: nn.Module) -> dict[str, QuantizedLinear]:
    """Every quantised Linear of a model by its name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}


def has_eight_bits(model: nn.Module) -> bool:
    """Whether a model holds `QuantizedLinear`s. One in groups alone does not: it computes as a float model does."""
    return bool(quantized_linears(model))


def is_quantized(model: nn.Module) -> bool:
    """Whether a model holds weights on a grid, of eight bits or in groups."""
    return bool(held_by(model))


def held_by(model: nn.Module) -> dict[str, tuple[nn.Module, Holding]]:
    """Every module on a grid by its name, and how its sort is held."""
    modules = dict(model.named_modules())
    return {name: (module, sort) for name, module in modules.items() for sort in HOLDINGS if sort.holds(module)}


def as_float(model: nn.Module) -> nn.Module:
    """Copy whose Linears and embeddings are plain ones with the same weights: what it is where nothing is rounded."""
    made = copy.deepcopy(model)
    for name, (held, _) in held_by(made).items():
        if isinstance(held, nn.Linear):
            plain = nn.Linear(held.in_features, held.out_features, held.bias is not None, dtype=held.weight.dtype)
            plain.weight.data.copy_(held.weight)
            if held.bias is not None:
                plain.bias.data.copy_(held.bias)
            replace_linear(made, name, plain.train(held.training))
        else:  # an embedding, whose weight a head may be tied to
            let_go(held)
    return made


def replace_linear(model: nn.Module, name: str, by: nn.Module) -> None:
    """Put a module in the place of another, in place."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, by)


def with_scales(model: nn.Module, axes: list[Axis]) -> list[Axis]:
    """The axes with what a module on a grid keeps for its rows and columns, which go where those go."""
    held = held_by(model)
    return [replace(axis, slots=axis.slots + _followers(held, axis)) for axis in axes] if held else axes


def check_scales(model: nn.Module, axes: list[Axis]) -> None:
    """Raise `TransformError` for an axis that would leave scales of a module on a grid where they are.

    No certificate finds that: without rounding, on which those are checked, scales have no effect.
    """
    held = held_by(model)
    for axis in axes:
        left = set(_followers(held, axis)) - set(axis.slots)
        if left:
            name = min(slot.parameter for slot in left)
            raise TransformError(
                f"axis {axis.name!r} of {type(model).__name__} does not take {name!r} along; its adapter's axes() has "
                "to end with icd_lib.models.quantized.with_scales"
            )


def _followers(held: dict[str, tuple[nn.Module, Holding]], axis: Axis) -> tuple[Slot, ...]:
    found = []
    for slot in axis.slots:
        owner, _, leaf = slot.parameter.rpartition(".")
        if leaf == "weight" and owner in held:
            module, sort = held[owner]
            names = sort.rows if slot.dim == 0 else sort.columns
            kept = [name for name in names if getattr(module, name) is not None]
            found += [replace(slot, parameter=f"{owner}.{name}", dim=0) for name in kept]
    return tuple(found)


def quantized_like(dense: nn.Module, quantized: nn.Module) -> nn.Module:
    """Copy of `dense` whose modules are of the kind that those of `quantized` are, at the shapes of `dense`."""
    made = copy.deepcopy(dense)
    for name, (module, sort) in held_by(quantized).items():
        replace_linear(made, name, sort.like(made.get_submodule(name), module))
    return made


def pack(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state_dict of `model` whose weights on grids are codes, and columns that are not, beside them."""
    packed = dict(state)
    for name, (module, sort) in held_by(model).items():
        for leaf, tensor in sort.packed(module).items():
            if tensor is None:
                packed.pop(f"{name}.{leaf}", None)
            else:
                packed[f"{name}.{leaf}"] = tensor
    return packed


def unpack(model: nn.Module, packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `pack` for a model to which `install_quantized` gave its modules on grids."""
    state = dict(packed)
    for name, (module, sort) in held_by(model).items():
        tensors = _leaves(state, name)
        for leaf in tensors:
            del state[f"{name}.{leaf}"]
        rest = {leaf: tensor for leaf, tensor in tensors.items() if leaf in module.state_dict()}
        state |= {f"{name}.{leaf}": tensor for leaf, tensor in (rest | sort.unpacked(module, tensors)).items()}
    return state


def install_quantized(model: nn.Module, shapes: Mapping[str, list[int]]) -> None:
    """Put modules on grids, still empty, where the tensors of a file (name → shape) say that there are some, in place.

    Raises `AttributeError` for a module that the model does not have.
    """
    for sort in HOLDINGS:
        for name in [key.removesuffix(sort.mark) for key in shapes if key.endswith(sort.mark)]:
            replace_linear(model, name, sort.installed(model.get_submodule(name), _leaves(shapes, name)))


def _leaves(named: Mapping, name: str) -> dict:
    """What is of the module `name` itself, by its leaf."""
    start = f"{name}."
    return {
        key.removeprefix(start): value
        for key, value in named.items()
        if key.startswith(start) and "." not in key.removeprefix(start)
    }


def _packed(module: QuantizedLinear) -> dict[str, torch.Tensor | None]:
    weight = module.weight.detach()
    codes, found = module.codes_of(weight), {}
    if module.unrounded is not None:
        outside = module.unrounded > 0
        codes = torch.where(outside, 0.0, codes.float()).to(codes.dtype)
        found[_LEFT] = weight[:, outside].contiguous()
    return {**found, "weight": codes.contiguous()}


def _unpacked(_module: nn.Module, tensors: Tensors) -> dict[str, torch.Tensor]:
    scale, smooth = tensors["row_scale"], tensors.get("smooth")
    weight = weight_of(tensors["weight"], scale, smooth)
    if "unrounded" in tensors:
        weight[:, tensors["unrounded"] > 0] = tensors[_LEFT].to(weight.dtype)
    return {"weight": weight}


def _installed(stock: nn.Module, shapes: Mapping[str, list[int]]) -> QuantizedLinear:
    where = {"device": stock.weight.device, "dtype": stock.weight.dtype}
    codes = INT8 if "step" in shapes else FP8
    made = QuantizedLinear(stock.in_features, stock.out_features, stock.bias is not None, codes, **where)
    for column in COLUMNS:
        if column in shapes:
            setattr(made, column, fixed(torch.ones(stock.in_features, **where)))
    return made


def _like(original: nn.Linear, module: QuantizedLinear) -> QuantizedLinear:
    grid = None if module.codes == FP8 else (float(module.step), int(module.zero))
    ones = torch.ones(original.in_features)
    columns = {key: ones for key in COLUMNS if getattr(module, key) is not None}
    return QuantizedLinear.of(original, torch.ones(original.out_features), grid, columns)


EIGHT_BITS = Holding(
    mark=MARK,
    holds=lambda module: isinstance(module, QuantizedLinear),
    rows=("row_scale",),
    columns=COLUMNS,
    saved_bytes=lambda module: module.saved_bytes,
    packed=_packed,
    unpacked=_unpacked,
    installed=_installed,
    like=_like,
)
HOLDINGS = (EIGHT_BITS, GROUPS)


def check_trainable(model: nn.Module) -> None:
    """Raise `TransformError` for a model whose weights lie on a grid, which a step of an optimiser would leave."""
    if is_quantized(model):
        raise TransformError(
            "a quantised model is not distilled: its weights would leave their grid; set distill_steps 0"
        )
