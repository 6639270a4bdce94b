"""A recorded model as StableHLO, by torch-mlir; every weight is a resource of its parameter's name."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from icd_lib.bridge.program import lines_of
from icd_lib.errors import ResourceError
from icd_lib.optional import brief, load_optional

_OPERATOR = re.compile(r"\b((?:aten|prims)\.\w+)")
_INLINE = 65536  # indices up to so many are written out, so that passes can read them


def import_stablehlo(program: torch.export.ExportedProgram) -> str:
    """StableHLO text of the program, weights in it; `ResourceError` names the operator that has no translation."""
    fx = load_optional("torch_mlir.fx", "torch-mlir")
    table = load_optional("torch_mlir.extras.fx_decomp_util", "torch-mlir").get_decomposition_table() | DECOMPOSED
    decomposed = program.run_decompositions(table)
    with tempfile.TemporaryFile() as told:
        try:
            with _errors_into(told):
                module = fx.export_and_import(
                    decomposed, output_type="stablehlo", decomposition_table={}, hooks=_hooks(decomposed)
                )
        except Exception as error:  # its importer raises many kinds; its pipeline writes the operator to stderr alone
            told.seek(0)
            words = f"{error}\n{told.read().decode(errors='replace')}"
            raise ResourceError(_refusal(error, words, lines_of(program) | lines_of(decomposed))) from error
    return str(module)


@contextmanager
def _errors_into(file) -> Iterator[None]:
    """What is written to the process's standard error, by compiled code too, goes to `file`."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5, *_):
    """In the input's own precision: torch-mlir's expansion sums in float64, which no SIMD unit likes."""
    dims = list(range(x.dim() - len(shape), x.dim()))
    centred = x - x.mean(dims, keepdim=True)
    scaled = centred * torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


DECOMPOSED: dict[object, Callable] = {torch.ops.aten.layer_norm.default: layer_norm}


def _hooks(program: torch.export.ExportedProgram):
    """Literals are written by name, from memory; torch-mlir itself numbers them and goes through lists of numbers."""
    importer: Any = load_optional("torch_mlir.extras.fx_importer", "torch-mlir")
    ir = load_optional("torch_mlir.ir", "torch-mlir")
    named = {**program.constants, **program.state_dict}
    names = {tensor.data_ptr(): name.removeprefix("model.") for name, tensor in reversed(named.items())}

    class Named(importer.FxImporterHooks):
        def resolve_literal(self, gni, literal, info):
            if not isinstance(literal, torch.Tensor) or literal.numel() < 2 or literal.dtype == torch.bool:
                return None
            array = literal.detach().contiguous().numpy()
            name = names.get(literal.data_ptr())
            whole = not literal.is_floating_point() and literal.numel() <= _INLINE
            if name is None and not whole:
                return None
            with gni._c:
                kind = importer.create_mlir_tensor_type(literal)
                if whole:
                    value = ir.DenseElementsAttr.get(np.ascontiguousarray(array), type=kind.element_type)
                else:
                    value = ir.DenseResourceElementsAttr.get_from_buffer(memoryview(array), name, kind)
            result = gni._cc.tensor_to_vtensor_type(literal)
            return importer.Operation.create(
                name="torch.vtensor.literal", results=[result], attributes={"value": value}
            ).result

    return Named()


def _refusal(error: Exception, words: str, lines: Mapping[str, str]) -> str:
    """The reason in words, with the operator and the line of the model's source where `words` tell it."""
    named = _OPERATOR.findall(words)
    operator = next((name for name in named if name in lines), named[0] if named else None)
    if operator is None:
        return f"torch-mlir cannot import the model: {brief(error)}"
    where = lines.get(operator, "an unknown line")
    return f"torch-mlir has no StableHLO for the operator {operator}, called at {where}"
