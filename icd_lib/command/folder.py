"""The folders that commands read and write."""

from pathlib import Path

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.experiment.arms import RESULT
from icd_lib.models.checkpoint.optimized import RECORD
from icd_lib.paths import user_path
from icd_lib.runtimes import REFERENCE, RUNTIMES
from icd_lib.storage.json_text import read_text


def origin_of(folder: str) -> str:
    """The model that a folder of `icd optimize` came from; `ConfigError` if its record does not say."""
    record = user_path(folder) / RECORD
    origin = read_text(record).get("meta", {}).get("model") if record.is_file() else None
    if not isinstance(origin, str):
        raise ConfigError(f"{folder} does not say which model it came from; name that with --against")
    return origin


def check_measurable(name: str) -> None:
    """Raise `ConfigError` for the folder of an export that is a graph of another runtime, not a model of PyTorch."""
    record = user_path(name) / RECORD
    export = read_text(record).get("export") if record.is_file() else None
    if isinstance(export, dict) and export.get("runtime") != REFERENCE:
        raise ConfigError(
            f"{name} is an export for {export.get('runtime')}; icd measure makes that graph itself, beside dense's: "
            f"give it the model that was exported (of a run, {RESULT}/model beside best) with --runtime "
            f"{runtime_name(export)}"
        )


def runtime_name(export: dict) -> str:
    """What --runtime calls the runtime of an export's record."""
    key = export.get("runtime"), export.get("precision")
    return next((row.name for row in RUNTIMES.values() if (row.engine, row.precision) == key), str(key[0]))


def check_out(out: str | Path, *, force: bool = False) -> Path:
    """The folder to write to, before anything is computed; `ArtifactError` if it holds what must not be lost."""
    folder = user_path(out)
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"--out {out} is a file; choose a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RECORD).is_file():
            raise ArtifactError(f"--out {out} is not empty and holds no optimised model; choose another folder")
        if not force:
            raise ArtifactError(f"--out {out} holds an optimised model; --force replaces it")
    return folder
