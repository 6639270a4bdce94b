"""The checks of one packaged run: its lock, fields, layouts, and its verdict again from the raw samples."""

import math
import re
import zipfile

from icd_lib.axes.permutation import check_permutation, hash_permutation
from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import DENSE, MODES, RESULT, workload_of
from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS, comparisons_of
from icd_lib.experiment.cost import cost_change, cost_figures
from icd_lib.experiment.gates import GATES, judge
from icd_lib.experiment.verdict import judged_figures
from icd_lib.measure.comparison import compare_arms, latency_entry
from icd_lib.metric import figure
from icd_lib.release.package_file import ASSETS, PackageFile
from icd_lib.run.artifacts import LOCK
from icd_lib.run.configuration import config_digest
from icd_lib.run.lock import check_lock
from icd_lib.run.manifest import UNLISTED
from icd_lib.scrub.text import PLACEHOLDER

# Design section 8. A figure is an object of its own; the rest may be any value, null where a run has none.
METRICS_FIGURES = ("latency_ms", "throughput_tokens_per_s", "l2_hit_pct", "energy_j_per_token", "quality_pct")
METRICS_FIELDS = (*METRICS_FIGURES, "run_id", "scenario", "mode", "model", "peak_memory_mb", "parameter_bytes")
METRICS_FIELDS += ("objective", "vs_dense", "environment", "config_sha256")
VERDICT_FIELDS = ("same_transform", "same_quality", "vs_dense", "vs_oneshot", AA_CONTROL, "cost", "determinism")
STATES = ("pass", "fail", "partial")
CHECK_STATES = ("pass", "fail", "not_measured")
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
    found = [mode for mode in (DENSE, *MODES) if run.has(f"{mode}/metrics.json")]
    if DENSE not in found:
        raise ArtifactError("the run has no dense/metrics.json")
    return found


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
    """metrics.json and verdict.json have their fields, and every figure in them is one."""
    for mode in modes(run):
        metrics = run.read_json(f"{mode}/metrics.json")
        _require(metrics, METRICS_FIELDS, f"{mode}/metrics.json")
        if metrics["mode"] != mode:
            raise ArtifactError(f"{mode}/metrics.json says it is of mode {metrics['mode']!r}")
        for key in METRICS_FIGURES:
            check_figure(metrics[key], f"{mode}/metrics.json: {key}")
        for key in ("latency_rel", "quality_drop_pp"):
            check_figure(metrics["vs_dense"][key], f"{mode}/metrics.json: vs_dense.{key}")
    verdict = run.read_json("verdict.json")
    _require(verdict, (*VERDICT_FIELDS, *GATES), "verdict.json")
    for gate in GATES:
        if verdict[gate]["status"] not in STATES or not set(verdict[gate]["checks"].values()) <= set(CHECK_STATES):
            raise ArtifactError(f"verdict.json: {gate} has a state that there is not")
    count = sum(check_figures(verdict, "verdict.json"))
    return f"{len(modes(run))} arms, {count} figures in the verdict"


def check_figures(value, where: str):
    """Check every figure in a nested value; yields 1 for each."""
    if isinstance(value, dict) and {"value", "unit", "kind"} <= value.keys():
        check_figure(value, where)
        yield 1
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from check_figures(item, f"{where}: {key}")


def check_figure(item: dict, where: str) -> None:
    """Raise `ArtifactError` unless `item` is a figure (icd_lib.metric)."""
    _require(item, ("value", "unit", "kind", "n", "method"), where)
    try:
        figure(item["value"], item["unit"], item["kind"], n=item["n"], ci95=item.get("ci95"), reason=item.get("reason"))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{where} is no figure: {error}") from error


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
    shapes, count = run.read_json("measure/measure.json")["latency"]["shapes"], 0
    _same_keys(shapes, samples, "measure/measure.json")
    for label, arms in samples.items():
        for arm, ms in arms.items():
            again = latency_entry(ms, arms[DENSE], 1, settings["seed"], settings["resamples"])
            for key in ("latency_ms", "vs_dense"):
                _same_figure(shapes[label][arm][key], again[key], f"measure.json {label} {arm} {key}")
                count += 1
    label = next(iter(samples))
    for mode in modes(run):
        metrics = run.read_json(f"{mode}/metrics.json")
        _same_figure(metrics["latency_ms"], shapes[label][mode]["latency_ms"], f"{mode}/metrics.json latency_ms")
        _same_figure(
            metrics["vs_dense"]["latency_rel"], shapes[label][mode]["vs_dense"], f"{mode}/metrics.json vs_dense"
        )
    return f"{count} figures computed again from the samples"


def check_comparisons(run: RunView) -> str:
    """Every comparison of the verdict is that of the raw samples: same bootstrap, same seed."""
    samples, settings = raw_samples(run)
    verdict, count = run.read_json("verdict.json"), 0
    for key, (arm, other) in compared(run).items():
        if key not in verdict:
            continue
        again = compare_arms(samples, arm, other, **settings)
        stated = verdict[key] if COMPARISONS[key].plain else verdict[key]["shapes"]
        _same_keys(stated, again, f"verdict.json: {key}")
        for label, found in again.items():
            _same_figure(stated[label], found, f"verdict.json: {key} {label}")
            _same_test(stated[label], found, f"verdict.json: {key} {label}")
            count += 1
        if "latency_rel" in verdict[key]:
            _same_figure(verdict[key]["latency_rel"], next(iter(again.values())), f"verdict.json: {key} latency_rel")
    for label, item in verdict[AA_CONTROL]["shapes"].items():
        if verdict[AA_CONTROL]["contains_zero"][label] != (item["ci95"][0] <= 0 <= item["ci95"][1]):
            raise ArtifactError(f"verdict.json: the A/A control of {label} says otherwise than its interval")
    return f"{count} comparisons computed again from the samples"


def compared(run: RunView) -> dict[str, tuple[str, str]]:
    """Section of the verdict → the two arms it compares."""
    workload = workload_of(run.read_json(LOCK)["config"])
    return {row.key: (row.arm, row.pairs[workload].other) for row in comparisons_of(workload)}


def check_gates(run: RunView) -> str:
    """Quality, energy and cost in the verdict are the measured ones, and the gates follow from the figures."""
    verdict, report = run.read_json("verdict.json"), run.read_json("measure/measure.json")
    samples, settings = raw_samples(run)
    cost = cost_change(run)
    for key, value in cost.items():
        if not _close(verdict["cost"][key], value):
            raise ArtifactError(f"verdict.json: cost.{key} is {verdict['cost'][key]}, the layouts' is {value}")
    comparison = run.get("gates.comparison", "same_quality")  # runs of before there was a choice
    if verdict.get("gates_comparison", comparison) != comparison:
        raise ArtifactError("verdict.json: gates_comparison is not what the configuration says")
    other = compared(run)[comparison][1]
    drop, energy = verdict["vs_dense"]["quality_drop_pp"], verdict[comparison]["ept_rel"]
    _check_drop(drop, report)
    _check_energy(energy, report["energy"], other)
    latency = next(iter(compare_arms(samples, RESULT, other, **settings).values()))
    judged = judged_figures(verdict | {"gates_comparison": comparison}, drop, cost_figures(cost))
    judged["latency_rel"] = latency  # from the samples, not as stated
    for gate in GATES:
        again = judge(run.get(f"gates.{gate}"), judged)
        for key in ("status", "checks"):
            if verdict[gate][key] != again[key]:
                raise ArtifactError(f"verdict.json: {gate} {key} is {verdict[gate][key]}, the samples say {again[key]}")
    return ", ".join(f"{gate} {verdict[gate]['status']}" for gate in GATES) + ", judged again"


def _check_drop(drop: dict, report: dict) -> None:
    entry = report["quality"].get(RESULT)
    if entry is not None:
        entry = entry[report["quality"]["judging"]]["own"]
    if drop["kind"] == "not_measured":
        if entry is not None:
            raise ArtifactError("verdict.json: quality was measured but the verdict says it was not")
    elif entry is None or not _close(drop["value"], entry["drop_pp"]) or not _close(drop["ci95"], entry["ci95"]):
        raise ArtifactError("verdict.json: quality_drop_pp is not what measure.json says")


def _check_energy(change: dict, energy: dict, other: str) -> None:
    pair = [energy.get(arm) for arm in (RESULT, other)]
    missing = any(item is None or item["kind"] == "not_measured" for item in pair)
    if missing != (change["kind"] == "not_measured"):
        raise ArtifactError("verdict.json: ept_rel says otherwise than measure.json about what was measured")
    if not missing and not _close(change["value"], pair[0]["value"] / pair[1]["value"] - 1):
        raise ArtifactError("verdict.json: ept_rel is not what measure.json says")


def raw_samples(run: RunView) -> tuple[dict, dict]:
    """Samples by shape and arm, and {"seed", "resamples"}; refused if computing with them could exhaust the machine."""
    samples = run.read_json("measure/samples.json")["shapes"]
    settings = {"seed": run.get("seed"), "resamples": run.get("measure.bootstrap")}
    longest = max(len(ms) for arms in samples.values() for ms in arms.values())
    resamples = settings["resamples"]
    if type(resamples) is not int or not 0 < resamples <= MAX_RESAMPLES or resamples * longest > MAX_DRAWS:
        raise ArtifactError(f"{resamples} resamples of {longest} samples are not computed")
    return samples, settings


def _require(value, keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if key not in value] if isinstance(value, dict) else keys
    if missing:
        raise ArtifactError(f"{where} has no {', '.join(missing)}")


def _same_keys(given: dict, expected: dict, where: str) -> None:
    if given.keys() != expected.keys():
        raise ArtifactError(f"{where} has the shapes {', '.join(given)}; the samples have {', '.join(expected)}")


def _same_figure(given: dict, expected: dict, where: str) -> None:
    """Raise `ArtifactError` unless two figures say the same: kind, n, value and interval."""
    same = given["kind"] == expected["kind"] and given["n"] == expected["n"]
    if not same or not _close(given["value"], expected["value"]) or not _close(given.get("ci95"), expected.get("ci95")):
        raise ArtifactError(f"{where} is {_brief(given)}, the samples say {_brief(expected)}")


def _same_test(given: dict, expected: dict, where: str) -> None:
    """Raise `ArtifactError` unless p and effect are those of the samples."""
    for key, value in expected.get("test", {}).items():
        if not _close(given.get("test", {}).get(key), value):
            raise ArtifactError(f"{where}: {key} of the test is not what the samples say ({value})")


def _brief(item: dict) -> str:
    return f"{item['value']} {item.get('ci95', '')} ({item['kind']}, n {item['n']})"


def _close(given, expected) -> bool:
    if isinstance(given, list) and isinstance(expected, list | tuple):
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
