"""Legalise-layout on Relax: annotations that the target cannot use are taken back, with the reason."""

from icd_lib.bridge.legal import objection
from icd_lib.bridge.relax.annotate import LAYOUT, REFUSED, layout_on, with_attribute

_SHORT = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


def legalize_layout(module, lanes: int):
    """(module whose layout holds what the target can use, log)."""
    dtypes = {var.name: str(var.ty.dtype) for var in module["main"].params}
    kept, refused, log = {}, {}, []
    for variable, entries in layout_on(module).items():
        dtype = _SHORT.get(dtypes[variable], dtypes[variable])
        reasons = [objection(entry, dtype, lanes) for entry in entries]
        if good := [entry for entry, reason in zip(entries, reasons, strict=True) if not reason]:
            kept[variable] = good
        if bad := [reason for reason in reasons if reason]:
            refused[variable] = "; ".join(bad)
            log += [f"{variable}: taken back: {reason}" for reason in bad]
    return with_attribute(with_attribute(module, LAYOUT, kept), REFUSED, refused), log
