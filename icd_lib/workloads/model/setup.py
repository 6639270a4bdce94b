"""What model and data are used, and how good the dense model is."""

import torch

from icd_lib.codesign.tiles import unfit_axes
from icd_lib.experiment.arms import MODES
from icd_lib.measure.memory import parameter_bytes
from icd_lib.measure.options import DecodeOptions
from icd_lib.models.check import check_length, check_model
from icd_lib.models.checkpoint.source import MADE
from icd_lib.models.families import find_adapter
from icd_lib.storage.record_json import as_json
from icd_lib.workloads.model.context import RANDOM_WEIGHTS, Context
from icd_lib.workloads.model.deploy import check_runtimes, choose_target
from icd_lib.workloads.model.solve import settings_of

WHOLE_RUN = "run"
IN_BF16 = "weights in bfloat16: eager, which pages call fp32, computes in bfloat16 here"
SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "state_size")


def describe(context: Context) -> dict:
    """What setup.json holds of the model, its text and how good it is; writes the dense model's results."""
    context.progress(f"checkpoint {context.checkpoint.name} ({context.checkpoint.source})")
    if context.run.scenario.config.get("device") is not None:  # before anything of the model is allocated
        context.device = context.settled(context.find_device())
        context.progress(f"device {context.device.name} ({context.device.label}): {context.device.why}")
        if not context.device.is_cpu:
            context.progress(context.needs.words)
    check_lengths(context)
    if "decode" in context.run.scenario.config:
        from icd_lib.workloads.model.decode import check_state  # loads what only such models need

        options = DecodeOptions(**context.run.scenario.config["decode"])
        check_state(context.model, context.device.name, options)
    check_runtimes(context)
    if "kv" in context.run.scenario.config:
        from icd_lib.workloads.model.generation import check_generation  # loads what only decoders need

        check_generation(context)
    warnings = badges(context) | {line: "model" for line in unfit_of_modes(context)}
    report = {
        "model": {
            **context.checkpoint.provenance(),
            "architecture": type(context.model).__name__,
            "parameters": sum(p.numel() for p in context.model.parameters()),
            "parameter_bytes": parameter_bytes(context.model),
            "shape": {
                name: getattr(context.model.config, name) for name in SHAPE if hasattr(context.model.config, name)
            },
        },
        "data": context.describe_data(),
        "badges": list(warnings),
    }
    if about := {text: subject for text, subject in warnings.items() if subject != WHOLE_RUN}:
        report["badge_subjects"] = about
    if context.run.scenario.config.get("device") is not None:
        report["device"] = as_json(context.device)
        if not context.device.is_cpu:
            report["needs"] = as_json(context.needs)
    if context.is_trained:
        context.check_text()
    check_model(context.model, context.probes())
    found = choose_target(context)
    report["deploy"] = as_json(found)
    context.progress(f"deployed in {found.label}: {found.why}")
    if context.is_trained:
        dense = {split: context.dense_result(split) for split in (context.selecting, *context.judged)}
        report["dense"] = {split: own_quality(context, split, result) for split, result in dense.items()}
    return report


def check_lengths(context: Context) -> None:
    """Raise `ConfigError` where the scenario asks for more tokens than the model has positions."""
    adapter, longest = find_adapter(context.model), max(length for _, length in context.get("measure.shapes"))
    check_length(adapter, context.get("data.max_length"), "data.max_length", "set it")
    check_length(adapter, longest, "the longest of measure.shapes", "set it")


def own_quality(context: Context, split: str, result) -> dict:
    """The dense model on a split: its own quality, as a whole and by domain."""
    compared = context.suite.compare(result, result)
    domains = {
        name: {
            "quality_pct": entry["own"]["dense_pct"],
            "labelled_pct": entry["own_labelled"]["dense_pct"] if entry.get("own_labelled") else None,
            "n": entry["n"],
        }
        for name, entry in compared["domains"].items()
    }
    return {"quality_pct": compared["own"]["dense_pct"], "n_items": compared["n_items"], "domains": domains}


def badges(context: Context) -> dict[str, str]:
    """Short warnings that every page of the run shows, and what each is about: the model, or the whole run."""
    subjects = {}
    if not context.is_trained:
        subjects[RANDOM_WEIGHTS] = WHOLE_RUN
    if next(context.model.parameters()).dtype == torch.bfloat16:
        subjects[IN_BF16] = WHOLE_RUN
    if context.get("model.checkpoint") and context.checkpoint.source == "embedded":
        subjects["hub offline: the embedded copy of the checkpoint was taken"] = "model"
    if context.checkpoint.source == MADE:
        subjects["masked here: the embedded model, pruned by torch.nn.utils.prune to have an example"] = "model"
    if context.is_trained and (missing := report_of_missing(context)):
        subjects[missing] = WHOLE_RUN
    if context.run.scenario.quick:
        subjects["quick run: same stages and schema, fewer samples; figures are rough"] = WHOLE_RUN
    return subjects


def unfit_of_modes(context: Context) -> list[str]:
    """What every mode has to say of axes that it cannot make smaller."""
    adapter, settings = find_adapter(context.model), settings_of(context)
    return [line for mode in MODES for line in unfit_axes(adapter, settings, mode)]


def report_of_missing(context: Context) -> str:
    """Which domains could not be had, in words; empty if all are there."""
    missing = context.describe_data().get("missing", {})
    return f"text missing: {', '.join(missing)} (make fetch_data)" if missing else ""
