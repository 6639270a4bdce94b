"""ICD: iterative co-design of a model's memory layout with sparsity. The public API on one page.

Names are imported on first use, so that `import icd_lib` (and the command line's `--list`) costs nothing.
"""

import importlib

from icd_lib.version import VERSION as __version__  # noqa: N811 (the conventional name)

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
    "optimize": "icd_lib.api",
    "load_optimized": "icd_lib.models.checkpoint.optimized",
    "save_optimized": "icd_lib.models.checkpoint.optimized",
    "export_onnx": "icd_lib.models.export",
    "run_onnx": "icd_lib.models.export",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'icd_lib' has no attribute {name!r}; it has {', '.join(_WHERE)}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
