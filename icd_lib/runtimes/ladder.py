"""The runtime ladder: the same models under eager, torch.compile, ONNX Runtime and OpenVINO, fp32 to int8."""

import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.statistics import bootstrap_ci, paired_ratio, summarise
from icd_lib.metric import figure
from icd_lib.models.export import as_arrays, as_tensors, export_onnx, main_output, onnx_session

RUNTIMES = {
    "eager": "PyTorch eager, fp32",
    "compile": "torch.compile (Inductor), fp32, one graph per shape",
    "onnxruntime": "ONNX Runtime, fp32, all graph optimisations",
    "openvino": "OpenVINO, fp32",
    "openvino_bf16": "OpenVINO, fp32 weights computed in bf16",
    "openvino_int8": "OpenVINO, int8 weights and activations by NNCF post-training quantization",
}
ROUNDED = ("openvino_bf16", "openvino_int8")  # compute with fewer bits than fp32, so quality has to be judged again
ONNX_BASED = ("onnxruntime", "openvino", "openvino_bf16", "openvino_int8")
Runner = Callable[[dict], np.ndarray]


def build_runner(
    runtime: str,
    model: nn.Module,
    example_inputs: dict,
    workdir,
    calibration: Sequence[dict] | None = None,
    *,
    threads: int | None = None,
    onnx_path=None,
) -> Runner:
    """Prepare `model` for a runtime: a function from an input dict to the main output, a float32 array (B, L, D).

    workdir      folder for the ONNX file (ignored when `onnx_path` names an export of this very model)
    calibration  input dicts for int8 (8 batches of real text are enough); required by "openvino_int8" only
    threads      CPU threads of ONNX Runtime and OpenVINO (default: torch's, which is set for the whole process)

    Raises ResourceError with the reason when a package or a compiler is missing, MeasureError on a bad request.
    """
    if runtime not in RUNTIMES:
        raise MeasureError(f"unknown runtime {runtime!r}; known are {', '.join(RUNTIMES)}")
    threads = threads or torch.get_num_threads()
    model.eval()
    if runtime == "eager":
        return _torch_runner(model)
    if runtime == "compile":
        return _compiled_runner(model, example_inputs)
    if runtime != "onnxruntime":
        _require("openvino")
    if runtime == "openvino_int8":
        _require("nncf")
        if not calibration:
            raise MeasureError("openvino_int8 needs calibration batches: pass calibration=[input dict, ...]")
    path = onnx_path or export_onnx(model, example_inputs, Path(workdir) / "model.onnx")
    if runtime == "onnxruntime":
        session = onnx_session(path, threads=threads)
        return lambda inputs: session.run(None, as_arrays(inputs))[0]
    return _openvino_runner(runtime, path, calibration, threads)


def _require(package: str):
    """Import an optional package, or say which one is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ResourceError(f"package {package} is not installed; run pip install {package}") from error


def _torch_runner(module: Callable) -> Runner:
    def run(inputs: dict) -> np.ndarray:
        with torch.no_grad():
            return main_output(module(**as_tensors(inputs)))[1].numpy()

    return run


def _compiled_runner(model: nn.Module, example_inputs: dict) -> Runner:
    """torch.compile with static shapes; the first call compiles here, so that a missing compiler shows at once."""
    compiler = os.environ.get("CXX", "g++")
    if not (shutil.which(compiler) or shutil.which("clang++")):
        raise ResourceError(f"torch.compile needs a C++ compiler and {compiler} is not on the PATH; install g++")
    run = _torch_runner(torch.compile(model, dynamic=False))

    try:
        run(example_inputs)
    except torch._dynamo.exc.TorchDynamoException as error:
        first_line = str(error).strip().splitlines()[0]
        raise ResourceError(f"torch.compile failed here ({type(error).__name__}): {first_line}") from error
    return run


def _openvino_runner(runtime: str, path, calibration, threads: int) -> Runner:
    openvino = _require("openvino")
    core = openvino.Core()
    network = openvino.convert_model(str(path))
    if runtime == "openvino_int8":
        network = _quantize(network, [as_arrays(batch) for batch in calibration])
    # Left to itself OpenVINO computes fp32 models in bf16 wherever the CPU has it, so the precision is always said.
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if runtime == "openvino_bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(network, "CPU", settings)
    precision = "bf16" if runtime == "openvino_bf16" else "f32"
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != precision:
        raise ResourceError(f"OpenVINO computes in {used} on this CPU though {precision} was asked for")
    request = compiled.create_infer_request()
    return lambda inputs: request.infer(as_arrays(inputs), share_inputs=True)[0]


def _quantize(network, batches: list[dict[str, np.ndarray]]):
    """int8 post-training quantization of an OpenVINO model (NNCF, transformer recipe with SmoothQuant)."""
    nncf = _require("nncf")
    nncf.set_log_level("ERROR")
    return nncf.quantize(
        network,
        nncf.Dataset(batches),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(batches),
    )


class RuntimeEncoder:
    """A runner that can be judged like a model: called with tensors (B, L), its output has `last_hidden_state`."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.from_numpy(np.array(self.runner(inputs))))


def fastest(ladder: dict, arm: str) -> str | None:
    """The measured runtime with the least median latency of `arm` at the first shape; None if none was measured."""
    found = {}
    for name, entry in ladder["runtimes"].items():
        if entry["status"] == "measured":
            arms = next(iter(entry["shapes"].values()))["arms"]
            if arm in arms:
                found[name] = arms[arm]["latency_ms"]["value"]
    return min(found, key=found.get, default=None)


def measure_ladder(
    models: dict[str, nn.Module],
    inputs: Sequence[dict],
    *,
    runtimes: Sequence[str] = tuple(RUNTIMES),
    repeats: int = 30,
    warmup: int = 3,
    seed: int = 0,
    resamples: int = 2000,
    baseline: str = "dense",
    workdir=None,
    calibration: Sequence[dict] | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Every arm under every runtime, at every shape, arms interleaved within a runtime.

    models    arm -> model; `baseline` names the arm the others are compared with
    inputs    one input dict per shape, each (B, L); shapes are labelled "8x128"
    threads   CPU threads of every runtime, torch's included for the time of the measurement (default: torch's)
    progress  called with one line per finished runtime

    Returns {"baseline", "threads", "runtimes": {runtime: entry}}, where an entry is {"status": "measured", "label",
    "setup_s": {arm: s}, "shapes": {shape: {"arms": {arm: {"latency_ms", "p95_ms", "vs_baseline", "vs_eager",
    "max_abs_error": figures}}, "samples_ms": {arm: list}}}}, or {"status": "not_measured", "label", "reason"} for a
    runtime that is not available. `vs_baseline` compares with the baseline in the same runtime (paired); `vs_eager`
    with the baseline under eager, which ran earlier (not paired); without eager among the runtimes it is left out.
    """
    if baseline not in models:
        raise MeasureError(f"the baseline arm {baseline!r} is not among the models {', '.join(models)}")
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise MeasureError(f"unknown runtime {unknown[0]!r}; known are {', '.join(RUNTIMES)}")
    threads = threads or torch.get_num_threads()
    shapes = {shape_label(item): as_tensors(item) for item in inputs}
    ordered = sorted(runtimes, key=lambda name: name != "eager")
    timing = {"repeats": repeats, "warmup": warmup, "seed": seed}
    result = {"baseline": baseline, "threads": threads, "runtimes": {}}
    eager_ms: dict[str, float] = {}
    with _torch_threads(threads), tempfile.TemporaryDirectory(dir=workdir) as folder:
        references = {
            arm: {label: _torch_runner(model.eval())(item) for label, item in shapes.items()}
            for arm, model in models.items()
        }
        exports: dict[str, Path] = {}
        for runtime in ordered:
            start = time.perf_counter()
            try:
                runners, setup_s = _build_arms(runtime, models, shapes, folder, exports, calibration, threads)
            except ResourceError as error:
                entry = {"status": "not_measured", "label": RUNTIMES[runtime], "reason": error.args[0]}
            else:
                entry = {"status": "measured", "label": RUNTIMES[runtime], "setup_s": setup_s, "shapes": {}}
                for label, item in shapes.items():
                    samples = _time_shape(runners, item, timing)
                    if runtime == "eager":
                        eager_ms[label] = float(np.median(samples[baseline]))
                    errors = {arm: _error(run(item), references[arm][label]) for arm, run in runners.items()}
                    entry["shapes"][label] = _shape_entry(
                        samples, errors, baseline, eager_ms.get(label), seed, resamples
                    )
            result["runtimes"][runtime] = entry
            if progress is not None:
                progress(f"{runtime}: {entry['status']} in {time.perf_counter() - start:.1f} s")
    return result


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """The same number of threads for torch as for the other runtimes, put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shape_label(inputs: dict) -> str:
    """The shape of an input dict as "BxL", e.g. "8x128"."""
    return "x".join(str(size) for size in next(iter(inputs.values())).shape)


def _build_arms(runtime, models, shapes, folder, exports, calibration, threads) -> tuple[dict[str, Runner], dict]:
    """A runner per arm and the seconds each took to prepare, compilation of every shape included."""
    runners, setup_s = {}, {}
    example = next(iter(shapes.values()))
    if runtime == "compile":
        torch.compiler.reset()
    for arm, model in models.items():
        start = time.perf_counter()
        if runtime in ONNX_BASED and arm not in exports:
            exports[arm] = export_onnx(model, example, Path(folder) / f"arm{len(exports)}.onnx")
        runners[arm] = build_runner(
            runtime, model, example, folder, calibration, threads=threads, onnx_path=exports.get(arm)
        )
        # Past the recompile limit dynamo would run eager without a word, and eager would be timed as compiled.
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            for item in shapes.values():
                runners[arm](item)
        setup_s[arm] = round(time.perf_counter() - start, 3)
    return runners, setup_s


def _time_shape(runners: dict[str, Runner], item: dict, timing: dict) -> dict[str, np.ndarray]:
    return measure_interleaved({arm: _bind(run, item) for arm, run in runners.items()}, **timing)


def _bind(run: Runner, item: dict) -> Callable[[], np.ndarray]:
    return lambda: run(item)


def _error(output: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(output - reference).max())


def _shape_entry(samples, errors, baseline, eager_ms, seed, resamples) -> dict:
    """Figures of one runtime at one shape, and the raw samples in ms."""
    arms = {}
    for arm, sample in samples.items():
        summary = summarise(sample)
        interval = bootstrap_ci(sample, seed=seed, resamples=resamples)
        timed = {"kind": "measured", "n": summary["n"]}
        arms[arm] = {
            "latency_ms": figure(summary["median"], "ms", ci95=interval, method="median, interleaved", **timed),
            "p95_ms": figure(summary["p95"], "ms", method="95th percentile, interleaved", **timed),
            "max_abs_error": figure(
                errors[arm], "1", "measured", n=1, method="largest absolute output difference to eager fp32, same arm"
            ),
        }
        if arm != baseline:
            ratio = paired_ratio(sample, samples[baseline], seed=seed, resamples=resamples)
            arms[arm]["vs_baseline"] = figure(
                ratio["value"], "fraction", ci95=ratio["ci95"], method=ratio["method"], **timed
            )
        if eager_ms:
            arms[arm]["vs_eager"] = figure(
                summary["median"] / eager_ms - 1,
                "fraction",
                ci95=[bound / eager_ms - 1 for bound in interval],
                method=f"ratio of medians - 1 to {baseline} under eager, not paired",
                **timed,
            )
    return {"arms": arms, "samples_ms": {arm: sample.tolist() for arm, sample in samples.items()}}
