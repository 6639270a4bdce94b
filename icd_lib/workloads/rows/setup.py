"""The machine's caches, and which accesses the table gets."""

from dataclasses import asdict

import numpy as np

from icd_lib.workloads.rows.context import QUICK, TableContext
from icd_lib.workloads.rows.events import hash_events, load_events, save_events


def describe(context: TableContext) -> dict:
    """What setup.json holds of the table and its accesses; keeps them in setup/events.npz."""
    events, origin = load_events(context.get)
    save_events(context.run, events)
    context.progress(
        f"{events.count:,} events with {events.accesses:,} accesses to {events.size:,} rows ({origin['name']})"
    )
    row_bytes = context.get("workload.row_bytes")
    digest = hash_events(events)
    return {
        "caches": {"note": context.levels_note, "levels": [asdict(level) for level in context.levels]},
        "workload": {
            **origin,
            "kind": context.get("workload.kind"),
            "sha256": digest,
            "rows": events.size,
            "row_bytes": row_bytes,
            "table_bytes": events.size * row_bytes,
            "tile_rows": context.tile,
            "events": events.count,
            "accesses": events.accesses,
            "rows_touched": int(np.count_nonzero(np.bincount(events.ids, minlength=events.size))),
            "streams": {
                name: {"events": part.count, "accesses": part.accesses} for name, part in context.streams.items()
            },
        },
        # What metrics.json calls the model: here the table, which has no weights.
        "model": {
            "name": f"table of {events.size:,} rows of {row_bytes} bytes",
            "source": origin["source"],
            "sha256": digest,
            "weights": "none",
        },
        "badges": [QUICK] if context.run.scenario.quick else [],
    }
