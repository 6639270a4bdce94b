"""What a finished run of a decoder leaves for use: its model as an OpenVINO graph with the cache inside."""

from collections.abc import Callable

from icd_lib.decoding import DECODERS
from icd_lib.decoding.grouped import exported_rows
from icd_lib.deploy.card import Card, Lost, Speed
from icd_lib.deploy.export import export
from icd_lib.errors import ResourceError
from icd_lib.experiment.arms import RESULT
from icd_lib.metric import Figure
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.records.generation import EXPORTED_ARM, DeployedPoint
from icd_lib.report.generation import generation_of
from icd_lib.report.losses import is_above, lost
from icd_lib.report.results import Results
from icd_lib.run.artifacts import Run
from icd_lib.scrub.text import scrub_text
from icd_lib.workloads.model.contexts import make_context


def export_best_decoder(run: Run, results: Results, folder: str, progress: Callable[[str], None]) -> dict:
    """Write the export; what best.json says of it. `ResourceError` where no model was accepted or it loses too much."""
    if RESULT not in results.solves or not results.is_changed(RESULT):
        raise ResourceError("no smaller model was accepted")
    if (found := results.lost(RESULT).get(results.judging)) is None:
        raise ResourceError(f"quality was not judged: {results.quality_reason or 'there is no text that judges'}")
    check_loss(results, "in PyTorch", lost(found.own, found.n_items))
    for point in exported_points(results):
        if point.split == results.judging:
            check_loss(results, "as it would be exported", point.drop_pp)
    context, model = make_context(run, progress), load_optimized(run.dir / RESULT / "model")
    row = DECODERS[getattr(generation_of(results), "exported", None) or exported_rows(model)[0]]
    progress("exporting the model for OpenVINO, its cache in the graph")
    export(
        model,
        context.tokenizer,
        run.dir / folder,
        runtime=row.engine,
        precision=row.precision,
        card=card_of(run, results, f"{context.checkpoint.name}, sha256 {context.checkpoint.sha256[:12]}", folder),
        overwrite=True,
    )
    lines = [
        "from optimum.intel import OVModelForCausalLM",
        f'model = OVModelForCausalLM.from_pretrained("{folder}")',
    ]
    return {
        "status": "exported",
        "runtime": row.name,
        "label": f"{row.label_of(model)}, with the cache in the graph",
        "card": f"{folder}/README.md",
        "lines": lines,
    }


def check_loss(results: Results, where: str, item: Figure | None) -> None:
    """`ResourceError` where the result loses more than the budget on the text that judges."""
    if is_above(results, item):
        assert item is not None
        raise ResourceError(
            f"{RESULT} loses {item.value:+.2f} pp on {results.judging} text {where}, more than the budget of "
            f"{results.budget_pp:g}"
        )


def exported_points(results: Results) -> list[DeployedPoint]:
    """What the export was found to lose in its own runtime, by split."""
    return [point for point in getattr(generation_of(results), "deployed", []) if point.arm == EXPORTED_ARM]


def card_of(run: Run, results: Results, source: str, folder: str) -> Card:
    """The model card, from the run's records alone."""
    found, setup = generation_of(results), results.setup or {}
    speeds = []
    for shape in getattr(found, "clock", []):
        if (arm := shape.arms.get(EXPORTED_ARM)) is not None:
            label = f"{shape.batch}x{shape.context}"
            words = "the dense model in PyTorch, fp32, cache in place"
            speeds.append(Speed(shape=f"{label}, to first token", against=words, change=arm.first_vs_dense))
            speeds.append(Speed(shape=f"{label}, per token", against=words, change=arm.step_vs_dense))
            speeds += [
                Speed(shape=f"{label}, per token", against=f"the dense model in {DECODERS[peer].label}", change=change)
                for peer, change in arm.step_vs.items()
            ]
    losses = [
        Lost(split=split, reading="next tokens", where="PyTorch, fp32", figure=own)
        for split, entry in results.lost(RESULT).items()
        if (own := lost(entry.own, entry.n_items)) is not None
    ]
    losses += [
        Lost(split=point.split, reading="next tokens", where="OpenVINO, as exported", figure=point.drop_pp)
        for point in exported_points(results)
    ]
    environment = setup.get("environment", {})
    return Card(
        title=f"{source.partition(',')[0].rpartition('/')[2]}, made smaller by ICD",
        place=f"{run.dir.name}/{folder}",
        source=source,
        licence=(setup.get("model") or {}).get("licence"),
        machine=environment.get("cpu", {}).get("model"),
        speeds=tuple(speeds),
        losses=tuple(losses),
        again=scrub_text(run.command()),
        notes=tuple(results.badges),
    )
