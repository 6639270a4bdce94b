"""The passes on StableHLO: each takes a parsed module, changes it in place and returns its log, a list of lines."""

from icd_lib.bridge.mlir.annotate import annotate, layout_on, strip
from icd_lib.bridge.mlir.fold import fold, gathers
from icd_lib.bridge.mlir.imported import import_stablehlo
from icd_lib.bridge.mlir.legalize import legalize_layout
from icd_lib.bridge.mlir.lower import lower
from icd_lib.bridge.mlir.module import parse, printed, weights_in
from icd_lib.bridge.mlir.pieces import sum_pieces
from icd_lib.bridge.mlir.tile import tile_products

__all__ = [
    "annotate",
    "fold",
    "gathers",
    "import_stablehlo",
    "layout_on",
    "legalize_layout",
    "lower",
    "parse",
    "printed",
    "strip",
    "sum_pieces",
    "tile_products",
    "weights_in",
]
