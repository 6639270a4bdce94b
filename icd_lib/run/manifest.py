"""manifest.json and manifest.txt: which code, packages, machine, model and data made a run's files."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from icd_lib.paths import project_root
from icd_lib.run.artifacts import Run
from icd_lib.scrub.text import scrub_strings
from icd_lib.storage.atomic import atomic_write, sha256_file
from icd_lib.storage.machine import cpu_model
from icd_lib.version import VERSION

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "GOMP_CPU_AFFINITY",
    "LD_PRELOAD",
    "MALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "ICD_DATA_DIR",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)
MACHINE = ("cpu", "memory_gb", "gpu", "gpu_driver", "load_average", "threads", "torch_backend", "counters")
UNLISTED = ("manifest.json", "manifest.txt", "run.log")  # written to after the manifest


def write_manifest(run: Run) -> Path:
    """Write `manifest.json`, and the same for people as `manifest.txt`, for what the run directory holds now."""
    setup = run.read_json("setup/setup.json") if (run.dir / "setup" / "setup.json").is_file() else {}
    manifest = {
        "scenario": run.scenario.name,
        "config_sha256": run.scenario.sha256,
        "quick": run.scenario.quick,
        "seed": run.scenario.get("seed"),
        "command": run.command(),
        "icd_version": VERSION,
        "git": git_state(project_root()),
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": {"model": cpu_model(), "logical_cores": os.cpu_count()},
        "machine": {key: setup.get("environment", {}).get(key) for key in MACHINE},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": installed_packages(),
        "provenance": {key: setup[key] for key in ("model", "checkpoint", "data") if key in setup},
        "files": {rel: sha256_file(run.dir / rel) for rel in list_files(run.dir)},
    }
    manifest = scrub_strings(manifest)
    atomic_write(run.path("manifest.txt"), as_text(manifest))
    return run.write_json("manifest.json", manifest)


def as_text(manifest: dict) -> str:
    """The manifest for people; its packages can be given to pip, its last part to sha256sum."""
    listed = ("packages", "files")
    lines = ["# ICD run manifest"]
    lines += [f"# {key}: {json.dumps(manifest[key], ensure_ascii=False)}" for key in manifest if key not in listed]
    lines += ["", "# packages", *(f"{name}=={version}" for name, version in manifest["packages"].items())]
    lines += ["", "# files", *(f"{sha}  {rel}" for rel, sha in manifest["files"].items())]
    return "\n".join(lines) + "\n"


def list_files(folder: Path) -> list[str]:
    """Relative paths of a run's files, sorted; hidden (temporary) ones and those still being written left out."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = (path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    return sorted(rel for rel in shown if rel not in UNLISTED)


def git_state(root: Path) -> dict:
    """{"head", "dirty"} of the project's own checkout; head None, with the reason, where there is none."""
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != root.resolve():
            return {"head": None, "dirty": None, "reason": "the project is not a git checkout of its own"}
        return {"head": _git(root, "rev-parse", "HEAD"), "dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError) as error:
        return {"head": None, "dirty": None, "reason": f"git gave no answer ({type(error).__name__})"}


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def installed_packages() -> dict[str, str]:
    """Name → version of every installed distribution, sorted."""
    versions = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))
