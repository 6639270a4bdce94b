"""StableHLO modules as IREE's Python bindings have them: read, written, walked; nothing here runs one."""

import re
from collections.abc import Iterator

import numpy as np

from icd_lib.errors import ArtifactError
from icd_lib.optional import brief, load_optional

_RESOURCE = re.compile(r'dense_resource<"?([^">]+)"?>')
_ELIDED = 32  # elements and characters of a resource that a short text shows
_THROUGH = {"stablehlo.transpose", "stablehlo.reshape", "stablehlo.convert", "stablehlo.gather"}


def bindings():
    """The module `ir`, or `ResourceError`."""
    return load_optional("iree.compiler.ir", "iree-base-compiler")


def parse(text: str, name: str = "the module"):
    """The module of a text; `ArtifactError` with the line where it is none. Foreign attributes are kept."""
    ir = bindings()
    context = ir.Context()
    context.allow_unregistered_dialects = True
    try:
        return ir.Module.parse(text, context)
    except ir.MLIRError as error:
        told = next((str(item) for item in error.error_diagnostics), brief(error))
        raise ArtifactError(f"{name} is no MLIR that StableHLO's tools read: {told}") from error


def printed(module, *, short: bool = False) -> str:
    """The module's text; short: without its weights."""
    if short:
        return module.operation.get_asm(large_elements_limit=_ELIDED, large_resource_limit=_ELIDED)
    return module.operation.get_asm()


def operations(module) -> Iterator:
    """Every operation in every function's body, in order; nested regions are left out."""
    for function in module.body.operations:
        for region in function.operation.regions:
            for block in region.blocks:
                yield from (item.operation for item in block.operations)


def producer(value):
    """The operation that gives a value; None of a function's argument."""
    owner = value.owner
    return None if hasattr(owner, "operations") else owner.operation


def weight_name(operation) -> str | None:
    """The parameter that a constant holds; None of any other operation."""
    if operation.name not in ("stablehlo.constant", "arith.constant"):
        return None
    found = _RESOURCE.match(str(operation.attributes["value"]))
    return found[1] if found else None


def weights_in(module) -> tuple[str, ...]:
    """Names of all weights, in order."""
    return tuple(name for operation in operations(module) if (name := weight_name(operation)) is not None)


def weight_behind(value) -> tuple[object, bool] | None:
    """(the constant of a weight, whether it is transposed) that a value is but for its form; None of others."""
    operation, transposed = producer(value), False
    while operation is not None and operation.name in _THROUGH:
        transposed ^= operation.name == "stablehlo.transpose"
        operation = producer(operation.operands[0])
    if operation is None or weight_name(operation) is None:
        return None
    return operation, transposed


def shape_of(value) -> list[int]:
    """The sizes of a tensor."""
    return list(bindings().RankedTensorType(value.type).shape)


def constant_of(value) -> np.ndarray | None:
    """The integers that a value always is, through what an importer wraps around indices; None of others."""
    operation = producer(value)
    if operation is None:
        return None
    found = [] if operation.name == "stablehlo.constant" else [constant_of(item) for item in operation.operands]
    inputs = [item for item in found if item is not None]
    if len(inputs) < len(found):
        return None
    shape = shape_of(value)
    if operation.name == "stablehlo.constant":
        attribute = operation.attributes["value"]
        return np.array(attribute).reshape(shape) if isinstance(attribute, bindings().DenseIntElementsAttr) else None
    if operation.name in ("stablehlo.reshape", "stablehlo.convert"):
        return inputs[0].reshape(shape)
    if operation.name == "stablehlo.broadcast_in_dim":
        dims = bindings().DenseI64ArrayAttr(operation.attributes["broadcast_dimensions"])
        sizes = [1] * len(shape)
        for source, dim in enumerate(dims):
            sizes[dim] = inputs[0].shape[source]
        return np.broadcast_to(inputs[0].reshape(sizes), shape)
    if operation.name == "stablehlo.add":
        return inputs[0] + inputs[1]
    if operation.name == "stablehlo.select":
        chosen, one, other = inputs
        return np.where(chosen, one, other)
    if operation.name == "stablehlo.compare" and "LT" in str(operation.attributes["comparison_direction"]):
        return inputs[0] < inputs[1]
    return None


def before(operation, name: str, results: list, operands: list, attributes: dict | None = None):
    """The first result of a new operation in front of another."""
    ir = bindings()
    with operation.context, operation.location, ir.InsertionPoint(operation):
        return ir.Operation.create(name, results=results, operands=operands, attributes=attributes or {}).result
