"""Tile: products with an annotated weight are offered tiles of the layout; without them the same module compiles."""

import re

from icd_lib.bridge.mlir.annotate import layout_on
from icd_lib.bridge.mlir.module import before, bindings, operations, shape_of, weight_behind, weight_name
from icd_lib.bridge.tiles import output_tile, row_tile

# IREE's own words for "distribute so over threads, then compute in vectors so"; its pipeline is the one for products.
_INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [{rows}, {columns}, 0], "
    "vector_common_parallel = [{row_vector}, {lanes}, 0], vector_reduction = [0, 0, {depth}]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
_PLAIN = re.compile(r"^#stablehlo.dot<lhs_contracting_dimensions = \[(\d+)\], rhs_contracting_dimensions = \[(\d+)\]>$")


def tile_products(module, lanes: int) -> list[str]:
    """Give every product of an activation with an annotated weight tiles that are multiples of g.

    IREE keeps the offer on `stablehlo.dot` and drops it from `dot_general`, so the product becomes the former.
    """
    log = []
    for operation in list(operations(module)):
        line = _tiled(operation, lanes) if operation.name == "stablehlo.dot_general" else None
        if line:
            log.append(line)
    return log


def _tiled(product, lanes: int) -> str | None:
    ir = bindings()
    left, right = product.operands
    numbers = _PLAIN.match(str(product.attributes["dot_dimension_numbers"]))
    behind, shape = weight_behind(right), shape_of(left)
    if numbers is None or behind is None or (int(numbers[1]), int(numbers[2])) != (len(shape) - 1, 0):
        return None
    if len(shape_of(right)) != 2:
        return None
    weight, transposed = behind
    by_dim = {entry["dim"]: entry for entry in layout_on(weight)}
    outputs, depths = by_dim.get(0 if transposed else 1), by_dim.get(1 if transposed else 0)
    if outputs is None and depths is None:
        return None
    depth, width = shape_of(right)
    rows = 1
    for size in shape[:-1]:
        rows *= size
    columns = output_tile(width, outputs["tile"] if outputs else lanes)
    along = depths["tile"] if depths else lanes
    sizes = {
        "rows": row_tile(rows),
        "columns": columns,
        "row_vector": row_tile(rows, 8),
        "lanes": lanes if columns % lanes == 0 else columns,
        "depth": min(along, lanes) if depth % min(along, lanes) == 0 else 1,
    }
    element = ir.RankedTensorType(left.type).element_type
    flat, out = (ir.RankedTensorType.get([rows, size], element, loc=product.location) for size in (depth, width))
    info = {"compilation_info": ir.Attribute.parse(_INFO.format(**sizes), product.context)}
    given = left if len(shape) == 2 else before(product, "stablehlo.reshape", [flat], [left])
    found = before(product, "stablehlo.dot", [out], [given, right], info)
    found = found if len(shape) == 2 else before(product, "stablehlo.reshape", [product.result.type], [found])
    product.result.replace_all_uses_with(found)
    product.erase()
    return f"{weight_name(weight)}: {rows} × {width} in tiles of {sizes['rows']} × {columns}, depth {sizes['depth']}"
