"""Pieces: the depth of a product with a weight is summed piece by piece; one sum over all of it rounds too much."""

import itertools
import re

from icd_lib.bridge.mlir.module import before, bindings, operations, shape_of, weight_behind, weight_name
from icd_lib.bridge.tiles import depth_pieces

MOST_DEPTH = 128  # of a piece: IREE writes and reads the sum so far once for each
_PLAIN = re.compile(r"lhs_contracting_dimensions = \[(\d+)\], rhs_contracting_dimensions = \[0\]>$")


def sum_pieces(module) -> list[str]:
    """Cut every product of rows with a weight's matrix that is deeper than `MOST_DEPTH`; tiles stay on each piece."""
    return [line for operation in list(operations(module)) if (line := _cut(operation))]


def _cut(product) -> str | None:
    if product.name not in ("stablehlo.dot", "stablehlo.dot_general"):
        return None
    left, right = product.operands
    behind = weight_behind(right)
    if behind is None or len(shape_of(right)) != 2 or not _is_plain(product):
        return None
    pieces = depth_pieces(shape_of(right)[0], MOST_DEPTH)
    if len(pieces) == 1:
        return None
    attributes = {name: product.attributes[name] for name in product.attributes}
    total = None
    for start, size in zip(itertools.accumulate(pieces, initial=0), pieces, strict=False):
        given = [_slice(product, left, -1, start, size), _slice(product, right, 0, start, size)]
        part = before(product, product.name, [product.result.type], given, attributes)
        total = part if total is None else before(product, "stablehlo.add", [product.result.type], [total, part])
    product.result.replace_all_uses_with(total)
    product.erase()
    return f"{weight_name(behind[0])}: a depth of {sum(pieces)} in {len(pieces)} pieces of at most {max(pieces)}"


def _is_plain(product) -> bool:
    """Whether the last dimension of the rows meets the first of the matrix, as it always does in `stablehlo.dot`."""
    if product.name == "stablehlo.dot":
        return True
    found = _PLAIN.search(str(product.attributes["dot_dimension_numbers"]))
    return found is not None and int(found[1]) == len(shape_of(product.operands[0])) - 1


def _slice(product, value, dim: int, start: int, size: int):
    """Entries start … start + size of a value along a dimension, in front of the product."""
    ir = bindings()
    first, last = [0] * len(shape_of(value)), shape_of(value)
    first[dim], last[dim] = start, start + size
    numbers = {"start_indices": first, "limit_indices": last, "strides": [1] * len(first)}
    attributes = {name: ir.DenseI64ArrayAttr.get(values, product.context) for name, values in numbers.items()}
    shape = [end - begin for begin, end in zip(first, last, strict=True)]
    element = ir.RankedTensorType(value.type).element_type
    result = ir.RankedTensorType.get(shape, element, loc=product.location)
    return before(product, "stablehlo.slice", [result], [value], attributes)
