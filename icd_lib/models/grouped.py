"""Weights of a few bits in groups of columns: codes, and a scale and a zero for each row and group.

The module multiplies with the float weight that its codes stand for, and its input is not rounded: what is saved are
bytes, in a file and in the engines that read codes. The grid lies in the model as ordinary tensors, so that what
permutes, removes or saves a model finds it: which group a column belongs to is a tensor too, and goes where the column
goes. Whatever the order, the function is the same; a *contiguous* grid, whose groups are stretches of one length, is
what engines read without a gather.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from icd_lib.errors import ArtifactError, TransformError
from icd_lib.models.bits import pack_bits, packed_length, unpack_bits
from icd_lib.models.holding import Holding, Tensors, fixed

BITS = (3, 4, 8)  # of a code
MARK = ".grid"  # an empty tensor whose shape is (0, bits, columns)
SCALE_BITS, WIDE_SCALE_BITS, MAP_BITS = 16, 32, 32
_TENSORS = ("group_scale", "group_zero", "column_group", "code_bits")


def check_bits(bits: int) -> int:
    """Return `bits`, or raise `TransformError` for a width that no code has."""
    if bits not in BITS:
        raise TransformError(f"codes have 3, 4 or 8 bits, got {bits}; set quantization.bits to one of them")
    return bits


def check_group(columns: int, group: int, name: str) -> int:
    """Return `group`, or raise `TransformError` unless all `columns` of the matrix `name` fall into groups of so many.

    >>> check_group(576, 64, "q_proj")
    64
    """
    if group < 1 or columns % group:
        able = [size for size in (128, 64, 32, 16, 8) if columns % size == 0]
        cure = f"{', '.join(map(str, able))} would" if able else "pad or prune the axis to a multiple of the group"
        raise TransformError(
            f"{columns} columns of {name!r} do not fall into groups of {group} (quantization.group); {cure}; pruned "
            "axes keep multiples of transform.tile"
        )
    return group


@dataclass(frozen=True, eq=False)
class GroupGrid:
    """What weights (out, in) can be: scale · (code − zero) with codes 0 … 2^bits − 1.

    scale (out, n): float, of either sign; zero (out, n): uint8, a code; group (in,): int32, the group of each column.
    """

    bits: int
    scale: torch.Tensor
    zero: torch.Tensor
    group: torch.Tensor

    def codes_of(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest points, uint8 (out, in)."""
        scale = self.scale.to(weight.dtype)[:, self.group.long()]
        steps = (weight / torch.where(scale == 0, torch.ones_like(scale), scale)).round()
        return (steps + self.zero[:, self.group.long()]).clamp(0, 2**self.bits - 1).to(torch.uint8)

    def weight_of(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes (out, in) stand for, in the scale's dtype."""
        steps = codes.to(self.scale.dtype) - self.zero[:, self.group.long()].to(self.scale.dtype)
        return steps * self.scale[:, self.group.long()]

    @property
    def groups(self) -> int:
        return self.scale.shape[1]

    @property
    def is_symmetric(self) -> bool:
        """Whether every zero is the middle code, as engines without zeros want it."""
        return bool((self.zero == 2 ** (self.bits - 1)).all())

    @property
    def is_contiguous(self) -> bool:
        """Whether every group is a stretch of columns, all but the last of one length: no gather is needed."""
        numbers = self.canonical().group
        length = int((numbers == 0).sum())
        return bool(torch.equal(numbers, (torch.arange(len(numbers)) // length).to(numbers.dtype)))

    @property
    def is_implied(self) -> bool:
        """Whether their number says which columns are of which group, as `canonical` numbers them."""
        return bool(torch.equal(self.canonical().group, _in_order(len(self.group), self.groups, self.group)))

    @property
    def has_half_scales(self) -> bool:
        """Whether float16 holds every scale exactly."""
        return bool((self.scale.to(torch.float16).to(self.scale.dtype) == self.scale).all())

    def canonical(self) -> "GroupGrid":
        """The same grid with its groups numbered as they come: the first column is of group 0."""
        used, inside = torch.unique(self.group, return_inverse=True)
        first = torch.full((len(used),), len(self.group)).scatter_reduce(
            0, inside, torch.arange(len(self.group)), "amin"
        )
        order = torch.argsort(first)
        number = torch.argsort(order)[inside].to(self.group.dtype)
        kept = used[order].long()
        if len(kept) != self.groups:  # removed columns leave groups behind that nobody reads
            kept = torch.cat([kept, torch.tensor(sorted(set(range(self.groups)) - set(kept.tolist())))])
        return replace(self, scale=self.scale[:, kept], zero=self.zero[:, kept], group=number)

    def permuted(self, order: torch.Tensor) -> "GroupGrid":
        """The grid of columns in another order (gather)."""
        return replace(self, group=self.group[order])

    @property
    def packed_bytes(self) -> int:
        """Bytes in a file: codes, scales, zeros unless symmetric, the columns' groups unless their number says them."""
        rows, columns = len(self.scale), len(self.group)
        total = rows * packed_length(columns, self.bits)
        total += rows * self.groups * (SCALE_BITS if self.has_half_scales else WIDE_SCALE_BITS) // 8
        total += 0 if self.is_symmetric else rows * packed_length(self.groups, self.bits)
        return total + (0 if self.is_implied else columns * MAP_BITS // 8)

    @property
    def bits_per_weight(self) -> float:
        """Bits in a file per weight, everything counted."""
        return 8 * self.packed_bytes / (len(self.scale) * len(self.group))


def _in_order(columns: int, groups: int, like: torch.Tensor) -> torch.Tensor:
    """Groups of one length, one after the other; where there are none, numbers that no group has."""
    if groups == 0 or columns % groups:
        return torch.full_like(like, -1)
    return (torch.arange(columns, device=like.device) // (columns // groups)).to(like.dtype)


class GroupedLinear(nn.Linear):
    """A Linear whose weight lies on a `GroupGrid`."""

    @classmethod
    def of(cls, original: nn.Linear, grid: GroupGrid, codes: torch.Tensor | None = None) -> "GroupedLinear":
        """`original` with its weight at the points `codes` (out, in), else at the nearest ones."""
        weight, bias = original.weight.detach(), original.bias
        made = cls(
            original.in_features, original.out_features, bias is not None, device=weight.device, dtype=weight.dtype
        )
        hold(made, grid)
        held = grid_of(made)
        made.weight.data.copy_(held.weight_of(held.codes_of(weight) if codes is None else codes))
        if bias is not None:
            made.bias.data.copy_(bias.detach())
        return made.train(original.training).requires_grad_(False)

    @property
    def grid(self) -> GroupGrid:
        return grid_of(self)

    @property
    def bits_per_weight(self) -> float:
        """Bits in a file per weight, scales and zeros counted."""
        return self.grid.bits_per_weight

    def on_grid(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest weight (out, in) that this Linear can hold."""
        return self.grid.weight_of(self.grid.codes_of(weight)).to(weight.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={int(self.code_bits)}, groups={self.group_scale.shape[1]}"


def hold(module: nn.Module, grid: GroupGrid) -> None:
    """Put a grid beside a module's weight, in place; the weight is left as it is."""
    module.group_scale = fixed(grid.scale.detach().to(module.weight.dtype).clone())
    module.group_zero = fixed(grid.zero.detach().clone())
    module.column_group = fixed(grid.group.detach().to(torch.int32).clone())
    module.code_bits = fixed(torch.tensor(grid.bits, dtype=torch.uint8, device=module.weight.device))


def let_go(module: nn.Module) -> None:
    """Take the grid from beside a module's weight, in place; the weight is left as it is."""
    for name in _TENSORS:
        delattr(module, name)


def is_grouped(module: nn.Module) -> bool:
    """Whether a module's weight lies on a grid in groups; an embedding with a token map may be one too."""
    return "group_scale" in module._parameters


def grid_of(module: nn.Module) -> GroupGrid:
    """The grid that lies beside a module's weight."""
    return GroupGrid(int(module.code_bits), module.group_scale.detach(), module.group_zero, module.column_group)


def grouped_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module on a grid in groups by its name."""
    return {name: module for name, module in model.named_modules() if is_grouped(module)}


def check_contiguous(model: nn.Module) -> None:
    """Raise `TransformError` naming the first module whose groups an engine would have to gather."""
    for name, module in grouped_modules(model).items():
        if not grid_of(module).is_contiguous:
            raise TransformError(
                f"the groups of {name!r} are not stretches of its columns, so an engine would gather them; fold the "
                "order into the model (icd_lib.transforms.weights.fold) before it is written"
            )


def _saved_bytes(module: nn.Module) -> int:
    held = [module.weight, *(getattr(module, name) for name in _TENSORS)]
    return sum(tensor.numel() * tensor.element_size() for tensor in held) - grid_of(module).packed_bytes


def _packed(module: nn.Module) -> dict[str, torch.Tensor | None]:
    """Codes in bytes; scales in float16 where that is exact; zeros and groups only where they say something."""
    grid, columns = grid_of(module).canonical(), len(module.column_group)
    scale = grid.scale.to(torch.float16) if grid.has_half_scales else grid.scale
    return {
        "weight": None,
        "code_bits": None,
        "grid": torch.empty(0, grid.bits, columns, dtype=torch.uint8),
        "codes": pack_bits(grid.codes_of(module.weight.detach()), grid.bits),
        "group_scale": scale.contiguous(),
        "group_zero": None,
        **({} if grid.is_symmetric else {"zeros": pack_bits(grid.zero.detach(), grid.bits)}),
        "column_group": None if grid.is_implied else grid.group.detach().contiguous(),
    }


def _unpacked(module: nn.Module, tensors: Tensors) -> dict[str, torch.Tensor]:
    _, bits, columns = tensors["grid"].shape
    scale = tensors["group_scale"].to(module.weight.dtype)
    groups, group = scale.shape[1], tensors.get("column_group")
    if "zeros" in tensors:
        zero = unpack_bits(tensors["zeros"], bits, groups)
    else:
        zero = torch.full(scale.shape, 2 ** (bits - 1), dtype=torch.uint8)
    group = _in_order(columns, groups, torch.empty(columns, dtype=torch.int32)) if group is None else group
    if bool(((group < 0) | (group >= groups)).any()):
        raise ArtifactError(
            f"the file has columns of groups outside 0 … {groups - 1}; write it again with save_optimized"
        )
    grid = GroupGrid(bits, scale, zero, group)
    return {
        "weight": grid.weight_of(unpack_bits(tensors["codes"], bits, columns)),
        "group_scale": scale,
        "group_zero": zero,
        "column_group": group,
        "code_bits": torch.tensor(bits, dtype=torch.uint8),
    }


def _installed(stock: nn.Module, shapes: Mapping[str, list[int]]) -> nn.Module:
    rows, groups = shapes["group_scale"]
    _, bits, columns = shapes["grid"]
    if bits not in BITS or stock.weight.ndim != 2 or rows > stock.weight.shape[0] or columns > stock.weight.shape[1]:
        raise ArtifactError(
            f"the file has {rows} × {columns} codes of {bits} bits where {list(stock.weight.shape)} weights are; write "
            "it again with save_optimized"
        )
    where = {"device": stock.weight.device, "dtype": stock.weight.dtype}
    if isinstance(stock, nn.Linear):
        made: nn.Module = GroupedLinear(columns, rows, stock.bias is not None, **where)
    else:
        made = stock  # an embedding of whatever class: some scale what they look up
        made.weight = nn.Parameter(torch.empty(rows, columns, **where), requires_grad=stock.weight.requires_grad)
    scale, device = torch.empty(rows, groups, **where), stock.weight.device
    zero = torch.empty(rows, groups, dtype=torch.uint8, device=device)
    hold(made, GroupGrid(bits, scale, zero, torch.empty(columns, dtype=torch.int32, device=device)))
    return made


def _like(original: nn.Module, module: nn.Module) -> nn.Module:
    """One group for all columns of `original`, but as many scales as `module` has."""
    rows, columns = original.weight.shape
    groups = module.group_scale.shape[1]
    grid = GroupGrid(
        int(module.code_bits),
        torch.ones(rows, groups),
        torch.zeros(rows, groups, dtype=torch.uint8),
        torch.zeros(columns, dtype=torch.int32),
    )
    if isinstance(original, nn.Linear):
        return GroupedLinear.of(original, grid)
    hold(original, grid)
    return original


GROUPS = Holding(
    mark=MARK,
    holds=is_grouped,
    rows=("group_scale", "group_zero"),
    columns=("column_group",),
    saved_bytes=_saved_bytes,
    packed=_packed,
    unpacked=_unpacked,
    installed=_installed,
    like=_like,
)
