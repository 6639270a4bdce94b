"""Where a run's models are deployed: the runtime that the scenario names, or the fastest whose quality holds."""

import math
from dataclasses import replace

import torch

from icd_lib.codesign.budget import over_budget
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.measure.battery import uses_own_head
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.environment import versions
from icd_lib.measure.ladder import measure_ladder
from icd_lib.models.families import family_of
from icd_lib.progress import follow
from icd_lib.records.deploy import Deploy, Tried
from icd_lib.run.shared import keep_shared, read_shared
from icd_lib.runtimes import CUDA, REFERENCE, RUNTIMES, reference_of, rows_of
from icd_lib.runtimes.base import Runtime
from icd_lib.runtimes.emulation import emulated
from icd_lib.storage.machine import keep, processor, read_kept
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.workloads.model.context import RANDOM_WEIGHTS, Context
from icd_lib.workloads.model.solve import judgement_of, settings_of
from icd_lib.workloads.timing import settle_ms

KIND = "deploy"
REPEATS = 10
LEAD = 0.03  # so much faster than any other is a runtime that leaves no file for others, if it is to be taken


def choose_target(context: Context) -> Deploy:
    """Where the run's models are deployed, by what the scenario asks for.

    Of several runtimes the fastest is taken whose quality holds for the dense model, on the text that chooses. What
    was found is kept for this machine, so that two runs go the same way. Raises `ConfigError` where no row fits,
    `ResourceError` with the cure where the one that is named does not work here, or none does.
    """
    asked, device = context.asked_runtime, context.device
    names = rows_of(*asked, device.name)
    if not names:
        computes = ", ".join(RUNTIMES[name].precision for name in rows_of(asked[0], "auto", device.name))
        if not computes:
            raise ConfigError(
                f"deploy.runtime={asked[0]}: it does not compute on device={device.name} ({device.why}); "
                + ("set device to cuda" if device.is_cpu else "take auto, eager, compile or cuda_graph")
            )
        raise ConfigError(f"deploy.precision={asked[1]}: {asked[0]} (deploy.runtime) computes in {computes}")
    if len(names) == 1:
        return named(context, names[0], asked)
    key = machine_key(context, names)
    known = None if context.get("graph.remeasure") else read_kept(KIND, key) or read_shared(context.run, KIND, key)
    if known is not None:
        context.progress("runtimes of this machine, compared by an earlier run (graph.remeasure=true compares again)")
        return from_json(Deploy, known, "the machine's cache")
    with watched() as conditions:
        timed = dense_latencies(context, names)
    found = fastest_that_holds(context, timed, asked)
    if disturbed := disturbances(conditions):
        where = "in this sweep" if context.run.shared else "now"
        context.progress(
            f"{'; '.join(disturbed)}: this choice holds {where}, and runtimes are compared again by the next"
        )
        found = replace(found, disturbed=disturbed)
        keep_shared(context.run, KIND, key, as_json(found))
        return found
    keep(KIND, key, as_json(found))
    return found


def check_runtimes(context: Context) -> None:
    """Raise `ResourceError` where no runtime that deploy asks for can read a model of this family; nothing is timed."""
    asked, family = context.asked_runtime, family_of(context.model)
    names = rows_of(*asked, context.device.name)
    if names and family is not None and family.no_onnx and all(RUNTIMES[name].from_onnx for name in names):
        raise ResourceError(
            f"deploy.precision={asked[1]}: {', '.join(names)} read ONNX files, and of {type(context.model).__name__} "
            f"there is none: {family.no_onnx}"
        )


def named(context: Context, name: str, asked: tuple[str, str]) -> Deploy:
    """The one runtime that fits; it is tried at once, so that a missing package is known before anything is solved."""
    row = context.deployed(name).row
    row.check()
    if name != REFERENCE:
        check_judged(context, name)
        context.deployed(name).prepare(context.model, context.example).close()
    why = "the scenario names it"
    if note := emulated_in(row):
        why += f"; {note}"
    return Deploy(runtime=name, label=row.label, precision=row.precision, asked=asked, why=why)


def check_judged(context: Context, name: str) -> None:
    """Raise `ResourceError` where the run's judge cannot read a model in a runtime."""
    if not RUNTIMES[name].from_onnx or not context.is_trained:
        return
    texts = context.suite.judged.get(context.judging, {}).values()
    if any(uses_own_head(context.model, text) for text in texts):
        raise ResourceError(
            f"{name} gives one output, and {type(context.model).__name__} is judged by its own head; "
            f"set deploy.runtime to eager or compile"
        )


def dense_latencies(context: Context, names: list[str]) -> list[Tried]:
    """The dense model in every runtime, by `rank`; those that cannot be measured last, with the reason."""
    inputs = [context.fixed(batch, length) for batch, length in context.deploy_shapes]
    reference = reference_of(context.device.name, context.precision)
    ladder = measure_ladder(
        {"dense": context.model},
        inputs,
        runtimes=dict.fromkeys([reference, *names]),
        device=context.device.name,
        precision=context.precision,
        repeats=REPEATS,
        warmup=2,
        seed=context.get("seed"),
        resamples=100,
        calibration=context.deploy_calibration,
        progress=context.progress,
        settle_ms=settle_ms(context.run),
    )
    found = []
    for name in names:
        row, entry = RUNTIMES[name], ladder["runtimes"][name]
        if entry["status"] != "measured":
            found.append(Tried(runtime=name, label=row.label, reason=entry["reason"]))
            continue
        relative = {shape: at["arms"]["dense"]["vs_eager"].value for shape, at in entry["shapes"].items()}
        found.append(Tried(runtime=name, label=row.label, latency_rel=relative))
    return sorted(found, key=rank)


def rank(tried: Tried) -> float:
    """Where a runtime stands: by its latency; what leaves no file that others load has to gain `LEAD` by it."""
    return mean_latency(tried) * (1 if RUNTIMES[tried.runtime].users else 1 + LEAD)


def mean_latency(tried: Tried) -> float:
    """Mean over the shapes of what a call takes relative to eager's; infinite where it was not measured."""
    if tried.latency_rel is None:
        return math.inf
    return 1 + sum(tried.latency_rel.values()) / len(tried.latency_rel)


def fastest_that_holds(context: Context, timed: list[Tried], asked: tuple[str, str]) -> Deploy:
    """The first of `timed` in which the dense model keeps the budget; all before it say why not."""
    tried: list[Tried] = []
    taken = None
    for item in timed:
        if taken is not None:
            tried.append(item if item.reason else replace(item, reason=passed_over(item, taken)))
            continue
        item = item if item.reason else judged(context, item)
        tried.append(item)
        if item.reason is None:
            taken = item
    if taken is None:
        raise ResourceError(
            "no runtime that deploy asks for works here: "
            + "; ".join(f"{item.runtime}: {item.reason}" for item in tried)
        )
    row = RUNTIMES[taken.runtime]
    why = f"the fastest of {len(tried)} for the dense model" + (" whose quality holds" if row.rounds else "")
    if note := emulated_in(row):
        why += f"; {note}"
    return Deploy(runtime=taken.runtime, label=row.label, precision=row.precision, asked=asked, why=why, tried=tried)


def emulated_in(row: Runtime) -> str | None:
    """Why the processor that a row computes on only emulates its precision; None where it does not."""
    return None if row.name in CUDA else emulated(row.precision)


def passed_over(item: Tried, taken: Tried) -> str:
    """Why a runtime that ranks behind the one that is taken was not."""
    if mean_latency(item) >= mean_latency(taken):
        note = emulated_in(RUNTIMES[item.runtime])
        return f"slower than {taken.runtime}" + (f"; {note}" if note else "")
    return f"less than {LEAD:.0%} faster than {taken.runtime}, and it leaves no file that others load"


def judged(context: Context, item: Tried) -> Tried:
    """`item` with what the dense model loses in its runtime, and with the reason where that is too much."""
    row = RUNTIMES[item.runtime]
    if not row.rounds:
        return item
    if not context.is_trained:
        return replace(item, reason=f"it rounds, and {RANDOM_WEIGHTS}")
    try:
        check_judged(context, item.runtime)
    except ResourceError as error:
        return replace(item, reason=error.args[0])
    target, told = context.deployed(item.runtime), follow(context.progress, f"dense in {row.label}")
    with target.judged_form(context.model, context.example) as model:
        result = context.suite.evaluate(model, context.selecting, told)
    judgement = judgement_of(context.suite.compare(result, context.dense_result(context.selecting)))
    reasons = over_budget(judgement, settings_of(context).but(latency_target_rel=None, rate=None))
    note = emulated_in(row)
    return replace(
        item,
        validation=judgement.record(),
        reason="; ".join([reason.text for reason in reasons] + ([note] if note and reasons else [])) or None,
    )


def machine_key(context: Context, names: list[str]) -> dict:
    """What the comparison of runtimes depends on."""
    get = context.get
    return {
        "model": context.checkpoint.sha256,
        "shapes": [list(shape) for shape in context.deploy_shapes],
        "runtimes": names,
        "fits_shapes": [name for name in names if RUNTIMES[name].fits_shapes],
        "text": context.suite.sha256s[context.selecting] if context.is_trained else None,
        "calibration": context.calibration_sha256,
        "max_length": get("data.max_length"),
        "budget": {name: get(f"codesign.{name}") for name in ("quality_budget_pp", "dropin_budget_pp", "selection_z")},
        "lead": LEAD,
        **context.device.key,
        "settle_ms": settle_ms(context.run),
        "seed": get("seed"),
        "threads": torch.get_num_threads(),
        **processor(),
        "packages": versions(),
    }
