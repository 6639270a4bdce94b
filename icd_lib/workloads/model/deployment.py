"""From dense in PyTorch eager to the result as deployed, one change at a time: runtime, precision, S, Q, layout."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.measure.comparison import relative
from icd_lib.measure.statistics import paired_ratio
from icd_lib.metric import Figure, not_measured
from icd_lib.models.quantized import is_quantized
from icd_lib.records.attempts import Validation
from icd_lib.records.deploy import Deploy
from icd_lib.records.measured import Against, DeployStep, Timing
from icd_lib.runtimes.target import Target
from icd_lib.storage.record_json import from_json
from icd_lib.workloads.model.arms import Saved, is_rounded
from icd_lib.workloads.model.attribution import before_quantization, lost_by_result, lost_in
from icd_lib.workloads.model.context import RANDOM_WEIGHTS, Context

REFERENCE_ARM = "dense_eager"
SAME_FUNCTION = "the result's function in another layout"


@dataclass(frozen=True, eq=False)
class Planned:
    """A step before its figures. target: where its arm runs, None: nowhere; against: arm → what differs from it."""

    step: str
    arm: str
    target: Target | None
    note: str
    against: Mapping[str, str] = field(default_factory=dict)


def plan_steps(context: Context, solved: Saved, arms: set[str]) -> list[Planned]:
    """The steps that this run has; `arms`: the controls that were made."""
    target, plain = context.target, context.plain_target
    row, owns, rounds = target.row, is_quantized(solved.model), is_rounded(context, solved)
    rounding = "Q" if owns or row.precision == "int8" else row.precision
    steps = [Planned("dense in PyTorch eager", REFERENCE_ARM, context.reference, "where everybody begins")]
    unrounded = REFERENCE_ARM
    if plain is None or not plain.is_reference:
        unrounded = "dense_fp32" if context.rounds else DENSE
        where = plain if context.rounds else target
        note = f"dense, {context.precision}"
        steps.append(Planned("runtime alone", unrounded, where, note, {REFERENCE_ARM: "the runtime"}))
    if context.rounds:
        note = f"dense, {row.precision} as the runtime has it"
        steps.append(Planned("precision alone", DENSE, target, note, {unrounded: "precision"}))
    if rounds:
        note = "iterative before anything is rounded, fp32"
        steps.append(Planned("S alone", "iterative_fp32", plain, note, {unrounded: "S"}))
    if owns:
        note = "dense, quantised as the scenario does it"
        steps.append(Planned("Q alone", "dense_quantized", target, note, {unrounded: "Q"}))
    whole = f"S and {rounding}" if rounds else "S"
    before = "dense_quantized" if owns else DENSE
    note = "iterative's mask, whole dead tiles dropped"
    linear = {before: "S in linear's layout"}
    steps.append(Planned(f"{whole}, linear's layout", "same_transform", target, note, linear))
    parts = {"same_transform": "the layout"}
    if "scattered" in arms:
        note = "what is dead is removed, columns that stay float lie scattered"
        steps.append(Planned(f"{whole}, π₀'s order", "scattered", target, note, {"same_transform": "removal"}))
        parts["scattered"] = "float columns gathered (π → Q → π′)"
    parts[before] = "S in iterative's layout"
    if rounds:
        parts["iterative_fp32"] = f"{rounding} after S"
    return [*steps, Planned(f"{whole}, iterative's layout", RESULT, target, "the result as deployed", parts)]


def deployment_steps(
    context: Context,
    solved: Saved,
    made: Mapping[str, nn.Module],
    shapes: Mapping[str, Mapping[str, Timing]],
    gain: list,
) -> list[DeployStep] | None:
    """The steps with latency at the first shape and loss where strengths are chosen; None where all is eager fp32.

    made: the controls; gain: what `attribute_gain` found, whose judgement of the unrounded result is taken over.
    """
    if context.target.is_reference:
        return None
    label, first = next(iter(shapes.items()))
    samples = context.run.read_json("measure/samples.json")["shapes"][label]
    settings = {"seed": context.get("seed"), "resamples": context.get("measure.bootstrap")}
    steps = []
    for planned in plan_steps(context, solved, set(made)):
        timed = planned.arm in first
        missing = "" if timed else why_untimed(context, planned.arm)
        steps.append(
            DeployStep(
                step=planned.step,
                arm=planned.arm,
                place=planned.target.row.label if planned.target else context.target.row.engine,
                latency_ms=first[planned.arm].latency_ms if timed else not_measured("ms", missing),
                vs_eager=change(samples, planned.arm, REFERENCE_ARM, missing, settings),
                note=planned.note,
                validation=lost_by(context, solved, planned, made, gain),
                against=[
                    Against(
                        other=other,
                        shows=shows,
                        latency_rel=change(
                            samples, planned.arm, other, missing or why_untimed(context, other), settings
                        ),
                    )
                    for other, shows in planned.against.items()
                ],
            )
        )
    return steps


def change(samples: dict, arm: str, other: str, missing: str, settings: dict) -> Figure:
    """Latency of an arm relative to another, from the rounds that they shared; not measured for `missing`."""
    if arm not in samples or other not in samples:
        return not_measured("fraction", missing)
    return relative(paired_ratio(np.array(samples[arm]), np.array(samples[other]), **settings))


def why_untimed(context: Context, arm: str) -> str:
    """Why an arm has no latency."""
    engine = context.target.row.engine
    return context.left_out.get(arm) or f"{engine} has no fp32 here, so {arm} was not made"


def lost_by(
    context: Context, solved: Saved, planned: Planned, made: Mapping[str, nn.Module], gain: list[dict]
) -> Validation:
    """What a step loses where strengths are chosen, judged as its arm is deployed; or why that was not judged."""
    if not context.is_trained:
        return Validation(reason=RANDOM_WEIGHTS)
    if planned.arm == REFERENCE_ARM:
        return Validation(reason="all are compared with it")
    if planned.step == "runtime alone":
        return Validation(reason="it computes the same function at fp32; the runtime ladder has its output error")
    if planned.arm in ("same_transform", "scattered"):
        return Validation(reason=SAME_FUNCTION)
    if planned.arm == RESULT:
        found = lost_by_result(context, solved)
    elif planned.arm == "iterative_fp32":
        found = before_quantization(gain)
    elif planned.arm == DENSE and (known := judged_at_setup(context)) is not None:
        return known
    elif planned.arm == DENSE or planned.arm in made:
        context.progress(f"{planned.step} is judged")
        model = context.model if planned.arm == DENSE else made[planned.arm]
        found = lost_in(context, model, context.target)
    else:
        return Validation(reason=why_untimed(context, planned.arm))
    return Validation(**found) if found else Validation(reason="nothing was accepted")


def judged_at_setup(context: Context) -> Validation | None:
    """What stage 00 found the dense model to lose in the runtime that was taken, where it compared several."""
    entry = context.run.read_json("setup/setup.json").get("deploy")
    tried = from_json(Deploy, entry, "setup/setup.json").tried if entry else []
    return next((item.validation for item in tried if item.runtime == context.target.row.name), None)
