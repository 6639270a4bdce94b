"""Stage 00 of a table: what this machine and its caches are, and which accesses the table gets."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from icd_lib.measure.environment import fingerprint
from icd_lib.run.artifacts import Run
from icd_lib.stages.table.context import QUICK, TableContext
from icd_lib.stages.table.workload import hash_events, load_events, save_events


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write setup/setup.json and setup/events.npz; returns what setup.json holds."""
    context = TableContext(run, progress)
    events, origin = load_events(context.get)
    save_events(run, events)
    progress(f"{events.count:,} events with {events.accesses:,} accesses to {events.size:,} rows ({origin['name']})")
    row_bytes = context.get("workload.row_bytes")
    digest = hash_events(events)
    report = {
        "environment": fingerprint(model=False),
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
        "badges": [QUICK] if run.scenario.quick else [],
    }
    run.write_json("setup/setup.json", report)
    return report
