"""What every graph with a memory shares: it is traced with what was before as inputs, which then become variables."""

import copy
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from icd_lib.errors import FOREIGN, ResourceError
from icd_lib.optional import brief, load_optional


def trace(wrapped: nn.Module, example: tuple, name: str):
    """The `openvino.Model` of a module; `ResourceError` naming the model where it cannot be traced."""
    openvino = load_optional("openvino", "'icd-lib[runtimes]'")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return openvino.convert_model(wrapped.eval(), example_input=example)
    except FOREIGN as error:
        raise ResourceError(f"{name} cannot be traced for OpenVINO: {brief(error)}") from error


def unshared(module: nn.Module) -> nn.Module:
    """The same tree of modules as new objects around the same tensors: the converter patches what it traces."""
    shell = copy.copy(module)
    shell.__dict__["_modules"] = {
        name: None if child is None else unshared(child) for name, child in module._modules.items()
    }
    return shell


def keep_past(graph, pairs: Mapping[str, str]) -> None:
    """Turn inputs (name → the output that takes its place) into variables, in place.

    A new text begins with zeros, and with nothing along a dynamic dimension; the rows of a batch, the first dimension,
    are reordered by the new input `beam_idx` before they are read.
    """
    openvino = load_optional("openvino")
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    beams = ops.parameter(openvino.PartialShape([-1]), dtype=np.int32, name="beam_idx")
    beams.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([beams])
    for name in pairs:
        port = graph.input(name)
        readers = port.get_target_inputs()
        reordered = ops.gather(port, beams, ops.constant(0))
        for reader in readers:
            reader.replace_source_output(reordered.output(0))
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, dict(pairs))
    batch = ops.gather(ops.shape_of(graph.input("input_ids"), output_type="i64"), ops.constant([0]), ops.constant(0))
    for operation in graph.get_ops():
        if operation.get_type_name() == "ReadValue":
            _, *rest = (dim.min_length for dim in operation.get_output_partial_shape(0))  # 0 where it is dynamic
            sizes = [ops.constant(np.array([length], dtype=np.int64)) for length in rest]
            shape = ops.concat([batch, *sizes], axis=0)
            zeros = ops.broadcast(ops.constant(0.0, dtype=operation.get_output_element_type(0)), shape)
            operation.set_arguments([zeros])
    graph.validate_nodes_and_infer_types()
