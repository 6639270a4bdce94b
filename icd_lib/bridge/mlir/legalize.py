"""Legalise-layout on StableHLO: annotations that the target cannot use are taken back, with the reason."""

from icd_lib.bridge.legal import objection
from icd_lib.bridge.mlir.annotate import LAYOUT, layout_on
from icd_lib.bridge.mlir.module import bindings, operations, weight_name

REFUSED = "icd.refused"


def legalize_layout(module, lanes: int) -> list[str]:
    """Keep of every weight's layout what the target can use; what it cannot is in the log and in `icd.refused`."""
    ir, log = bindings(), []
    for operation in operations(module):
        entries = layout_on(operation)
        if not entries:
            continue
        dtype = str(ir.RankedTensorType(operation.result.type).element_type)
        reasons = [objection(entry, dtype, lanes) for entry in entries]
        kept = [
            item for item, reason in zip(ir.ArrayAttr(operation.attributes[LAYOUT]), reasons, strict=True) if not reason
        ]
        refused = [reason for reason in reasons if reason]
        if refused:
            operation.attributes[REFUSED] = ir.StringAttr.get("; ".join(refused), module.context)
            log += [f"{weight_name(operation)}: taken back: {reason}" for reason in refused]
        if kept:
            operation.attributes[LAYOUT] = ir.ArrayAttr.get(kept, module.context)
        else:
            del operation.attributes[LAYOUT]
    return log
