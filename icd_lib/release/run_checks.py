"""The checks of one packaged run: its lock, fields, layouts, and its verdict again from the raw samples."""

import math
import re
import zipfile
from typing import TypeVar

from icd_lib.axes.permutation import check_permutation, hash_permutation
from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import DENSE, MODES, RESULT, workload_of
from icd_lib.experiment.comparisons import AA_CONTROL, comparisons_of
from icd_lib.experiment.cost import cost_change, cost_figures
from icd_lib.experiment.counters import HITS, energy_by_windows, hit_change
from icd_lib.experiment.gates import GATES, judge
from icd_lib.experiment.metrics import COMPARED, metrics_of
from icd_lib.experiment.verdict import contains_zero, judged_figures
from icd_lib.measure.comparison import compare_arms, latency_entry
from icd_lib.metric import Figure
from icd_lib.records.losses import Quality
from icd_lib.records.measured import MEASURED, Measured, Metrics
from icd_lib.records.verdict import VERDICT, Section, Verdict
from icd_lib.release.package_file import ASSETS, PackageFile
from icd_lib.run.artifacts import LOCK
from icd_lib.run.configuration import config_digest
from icd_lib.run.lock import check_lock
from icd_lib.run.manifest import UNLISTED
from icd_lib.scrub.text import PLACEHOLDER
from icd_lib.storage.record_json import as_json, from_json

T = TypeVar("T")
STATED = ("same_transform", "same_quality", "vs_dense", "vs_oneshot", AA_CONTROL)  # every verdict compares these
MAX_RESAMPLES, MAX_DRAWS = 100_000, 100_000_000  # a package must not make this machine allocate what it likes
RELATIVE = 1e-9  # the last bits of a median may differ between processors


class RunView:
    """A run inside a package; `dir` and `read_json` as a `Run` has them."""

    def __init__(self, package: PackageFile, prefix: str):
        self.package, self.prefix = package, prefix
        self.dir = zipfile.Path(package.zip, f"{prefix}/")

    def read_json(self, rel: str):
        """A JSON file of the run."""
        return self.package.read_json(f"{self.prefix}/{rel}")

    def read(self, kind: type[T], rel: str) -> T:
        """A JSON file of the run as a record."""
        return from_json(kind, self.read_json(rel), rel)

    def has(self, rel: str) -> bool:
        """Whether the package has this file of the run."""
        return f"{self.prefix}/{rel}" in self.package.names

    def files(self) -> list[str]:
        """The run's files, relative to its folder."""
        start = f"{self.prefix}/"
        return [name.removeprefix(start) for name in self.package.names if name.startswith(start)]

    def get(self, path: str, default=None):
        """Value of the locked configuration at a dotted path."""
        node = self.read_json(LOCK)["config"]
        for key in path.split("."):
            if key not in node:
                return default
            node = node[key]
        return node


def check_config(run: RunView) -> str:
    """The lock's hash is that of its configuration, and manifest and metrics name the same."""
    lock = check_lock(run.read_json(LOCK), LOCK)
    given = {f"{mode}/metrics.json": run.read_json(f"{mode}/metrics.json")["config_sha256"] for mode in modes(run)}
    given["manifest.json"] = run.read_json("manifest.json")["config_sha256"]
    for rel, sha in given.items():
        if sha != lock["sha256"]:
            raise ArtifactError(f"{rel} is of another configuration than {LOCK}")
    if PLACEHOLDER.search(str(lock["config"])):
        return "one configuration everywhere; its own hash covers paths that were scrubbed"
    if config_digest(lock["config"]) != lock["sha256"]:
        raise ArtifactError(f"{LOCK}: the configuration does not have the hash that is stated")
    return f"{lock['sha256'][:12]} in {len(given) + 1} files"


def modes(run: RunView) -> list[str]:
    """The arms that have metrics; dense is one of them."""
    arms = [mode for mode in (DENSE, *MODES) if run.has(f"{mode}/metrics.json")]
    if DENSE not in arms:
        raise ArtifactError("the run has no dense/metrics.json")
    return arms


def check_manifest(run: RunView) -> str:
    """Every file of the manifest is here with its hash, or among the assets with its hash; and no file is unlisted."""
    listed = run.read_json("manifest.json")["files"]
    assets = {asset["path"]: asset["sha256"] for asset in run.package.read_json(ASSETS)["assets"]}
    for rel, sha in listed.items():
        path = f"{run.prefix}/{rel}"
        if path not in assets and not run.has(rel):
            raise ArtifactError(f"{rel} is in the manifest but neither packed nor among the assets")
        if sha != (assets[path] if path in assets else run.package.sha256(path)):
            raise ArtifactError(f"{rel} has another hash than the manifest says")
    extra = set(run.files()) - listed.keys() - set(UNLISTED)
    if extra:
        raise ArtifactError(f"{min(extra)} is packed but not in the manifest")
    return f"{len(listed)} hashes equal"


def check_fields(run: RunView) -> str:
    """metrics.json and verdict.json are what they have to be, every figure in them too."""
    for mode in modes(run):
        stated = run.read(Metrics, f"{mode}/metrics.json").mode
        if stated != mode:
            raise ArtifactError(f"{mode}/metrics.json says it is of mode {stated!r}")
    verdict = run.read(Verdict, VERDICT)
    for key in STATED:
        verdict.section(key)
    return f"{len(modes(run))} arms, {sum(count_figures(run.read_json(VERDICT)))} figures in the verdict"


def count_figures(value, where: str = VERDICT):
    """Yield 1 for every figure in a nested value; `ArtifactError` for one that is none."""
    if isinstance(value, dict) and {"value", "unit", "kind"} <= value.keys():
        from_json(Figure, value, where)
        yield 1
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from count_figures(item, f"{where}: {key}")


def check_layouts(run: RunView) -> str:
    """Every stored π is a permutation of its axis and has the hash that is stated."""
    count = 0
    for rel in run.files():
        if not re.fullmatch(r"[\w-]+/perm_(before|after)\.json", rel):
            continue
        for axis, entry in run.read_json(rel)["axes"].items():
            pi = check_permutation(entry["pi"], entry["D"], f"{rel}: {axis}")
            if hash_permutation(pi) != entry["hash"]:
                raise ArtifactError(f"{rel}: π of {axis} does not have the hash that is stated")
            count += 1
    return f"{count} permutations, hashes equal"


def check_latency(run: RunView) -> str:
    """Latencies and their changes against dense are those of the raw samples."""
    samples, settings = raw_samples(run)
    report = run.read(Measured, MEASURED)
    shapes, count = report.latency.shapes, 0
    _same_keys(shapes, samples, "measure/measure.json")
    for label, arms in samples.items():
        for arm, ms in arms.items():
            again = latency_entry(ms, arms[DENSE], 1, settings["seed"], settings["resamples"])
            stated = shapes[label].get(arm)
            if stated is None:
                raise ArtifactError(f"measure.json has no arm {arm} at {label}, the samples have")
            _same_figure(stated.latency_ms, again.latency_ms, f"measure.json {label} {arm} latency_ms")
            _same_figure(stated.vs_dense, again.vs_dense, f"measure.json {label} {arm} vs_dense")
            count += 2
    label = next(iter(samples))
    for mode in modes(run):
        metrics, timing = run.read(Metrics, f"{mode}/metrics.json"), shapes[label][mode]
        _same_figure(metrics.latency_ms, timing.latency_ms, f"{mode}/metrics.json latency_ms")
        _same_figure(metrics.vs_dense.latency_rel, timing.vs_dense, f"{mode}/metrics.json vs_dense")
    count += check_steps(report, samples[label], settings)
    return f"{count} figures computed again from the samples"


def check_steps(report: Measured, samples: dict, settings: dict) -> int:
    """The steps of a deployment are those of the samples at the first shape; returns how many figures that were."""
    steps, count = report.deployment or [], 0
    for step in steps:
        where = f"measure.json {step.step}"
        if step.arm in samples:
            _same_figure(step.latency_ms, report.latency.first[step.arm].latency_ms, f"{where} latency_ms")
        stated = {steps[0].arm: step.vs_eager} | {item.other: item.latency_rel for item in step.against}
        for other, item in stated.items():
            again = compare_arms({where: samples}, step.arm, other, **settings)[where]
            _same_figure(item, again, f"{where} against {other}")
            count += 1
    return count


def check_comparisons(run: RunView) -> str:
    """Every comparison of the verdict is that of the raw samples: same bootstrap, same seed."""
    samples, settings = raw_samples(run)
    verdict, count = run.read(Verdict, VERDICT), 0
    for key, (arm, other) in compared(run).items():
        if key not in verdict.sections:
            continue
        again = compare_arms(samples, arm, other, **settings)
        stated = verdict.sections[key]
        _same_keys(stated.shapes, again, f"verdict.json: {key}")
        for label, item in again.items():
            _same_figure(stated.shapes[label], item, f"verdict.json: {key} {label}")
            _same_test(stated.shapes[label], item, f"verdict.json: {key} {label}")
            count += 1
        if stated.latency_rel:
            _same_figure(stated.latency_rel, next(iter(again.values())), f"verdict.json: {key} latency_rel")
    control = verdict.section(AA_CONTROL)
    for label, holds in contains_zero(control.shapes).items():
        if (control.contains_zero or {}).get(label) is not holds:
            raise ArtifactError(f"verdict.json: the A/A control of {label} says otherwise than its interval")
    return f"{count} comparisons computed again from the samples"


def compared(run: RunView) -> dict[str, tuple[str, str]]:
    """Section of the verdict → the two arms it compares."""
    workload = workload_of(run.read_json(LOCK)["config"])
    return {row.key: (row.arm, row.pairs[workload].other) for row in comparisons_of(workload)}


def check_gates(run: RunView) -> str:
    """Quality, energy and cost in the verdict are the measured ones, and the gates follow from the figures."""
    verdict, report = run.read(Verdict, VERDICT), run.read(Measured, MEASURED)
    samples, settings = raw_samples(run)
    cost = cost_change(run)
    stated = as_json(verdict.cost)
    for key, value in as_json(cost).items():
        if not _close(stated.get(key), value):
            raise ArtifactError(f"verdict.json: cost.{key} is {stated.get(key)}, the layouts' is {value}")
    comparison = run.get("gates.comparison", "same_quality")  # runs of before there was a choice
    if (verdict.gates_comparison or comparison) != comparison:
        raise ArtifactError("verdict.json: gates_comparison is not what the configuration says")
    other = compared(run)[comparison][1]
    section, drop = verdict.section(comparison), verdict.section("vs_dense").lost
    if drop is None or len(section.metrics) < len(metrics_of(COMPARED)):
        raise ArtifactError("verdict.json: a figure that a gate judges is not there")
    _check_drop(drop, report.quality)
    _check_energy(section.ept_rel, report.energy, other)
    _check_counters(section, report, other)
    latency = next(iter(compare_arms(samples, RESULT, other, **settings).values()))
    judged = judged_figures(section.metrics, drop, cost_figures(cost), verdict.outside_metrics)
    judged["latency_rel"] = latency  # from the samples, not as stated
    for gate in GATES:
        stated, again = verdict.gate(gate), judge(run.get(f"gates.{gate}"), judged)
        for key, ours, theirs in (
            ("status", stated.status, again.status),
            ("checks", stated.checks, again.checks),
        ):
            if ours != theirs:
                raise ArtifactError(f"verdict.json: {gate} {key} is {ours}, the samples say {theirs}")
    return ", ".join(f"{gate} {verdict.gate(gate).status}" for gate in GATES) + ", judged again"


def _check_drop(drop: Figure, quality: Quality) -> None:
    entry = quality.lost.get(RESULT, {}).get(quality.judging)
    if drop.is_missing:
        if entry is not None:
            raise ArtifactError("verdict.json: quality was measured but the verdict says it was not")
    elif entry is None or not _close(drop.value, entry.own.drop_pp) or not _close(drop.ci95, entry.own.ci95):
        raise ArtifactError("verdict.json: quality_drop_pp is not what measure.json says")


def _check_energy(change: Figure, energy: dict[str, Figure], other: str) -> None:
    ours, theirs = energy.get(RESULT), energy.get(other)
    expected = None
    if ours and theirs and ours.value is not None and theirs.value is not None:
        expected = ours.value / theirs.value - 1
    if (expected is None) != change.is_missing:
        raise ArtifactError("verdict.json: ept_rel says otherwise than measure.json about what was measured")
    if not _close(change.value, expected):
        raise ArtifactError("verdict.json: ept_rel is not what measure.json says")


def _check_counters(section: Section, report: Measured, other: str) -> None:
    """Means of a GPU's counters are those of what gave them, and so are the changes that gates judge."""
    for metric, arms in (report.rounds or {}).items():
        for arm, values in arms.items():
            stated = report.hits_of(arm) if metric == HITS else report.energy.get(arm)
            if stated is not None and not _close(stated.value, math.fsum(values) / max(1, len(values))):
                raise ArtifactError(f"measure.json: {metric} of {arm} is not the mean of what gave it")
    if not report.rounds:
        return
    again = {"l2_pp": hit_change(report, other), "ept_rel": energy_by_windows(report, other)}
    for key, item in again.items():
        if item is not None and not item.is_missing:
            _same_figure(section.metrics[key], item, f"verdict.json: {key}")


def raw_samples(run: RunView) -> tuple[dict, dict]:
    """Samples by shape and arm, and {"seed", "resamples"}; refused if computing with them could exhaust the machine."""
    samples = run.read_json("measure/samples.json")["shapes"]
    settings = {"seed": run.get("seed"), "resamples": run.get("measure.bootstrap")}
    longest = max(len(ms) for arms in samples.values() for ms in arms.values())
    resamples = settings["resamples"]
    if type(resamples) is not int or not 0 < resamples <= MAX_RESAMPLES or resamples * longest > MAX_DRAWS:
        raise ArtifactError(f"{resamples} resamples of {longest} samples are not computed")
    return samples, settings


def _same_keys(given: dict, expected: dict, where: str) -> None:
    if given.keys() != expected.keys():
        raise ArtifactError(f"{where} has the shapes {', '.join(given)}; the samples have {', '.join(expected)}")


def _same_figure(given: Figure, expected: Figure, where: str) -> None:
    """Raise `ArtifactError` unless two figures say the same: kind, n, value and interval."""
    same = given.kind == expected.kind and given.n == expected.n
    if not same or not _close(given.value, expected.value) or not _close(given.ci95, expected.ci95):
        raise ArtifactError(f"{where} is {_brief(given)}, the samples say {_brief(expected)}")


def _same_test(given: Figure, expected: Figure, where: str) -> None:
    """Raise `ArtifactError` unless p and effect are those of the samples."""
    stated = vars(given.test) if given.test else {}
    for key, value in (vars(expected.test) if expected.test else {}).items():
        if not _close(stated.get(key), value):
            raise ArtifactError(f"{where}: {key} of the test is not what the samples say ({value})")


def _brief(item: Figure) -> str:
    return f"{item.value} {list(item.ci95 or ())} ({item.kind}, n {item.n})"


def _close(given, expected) -> bool:
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(map(_close, given, expected))
    if isinstance(given, int | float) and isinstance(expected, int | float):
        return math.isclose(given, expected, rel_tol=RELATIVE, abs_tol=1e-12)
    return given == expected


CHECKS = {
    "configuration": check_config,
    "manifest": check_manifest,
    "fields": check_fields,
    "layouts": check_layouts,
    "latency": check_latency,
    "comparisons": check_comparisons,
    "gates": check_gates,
}
