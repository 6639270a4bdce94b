"""Where a compiled module stays between two calls of benchmarks/bridge.py, by all that it depends on."""

import hashlib
from pathlib import Path

from torch import nn

from icd_lib.bridge.compile import PACKAGES
from icd_lib.measure.environment import versions
from icd_lib.models.export import as_arrays
from icd_lib.storage.atomic import to_json
from icd_lib.storage.machine import processor

LIBRARY = Path(__file__).resolve().parent.parent / "icd_lib"
SOURCES = ("bridge", "kernels", "models/export.py")


def kept_folder(folder: Path, engine: str, model: nn.Module, inputs: dict, told: dict) -> Path:
    """A folder in `folder` for one compiler, one model's weights, one shape, one machine, these sources.

    told: whatever else the compiler is told, as JSON
    """
    shapes = {name: array.shape for name, array in as_arrays(inputs).items()}
    packages = versions([*PACKAGES[engine].values(), "torch", "transformers"])
    digest = hashlib.sha256(to_json([engine, type(model).__name__, shapes, told, packages, processor()]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    for file in sources():
        digest.update(file.read_bytes())
    return folder / f"{engine}-{digest.hexdigest()[:16]}"


def sources() -> list[Path]:
    """The files of the project that say what an artifact is."""
    places = [LIBRARY / name for name in SOURCES]
    return sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py")))
