"""L2 hit rates of models on a GPU: each profile is a process under ncu, `python -m icd_lib.measure.profiled ...`."""

import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from icd_lib.runtimes.exactness import multiply_in_full
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


class _Budget:
    """The time that profiles may take in all, and the longest so far."""

    def __init__(self, seconds: float):
        self.end, self.longest_s = time.monotonic() + seconds, 0.0

    @property
    def left_s(self) -> float:
        return self.end - time.monotonic()

    def fits(self, profiles: int) -> bool:
        """Whether so many profiles are likely to end in time, by the longest so far."""
        return self.left_s > 0 and profiles * self.longest_s <= self.left_s

    @contextmanager
    def profile(self) -> Iterator[None]:
        """The block takes a profile; one that fails says nothing of how long others take."""
        began = time.monotonic()
        yield
        self.longest_s = max(self.longest_s, time.monotonic() - began)


def count_arms(
    folders: Mapping[str, Path],
    inputs: Path,
    module: str,
    row: OnDevice,
    *,
    groups: Sequence[Sequence[str]],
    rounds: int,
    budget_s: float,
    replay: str = "kernel",
    progress: Callable[[str], None] = lambda line: None,
    keep: Callable[[Counted], object] = lambda counted: None,
    ncu: str = "ncu",
    timeout_s: float = TIMEOUT_S,
) -> Counted:
    """Profile one warm call of the model in each of `folders` (arm → what `save_optimized` wrote) on `inputs`.

    inputs: a file of `save_inputs`; module: imported ahead, it has the models' class; row: the runtime that is timed
    groups: the arms, those that matter most first. Of a group every arm is profiled in turn, each time in a process of
    its own, until the 95 % interval of its hit rate is narrower than `NARROW_PP` on either side, or `rounds` were
    taken. A round is begun where all of it is likely to end within `budget_s`, so that arms which are compared have
    equally many profiles, and no profile is begun after that.
    replay: what is run again for each pass, "kernel" or "application"; keep: is given what there is after each profile

    An arm whose profile fails has a `reason` and no figures. Where ncu may not count at all, no further arm has any.
    """
    form, note = eager_form(row)
    found: dict[str, list[NcuRecord]] = {arm: [] for group in groups for arm in group}
    failed: dict[str, str] = {}
    budget = _Budget(budget_s)
    for group in groups:
        for number in range(1, rounds + 1):
            asked = [arm for arm in group if arm not in failed and not is_narrow(found[arm])]
            if not budget.fits(len(asked)):
                break
            for arm in asked:
                if budget.left_s <= 0:
                    break
                try:
                    command = program(folders[arm], inputs, module, form)
                    with budget.profile():
                        record = profile(command, replay=replay, timeout_s=timeout_s, ncu=ncu)
                except ResourceError as error:  # not of this arm: ncu is not there, or refuses
                    failed |= _without(found, failed, error.args[0])
                    return _counted(form, note, found, failed)
                except MeasureError as error:
                    failed[arm], found[arm] = error.args[0], []
                    progress(f"{arm} was not profiled: {error.args[0]}")
                else:
                    found[arm].append(record)
                    value = record.metrics[HIT_PCT].value
                    progress(f"{arm}: L2 hit rate {value:.2f} % in profile {number}, {record.kernels} kernels")
                keep(_counted(form, note, found, failed))
    spent = f"the time for profiles ({budget_s:g} s, measure.ncu_budget_s) did not suffice for this arm's turn"
    return _counted(form, note, found, failed | _without(found, failed, spent))


def _without(found: Mapping[str, Sequence], failed: Mapping[str, str], reason: str) -> dict[str, str]:
    """The reason for each arm that has neither a profile nor a reason of its own."""
    return {arm: reason for arm, records in found.items() if not records and arm not in failed}


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
        arm: CountedArm(figures=means(records, form, note), rounds=list(records), reason=failed.get(arm))
        for arm, records in found.items()
    }
    return Counted(form=form.label, note=note, narrow_pp=NARROW_PP, warm_calls=WARM_CALLS, arms=arms)


def means(records: Sequence[NcuRecord], form: OnDevice, note: str) -> dict[str, Figure]:
    """Metric → its mean over the profiles with Student's interval; empty without a profile."""
    figures = {}
    for name in records[0].metrics if records else ():
        values = [float(record.metrics[name].value or 0.0) for record in records if name in record.metrics]
        first = records[0].metrics[name]
        method = f"{first.method}; mean of profiles of one warm call in {form.label} ({note}), "
        method += f"{records[0].replay} replay"
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
    multiply_in_full()
    row = replace(cuda_runtimes()[name], device=device)
    given = load_inputs(Path(inputs))
    call = row.prepare(load_optimized(folder), given).call(given)
    for _ in range(WARM_CALLS):
        call()
    with measured_range(device):
        call()


if __name__ == "__main__":
    main(*sys.argv[1:])
