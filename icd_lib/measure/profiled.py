"""L2 hit rates of models on a GPU: each profile is a process under ncu, `python -m icd_lib.measure.profiled ...`."""

import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure.ncu import TIMEOUT_S, measured_range, profile
from icd_lib.measure.statistics import mean_ci
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.records.counted import Counted, CountedArm, NcuRecord
from icd_lib.runtimes.cuda import OnDevice, cuda_runtimes
from icd_lib.storage.tensor_file import load_tensors, save_tensors

NARROW_PP = 1.0  # half an interval of a hit rate after which an arm is not profiled again; gates ask for 5 pp and more
FEWEST_ROUNDS = 2  # of an arm: one profile has no interval
WARM_CALLS = 3  # before the one that is counted
HIT_PCT = "l2_hit_pct"


def eager_form(row: OnDevice) -> tuple[OnDevice, str]:
    """The row that ncu can count kernel by kernel in the precision of `row`, on its device; and how it differs from it.

    Raises `ResourceError` for a precision that eager has not.
    """
    rows = cuda_runtimes()
    name = "cuda_eager" if row.precision == "fp32" else f"cuda_eager_{row.precision}"
    if name not in rows:
        raise ResourceError(
            f"{row.name} computes in {row.precision}, which PyTorch eager on CUDA does not: no L2 counts"
        )
    form = replace(rows[name], device=row.device)
    if row.name == name:
        return form, "the runtime that is timed"
    if row.name.startswith("cuda_graph"):
        return form, "eager, the same kernels as in the graph that is timed, started one by one"
    return form, f"eager in the same precision: other kernels than those of {row.label}, which is timed"


def count_arms(
    folders: Mapping[str, Path],
    inputs: Path,
    module: str,
    row: OnDevice,
    *,
    groups: Sequence[Sequence[str]],
    rounds: int,
    budget_s: float,
    progress: Callable[[str], None] = lambda line: None,
    ncu: str = "ncu",
    timeout_s: float = TIMEOUT_S,
) -> Counted:
    """Profile one warm call of the model in each of `folders` (arm → what `save_optimized` wrote) on `inputs`.

    inputs: a file of `save_inputs`; module: imported ahead, it has the models' class; row: the runtime that is timed
    groups: the arms, those that matter most first. Of a group every arm is profiled in turn, each time in a process of
    its own, until the 95 % interval of its hit rate is narrower than `NARROW_PP` on either side, `rounds` were taken,
    or `budget_s` is spent: then no profile is begun any more.

    An arm whose profile fails has a `reason` and no figures. Where ncu may not count at all, no arm has any.
    """
    form, note = eager_form(row)
    found: dict[str, list[NcuRecord]] = {arm: [] for group in groups for arm in group}
    failed: dict[str, str] = {}
    end = time.monotonic() + budget_s
    for group in groups:
        for number in range(1, rounds + 1):
            asked = [arm for arm in group if arm not in failed and not is_narrow(found[arm])]
            for arm in asked:
                if time.monotonic() >= end:
                    break
                try:
                    command = program(folders[arm], inputs, module, form)
                    record = profile(command, timeout_s=timeout_s, ncu=ncu)
                except ResourceError as error:  # not of this arm: ncu is not there, or refuses
                    failed |= dict.fromkeys(found, error.args[0])
                    return _counted(form, note, {arm: [] for arm in found}, failed)
                except MeasureError as error:
                    failed[arm], found[arm] = error.args[0], []
                    progress(f"{arm} was not profiled: {error.args[0]}")
                else:
                    found[arm].append(record)
                    value = record.metrics[HIT_PCT].value
                    progress(f"{arm}: L2 hit rate {value:.2f} % in profile {number}, {record.kernels} kernels")
    spent = f"the time for profiles ({budget_s:g} s, measure.ncu_budget_s) was spent before this arm's turn"
    failed |= {arm: spent for arm, records in found.items() if not records and arm not in failed}
    return _counted(form, note, found, failed)


def program(folder: Path, inputs: Path, module: str, form: OnDevice) -> list[str]:
    """The command that loads a folder and does a warm call of it within ncu's range."""
    words = [module, form.name, form.device, str(inputs), str(folder)]
    return [sys.executable, "-m", "icd_lib.measure.profiled", *words]


def is_narrow(records: Sequence[NcuRecord]) -> bool:
    """Whether the interval of the hit rate is narrow enough for no more profiles."""
    interval = mean_ci(CountedArm(rounds=list(records)).hit_pct) if len(records) >= FEWEST_ROUNDS else None
    return interval is not None and interval[1] - interval[0] <= 2 * NARROW_PP


def _counted(form: OnDevice, note: str, found: Mapping, failed: Mapping[str, str]) -> Counted:
    arms = {
        arm: CountedArm(figures=means(records, form, note), rounds=records, reason=failed.get(arm))
        for arm, records in found.items()
    }
    return Counted(form=form.label, note=note, narrow_pp=NARROW_PP, warm_calls=WARM_CALLS, arms=arms)


def means(records: Sequence[NcuRecord], form: OnDevice, note: str) -> dict[str, Figure]:
    """Metric → its mean over the profiles with Student's interval; empty without a profile."""
    figures = {}
    for name in records[0].metrics if records else ():
        values = [float(record.metrics[name].value or 0.0) for record in records if name in record.metrics]
        first = records[0].metrics[name]
        method = f"{first.method}; mean of profiles of one warm call in {form.label} ({note})"
        mean = math.fsum(values) / len(values)
        figures[name] = figure(mean, first.unit, "measured", n=len(values), method=method, ci95=mean_ci(values))
    return figures


def hit_figure(counted: Counted, arm: str) -> Figure:
    """The hit rate of an arm, or why it has none."""
    entry = counted.arms.get(arm)
    if entry is None:
        return not_measured("%", "this arm was not profiled", method="ncu")
    found = entry.figures.get(HIT_PCT)
    return found or not_measured("%", entry.reason or "this arm was not profiled", method="ncu")


def save_inputs(inputs: Mapping, path: Path) -> None:
    """The inputs of a call, for the processes that are profiled; what is no tensor as JSON."""
    tensors = {key: value.cpu().numpy() for key, value in inputs.items() if torch.is_tensor(value)}
    rest = {key: value for key, value in inputs.items() if key not in tensors}
    save_tensors(tensors, path, {"rest": json.dumps(rest)})


def load_inputs(path: Path) -> dict:
    """What `save_inputs` wrote."""
    arrays, meta = load_tensors(path)
    return {key: torch.from_numpy(array) for key, array in arrays.items()} | json.loads(meta["rest"])


def main(module: str, name: str, device: str, inputs: str, folder: str) -> None:
    """What is profiled: one warm call of a model within the range that ncu counts."""
    importlib.import_module(module)
    row = replace(cuda_runtimes()[name], device=device)
    given = load_inputs(Path(inputs))
    call = row.prepare(load_optimized(folder), given).call(given)
    for _ in range(WARM_CALLS):
        call()
    with measured_range(device):
        call()


if __name__ == "__main__":
    main(*sys.argv[1:])
