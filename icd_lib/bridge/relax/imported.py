"""A recorded model as a Relax module, by TVM's own importer; weights are parameters of its function, by name."""

import re
from collections.abc import Mapping

import torch

from icd_lib.bridge.program import lines_of
from icd_lib.errors import ResourceError
from icd_lib.optional import brief, load_optional


def import_relax(program: torch.export.ExportedProgram):
    """(module, variable → its array, variable → its parameter); `ResourceError` names the operator it has none for."""
    frontend = load_optional("tvm.relax.frontend.torch", "apache-tvm")
    relax = load_optional("tvm.relax", "apache-tvm")
    try:
        module = frontend.from_exported_program(program, keep_params_as_input=True, unwrap_unit_return_tuple=True)
    except Exception as error:  # its importer raises AssertionError, NotImplementedError, TVMError, ...
        lines = lines_of(program) | lines_of(program.run_decompositions())
        raise ResourceError(_refusal(error, lines)) from error
    module, given = relax.frontend.detach_params(module)
    signature = program.graph_signature
    full = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = [var.name for var in weight_vars(module)]
    short = {name: full.get(name, name).removeprefix("model.") for name in names}
    return module, dict(zip(names, given["main"], strict=True)), short


def weight_vars(module) -> list:
    """The parameters of the function that hold weights, after those that are inputs."""
    main = module["main"]
    return list(main.params)[int(main.attrs["num_input"]) :]


def _refusal(error: Exception, lines: Mapping[str, str]) -> str:
    """The reason in words, with the operator and the line of the model's source where the error tells it."""
    named = [f"aten.{name}" for name in re.findall(r"'(\w+)\.\w+'", str(error))]
    operator = next((name for name in named if name in lines), None)
    if operator is None:
        return f"TVM cannot import the model: {brief(error)}"
    return f"TVM has no Relax for the operator {operator}, called at {lines[operator]}"
