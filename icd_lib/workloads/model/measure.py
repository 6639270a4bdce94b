"""What is known of models besides the clock: quality on test data, memory, sizes, energy, runtimes."""

import copy
import functools
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from icd_lib.axes.double import Unrounded
from icd_lib.axes.kinds import KINDS, granules
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.budget import over_budget
from icd_lib.errors import MeasureError, ResourceError
from icd_lib.experiment.arms import ARMS, DENSE, IN_FP32, IN_REFERENCE, MODEL, RESULT, controls_of
from icd_lib.measure.energy import energy_j_per_token
from icd_lib.measure.l2 import l2_hit_pct
from icd_lib.measure.ladder import measure_ladder
from icd_lib.measure.memory import alive_tiles, linear_flops, parameter_bytes
from icd_lib.measure.peak import PeakProcess, peaks_of_folders
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import as_float, has_eight_bits
from icd_lib.progress import follow
from icd_lib.records.losses import DEPLOYED, Quality, SplitLoss
from icd_lib.records.measured import Ladder, Measured
from icd_lib.runtimes import REFERENCE, RUNTIMES, rows_of
from icd_lib.runtimes.base import Prepared
from icd_lib.runtimes.target import Target
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.transforms import is_given
from icd_lib.workloads.base import Timed
from icd_lib.workloads.model.context import RANDOM_WEIGHTS, Context
from icd_lib.workloads.model.counters import counted, folder_of, is_on_gpu
from icd_lib.workloads.model.setup import own_quality
from icd_lib.workloads.model.solve import judgement_of, settings_of
from icd_lib.workloads.timing import settle_ms


def start_peaks(context: Context) -> PeakProcess:
    """The process in which `measured` has the models' peaks of memory taken; its imports take seconds."""
    return PeakProcess(type(context.model).__module__, *context.get("measure.shapes")[0])


def measured(
    context: Context, models: dict[str, nn.Module], extra: dict[str, nn.Module], peaks: PeakProcess | None = None
) -> dict:
    """What measure.json holds besides latency; peaks: `start_peaks`, started before."""
    result = models.get(RESULT)
    return {
        "quality": measure_quality(context, models),
        "equality": ({} if result is None else same_function(context, result, extra)) | kept_function(context, models),
        "sizes": measure_sizes(context, models, peaks),
        **from_counters(context, models | metered(extra)),
        "controls": {arm.name: arm.words[MODEL] for arm in controls_of(MODEL)},
    }


def from_counters(context: Context, models: dict[str, nn.Module]) -> dict:
    """Energy and L2 hit rates: {"energy", "l2_hit_pct"}, on a GPU with what gave them."""
    if is_on_gpu(context):
        return counted(context, models)
    return {
        "energy": {arm: measure_energy(context, model) for arm, model in models.items()},
        "l2_hit_pct": l2_hit_pct(context.get("measure.ncu")),
    }


def metered(extra: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The controls whose energy is measured too: gates compare iterative with them."""
    return {arm: model for arm, model in extra.items() if ARMS[arm].energy}


def timed(context: Context, models: dict[str, nn.Module]) -> Iterator[Timed]:
    """Every shape of the scenario, the first one judged; every arm is made ready once, where it runs.

    Arms that are steps alone are made ready last; one that its runtime refuses is noted in `context.left_out`.
    """
    shapes = {(batch, length): context.fixed(batch, length) for batch, length in context.get("measure.shapes")}
    first = next(iter(shapes.values()))
    context.target.row.reset()
    with ExitStack() as held:
        ready, steps = {}, {}
        for arm, model in models.items():
            if not is_step(arm):
                fitted = [] if ARMS.get(arm, ARMS[DENSE]).any_shape else shapes.values()
                ready[arm] = made_ready(target_of(context, arm), model, first, fitted, held)
        for arm in filter(is_step, models):
            try:
                steps[arm] = made_ready(target_of(context, arm), models[arm], first, [first], held)
            except ResourceError as error:
                context.left_out[arm] = error.args[0]
                context.progress(f"{arm} is not timed: {error.args[0]}")
        for (batch, length), inputs in shapes.items():
            here = ready | steps if inputs is first else ready
            runners = {arm: prepared.enqueue(inputs) for arm, prepared in here.items()}
            label, clock = f"{batch}x{length}", context.target.time_round
            yield Timed(label, f"latency {label}", batch * length, runners, clock)


def is_step(arm: str) -> bool:
    """Whether an arm is there to take the deployment apart alone."""
    return arm in ARMS and ARMS[arm].step


def target_of(context: Context, arm: str) -> Target:
    """Where an arm runs."""
    where = ARMS[arm].runs_in if arm in ARMS else None
    if where == IN_FP32 and context.plain_target is not None:
        return context.plain_target
    return context.reference if where == IN_REFERENCE else context.target


def made_ready(target: Target, model: nn.Module, example: dict, shapes: Collection[dict], held: ExitStack) -> Prepared:
    """A model ready, and warm for the shapes; closed with `held`."""
    prepared = held.enter_context(closing(target.prepare(model, example)))
    if not target.is_reference:
        for inputs in shapes:
            prepared.warm(inputs)
    return prepared


def measure_quality(context: Context, models: dict[str, nn.Module]) -> dict:
    """Judged once: {"judging", arm: {split: what it loses against dense}}; the dense arm: {split: its own quality}.

    All as they compute where they are deployed (forms that are compiled or captured for a shape: eager in their
    precision, `Prepared.judged`); `DEPLOYED` is the dense model there, if that rounds. The result and it are judged on
    all splits, linear and oneshot on the budget's only: they are there for comparison.
    """
    if not context.is_trained:
        return {"reason": RANDOM_WEIGHTS}
    quality: dict = {"judging": context.judging, "dense": {}}
    candidates = {arm: model for arm, model in models.items() if arm != DENSE}
    if context.rounds:
        candidates[DEPLOYED] = context.model
    for split in context.judged:
        dense = context.dense_result(split)
        quality["dense"][split] = own_quality(context, split, dense)
        for arm, model in candidates.items():
            if arm not in (RESULT, DEPLOYED) and split != context.judging:
                continue
            told = follow(context.progress, f"{arm} on {split} text")
            with context.target.judged_form(model, context.example) as deployed:
                result = context.suite.evaluate(deployed, split, told)
            context.suite.save_result(result, context.run.path("measure", f"{split}_{arm}.safetensors"))
            entry = context.suite.compare(result, dense)
            quality.setdefault(arm, {})[split] = entry
            context.progress(
                f"{arm}: loses {entry['own']['drop_pp']:+.3f} ± {entry['own']['se_pp']:.3f} pp on {split} text"
            )
    return quality


def same_function(context: Context, iterative: nn.Module, extra: dict[str, nn.Module]) -> dict:
    """Largest relative output difference between iterative and the same mask in the other layouts.

    Inputs of quantised Linears are not rounded here: which side of an edge a sum falls on is no matter of the layout.
    """
    return {name: errors_of(context, extra[name], iterative) for name in ("same_transform", "placebo")}


def kept_function(context: Context, models: dict[str, nn.Module]) -> dict:
    """Largest relative output difference between any arm and the dense model, where no arm may change it."""
    if not is_given(context.config):
        return {}
    errors = [errors_of(context, models[DENSE], model) for arm, model in models.items() if arm != DENSE]
    return {DENSE: {name: max(error[name] for error in errors) for name in errors[0]}} if errors else {}


def errors_of(context: Context, first: nn.Module, second: nn.Module) -> dict[str, float]:
    """Precision → relative difference of two models' outputs on the example."""
    errors = {}
    for precision in (torch.float32, torch.float64):
        pair = [copy.deepcopy(model).to(precision) for model in (first, second)]
        with Unrounded():
            outputs = [model_outputs(model, context.example) for model in pair]
        errors[str(precision).removeprefix("torch.")] = outputs_error(*outputs)
    return errors


def measure_sizes(
    context: Context, models: dict[str, nn.Module], started: PeakProcess | None = None
) -> dict[str, dict]:
    """Per arm parameter bytes, FLOPs at the first shape, tiles, widths and peak memory in a process of its own."""
    batch, length = context.get("measure.shapes")[0]
    tile = granules(context.get("transform.tile"))
    with tempfile.TemporaryDirectory() as parent:
        folders = [folder_of(context, arm, model, Path(parent)) for arm, model in models.items()]
        peaks = peaks_of_folders(folders, type(context.model).__module__, batch, length, started)
    return {
        arm: {
            "parameter_bytes": parameter_bytes(model),
            "flops": linear_flops(model, batch, length),
            "widths": {axis.name: axis.size for axis in find_adapter(model).axes() if axis.kind in KINDS},
            "tiles": alive_per_kind(model, tile),
            "peak_memory_mb": peak,
        }
        for (arm, model), peak in zip(models.items(), peaks, strict=True)
    }


def alive_per_kind(model: nn.Module, granule: dict[str, int]) -> dict[str, int]:
    """Tiles (of elements that are tiles by themselves: elements) that the model still has, per axis kind."""
    kinds: dict[str, dict[str, int]] = {}
    for axis in find_adapter(model).axes():
        if axis.kind in KINDS:
            kinds.setdefault(axis.kind, {})[axis.name] = axis.size
    return {kind: alive_tiles(sizes, granule[kind])["total"] for kind, sizes in kinds.items()}


def measure_energy(context: Context, model: nn.Module) -> Figure:
    """J per token where this machine has a counter, else not_measured with the reason."""
    if not context.get("measure.energy"):
        return not_measured("J/token", "energy counters are switched off in this scenario (measure.energy)")
    batch, length = context.get("measure.shapes")[0]
    try:
        return energy_j_per_token(context.target.call(model, context.fixed(batch, length)), batch * length)
    except (ResourceError, MeasureError) as error:
        return not_measured("J/token", str(error))


def metrics(arm: str, report: Measured) -> dict:
    """What metrics.json of an arm holds of a model."""
    sizes = report.sizes[arm]
    return {
        "l2_hit_pct": report.hits_of(arm),
        "energy_j_per_token": report.energy[arm],
        "quality_pct": quality_figure(report.quality, arm),
        "peak_memory_mb": sizes.peak_memory_mb,
        "parameter_bytes": sizes.parameter_bytes,
        "flops": sizes.flops,
        "widths": sizes.widths,
        "quality_drop_pp": drop_figure(report.quality, arm),
    }


def quality_figure(quality: Quality, arm: str) -> Figure:
    """Own accuracy in percent on the text that the budget is for."""
    if quality.reason is not None:
        return not_measured("%", quality.reason)
    split = quality.judging
    if arm == DENSE:
        value, n = quality.dense[split].quality_pct, quality.dense[split].n_items
    else:
        value, n = quality.lost[arm][split].own.pct, quality.lost[arm][split].n_items
    return figure(value, "%", "measured", n=n, method=f"mean over tasks and domains, {split} text")


def drop_figure(quality: Quality, arm: str) -> Figure:
    """Own accuracy lost against dense on the text that the budget is for, percentage points."""
    if quality.reason is not None:
        return not_measured("pp", quality.reason)
    split = quality.judging
    if arm == DENSE and DEPLOYED in quality.lost:
        return reading_figure(quality.lost[DEPLOYED][split], "own")
    if arm == DENSE:
        count = quality.dense[split].n_items
        return figure(0.0, "pp", "measured", n=count, method="by definition", ci95=(0.0, 0.0))
    return reading_figure(quality.lost[arm][split], "own")


def reading_figure(entry: SplitLoss, reading: str) -> Figure:
    """One reading of a comparison on a split ("own", "own_labelled", "dropin") as a figure in percentage points."""
    loss = entry.reading(reading)
    if loss is None:
        return not_measured("pp", f"no task of this model and text has the reading {reading!r}")
    method = f"{reading}, {entry.split} text: {entry.method}"
    item = figure(loss.drop_pp, "pp", "measured", n=entry.n_items, method=method, ci95=loss.ci95)
    return replace(item, se_pp=loss.se_pp)


def measure_runtimes(context: Context, models: dict[str, nn.Module]) -> dict:
    """Dense and iterative under every runtime of the scenario, each in the form that it has there (`form_in`)."""
    chosen = {arm: models[arm] for arm in (DENSE, RESULT) if arm in models}
    names = ladder_names(context)
    if not any(map(has_eight_bits, chosen.values())):
        ladder = ladder_of(context, names, chosen)
    else:
        rounding = [name for name in names if RUNTIMES[name].precision == "int8"]
        plain = {arm: form_in(REFERENCE, model) for arm, model in chosen.items()}
        ladder = ladder_of(context, [name for name in names if name not in rounding], plain)
        more = ladder_of(context, [REFERENCE, *rounding], chosen)["runtimes"]
        ladder["runtimes"] |= {name: more[name] for name in rounding}
    return ladder | fastest_that_holds(context, ladder, chosen)


def ladder_names(context: Context) -> list[str]:
    """The runtimes of the scenario that compute where the run does; on a GPU all of its own where it names none."""
    there = rows_of("auto", "auto", context.device.name)
    named = context.get("measure.runtimes")
    return named if context.device.is_cpu else [name for name in named if name in there] or there


def form_in(runtime: str, model: nn.Module) -> nn.Module:
    """The model as a runtime computes it: where that is not int8, a quantised one in floats, with the same weights."""
    return as_float(model) if has_eight_bits(model) and RUNTIMES[runtime].precision != "int8" else model


def ladder_of(context: Context, runtimes: list[str], models: dict[str, nn.Module]) -> dict:
    """`measure_ladder` at the scenario's shapes."""
    return measure_ladder(
        models,
        [context.fixed(batch, length) for batch, length in context.get("measure.shapes")],
        runtimes=runtimes,
        device=context.device.name,
        precision=context.precision,
        repeats=8 if context.run.scenario.quick else 20,
        seed=context.get("seed"),
        resamples=context.get("measure.bootstrap"),
        calibration=context.deploy_calibration,
        progress=context.progress,
        settle_ms=settle_ms(context.run),
    )


def fastest_that_holds(context: Context, ladder: dict, models: dict[str, nn.Module]) -> dict:
    """{"fastest": the runtime of least latency whose quality holds where strengths are chosen, and what is lost there;
    "fastest_at": the same of every further shape; "refused": runtime → why a faster one was passed over}.

    The text that judges has no say in it. What is fastest at several shapes is judged once.
    """
    read = from_json(Ladder, as_json(ladder), "the ladder")
    judge = functools.cache(lambda name: {"runtime": name, **judge_runtime(context, name, models)})
    refused: dict[str, str | None] = {}
    found: dict[str, dict | None] = {}
    for shape in read.shapes:
        found[shape] = None
        for name in read.by_latency(RESULT, shape):
            if name not in refused:
                refused[name] = objection(context, name, models[RESULT])
            if refused[name] is None:
                found[shape] = judge(name)
                break
    fastest = found.pop(read.shapes[0]) if found else None
    return {"fastest": fastest, "fastest_at": found, "refused": {name: why for name, why in refused.items() if why}}


def objection(context: Context, runtime: str, model: nn.Module) -> str | None:
    """Why a model is not to be deployed in a runtime: what it loses there where strengths are chosen; None if nothing.

    A runtime that does not round computes the model's own function; so does any where quality cannot be judged, which
    `judge_runtime` then says.
    """
    if RUNTIMES[runtime].fixed_shapes:
        return "it compiles every shape anew, so it is timed and not deployed"
    exact = not RUNTIMES[runtime].rounds and not has_eight_bits(model)
    if exact or not context.is_trained or has_own_head(context):
        return None
    judgement = judgement_of(compared_in(context, runtime, RESULT, model, context.selecting))
    reasons = over_budget(judgement, settings_of(context).but(latency_target_rel=None, rate=None))
    told = "; ".join(reason.text for reason in reasons)
    if told:
        context.progress(f"{RESULT} in {RUNTIMES[runtime].label} is passed over: {told}")
    return told or None


def compared_in(context: Context, runtime: str, arm: str, model: nn.Module, split: str) -> dict:
    """What a model loses on a split as a runtime computes it, against dense in the reference runtime."""
    told = follow(context.progress, f"{arm} in {RUNTIMES[runtime].label}")
    with context.deployed(runtime).judged_form(form_in(runtime, model), context.example) as deployed:
        result = context.suite.evaluate(deployed, split, told)
    return context.suite.compare(result, context.dense_result(split))


def has_own_head(context: Context) -> bool:
    """Whether the dense model was judged by its own head, which a runtime with one output does not give."""
    return bool(getattr(context.dense_result(context.judging), "head_logits", None))


def judge_runtime(context: Context, runtime: str, models: dict[str, nn.Module]) -> dict:
    """{"quality": arm → what it loses in `runtime` against dense in eager fp32}, or null with the reason.

    "more": split → what the result loses on the other text that it is judged on.
    """
    row = RUNTIMES[runtime]
    if not row.rounds and not has_eight_bits(models[RESULT]):
        why = f"it computes in {row.precision}; the ladder says how far its outputs are from eager's"
        return {"quality": None, "reason": why}
    if not context.is_trained:
        return {"quality": None, "reason": RANDOM_WEIGHTS}
    if has_own_head(context):
        return {"quality": None, "reason": "a model with its own head is judged in eager only"}
    kept = ("own", "own_labelled", "dropin", "cosine", "n_items", "worst_domain")

    def lost(arm: str, split: str) -> dict:
        entry = compared_in(context, runtime, arm, models[arm], split)
        return {key: entry[key] for key in kept}

    others = [split for split in context.judged if split != context.judging]
    return {
        "quality": {arm: lost(arm, context.judging) for arm in models},
        "more": {split: lost(RESULT, split) for split in others},
    }
