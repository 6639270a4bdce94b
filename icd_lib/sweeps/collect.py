"""A finished point's figures, from the files of its run."""

from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import DENSE, MODES, RESULT, ROWS, workload_of
from icd_lib.experiment.gates import GATES
from icd_lib.metric import Figure, not_measured
from icd_lib.records.measured import Metrics
from icd_lib.records.verdict import VERDICT, Verdict
from icd_lib.run.artifacts import LOCK
from icd_lib.run.files import check_shape
from icd_lib.storage.devices import CPU
from icd_lib.storage.json_text import read_text
from icd_lib.storage.record_json import from_json
from icd_lib.sweeps.outcome import ArmFigures, Where

ARMS = (DENSE, *MODES)
ONE_TEXT = "arms beside iterative are judged on the text that the budget is for alone"
STORED_ONLY = "fp8 is how the weights are stored; they are multiplied as fp32 here, so that is no latency of fp8"


def arms_of(folder: Path) -> dict[str, ArmFigures]:
    """Arm → its figures, of those that were measured; `ArtifactError` if there is none, or a file is broken."""
    config, found = _read(folder, LOCK)["config"], {}
    for arm in ARMS:
        if not (folder / arm / "metrics.json").is_file():
            continue
        metrics = from_json(Metrics, _read(folder, f"{arm}/metrics.json"), str(folder / arm / "metrics.json"))
        latency, relative = metrics.latency_ms, metrics.vs_dense.latency_rel
        if arm != DENSE and config.get("quantization", {}).get("precision") == "fp8_storage":
            latency, relative = not_measured("ms", STORED_ONLY), not_measured("fraction", STORED_ONLY)
        found[arm] = ArmFigures(
            latency_ms=latency,
            latency_vs_dense=relative,
            quality_drop_pp=metrics.vs_dense.quality_drop_pp,
            other_drop_pp=_lost_elsewhere(folder, config) if arm == RESULT else not_measured("pp", ONE_TEXT),
            peak_memory_mb=metrics.peak_memory_mb,
            energy_j_per_token=metrics.energy_j_per_token,
            parameter_bytes=metrics.parameter_bytes,
        )
    if not found:
        raise ArtifactError(f"{folder} has no metrics.json of any arm; run the point again with --force")
    return found


def _lost_elsewhere(folder: Path, config: dict) -> Figure:
    """What iterative loses on the text that the budget is not for."""
    verdict = from_json(Verdict, _read(folder, VERDICT), str(folder / VERDICT))
    if not isinstance(verdict.quality, dict):
        return not_measured("pp", getattr(verdict.quality, "reason", "quality is unchanged by construction"))
    split = "seen" if config["codesign"]["budget_on"] == "unseen" else "unseen"
    return (
        verdict.quality[split].own_pp if split in verdict.quality else not_measured("pp", f"there is no {split} text")
    )


def where_of(folder: Path) -> Where:
    """Model, calls and machine of a run."""
    config, setup = _read(folder, LOCK)["config"], _read(folder, "setup/setup.json")
    dense = _read(folder, f"{DENSE}/metrics.json")
    cpu, threads = setup["environment"].get("cpu", {}), setup["environment"].get("threads", {})
    machine = f"{cpu.get('model', 'unknown CPU')}, {cpu.get('usable_cores', '?')} cores"
    if threads.get("torch"):
        machine += f", {threads['torch']} threads"
    if (device := setup.get("device") or {}).get("name", CPU) != CPU:
        machine += f", {device['label']}"
    name = f"{config['workload']['kind']} table" if workload_of(config) == ROWS else setup["model"].get("name", "model")
    return Where(
        model=name,
        shape=str(dense.get("shape", "")),
        machine=machine,
        runtime=(setup.get("deploy") or {}).get("runtime", ""),
    )


def gates_of(folder: Path) -> dict[str, str]:
    """Gate → its status."""
    verdict = from_json(Verdict, _read(folder, VERDICT), str(folder / VERDICT))
    return {gate: verdict.gate(gate).status for gate in GATES}


def lost_where_chosen(folder: Path, mode: str) -> tuple[float, float] | None:
    """Percentage points lost on the text that chooses, and their standard error; None where that was not judged."""
    path = folder / mode / "solve.json"
    if not path.is_file():
        return None
    found = _read(folder, f"{mode}/solve.json").get("validation") or {}
    return (found["drop_pp"], found["se_pp"]) if found.get("split") else None


def _read(folder: Path, rel: str):
    path = folder / rel
    try:
        return check_shape(read_text(path), rel, str(path))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is missing or broken ({error}); run the point again with --force") from error
