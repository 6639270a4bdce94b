"""Annotate: what the layout says of a weight, as attributes of its constant; the program's function is untouched."""

import json

from icd_lib.bridge.layout import Layout, in_words
from icd_lib.bridge.mlir.module import bindings, operations, weight_name

LAYOUT = "icd.layout"
_OURS = ("icd.", "compilation_info")


def annotate(module, layout: Layout) -> list[str]:
    """Set `icd.layout = [{axis, dim, tile, width, pi}, ...]` on the constant of every weight that the layout names."""
    ir, log = bindings(), []
    for operation in operations(module):
        name = weight_name(operation)
        if name in layout:
            operation.attributes[LAYOUT] = ir.Attribute.parse(_as_text(layout[name]), module.context)
            log.append(f"{name}: {', '.join(in_words(entry) for entry in layout[name])}")
    return log


def strip(module) -> int:
    """Take every annotation off again; returns how many there were."""
    taken = 0
    for operation in operations(module):
        for name in [name for name in operation.attributes if name.startswith(_OURS)]:
            del operation.attributes[name]
            taken += 1
    return taken


def layout_on(operation) -> list[dict]:
    """The entries that a weight's constant carries; none where it carries no layout."""
    ir = bindings()
    if LAYOUT not in operation.attributes:
        return []
    return [
        {name: getattr(entry[name], "value", None) for name in ("axis", "dim", "tile", "width", "pi")}
        for entry in (ir.DictAttr(item) for item in ir.ArrayAttr(operation.attributes[LAYOUT]))
    ]


def _as_text(entries: list[dict]) -> str:
    items = (
        f"{{axis = {json.dumps(entry['axis'])}, dim = {entry['dim']} : i64, tile = {entry['tile']} : i64, "
        f"width = {entry['width']} : i64, pi = {json.dumps(entry['pi'])}}}"
        for entry in entries
    )
    return f"[{', '.join(items)}]"
