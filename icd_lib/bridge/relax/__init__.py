"""The passes on Relax: each takes a module and returns the changed one with its log, a list of lines."""

from icd_lib.bridge.relax.annotate import annotate, layout_on, strip
from icd_lib.bridge.relax.fold import fold, gathers
from icd_lib.bridge.relax.imported import import_relax
from icd_lib.bridge.relax.legalize import legalize_layout
from icd_lib.bridge.relax.lower import lower
from icd_lib.bridge.relax.tile import offered_tiles

__all__ = [
    "annotate",
    "fold",
    "gathers",
    "import_relax",
    "layout_on",
    "legalize_layout",
    "lower",
    "offered_tiles",
    "strip",
]
