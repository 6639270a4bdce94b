"""Fold: a permutation that one operator writes and the next one undoes is cancelled; what is left is counted."""

import re

import numpy as np

from icd_lib.bridge.gathers import Gathers
from icd_lib.bridge.mlir.module import before, bindings, constant_of, operations, producer, shape_of, weight_behind

# One tensor in, one of its shape out, element by element; other operands are one number everywhere.
_ELEMENTWISE = {
    f"stablehlo.{name}"
    for name in (
        "tanh exponential logistic negate abs rsqrt sqrt log sine cosine floor "
        "add subtract multiply divide maximum minimum power"
    ).split()
}


def fold(module) -> list[str]:
    """Cancel pairs, drop identities, hand what a weight can take to the weight; until nothing changes."""
    log: list[str] = []
    while line := next((line for line in map(_folded, list(operations(module))) if line), None):
        log.append(line)
    return log


def gathers(module) -> Gathers:
    """What is left, by kind."""
    counts = {"lookups": 0, "permutations": 0, "other": 0}
    for operation in operations(module):
        if operation.name not in ("stablehlo.gather", "stablehlo.dynamic_gather", "stablehlo.torch_index_select"):
            continue
        table, indices = operation.operands[0], operation.operands[1]
        if not reads_inputs(table):
            counts["lookups"] += reads_inputs(indices)
        else:
            numbers = str(bindings().RankedTensorType(table.type).element_type).startswith(("f", "bf"))
            counts["permutations" if numbers and not reads_inputs(indices) else "other"] += 1
    return Gathers(**counts)


def reads_inputs(value) -> bool:
    """Whether a value depends on the function's arguments."""
    seen, left = set(), [value]
    while left:
        operation = producer(left.pop())
        if operation is None:
            return True
        if operation not in seen:
            seen.add(operation)
            left += list(operation.operands)
    return False


def permutation(operation) -> tuple[int, np.ndarray] | None:
    """(dim, indices) of a gather that takes whole slices along one dimension by constant indices; None of others."""
    if operation.name != "stablehlo.gather":
        return None
    indices = constant_of(operation.operands[1])
    numbers = str(operation.attributes["dimension_numbers"])
    collapsed = _numbers("collapsed_slice_dims", numbers)
    shape, result = shape_of(operation.operands[0]), shape_of(operation.result)
    if indices is None or len(collapsed) != 1 or collapsed != _numbers("start_index_map", numbers):
        return None
    dim = collapsed[0]
    others = [place for place in range(len(shape)) if place != dim]
    sizes = list(bindings().DenseI64ArrayAttr(operation.attributes["slice_sizes"]))
    whole = [1 if place == dim else size for place, size in enumerate(shape)]
    kept = len(result) == len(shape) and result[dim] == indices.size
    if sizes != whole or _numbers("offset_dims", numbers) != others or not kept:
        return None
    return dim, indices.reshape(-1)


def _folded(operation) -> str | None:
    """What was done to one gather, None if nothing can be."""
    lower = permutation(operation)
    if lower is None or not reads_inputs(operation.operands[0]):
        return None
    dim, indices = lower
    source = operation.operands[0]
    if np.array_equal(indices, np.arange(shape_of(source)[dim])):
        _replace(operation, source)
        return f"a gather of {indices.size} along dim {dim} that changes nothing is gone"
    above = _gather_above(source, dim)
    if above is not None:
        upper, first = above
        if indices.size == shape_of(upper.result)[dim]:
            return _joined(operation, upper, dim, first[indices])
    return _into_weight(operation, dim, indices)


def _gather_above(value, dim: int):
    """(gather, its indices) along `dim` that a value comes from through elementwise operators read by nothing else."""
    operation = producer(value)
    while operation is not None and len(list(operation.result.uses)) == 1:
        found = permutation(operation)
        if found is not None:
            return (operation, found[1]) if found[0] == dim else None
        if operation.name not in _ELEMENTWISE:
            return None
        moving = [item for item in operation.operands if reads_inputs(item)]
        if len(moving) != 1 or not all(_is_splat(item) for item in operation.operands if item != moving[0]):
            return None
        operation = producer(moving[0])
    return None


def _is_splat(value) -> bool:
    operation = producer(value)
    if operation is None or operation.name != "stablehlo.constant":
        return (
            operation is not None
            and operation.name == "stablehlo.broadcast_in_dim"
            and not shape_of(operation.operands[0])
        )
    attribute = operation.attributes["value"]
    return isinstance(attribute, bindings().DenseElementsAttr) and attribute.is_splat


def _joined(lower, upper, dim: int, together: np.ndarray) -> str:
    """Two gathers as one, or as none where the second undoes the first."""
    if np.array_equal(together, np.arange(shape_of(upper.operands[0])[dim])):
        _replace(upper, upper.operands[0])
        _replace(lower, lower.operands[0])
        return f"two gathers of {together.size} along dim {dim} cancel"
    upper.operands[1] = _indices(upper, together, shape_of(upper.operands[1]))
    _replace(lower, lower.operands[0])
    return f"two gathers of {together.size} along dim {dim} are one"


def _into_weight(operation, dim: int, indices: np.ndarray) -> str | None:
    """A permutation that only a product with a weight reads is the weight's own, which the compiler applies to it."""
    uses = list(operation.result.uses)
    if len(uses) != 1 or not np.array_equal(np.sort(indices), np.arange(indices.size)):
        return None
    product = uses[0].owner.operation
    if product.name != "stablehlo.dot_general" or product.operands[0] != operation.result:
        return None
    numbers = str(product.attributes["dot_dimension_numbers"])
    behind = weight_behind(product.operands[1])
    if behind is None or _numbers("lhs_contracting_dimensions", numbers) != [dim]:
        return None
    along = _numbers("rhs_contracting_dimensions", numbers)[0]
    weight = product.operands[1]
    product.operands[1] = _permuted(product, weight, along, np.argsort(indices))
    product.operands[0] = operation.operands[0]
    operation.erase()
    return f"a gather of {indices.size} along dim {dim} is its weight's own"


def _permuted(operation, value, dim: int, indices: np.ndarray):
    """`value` gathered along `dim`, in front of an operation."""
    ir = bindings()
    shape = shape_of(value)
    others = ", ".join(str(place) for place in range(len(shape)) if place != dim)
    numbers = (
        f"#stablehlo.gather<offset_dims = [{others}], collapsed_slice_dims = [{dim}], start_index_map = [{dim}], "
        "index_vector_dim = 1>"
    )
    attributes = {
        "dimension_numbers": ir.Attribute.parse(numbers, operation.context),
        "slice_sizes": ir.DenseI64ArrayAttr.get(
            [1 if place == dim else size for place, size in enumerate(shape)], operation.context
        ),
    }
    given = [value, _indices(operation, indices, [indices.size])]
    return before(operation, "stablehlo.gather", [value.type], given, attributes)


def _indices(operation, values: np.ndarray, shape: list[int]):
    """A constant in front of an operation."""
    ir = bindings()
    with operation.context:
        array = np.ascontiguousarray(values.reshape(shape), dtype=np.int64)
        attribute = ir.DenseElementsAttr.get(array)
    return before(operation, "stablehlo.constant", [attribute.type], [], {"value": attribute})


def _replace(operation, value) -> None:
    operation.result.replace_all_uses_with(value)
    operation.erase()


def _numbers(name: str, text: str) -> list[int]:
    found = re.search(rf"{name} = \[([\d, ]*)\]", text)
    return [int(item) for item in found[1].split(",") if item.strip()] if found else []
