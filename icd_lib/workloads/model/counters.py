"""L2 hit rates and energy of a run's arms on a GPU."""

import tempfile
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.experiment.arms import DENSE, MODEL, RESULT
from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS
from icd_lib.experiment.counters import HITS, JOULES
from icd_lib.measure.board import Board
from icd_lib.measure.board_energy import SETTLE_S, board_windows, energy_figure, seconds_of
from icd_lib.measure.comparison import relative
from icd_lib.measure.energy import UNIT, NvmlCounter
from icd_lib.measure.options import ON_GPU
from icd_lib.measure.profiled import count_arms, hit_figure, save_inputs
from icd_lib.measure.statistics import ratio_of_means
from icd_lib.metric import Figure, not_measured
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.progress import DETAIL
from icd_lib.records.counted import ENERGY, NCU, POWER, as_csv
from icd_lib.run.artifacts import Run
from icd_lib.runtimes.base import Runtime
from icd_lib.storage.atomic import atomic_write
from icd_lib.workloads.model.context import Context

AGAIN = COMPARISONS[AA_CONTROL].arm


def device_of(row: Runtime) -> str:
    """Where a runtime computes, as torch names it; "cpu" for rows that say nothing."""
    return str(getattr(row, "device", "cpu"))


def is_on_gpu(context: Context) -> bool:
    """Whether the run's models are deployed on an NVIDIA GPU."""
    return device_of(context.target.row).startswith("cuda")


def counted(context: Context, models: dict[str, nn.Module]) -> dict:
    """What measure.json holds of the GPU's counters: {"energy", "l2_hit_pct", "rounds"}; models: all that are counted.

    Writes measure/energy.json, measure/power.csv and measure/ncu.json, as far as each could be measured; the latter two
    after each window and profile, so that a run that is stopped leaves what it had.
    """
    energy, joules = measure_energy_on_board(context, models)
    hits, rates = measure_hits(context, models)
    return {"energy": energy, "l2_hit_pct": hits, "rounds": {HITS: rates, JOULES: joules}}


def measure_energy_on_board(
    context: Context, models: dict[str, nn.Module]
) -> tuple[dict[str, Figure], dict[str, list[float]]]:
    """Arm → J per token of calls at the first shape, and of each of its windows; all windows interleaved.

    Dense is measured a second time under another name, as the A/A control. What stops the measurement leaves no arm
    measured, with the reason: arms that were measured in part are not comparable.
    """
    if not context.get("measure.energy"):
        off = not_measured(UNIT, "energy counters are switched off in this scenario (measure.energy)")
        return dict.fromkeys(models, off), {}
    try:
        return _energy(context, models)
    except (ResourceError, MeasureError) as error:
        context.progress(f"energy is not measured: {error.args[0]}")
        return dict.fromkeys(models, not_measured(UNIT, error.args[0])), {}


def _energy(context: Context, models: dict[str, nn.Module]) -> tuple[dict[str, Figure], dict[str, list[float]]]:
    run, row = context.run, context.target.row
    windows, window_s = option(run, "energy_windows"), option(run, "energy_window_s")
    counter, board = NvmlCounter(device_of(row)), Board(device_of(row))
    batch, length = context.get("measure.shapes")[0]
    inputs = context.fixed(batch, length)
    with ExitStack() as held:
        calls = {}
        for arm, model in models.items():
            prepared = held.enter_context(closing(context.target.prepare(model, inputs)))
            calls[arm] = prepared.call(inputs)
        calls[AGAIN] = calls[DENSE]
        takes = seconds_of(len(calls), windows, window_s)
        context.progress(
            f"energy: {windows} windows of {window_s:g} s for each of {len(calls)} arms, idle before and after, "
            f"{takes:.0f} s in all"
        )
        joules, how = board_windows(
            calls,
            batch * length,
            counter,
            board,
            windows=windows,
            window_s=window_s,
            settle_s=SETTLE_S,
            seed=context.get("seed"),
            keep=lambda readings: atomic_write(run.path(POWER), as_csv(readings)),
            say=lambda arm: context.progress(f"{DETAIL}energy: a window of {arm}"),
        )
    control = relative(ratio_of_means(joules[AGAIN], joules[DENSE]))
    how = replace(how, aa_control=control)
    run.write_json(ENERGY, how)
    for warning in how.warnings:
        context.progress(f"energy: {warning}")
    return {arm: energy_figure(joules[arm], how) for arm in models}, joules


def measure_hits(context: Context, models: dict[str, nn.Module]) -> tuple[dict[str, Figure], dict[str, list[float]]]:
    """Arm → L2 hit rate of a warm call at the first shape, and of each of its profiles."""
    if not context.get("measure.ncu"):
        off = not_measured("%", "ncu is switched off in this scenario (measure.ncu)", method="ncu")
        return dict.fromkeys(models, off), {}
    run, row = context.run, context.target.row
    batch, length = context.get("measure.shapes")[0]
    rounds, budget_s = option(run, "ncu_rounds"), option(run, "ncu_budget_s")
    first = [arm for arm in (RESULT, judged_arm(context)) if arm in models]
    groups = [first, [arm for arm in models if arm not in first]]
    context.progress(
        f"L2: {len(models)} arms under ncu, each at most {rounds} times in processes of their own, "
        f"{', '.join(first) or DENSE} first; within {budget_s:g} s"
    )
    torch.cuda.empty_cache()  # the profiled processes need the room
    try:
        with tempfile.TemporaryDirectory(prefix="icd-arms-") as parent:
            folders = {arm: folder_of(context, arm, model, Path(parent)) for arm, model in models.items()}
            given = Path(parent) / "inputs.safetensors"
            save_inputs(context.fixed(batch, length), given)
            module = type(context.model).__module__
            found = count_arms(
                folders,
                given,
                module,
                row,
                groups=groups,
                rounds=rounds,
                budget_s=budget_s,
                replay=option(run, "ncu_replay"),
                progress=context.progress,
                keep=lambda found: run.write_json(NCU, found),
            )
    except (ResourceError, MeasureError) as error:
        context.progress(f"L2 is not counted: {error.args[0]}")
        return dict.fromkeys(models, not_measured("%", error.args[0], method="ncu")), {}
    run.write_json(NCU, found)
    figures = {arm: hit_figure(found, arm) for arm in models}
    missing = {item.reason for item in figures.values() if item.is_missing}
    for reason in sorted(filter(None, missing)):
        context.progress(f"L2 is not counted of every arm: {reason}")
    return figures, {arm: entry.hit_pct for arm, entry in found.arms.items() if entry.rounds}


def option(run: Run, name: str):
    """An option of a GPU alone: a scenario that does not say has no key for it."""
    usual, quick = ON_GPU[name]
    return run.scenario.get("measure").get(name, quick if run.scenario.quick else usual)


def judged_arm(context: Context) -> str:
    """The arm that iterative is judged against."""
    return COMPARISONS[context.get("gates.comparison")].pairs[MODEL].other


def folder_of(context: Context, arm: str, model: nn.Module, parent: Path) -> Path:
    """Where the arm's model lies: what 02_solve left of a mode, or else a copy in `parent`."""
    solved = context.run.dir / arm / "model"
    return solved if solved.is_dir() else save_optimized(model, context.tokenizer, parent / arm)
