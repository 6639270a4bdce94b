"""The public functions that take a whole model: `find_axes`, `optimize` and `compact_masked`, one line in a script."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from icd_lib.axes.axis import Axis
from icd_lib.axes.verify import first_rows, verify_axes
from icd_lib.codesign.batches import check_enough, check_runs, check_vocabulary, read_batches, read_inputs
from icd_lib.codesign.evidence import Problem, gather
from icd_lib.codesign.finite import check_weights
from icd_lib.codesign.inputs import Inputs
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.codesign.loop import Solution, solve
from icd_lib.codesign.options import PERPLEXITY_RATIO, Settings
from icd_lib.codesign.quality import QualityJudge, check_callable
from icd_lib.codesign.surroundings import Caller, our_own
from icd_lib.codesign.tiles import check_axes, unfit_axes
from icd_lib.codesign.zeros import count_zeros
from icd_lib.errors import ConfigError
from icd_lib.experiment.arms import MODES
from icd_lib.measure.steps import measure_steps
from icd_lib.measure.tables import ON_DEVICE, measure_width_curves, widths_to_try
from icd_lib.models.check import check_model
from icd_lib.models.checkpoint.optimized import check_savable, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.precision import as_given, in_users_dtype, working_copy
from icd_lib.options.check import check_value, check_values
from icd_lib.options.field import Field, fields
from icd_lib.options.option import plain
from icd_lib.runtimes import reference_of
from icd_lib.runtimes.target import Target
from icd_lib.solver.cost import CostConfig
from icd_lib.solver.options import CostOptions
from icd_lib.storage.devices import (
    AUTO,
    CPU,
    HEADS_ON_CPU,
    ON_CPU,
    Device,
    check_device,
    device_of,
    find_device,
    needed_bytes,
    placed,
    telling_of_memory,
)
from icd_lib.transforms import TRANSFORMS
from icd_lib.transforms.masked.compact import remove_dead
from icd_lib.transforms.masked.plain import plain_copy
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.options import KvOptions
from icd_lib.transforms.quantization.options import QuantizationOptions
from icd_lib.transforms.sparsity.allocate import LatencyTable
from icd_lib.transforms.sparsity.sensitivity import measure_sensitivity
from icd_lib.workloads.model.cache import CacheChoice, check_cache, choose_cache

CURVE_ROUNDS = 10


@dataclass(frozen=True)
class Optimized:
    """`model`: the smaller copy; `report`: strength, widths, predicted latency, quality lost, every attempt.

    `new_cache(prompt)`: an empty cache for a prompt of so many tokens, where transforms had "kv"; None else.
    `report["reached"]`: whether a latency that was asked for is predicted to be reached (None: none was asked for);
    `report["unfit"]`: what to do about axes whose width no tile divides, in words.
    """

    model: nn.Module
    report: dict
    cache: CacheChoice | None = None

    def new_cache(self, prompt: int):
        """The `past_key_values` of `model` for a prompt of so many tokens; `ConfigError` where none was asked for."""
        if self.cache is None:
            raise ConfigError('no cache was chosen; call icd.optimize with "kv" among its transforms')
        return self.cache.new_cache(self.model, prompt)

    def save_pretrained(self, folder, tokenizer=None, *, uniform: bool = False):
        """Write a folder that `icd.load_optimized` reads; with `uniform` plain transformers reads it too."""
        return save_optimized(self.model, tokenizer, folder, self.report, uniform=uniform)


def find_axes(model: nn.Module, example_inputs: dict) -> list[Axis]:
    """Every axis of the model, each verified with a random permutation in float64; `AxisError` if one is not.

    example_inputs: the model's input dict, tensors (B, L), arrays or lists. Raises `ConfigError` on one that it cannot
    run on.
    """
    _check_model(model)
    with our_own(model):
        example = read_inputs(example_inputs, "example_inputs")
        dense, _ = working_copy(model)
        check_vocabulary(dense, [example])
        check_runs(dense, [example])
        axes = find_adapter(model).axes()
        verify_axes(dense, axes, example)
    return axes


def optimize(
    model: nn.Module,
    calibration: Iterable[dict],
    *,
    quality: Callable[[nn.Module], float],
    budget_pp: float = 0.1,
    latency_target_rel: float | None = None,
    mode: str = "iterative",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    transforms: Sequence[str] = ("sparsity",),
    quantization: Mapping | None = None,
    kv: Mapping | None = None,
    device: str | None = None,
    **settings,
) -> Optimized:
    """Smaller copy of `model`, in eval mode, that loses at most `budget_pp` of `quality` (percent, higher is better).

    calibration: the model's own input dicts (unlabelled): input_ids (B, L) and what goes with them, as tensors, arrays
    or lists; read once and copied; one dict is one batch. Latency tables are measured at the largest of them.
    quality: model → percent. It gets a copy each time, and begins with the random generators as they are now.
    transforms: what is done, of "sparsity", "quantization" (in the order of this list) and, for decoders, "kv";
    quantization, kv: options of these sections of a scenario. The cache is chosen by perplexity on `calibration`.
    device: what computes and is timed for: "cpu", "cuda", "cuda:N", or "auto", a GPU that has the memory free, else the
    CPU; None is the CPU, for a model that lies there. On a GPU sparsity alone is done. `quality` is asked, and the
    result given back, where the given model lies.
    `latency_target_rel` (e.g. -0.3) asks for a latency instead; where it is not reached, a `UserWarning` says so and
    `report["reached"]` is False. There is one too where no width of an axis fits `tile`, and where `quality` looks like
    fractions. `rate` (e.g. 0.5) asks for a share of the neurons instead. Further settings: fields of
    `icd_lib.codesign.options.Settings`, the options of a scenario's `transform` and `codesign`, with the same defaults
    and bounds. The given model is not changed; its modes, the random generators and torch's switches are as before
    afterwards. Raises `ConfigError` on bad arguments and inputs that the model does not take, `ResourceError` for a
    device that is not there or has too little memory free, `TransformError` on empty calibration, `MeasureError` when
    `quality` returns no number, or NaN or infinity for the given model; a candidate with one of these two is refused,
    with its reason in `report["attempts"]`.
    """
    mode = check_value(mode, Field(str, choices=MODES), "mode")
    chosen = Settings.of_arguments(budget_pp, latency_target_rel, seed, settings, _NAMES)
    check_callable(quality, "quality", "maps a model to percent, such as its accuracy on text of yours")
    progress = progress or (lambda line: None)
    check_callable(progress, "progress", "takes a line of text, or None")
    further = _further(transforms, quantization, kv)
    asked = check_device(device)
    _check_model(model, asked)
    if asked not in (AUTO, CPU) and (why := _why_on_cpu(chosen, further)):
        raise ConfigError(f"device={asked}: not with {why}; leave device out, or take that out")
    with our_own(model) as caller, telling_of_memory("the loop computed", "pass fewer or smaller batches"):
        return _optimize(model, calibration, quality, chosen, mode, caller.wrapped(progress), caller, further, asked)


@dataclass(frozen=True)
class _Further:
    """What is done besides sparsity. names: of the loop's transforms, in order; kv: None where the cache stays."""

    names: tuple[str, ...]
    quantization: QuantizationOptions | None
    kv: KvOptions | None


def _further(transforms: Sequence[str], quantization: Mapping | None, kv: Mapping | None) -> _Further:
    """The arguments, checked; `ConfigError` for an unknown transform, one named twice, or options without theirs."""
    names = [transforms] if isinstance(transforms, str) else list(transforms)
    known = ("sparsity", "quantization", "kv")
    if len(set(names)) != len(names) or not set(names) <= set(known) or "sparsity" not in names:
        raise ConfigError(f"transforms takes {list(known)}, each once and sparsity among them; got {names}")
    for name, given in (("quantization", quantization), ("kv", kv)):
        if given is not None and name not in names:
            raise ConfigError(f"options of {name} were given, and transforms is {names}; add {name!r} to it")
    return _Further(
        tuple(name for name in names if name != "kv"),
        QuantizationOptions(**check_values(plain(dict(quantization or {})), QuantizationOptions, "quantization"))
        if "quantization" in names
        else None,
        KvOptions(**check_values(plain(dict(kv or {})), KvOptions, "kv")) if "kv" in names else None,
    )


def _optimize(
    model, calibration, quality, chosen: Settings, mode: str, progress, caller: Caller, further: _Further, asked: str
) -> Optimized:
    """`optimize` on arguments that were checked."""
    batches = caller.call(read_batches, calibration)
    check_enough(batches)
    check_savable(model)
    dense, dtypes = working_copy(model)
    device = _find_device(asked, dense, batches, chosen, further)
    if asked != CPU:
        progress(f"device {device.name} ({device.label}): {device.why}")
    check_vocabulary(dense, batches)
    check_model(model, [placed(batch, device_of(model)) for batch in batches])
    with device.current():
        report, best, cache = _computed(
            dense, dtypes, batches, quality, chosen, mode, progress, caller, further, device
        )
    if asked != CPU:
        report["device"] = device.name
    result = in_users_dtype(best, dtypes).to(device_of(model))
    return Optimized(_with_flags_of(model, result), report, cache)


def _computed(
    dense: nn.Module,
    dtypes,
    batches,
    quality,
    chosen: Settings,
    mode: str,
    progress,
    caller: Caller,
    further: _Further,
    device: Device,
) -> tuple[dict, nn.Module, CacheChoice | None]:
    """Report, model and cache of the loop, computed on a device."""
    home = device_of(dense)
    dense, batches = dense.to(device.torch), [device.place(batch) for batch in batches]
    check_runs(dense, batches)
    adapter = find_adapter(dense)
    check_axes(adapter, chosen)
    if further.kv is not None:
        check_cache(dense, batches, further.kv)
    unfit = unfit_axes(adapter, chosen, mode)
    for line in unfit:
        warnings.warn(line, stacklevel=4)
    judge = QualityJudge(as_given(quality, dtypes), caller, dense, home)
    inputs = Inputs(
        dense=dense,
        batches=batches,
        distill_batches=batches,
        example=first_rows(batches[0]),
        judge=judge,
        settings=chosen,
        solver=SolverSettings(CostConfig(**dict(CostOptions(g=chosen.tile))), seed=chosen.seed),
        sections={} if further.quantization is None else {"quantization": further.quantization.model_dump()},
        progress=progress,
    )
    observed = inputs.observe()
    rows = tuple(TRANSFORMS[name] for name in further.names)
    solution = solve(Problem(inputs, gather(inputs, _measure_machine(observed, chosen, device), observed), rows), mode)
    target = chosen.latency_target_rel
    report = _report(solution) | {"reached": solution.reached(target), "unfit": unfit}
    if chosen.is_bounded:
        judge.warn_of_fractions(chosen.quality_budget_pp, stacklevel=5)
    elif report["reached"] is False:
        refused = [entry["reasons"][0] for entry in solution.attempts if entry["reasons"]] or ["no attempt fits"]
        warnings.warn(
            f"latency_target_rel={target:+.0%} was not reached: the tables predict "
            f"{report['predicted_latency_rel']:+.1%} for the best candidate ({refused[-1]})",
            stacklevel=4,
        )
    cache = None
    if further.kv is not None:
        most = further.kv.max_perplexity_ratio or PERPLEXITY_RATIO
        cache = choose_cache(solution.best.model, batches, further.kv, most, chosen.selection_z, progress)
        report["kv"] = {"keep": cache.keep, "shares": cache.report}
    return report, solution.best.model, cache


def _find_device(asked: str, dense: nn.Module, batches: list[dict], chosen: Settings, further: _Further) -> Device:
    """Where to compute; `ResourceError` where that is not to be had."""
    if asked == AUTO and (why := _why_on_cpu(chosen, further)):
        return Device(why=f"auto: not with {why}")
    widest = max(max(block.consumer.weight.shape) for block in find_adapter(dense).blocks())
    return find_device(asked, needed_bytes(dense, sum(batch["input_ids"].numel() for batch in batches), widest))


def _why_on_cpu(chosen: Settings, further: _Further) -> str:
    """What was asked for that computes on the CPU alone, in words; empty where there is nothing."""
    if chosen.head_dim is not None:
        return f"head_dim: {HEADS_ON_CPU}"
    named = [*further.names, *([] if further.kv is None else ["kv"])]
    name = next((name for name in named if name in ON_CPU), None)
    return "" if name is None else f"transforms={named}: {ON_CPU[name]}"


_NAMES = [name for name, given in inspect.signature(optimize).parameters.items() if given.kind is not given.VAR_KEYWORD]


def _check_model(model: nn.Module, device: str = CPU) -> None:
    """Raise `ConfigError` unless `model` is a torch module of a known family, with finite weights, on the CPU.

    It may lie elsewhere where another device is asked for.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model takes a torch.nn.Module, got {model!r:.60} ({type(model).__name__})")
    find_adapter(model)
    check_weights(model, anywhere=device != CPU)


def _with_flags_of(model: nn.Module, result: nn.Module) -> nn.Module:
    """`result` in eval mode, with the parameters taking gradients that take them in the caller's `model`.

    Those that only the result has, scales of rounded weights, take none.
    """
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in result.named_parameters():
        parameter.requires_grad_(wanted.get(name, False))
    return result.eval()


def compact_masked(model: nn.Module, example: dict | Iterable[dict], *, tile: int = 16, look: bool = True) -> Optimized:
    """Copy of a model that was pruned elsewhere, without the neurons, heads or channels that its zeros made dead.

    example: the model's inputs, one dict or several; on them the copy gives the same outputs to 1e-5 relative, computed
    in float64 (`report["max_rel_error"]`). What is dead is gathered by a permutation and removed in whole tiles of
    `tile` elements; what a dead element still said, the same for every input, goes into a bias. Masks of
    `torch.nn.utils.prune` and parametrizations become plain weights. The given model is not changed.

    `report["axes"]`: axis, kind, size, dead, kept. `report["zeros"]` (with `look`): of every axis whose weights still
    have more than 5 % of zeros the share of tiles that hold anything else, `now`, as the solver orders them (`solved`),
    and `least`, which no order undercuts: zeros without structure save nothing. Raises `ConfigError` on a model of no
    family or a tile below 1, `AxisError` on one whose blocks, run one by one, are not what it computes,
    `TransformError` if the outputs differ or the result could not be saved.
    """
    tile = check_value(plain(tile), fields(Settings)["tile"], "tile")
    _check_model(model)
    with our_own(model) as caller:
        batches = caller.call(read_batches, example, "example")
        if not batches:
            raise ConfigError("example is empty: pass at least one dict of the model's inputs")
        plain_model = plain_copy(model)
        check_savable(plain_model)
        check_model(plain_model, batches)
        smaller, removed, error = remove_dead(plain_model, batches, tile)
        zeros = count_zeros(smaller, tile) if look else []
    report = {
        "mode": "masked",
        "tile": tile,
        "widths": {entry.axis: entry.kept for entry in removed},
        "axes": [entry.to_json() for entry in removed],
        "zeros": [entry.to_json() for entry in zeros],
        "max_rel_error": error,
    }
    return Optimized(smaller, report)


def _measure_machine(observed: Observed, settings: Settings, device: Device) -> Findings:
    """Width → latency tables of this machine, and what an error in each axis does to the output."""
    sizes = {item.kind: item.elements for item in observed.adapter.prunable()}
    widths = {kind: widths_to_try(size, 8, settings.tiles[kind]) for kind, size in sizes.items()}
    largest = max(observed.batches, key=lambda batch: batch["input_ids"].numel())
    target = Target.named(reference_of(device.name), device=device.name)
    clock: dict[str, Any] = {"call": target.enqueue, "time_round": target.time_round}
    clock |= {"repeats": CURVE_ROUNDS, "seed": settings.seed}
    at_once = None if device.is_cpu else ON_DEVICE
    dense_ms, curves = measure_width_curves(observed.adapter, largest, widths, at_once=at_once, **clock)
    tiles = {} if device.is_cpu else {kind: settings.tiles[kind] for kind in curves}
    steps = {kind: found.step for kind, found in measure_steps(observed.adapter, largest, tiles, **clock).items()}
    tables = {
        kind: LatencyTable.of(kind, curve.kept, curve.saved_ms, steps.get(kind, 1)) for kind, curve in curves.items()
    }
    found = measure_sensitivity(
        observed.adapter, observed.moments, observed.element_paths, observed.ridge, observed.batches[:4]
    )
    return Findings(tables, dense_ms, {entry.axis: entry.rate for entry in found})


def _report(solution: Solution) -> dict:
    best = solution.best
    return {
        "mode": solution.mode,
        "accepted_strength": best.strength,
        "widths": best.widths,
        "predicted_latency_rel": best.predicted_latency_rel,
        "validation": best.judgement.to_json() if best.judgement else None,
        "attempts": solution.attempts,
        "certificates": solution.certificates,
    }
