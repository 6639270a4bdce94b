"""Stage 00: what this machine is, what model and data are used, and how good the dense model is."""

from collections.abc import Callable

from icd_lib.measure.environment import fingerprint
from icd_lib.measure.memory import parameter_bytes
from icd_lib.run.artifacts import Run
from icd_lib.stages.context import RANDOM_WEIGHTS, Context
from icd_lib.stages.contexts import make_context

SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "state_size")


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write setup/setup.json and the probes; returns what setup.json holds."""
    context = make_context(run, progress)
    progress(f"checkpoint {context.checkpoint.name} ({context.checkpoint.source})")
    report = {
        "environment": fingerprint(),
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
        "badges": badges(context),
    }
    if context.is_trained:
        context.check_text()
        dense = {split: context.dense_result(split) for split in (context.selecting, *context.judged)}
        report["dense"] = {split: own_quality(context, split, result) for split, result in dense.items()}
    run.write_json("setup/setup.json", report)
    return report


def own_quality(context: Context, split: str, result) -> dict:
    """The dense model on a split: its own quality, as a whole and by domain."""
    found = context.suite.compare(result, result)
    domains = {
        name: {
            "quality_pct": entry["own"]["dense_pct"],
            "labelled_pct": entry["own_labelled"]["dense_pct"] if entry.get("own_labelled") else None,
            "n": entry["n"],
        }
        for name, entry in found["domains"].items()
    }
    return {"quality_pct": found["own"]["dense_pct"], "n_items": found["n_items"], "domains": domains}


def badges(context: Context) -> list[str]:
    """Short warnings that every page of the run shows."""
    found = []
    if not context.is_trained:
        found.append(RANDOM_WEIGHTS)
    if context.get("model.checkpoint") and context.checkpoint.source == "embedded":
        found.append("hub offline: the embedded copy of the checkpoint was taken")
    if context.is_trained and (missing := report_of_missing(context)):
        found.append(missing)
    if context.run.scenario.quick:
        found.append("quick run: same stages and schema, fewer samples; figures are rough")
    return found


def report_of_missing(context: Context) -> str:
    """Which domains could not be had, in words; empty if all are there."""
    missing = context.describe_data().get("missing", {})
    return f"text missing: {', '.join(missing)} (make fetch_data)" if missing else ""
