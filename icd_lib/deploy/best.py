"""What a finished run leaves for use: its model in the fastest runtime whose judged quality holds, as an export.

There is one folder, for the first shape; where another runtime is faster at another shape, the command that makes that
export is told.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

from icd_lib.deploy.best_decoder import export_best_decoder
from icd_lib.deploy.card import Card, Lost, Speed, sentence_lines, told_figure
from icd_lib.deploy.export import export
from icd_lib.deploy.sentence import read_pooling
from icd_lib.deploy.target import targets, users_of
from icd_lib.errors import IcdError, ResourceError
from icd_lib.experiment.arms import RESULT
from icd_lib.metric import Figure, not_measured
from icd_lib.models.checkpoint.optimized import RECORD, load_optimized
from icd_lib.models.families import find_family
from icd_lib.models.quantized import has_eight_bits
from icd_lib.records.losses import SplitLoss
from icd_lib.records.measured import Ladder
from icd_lib.report.index import BEST
from icd_lib.report.losses import is_above, lost
from icd_lib.report.results import Results
from icd_lib.report.words import processor_text
from icd_lib.run.artifacts import Run
from icd_lib.runtimes import REFERENCE, RUNTIMES
from icd_lib.runtimes.base import Runtime
from icd_lib.scrub.text import scrub_text
from icd_lib.workloads.model.contexts import make_context

FOLDER = "best"
_READINGS = {"own": "own", "dropin": "drop-in"}


def export_best(run: Run, progress: Callable[[str], None] = print) -> None:
    """Write best/ and best.json of a run on a model: {"status": "exported", …}, or "not_exported" with the reason.

    A run is not failed by it: what goes wrong is the reason, and an earlier export stays.
    """
    try:
        told = _export(run, progress)
    except IcdError as error:
        told = {"status": "not_exported", "reason": str(error.args[0])}
    run.write_json(BEST, told)
    progress(f"best: {told.get('label') or told['reason']}")


def _export(run: Run, progress: Callable[[str], None]) -> dict:
    results = Results.load(run.dir)
    family = results.config.get("model", {}).get("family")
    if family and "kv_groups" in find_family(family).kinds:  # models with keys and values, which go into the graph
        return export_best_decoder(run, results, FOLDER, progress)
    row = choose_runtime(results)
    model = load_optimized(run.dir / RESULT / "model")
    elsewhere = other_shapes(run, results, row, needs_text=not has_eight_bits(model))
    context = make_context(run, progress)
    read = read_pooling(context.checkpoint.path)
    progress(f"exporting the model for {row.label}")
    export(
        model,
        context.tokenizer,
        run.dir / FOLDER,
        runtime=row.engine,
        precision=row.precision,
        calibration=context.deploy_calibration if row.precision == "int8" else None,
        pooling=read.mode,
        normalize=read.normalize,
        max_length=read.max_length,
        card=card_of(
            run, results, row, elsewhere, f"{context.checkpoint.name}, sha256 {context.checkpoint.sha256[:12]}"
        ),
        overwrite=True,
    )
    lines = [*sentence_lines(users_of(row), FOLDER), 'model.encode(["The weather is lovely today."])']
    return {
        "status": "exported",
        "runtime": row.name,
        "label": row.label,
        "shape": first_shape(results),
        "other_shapes": elsewhere,
        "card": f"{FOLDER}/README.md",
        "lines": lines,
    }


def first_shape(results: Results) -> str:
    """The shape that best/ is for."""
    assert results.ladder, "a runtime was chosen of it"
    return results.ladder.shapes[0]


def other_shapes(run: Run, results: Results, row: Runtime, *, needs_text: bool) -> dict[str, dict]:
    """Every further shape → the runtime to take there, or the reason why none; where it is not `row`, how it is made.

    The model is the same in all of them: {"runtime", "label", "command"?} or {"reason"}. needs_text: whether eight bits
    of it take calibration text, as they do where it is not quantised yet.
    """
    assert results.ladder, "a runtime was chosen of it"
    found: dict[str, dict] = {}
    for shape in results.ladder.shapes[1:]:
        try:
            other = choose_runtime(results, shape)
        except ResourceError as error:
            found[shape] = {"reason": str(error.args[0])}
            continue
        found[shape] = {"runtime": other.name, "label": other.label}
        if other is not row:
            found[shape]["command"] = _export_command(run, other, needs_text)
    return found


def _export_command(run: Run, row: Runtime, needs_text: bool) -> str:
    """What makes the export of the run's model for a runtime, from where the run was started."""
    words = ["icd", "export", (where_of(run) / RESULT / "model").as_posix()]
    words += ["--runtime", row.engine, "--precision", row.precision]
    words += ["--calibrate", "TEXTS.txt"] if needs_text and row.precision == "int8" else []
    return shlex.join([*words, "--out", f"{FOLDER}_{row.name}"])


def where_of(run: Run) -> Path:
    """The run's folder as people will write it, without the part that is this machine's."""
    return Path(run.out) / run.dir.name if not Path(run.out).is_absolute() else Path(run.dir.name)


def choose_runtime(results: Results, shape: str | None = None) -> Runtime:
    """The fastest measured runtime that writes files and loses no more than the budget; `ResourceError` if none does.

    At a shape, by default the first. One that rounds is chosen only where it was judged itself, and kept the budget
    where strengths are chosen too.
    """
    if not results.exists(f"{RESULT}/model/{RECORD}") or RESULT not in results.solves:
        raise ResourceError(f"{RESULT} left no model")
    if not results.is_changed(RESULT):
        raise ResourceError("no smaller model was accepted")
    if results.is_language or find_family(results.config["model"]["family"]).judge != "encoder":
        raise ResourceError("a language model is not exported: no folder that these runtimes load keeps its state")
    ladder = results.ladder
    if ladder is None or results.verdict is None:
        raise ResourceError("no runtime was measured")
    if results.quality_reason:
        raise ResourceError(f"quality was not judged: {results.quality_reason}")
    reasons = []
    for name in ladder.by_latency(RESULT, shape or first_shape(results)) if ladder.shapes else ():
        if name not in RUNTIMES:
            continue
        row: Runtime = RUNTIMES[name]
        if targets().get((row.engine, row.precision)) is not row:
            continue
        found = _own(_judged_in(results, ladder, name).get(results.judging))
        if name in ladder.refused:
            reasons.append(f"{name} was passed over: {ladder.refused[name]}")
        elif found is None:
            reasons.append(f"{name} was not judged")
        elif is_above(results, found):
            reasons.append(f"{name} loses {found.value:+.2f} pp, more than the budget of {results.budget_pp:g}")
        else:
            return row
    raise ResourceError("; ".join(reasons) or "no measured runtime writes files")


def _own(entry: SplitLoss | None) -> Figure | None:
    return None if entry is None else lost(entry.own, entry.n_items)


def _deployed(results: Results) -> str:
    return results.deploy.runtime if results.deploy else REFERENCE


def _judged_in(results: Results, ladder: Ladder, name: str) -> dict[str, SplitLoss]:
    """Split → what the model loses in a runtime; empty where it was not judged there, nor in another that is exact."""
    deployed = _deployed(results)
    if name == deployed or not (RUNTIMES[name].rounds or RUNTIMES[deployed].rounds):
        return results.lost(RESULT)
    found = ladder.judged.get(name)
    return {results.judging: found.quality[RESULT], **found.more} if found and found.quality else {}


def card_of(run: Run, results: Results, row: Runtime, elsewhere: dict[str, dict], source: str) -> Card:
    """The model card of the run's model in a runtime, from the run's records alone; elsewhere: `other_shapes`."""
    setup, ladder = results.setup, results.ladder
    assert setup and ladder, "a runtime was chosen of them"
    environment = setup["environment"]
    speeds = []
    for shape, timed in ladder.runtimes[row.name].shapes.items():
        figures = timed.arms[RESULT]
        against = {"vs_eager": "the dense model in PyTorch, fp32", "vs_baseline": f"the dense model in {row.label}"}
        against = {key: words for key, words in against.items() if key in figures}
        if row.name == REFERENCE:
            against.pop("vs_eager", None)
        speeds += [Speed(shape=shape, against=words, change=figures[key]) for key, words in against.items()]
    return Card(
        title=f"{source.partition(',')[0].rpartition('/')[2]}, made smaller by ICD",
        place=(where_of(run) / FOLDER).as_posix(),
        source=source,
        licence=(setup.get("model") or {}).get("licence"),
        machine=f"{processor_text(environment['cpu'])}; {ladder.threads} threads",
        speeds=tuple(speeds),
        losses=tuple(_losses(results, ladder, row)),
        again=scrub_text(run.command()),
        notes=(*results.badges, *_at_any_shape(results, row), *_by_shape(results, row, elsewhere)),
    )


def _at_any_shape(results: Results, row: Runtime) -> list[str]:
    """What the speeds become where the graph is compiled for inputs of any shape, as libraries load it."""
    if not row.fits_shapes:
        return []
    assert results.verdict, "a runtime was chosen by it"
    section = results.verdict.sections.get("any_shape_vs_eager") if row.name == _deployed(results) else None
    timed = {} if section is None else {shape: item for shape, item in section.shapes.items() if not item.is_missing}
    told = "; ".join(f"{shape}: {told_figure(item)}" for shape, item in timed.items()) or "not measured"
    return [
        "The speeds above are of the graph compiled for the shape. Compiled for inputs of any shape, as the libraries "
        f"load it, against the dense model in PyTorch, fp32: {told}."
    ]


def _by_shape(results: Results, row: Runtime, elsewhere: dict[str, dict]) -> list[str]:
    """Which shape this export is for, and which is faster at another."""
    if not elsewhere:
        return []
    assert results.ladder, "a runtime was chosen of it"
    lines = [f"This export is for {first_shape(results)}: {row.label} is the fastest there whose quality holds."]
    for shape, found in elsewhere.items():
        if "command" in found:
            timed = results.ladder.runtimes[found["runtime"]].shapes[shape].arms[RESULT].get("vs_eager")
            told = f" ({told_figure(timed)} against the dense model in PyTorch, fp32)" if timed else ""
            lines.append(f"At {shape} the same model is faster in {found['label']}{told}: `{found['command']}`")
        else:
            lines.append(f"At {shape}: {found.get('reason') or 'this one is the fastest there too'}.")
    return lines


def _losses(results: Results, ladder: Ladder, row: Runtime) -> list[Lost]:
    """On every split that was judged: in the runtime itself where it rounds, and in PyTorch."""
    rows, here = [], _judged_in(results, ladder, row.name)
    for split, entry in results.lost(RESULT).items():
        for key, words in _READINGS.items():
            if (figure := lost(entry.reading(key), entry.n_items)) is None:
                continue
            if row.rounds and here != results.lost(RESULT):
                own = lost(here[split].reading(key), here[split].n_items) if split in here else None
                missing = not_measured("pp", f"in this runtime it was judged on {results.judging} text only")
                rows.append(Lost(split=split, reading=words, where="this runtime", figure=own or missing))
            rows.append(Lost(split=split, reading=words, where=results.deployed or "PyTorch, fp32", figure=figure))
    return rows
