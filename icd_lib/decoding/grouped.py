"""Weights as integers in groups of input columns, and the same in an OpenVINO graph, which multiplies them packed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from icd_lib.decoding import EXPORTED
from icd_lib.errors import TransformError
from icd_lib.models.grouped import check_contiguous, grid_of, grouped_modules
from icd_lib.runtimes.emulation import emulated

PREFIX = "self.model."  # of the names that constants of a traced graph have, before the weight's own


@dataclass(frozen=True, eq=False)
class Grouped:
    """weight[r, c] = (codes[r, c] − zeros[r, c // g]) · scales[r, c // g], groups of g columns side by side.

    codes: uint8 (rows, columns) below 2^bits; scales, zeros: float32 (rows, groups); bits: 3, 4 or 8
    """

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    bits: int

    def __post_init__(self):
        rows, columns = self.codes.shape
        groups = self.scales.shape[1]
        if self.scales.shape != (rows, groups) or self.zeros.shape != (rows, groups) or columns % groups:
            raise TransformError(
                f"codes of shape {self.codes.shape} take scales and zeros of (rows, groups), groups that divide the "
                f"columns; got {self.scales.shape} and {self.zeros.shape}"
            )
        if self.bits not in (3, 4, 8) or int(self.codes.max(initial=0)) >= 2**self.bits:
            raise TransformError(
                f"codes of {self.bits} bits reach {int(self.codes.max(initial=0))}; 3, 4 and 8 bits are packed"
            )

    @property
    def group(self) -> int:
        """Columns of a group."""
        return self.codes.shape[1] // self.scales.shape[1]

    def weight(self) -> np.ndarray:
        """The weight that the codes stand for, float32 (rows, columns)."""
        rows, columns = self.codes.shape
        codes = self.codes.reshape(rows, -1, self.group).astype(np.float32)
        return ((codes - self.zeros[..., None]) * self.scales[..., None]).reshape(rows, columns)


def exported_rows(model: nn.Module) -> tuple[str, ...]:
    """The rows of `DECODERS` in which a model may be left for use, by what its weights are; all take one graph."""
    if grouped_modules(model):
        return EXPORTED["grouped"]
    return EXPORTED["emulated" if emulated("bf16") else "float"]


def grouped_weights(model: nn.Module) -> dict[str, Grouped]:
    """Name of a weight → its codes, of all `icd_lib.models.grouped`; `TransformError` for scattered groups."""
    check_contiguous(model)
    found = {}
    for name, module in grouped_modules(model).items():
        grid = grid_of(module).canonical()
        codes = grid.codes_of(module.weight.detach()).numpy()
        found[f"{name}.weight"] = Grouped(codes, grid.scale.float().numpy(), grid.zero.float().numpy(), grid.bits)
    return found


def pack_weights(graph, weights: Mapping[str, Grouped]) -> None:
    """Put grouped weights in the place of the constants of their names ("model.layers.0.mlp.up_proj.weight"), in place.

    In the form that NNCF writes and OpenVINO multiplies packed: 4 bits (also for 3) or 8, zeros packed where they are
    whole numbers. Raises `TransformError` for a name or a shape that the graph does not have.
    """
    constants = {
        operation.get_friendly_name(): operation
        for operation in graph.get_ops()
        if operation.get_type_name() == "Constant"
    }
    for name, grouped in weights.items():
        constant = constants.get(PREFIX + name)
        if constant is None or tuple(constant.get_output_shape(0)) != grouped.codes.shape:
            found = None if constant is None else tuple(constant.get_output_shape(0))
            raise TransformError(f"the graph has {found} where {name} of shape {grouped.codes.shape} should be")
        readers = constant.output(0).get_target_inputs()
        packed = _expression(grouped, PREFIX + name)
        for reader in readers:
            reader.replace_source_output(packed.output(0))
    graph.validate_nodes_and_infer_types()


def _expression(grouped: Grouped, name: str):
    """(codes − zeros) · scales as operations, float32 (rows, columns)."""
    import openvino
    from openvino import opset13 as ops

    rows, columns = grouped.codes.shape
    groups = grouped.scales.shape[1]
    kind = openvino.Type.u8 if grouped.bits == 8 else openvino.Type.u4
    shape = [rows, groups, grouped.group] if groups > 1 else [rows, columns]
    ones = [*shape[:-1], 1]
    codes = ops.convert(_packed(openvino, grouped.codes, shape, kind, name), np.float32)
    zeros = grouped.zeros.reshape(ones)
    limit = 2 ** (8 if grouped.bits == 8 else 4)
    if np.array_equal(zeros, np.rint(zeros)) and zeros.min() >= 0 and zeros.max() < limit:
        offset = ops.convert(_packed(openvino, zeros.astype(np.uint8), ones, kind, f"{name}/zero_point"), np.float32)
    else:
        offset = ops.constant(zeros.astype(np.float32), name=f"{name}/zero_point")
    scales = grouped.scales.reshape(ones).astype(np.float32)
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    # Scales that float16 holds, as rounding here leaves them, take half the bytes.
    exact = np.array_equal(halves.astype(np.float32), scales)
    scale = ops.constant(halves if exact else scales, name=f"{name}/scale")
    value = ops.multiply(ops.subtract(codes, offset), ops.convert(scale, np.float32) if exact else scale)
    return value if groups == 1 else ops.reshape(value, np.array([rows, columns], dtype=np.int64), False)


def _packed(openvino, codes: np.ndarray, shape: list[int], kind, name: str):
    """A constant of 4 or 8 bits."""
    flat = np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1)
    if kind == openvino.Type.u4:
        flat = np.pad(flat, (0, len(flat) % 2))
        flat = flat[0::2] | flat[1::2] << 4  # the lower half of a byte is the earlier number
    tensor = openvino.Tensor(flat, openvino.Shape(shape), kind)
    constant = openvino.op.Constant(tensor, shared_memory=False)  # the graph outlives `flat`
    constant.set_friendly_name(name)
    return constant
