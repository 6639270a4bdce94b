"""Where a checkpoint comes from: a path, `ICD_DATA_DIR`, the Hugging Face cache, the hub, or what comes along.

Only safetensors are read (a pickle can run code), and a checkpoint is checked before anybody uses it.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.models.checkpoint.files import check_config, check_weights, hash_files, weight_files
from icd_lib.models.checkpoint.gguf import gguf_folder, is_gguf
from icd_lib.models.families import DEFAULT_FAMILY, FAMILIES, find_family
from icd_lib.models.shapes import SHAPES, shape_names
from icd_lib.paths import user_path

_HUB_FILES = [
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "README.md",
]


@dataclass(frozen=True)
class Checkpoint:
    """What was found: `source` is path, icd_data_dir, hf_cache, hub, embedded, made here or random.

    weights: trained or random. `path` is None and `config`, `seed` are set for random weights; `sha256` is over the
    weight files (or the recipe). mask: arguments of the family's `put_mask`, which zeroes weights once they are loaded.
    """

    path: Path | None
    name: str
    revision: str | None
    sha256: str
    licence: str
    source: str
    weights: str = "trained"
    family: str = DEFAULT_FAMILY
    config: dict = field(default_factory=dict)
    seed: int = 0
    mask: dict = field(default_factory=dict)

    def provenance(self) -> dict:
        """What goes into reports and manifests: no path of this machine."""
        return {k: v for k, v in asdict(self).items() if k in _REPORTED}


MADE = "made here"  # the source of a checkpoint that is no file: weights of another one, changed
_REPORTED = ("name", "revision", "sha256", "licence", "source", "weights")


def resolve_checkpoint(
    spec: str | None = None, *, revision: str | None = None, family: str = DEFAULT_FAMILY
) -> Checkpoint:
    """Find and check the checkpoint `spec`: a folder or GGUF file, also below `$ICD_DATA_DIR`, a hub id; None: default

    Order: path, `ICD_DATA_DIR`, Hugging Face cache (`HF_HOME`), hub, the checkpoints that come along with the family.
    None takes the embedded default first, so that a run without a choice needs no network. Raises `ResourceError` with
    all that was tried, `ConfigError` for an architecture outside `family`, `ArtifactError` for damaged or non-finite
    weights.
    """
    tried: list[str] = []
    row = find_family(family)
    default = row.default
    if spec is None and default is None:
        raise ResourceError(f"the family '{family}' has no embedded model; name one with model.checkpoint")
    if spec is None and (embedded := default.folder()):
        return _describe(embedded, default.name, None, "embedded", family)
    name = spec or default.name
    for folder, source in _local_folders(name):
        if is_gguf(folder):
            return _describe(gguf_folder(folder), folder.name, revision, source, family)
        if folder.is_dir():
            label = folder.resolve().name if source == "path" else name
            return _describe(folder, label, revision, source, family)
        tried.append(f"{source} ({'no such folder' if source == 'path' else 'not there'})")
    if not os.environ.get("ICD_DATA_DIR"):
        tried.append("icd_data_dir (ICD_DATA_DIR is not set)")
    for source in ("hf_cache", "hub"):
        folder, reason = _snapshot(name, revision, local=source == "hf_cache")
        if folder:
            return _describe(folder, name, folder.name, source, family)
        tried.append(f"{source} ({reason})")
    for known in row.embedded:
        if _is_same(name, known.name):
            if embedded := known.folder():
                return _describe(embedded, known.name, None, "embedded", family)
            tried.append(f"embedded (it is not installed; run: {known.cure})")
    raise ResourceError(
        f"checkpoint '{name}' was not found; tried {'; '.join(tried)}. Give a folder written by save_pretrained, "
        "put it below ICD_DATA_DIR, or leave model.checkpoint empty for the embedded model"
    )


def find_checkpoint(name: str) -> Checkpoint:
    """`resolve_checkpoint` in the first family that takes it; `ConfigError` with every family's reason.

    A name that comes along with a family is looked for in that one first.
    """
    reasons = []
    for family in sorted(FAMILIES, key=lambda row: not any(_is_same(name, k.name) for k in FAMILIES[row].embedded)):
        try:
            return resolve_checkpoint(name, family=family)
        except ConfigError as error:
            reasons.append(f"{family}: {error.args[0]}")
    raise ConfigError("no family takes this model; " + "; ".join(reasons))


def random_checkpoint(shape: str | None, seed: int = 0, family: str = DEFAULT_FAMILY) -> Checkpoint:
    """Seeded random weights of a named shape (None: the family's first): latency only, quality is `not_measured`."""
    known = shape_names(family)
    shape = shape or next(iter(known), None)
    if shape not in known:
        raise ConfigError(f"model.shape '{shape}' is no shape of the family {family}; it takes one of {sorted(known)}")
    config = SHAPES[shape].config
    recipe = json.dumps([config, seed], sort_keys=True).encode()
    digest = hashlib.sha256(recipe).hexdigest()
    return Checkpoint(None, f"random {shape}", None, digest, "none", "random", "random", family, config, seed)


def mask_checkpoint(checkpoint: Checkpoint, mask: dict) -> Checkpoint:
    """`checkpoint` with weights zeroed by its family's `put_mask(**mask)`, and a name and a hash that say so.

    Raises `ConfigError` for a family whose models are not masked here.
    """
    if find_family(checkpoint.family).put_mask is None:
        raise ConfigError(
            f"no masked model of the family '{checkpoint.family}' is made here; name a checkpoint that was pruned "
            "elsewhere with model.checkpoint"
        )
    recipe = json.dumps([checkpoint.sha256, mask], sort_keys=True).encode()
    return replace(
        checkpoint,
        name=f"{checkpoint.name}, masked here",
        sha256=hashlib.sha256(recipe).hexdigest(),
        source=MADE,
        mask=mask,
    )


def _is_same(name: str, known: str) -> bool:
    return name.split("/")[-1].lower() == known.split("/")[-1].lower()


def _local_folders(name: str) -> list[tuple[Path, str]]:
    folders = [(user_path(name), "path")]
    if os.environ.get("ICD_DATA_DIR"):
        folders.append((Path(os.environ["ICD_DATA_DIR"]).expanduser() / name, "icd_data_dir"))
    return folders


def _snapshot(name: str, revision: str | None, *, local: bool) -> tuple[Path | None, str]:
    """Folder of a hub snapshot, or None and the reason. Reads the environment at each call, not at import."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not local and is_offline():
        return None, "offline: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=hub_cache_folder(),
            local_files_only=local,
            allow_patterns=_HUB_FILES,
            ignore_patterns=["*/*"],  # other formats of the same weights live in subfolders
            etag_timeout=5,
        )
    except HFValidationError:
        return None, "not a valid hub id"
    except LocalEntryNotFoundError:
        return None, "not in the cache" if local else "the hub cannot be reached"
    except (HfHubHTTPError, OSError) as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    folder = Path(folder)
    if local and not (folder / "config.json").is_file():
        return None, "the cached snapshot is incomplete"
    return folder, ""


def hub_cache_folder() -> Path | None:
    """The hub cache that the environment names now; None leaves huggingface_hub's own default."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    return None


def is_offline() -> bool:
    """The environment forbids the hub."""
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.strip().upper() in ("1", "ON", "YES", "TRUE") for value in switches)


def _describe(folder: Path, name: str, revision: str | None, source: str, family: str) -> Checkpoint:
    layout = find_family(family).layout_of(check_config(folder, family))
    if layout is not None:
        files = layout.check_weights(folder)
    else:
        files = weight_files(folder)
        check_weights(files)
    return Checkpoint(folder, name, revision, hash_files(files), _licence(folder), source, family=family)


def _licence(folder: Path) -> str:
    """The `license:` of the model card's front matter, or that it is not stated."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = front and re.search(r"^license:\s*(\S+)\s*$", front.group(1), re.MULTILINE)
    return found.group(1) if found else "not stated"
