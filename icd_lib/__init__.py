"""ICD: iterative co-design of a model's memory layout with sparsity. The public API on one page.

Names are imported on first use, so that `import icd_lib` (and the command line's `--list`) costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from icd_lib.version import VERSION as __version__  # noqa: N811 (the conventional name)

if TYPE_CHECKING:  # what editors and type checkers see; `_WHERE` says the same to Python
    from icd_lib.api import compact_masked as compact_masked
    from icd_lib.api import find_axes as find_axes
    from icd_lib.api import optimize as optimize
    from icd_lib.axes.compact import compact as compact
    from icd_lib.axes.permute import permute as permute
    from icd_lib.bridge.export import export_stablehlo as export_stablehlo
    from icd_lib.bridge.export import export_tvm as export_tvm
    from icd_lib.codesign.calibration import calibrate as calibrate
    from icd_lib.deploy.card import Card as Card
    from icd_lib.deploy.export import export as export
    from icd_lib.execute.sweep import sweep as sweep
    from icd_lib.graph import build_w as build_w
    from icd_lib.models.checkpoint.optimized import load_optimized as load_optimized
    from icd_lib.models.checkpoint.optimized import save_optimized as save_optimized
    from icd_lib.models.export import export_onnx as export_onnx
    from icd_lib.models.export import run_onnx as run_onnx
    from icd_lib.run.artifacts import open_run as open_run
    from icd_lib.run.scenario import load_scenario as load_scenario
    from icd_lib.solver import CostConfig as CostConfig
    from icd_lib.solver import evaluate_cost as evaluate_cost
    from icd_lib.solver import fit_permutation as fit_permutation

_WHERE = {
    "load_scenario": "icd_lib.run.scenario",
    "open_run": "icd_lib.run.artifacts",
    "build_w": "icd_lib.graph",
    "CostConfig": "icd_lib.solver",
    "evaluate_cost": "icd_lib.solver",
    "fit_permutation": "icd_lib.solver",
    "calibrate": "icd_lib.codesign.calibration",
    "find_axes": "icd_lib.api",
    "permute": "icd_lib.axes.permute",
    "compact": "icd_lib.axes.compact",
    "compact_masked": "icd_lib.api",
    "optimize": "icd_lib.api",
    "load_optimized": "icd_lib.models.checkpoint.optimized",
    "save_optimized": "icd_lib.models.checkpoint.optimized",
    "export": "icd_lib.deploy.export",
    "Card": "icd_lib.deploy.card",
    "sweep": "icd_lib.execute.sweep",
    "export_onnx": "icd_lib.models.export",
    "run_onnx": "icd_lib.models.export",
    "export_stablehlo": "icd_lib.bridge.export",
    "export_tvm": "icd_lib.bridge.export",
}

__all__ = ["__version__", *_WHERE]


if not TYPE_CHECKING:  # to a type checker this would be leave to use any name

    def __getattr__(name: str):
        if name not in _WHERE:
            raise AttributeError(f"module 'icd_lib' has no attribute {name!r}; it has {', '.join(_WHERE)}")
        return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
