"""A labelled set, one text per item: SST-2 from the hub through `datasets`, or a folder of CSV, TSV or parquet."""

import csv
import hashlib
import importlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from icd_lib.data.domains.domain import DomainText, distinct
from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.paths import user_path

SST2 = "stanfordnlp/sst2"
_TEXT_COLUMNS = ("sentence", "text")
_SUFFIXES = (".csv", ".tsv", ".parquet")
Rows = list[tuple[str, int]]


def load_own_domain(spec: str, *, seed: int = 0) -> DomainText:
    """Load `spec` ("sst2", a folder, or a folder below `ICD_DATA_DIR`) as a domain named "own" with the task "label".

    Both of its parts are taken together, shuffled by `seed`; of equal texts the first stays. Where the model has a head
    for these classes, the head judges. Raises `ResourceError` when the data cannot be had, `ArtifactError` when a file
    is unreadable.
    """
    folder = _find_folder(spec)
    parts, source = (_read_folder(folder), "path") if folder else (_read_hub(spec), "hub")
    rows = [row for part in parts.values() for row in part]
    order = np.random.default_rng(seed).permutation(len(rows))
    provenance = {
        "name": spec if folder is None else folder.name,
        "licence": "see the data set's card",
        "source": source,
        "sha256": hashlib.sha256("\n".join(f"{y}\t{t}" for t, y in rows).encode()).hexdigest(),
    }
    found = distinct(
        "own", [(rows[i][0], int(i), {"label": rows[i][1]}) for i in order], tasks=("label",), provenance=provenance
    )
    return replace(found, head_classes=int(found.labels["label"].max()) + 1)


def _find_folder(spec: str) -> Path | None:
    roots = [user_path(spec)]
    if os.environ.get("ICD_DATA_DIR"):
        roots.append(user_path(os.environ["ICD_DATA_DIR"]) / spec)
    return next((root for root in roots if root.is_dir()), None)


def _read_folder(folder: Path) -> dict[str, Rows]:
    parts = {}
    for part in ("train", "validation"):
        files = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.name.startswith(part))
        if not files:
            raise ResourceError(
                f"the data folder {folder} has no {part}*.csv, .tsv or .parquet; "
                "it takes one train* and one validation* file with the columns sentence (or text) and label"
            )
        parts[part] = [row for file in files for row in _read_file(file)]
    return parts


def _read_file(path: Path) -> Rows:
    try:
        if path.suffix == ".parquet":
            return _rows(_load_pandas().read_parquet(path).to_dict("records"), str(path))
        with path.open(newline="", encoding="utf-8") as file:
            return _rows(list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")), str(path))
    except ImportError as error:
        raise ResourceError(f"{path} needs a parquet reader; run: pip install pandas pyarrow") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); fetch the data again") from error


def _load_pandas():
    return importlib.import_module("pandas")


def _read_hub(spec: str) -> dict[str, Rows]:
    name = SST2 if spec == "sst2" else spec
    try:
        datasets = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"the data set '{name}' needs the package 'datasets'; run: pip install datasets, "
            "or put train.csv and validation.csv into $ICD_DATA_DIR/" + spec
        ) from error
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:  # offline, unknown name, broken cache
        raise ResourceError(
            f"the data set '{name}' is neither cached nor reachable ({type(error).__name__}: {error}); "
            "connect once, or leave data.name out: the domains of data.seen need no hub"
        ) from error
    missing = {"train", "validation"} - set(loaded)
    if missing:
        raise ConfigError(f"the data set '{name}' has the parts {sorted(loaded)}; train and validation are needed")
    return {part: _rows(loaded[part].to_list(), f"{name}/{part}") for part in ("train", "validation")}


def _rows(records: list[dict], where: str) -> Rows:
    """Records -> (text, label); refuses missing columns and labels that are not whole numbers from 0."""
    column = next((c for c in _TEXT_COLUMNS if records and c in records[0]), None)
    if column is None or "label" not in records[0]:
        found = sorted(records[0]) if records else "nothing"
        raise ArtifactError(f"{where} needs the columns sentence (or text) and label, it has {found}")
    rows = []
    for number, record in enumerate(records, start=1):
        text, label = record[column], str(record["label"])
        if not isinstance(text, str) or not label.isdigit():
            raise ArtifactError(f"{where}: row {number} has text {text!r} and label {label!r}; a label is 0, 1, 2, ...")
        rows.append((text.strip(), int(label)))
    return rows
