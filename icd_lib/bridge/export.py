"""A model as a folder that runs without torch: `icd.export_stablehlo` and `icd.export_tvm`."""

import shutil
import uuid
from pathlib import Path

from torch import nn

from icd_lib.bridge import load as loader
from icd_lib.bridge.compile import PACKAGES, RECORD, compile_model
from icd_lib.bridge.engines import AFTER, BEFORE
from icd_lib.bridge.options import BridgeOptions
from icd_lib.bridge.settings import Settings
from icd_lib.errors import ArtifactError
from icd_lib.optional import find_optional
from icd_lib.paths import user_path
from icd_lib.storage.atomic import put_in_place, write_error


def export_stablehlo(model: nn.Module, inputs: dict, folder, *, tile: int = 16, dynamic_shapes=None, **options) -> Path:
    """Write `module.mlir` (StableHLO, layout as attributes), `module.vmfb` (IREE, this CPU), `icd.json` and `load.py`.

    inputs: name → (B, L) tensor or array: the artifact takes exactly these shapes. tile: elements of a tile of the
    layout. options: those of a scenario's section `bridge`, such as compile_timeout_s. Returns the folder, which is
    there whole or not at all. Raises `ResourceError` with the cure where a package is missing or the compiler refuses,
    `ArtifactError` where the folder is not empty or cannot be written.

        from load import load
        output = load("folder")(input_ids, attention_mask)      # numpy in, numpy out; no torch
    """
    return _export("stablehlo_iree", model, inputs, folder, tile, dynamic_shapes, options)


def export_tvm(model: nn.Module, inputs: dict, folder, *, tile: int = 16, dynamic_shapes=None, **options) -> Path:
    """Write `module.relax` (Relax script), `module.so` (TVM), `icd.json` and `load.py`; else as `export_stablehlo`."""
    return _export("tvm_relax", model, inputs, folder, tile, dynamic_shapes, options)


def _export(engine: str, model: nn.Module, inputs: dict, folder, tile: int, dynamic_shapes, options: dict) -> Path:
    folder = user_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (folder / RECORD).is_file():
        raise ArtifactError(f"{folder} is not empty and holds no export of the bridge; choose another folder")
    for package, install in PACKAGES[engine].items():
        find_optional(package, install)
    settings = Settings(BridgeOptions(enable=True, **options), tile)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        compile_model(engine, model, inputs, partial, settings, dynamic_shapes)
        for name in (BEFORE, AFTER):
            (partial / name).unlink()
        shutil.copyfile(loader.__file__, partial / "load.py")
        old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
        put_in_place(partial, folder, old)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
