"""ONNX export of encoder models, stock or compacted, and the run that proves the file says the same."""

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.models.families import family_of
from icd_lib.models.modes import evaluating
from icd_lib.models.quantized import has_eight_bits
from icd_lib.optional import brief, load_optional
from icd_lib.paths import user_path

OPSET = 17
EXPORT_TOLERANCE = 1e-3  # of the largest output: rounding stays far below, another function does not
QUANTIZED_COSINE = 0.99  # integer kernels fall on the other side of a rounding edge now and then; the direction stays
_AXES = ("batch", "sequence")


class _MainOutput(nn.Module):
    """Named tensors in, the model's main tensor out: what a graph exporter can trace."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return main_output(self.model(**dict(zip(self.names, tensors, strict=True))))[1]


def main_output(outputs) -> tuple[str, torch.Tensor]:
    """Name and tensor of a model's main output: `last_hidden_state` (B, L, D), else `logits`, else a bare tensor."""
    for name in ("last_hidden_state", "logits"):
        if hasattr(outputs, name):
            return name, getattr(outputs, name)
    if isinstance(outputs, torch.Tensor):
        return "output", outputs
    raise ArtifactError(f"expected a model output with last_hidden_state or logits, got {type(outputs).__name__}")


def export_onnx(model: nn.Module, example_inputs: dict[str, torch.Tensor], path) -> Path:
    """Write `model` as one ONNX file with dynamic batch and sequence axes; return its path.

    example_inputs  the model's keyword inputs, each (B, L) int64; `attention_mask` becomes an input even when absent
    Layers may have uneven FFN widths and head counts: the graph is traced from the module as it is. The file is always
    float32, in which every runtime has all kernels; a model of another dtype is exported from a float32 copy, and a
    warning says so. Before the file is put in place ONNX Runtime loads it and its output is compared with the model's
    (a warning says why not where that package does not work). Weights, dtype, modes and devices of `model` stay as they
    are. Raises ResourceError without the package onnx and for a model that ONNX cannot describe, ArtifactError when the
    file cannot be written or says something else than the model.
    """
    family = family_of(model)
    if family is not None and family.no_onnx is not None:
        raise ResourceError(f"{type(model).__name__} cannot be exported: {family.no_onnx}")
    example = _trace_example(example_inputs)
    target = user_path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with evaluating(model):
            output = _write(_in_float32(model).eval(), example, partial)
        _check_file(partial, example, output, type(model).__name__, quantized=has_eight_bits(model))
        os.replace(partial, target)
    except OSError as error:
        raise ArtifactError(f"cannot write {target.name}: {error.strerror}; choose a writable folder") from error
    except ImportError as error:
        raise ResourceError(f"ONNX export needs the package {error.name}; run pip install onnx") from error
    finally:
        if partial.exists():
            partial.unlink()
    return target


def _in_float32(model: nn.Module) -> nn.Module:
    """The model itself, or a float32 copy where any of its numbers has another dtype."""
    tensors = [*model.parameters(), *model.buffers()]
    others = sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()} - {"float32"})
    if not others:
        return model
    name = type(model).__name__
    warnings.warn(f"{name} has {', '.join(others)} numbers; its ONNX file is written in float32", stacklevel=3)
    return copy.deepcopy(model).float()


def _write(model: nn.Module, example: dict[str, torch.Tensor], path: Path) -> np.ndarray:
    """Write the file and return the model's own output for the example."""
    names = list(example)
    with torch.no_grad():
        output_name, output = main_output(model(**example))
    dynamic = {name: dict(enumerate(_AXES)) for name in names}
    dynamic[output_name] = dict(enumerate(_AXES[: max(1, output.ndim - 1)]))
    try:
        with warnings.catch_warnings(), torch.no_grad(), plain_attention(model):
            # The tracing exporter is deprecated, but it is seven times quicker than the dynamo one (1.4 s against 9.5 s
            # for MiniLM), needs no onnxscript, and ONNX Runtime fuses its LayerNorm and GELU.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            # About negative indices: a position or mask index never is.
            warnings.filterwarnings("ignore", message="Exporting aten::index", category=UserWarning)
            torch.onnx.export(
                _MainOutput(model, names).eval(),
                tuple(example.values()),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=[output_name],
                dynamic_axes=dynamic,
            )
    except RuntimeError as error:  # torch's errors for what ONNX has no operator for, and for files above 2 GiB
        raise ResourceError(f"{type(model).__name__} cannot be exported to ONNX: {brief(error)}") from error
    return output.cpu().numpy()


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Attention of Transformers written out as products, mask and softmax, as long as the block lasts.

    Traced from `scaled_dot_product_attention`, every layer also looks for NaN (of rows that are masked wholly, which no
    text has) and replaces them, and OpenVINO does not recognise the pattern that it computes in one kernel.
    """
    config = getattr(model, "config", None)
    used = getattr(config, "_attn_implementation", None)
    if used != "sdpa" or not hasattr(model, "set_attn_implementation"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(used)


def _check_file(
    path: Path, example: dict[str, torch.Tensor], expected: np.ndarray, name: str, *, quantized: bool
) -> None:
    """Raise `ArtifactError` unless ONNX Runtime loads the file and gives the model's output (int8: its direction)."""
    try:
        import_onnxruntime()
    except ResourceError as error:
        warnings.warn(f"the ONNX file of {name} was not run: {error.args[0]}", stacklevel=3)
        return
    try:
        found = run_onnx(path, example, threads=torch.get_num_threads())
    except Exception as error:
        raise ArtifactError(
            f"ONNX Runtime cannot run the file of {name}: {brief(error)}; nothing was written"
        ) from error
    apart = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if quantized and found.shape == expected.shape:
        if (alike := _cosine(found, expected)) >= QUANTIZED_COSINE:
            return
        raise ArtifactError(
            f"the ONNX file of the quantised {name} gives outputs with cosine {alike:.4f} to the model's, allowed is "
            f"{QUANTIZED_COSINE}; nothing was written"
        )
    if not apart <= EXPORT_TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ArtifactError(
            f"the ONNX file of {name} gives outputs that differ from the model's by {apart:.3g}; nothing was written"
        )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum(dtype=np.float64) / max(float(np.linalg.norm(a)) * float(np.linalg.norm(b)), 1e-30))


def run_onnx(path, inputs: dict, *, threads: int = 0) -> np.ndarray:
    """Run an exported file once with ONNX Runtime on the CPU: its output, float32, e.g. (B, L, D).

    inputs: name -> (B, L) tensor or array; a missing `attention_mask` means all ones. threads 0: the runtime's default.
    """
    session = onnx_session(path, threads=threads)
    return session.run(None, as_arrays(inputs))[0]


def onnx_session(path, *, threads: int = 0):
    """An ONNX Runtime CPU session with all graph optimisations; ResourceError without the package onnxruntime."""
    onnxruntime = import_onnxruntime()
    path = user_path(path)
    if not path.is_file():
        raise ArtifactError(f"no ONNX file {path.name}; write it with export_onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Worker threads that spin on after a run would take the cores from whatever is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def import_onnxruntime():
    """The package onnxruntime, or ResourceError."""
    return load_optional("onnxruntime")


def as_tensors(inputs: dict) -> dict[str, torch.Tensor]:
    """The inputs as int64 tensors, with an `attention_mask` (all ones if it was missing)."""
    tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
    if "attention_mask" not in tensors:
        tensors["attention_mask"] = torch.ones_like(next(iter(tensors.values())))
    return tensors


def as_arrays(inputs: dict) -> dict[str, np.ndarray]:
    """The inputs as NumPy arrays, with an `attention_mask` (all ones if it was missing)."""
    return {name: tensor.numpy() for name, tensor in as_tensors(inputs).items()}


def _trace_example(example_inputs: dict, batch: int = 2, length: int = 16) -> dict[str, torch.Tensor]:
    """A small (batch, <= length) example with a padded position, so that the trace keeps the mask and is quick."""
    example = {
        name: value[:1, :length].repeat(batch, 1).contiguous() for name, value in as_tensors(example_inputs).items()
    }
    example["attention_mask"] = torch.ones_like(example["attention_mask"])
    example["attention_mask"][0, -1] = 0
    return example
