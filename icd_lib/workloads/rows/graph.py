"""W of the accesses, the certificate of the table's axis, and what a layout costs on this machine."""

from dataclasses import asdict

import numpy as np
import scipy.sparse as sp

from icd_lib.axes.permutation import hash_permutation
from icd_lib.codesign.calibration import Calibration, calibrate, calibration_key
from icd_lib.errors import AxisError, ConfigError
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.progress import follow
from icd_lib.run.artifacts import Run
from icd_lib.storage import npz
from icd_lib.version import VERSION
from icd_lib.workloads.rows import TableRunner, measure_layouts, place_rows
from icd_lib.workloads.rows.context import AXIS, TableContext


def certify_axis(context: TableContext) -> dict:
    """A random layout of the table must leave the checksum as it is, exactly; `AxisError` otherwise."""
    workload = context.workload(context.seen)
    everything = np.ones(context.size, dtype=bool)
    layouts = np.arange(context.size), np.random.default_rng(context.get("seed")).permutation(context.size)
    sums = [TableRunner(workload, place_rows(pi, everything, context.tile)[0])() for pi in layouts]
    if sums[0] != sums[1]:
        raise AxisError(f"a random layout of the table changed its checksum from {sums[0]:.0f} to {sums[1]:.0f}")
    context.progress("a random layout leaves the checksum as it is")
    return {
        "axis": AXIS,
        "kind": "table rows",
        "size": context.size,
        "checksum": f"{sums[0]:.0f}",
        "perm_hash": hash_permutation(layouts[1]),
    }


def write_graph(context: TableContext) -> dict:
    """Save W of the seen events with its structure figures and what it leaves out."""
    graph, counted = context.build_graph(context.seen)
    if not graph.nnz:
        raise ConfigError(
            "no two rows are touched together in the seen events, so no order is better than another; where events are "
            "single accesses, let several in a row count as one with graph.window=8"
        )
    save_graph(context.run, "graph", graph)
    context.graph = graph
    degree = np.asarray(graph.sum(axis=1)).ravel()
    meta = {
        "D": graph.shape[0],
        "nnz": int(graph.nnz),
        "kind": context.get("workload.kind"),
        "unit": "bytes" if context.get("graph.normalize") == "none" else "share",
        "normalize": context.get("graph.normalize"),
        "degree_mean": float(degree.mean()),
        "degree_cv": float(degree.std() / degree.mean()) if degree.mean() else 0.0,
        **counted,
    }
    context.progress(f"W has {graph.nnz:,} non-zeros over {graph.shape[0]:,} rows")
    return {AXIS: meta}


def save_graph(run: Run, folder: str, graph: sp.csr_array) -> None:
    """W as scipy's npz, the same bytes for the same graph."""
    npz.save_graph(run.path(folder, f"W.{AXIS}.npz"), graph, compressed=False)


def weigh_cost(context: TableContext) -> dict | None:
    """Pilot layouts measured, and the weights of J that follow; kept per machine, so that runs with one seed agree."""
    pilots = context.get("calibration.pilots")
    if not pilots:
        context.run.write_json("graph/calibration.json", None)
        return None
    key = calibration_key(
        context.graph,
        context.given_cost,
        workload=context.run.read_json("setup/setup.json")["workload"]["sha256"],
        seen=context.seen.count,
        row_bytes=context.get("workload.row_bytes"),
        caches=[asdict(level) for level in context.levels],
        pilots=pilots,
        repeats=context.get("calibration.repeats"),
        seed=context.get("seed"),
        version=VERSION,
    )
    calibration = None if context.get("graph.remeasure") else Calibration.load(key)
    if calibration is None:
        with watched() as conditions:
            calibration = measure_pilots(context, pilots)
        if disturbed := disturbances(conditions):
            context.progress(f"{'; '.join(disturbed)}: these pilots are used now, and measured again by the next run")
        else:
            calibration.save(key)
    else:
        context.progress("pilot layouts of this machine, measured earlier (graph.remeasure=true measures again)")
    context.progress(calibration.reason)
    context.run.write_json("graph/calibration.json", calibration.to_json())
    return calibration.to_json()


def measure_pilots(context: TableContext, pilots: int) -> Calibration:
    """Lay the whole table out in `pilots` ways, measure each, and fit what the terms of J are worth."""
    measure = measure_layouts(
        context.workload(context.seen),
        np.ones(context.size, dtype=bool),
        context.tile,
        context.levels,
        repeats=context.get("calibration.repeats"),
        seed=context.get("seed"),
        progress=follow(context.progress, "pilot layouts"),
    )
    return calibrate(
        context.graph,
        measure,
        cost=context.given_cost,
        pilots=pilots,
        seed=context.get("seed"),
        progress=context.progress,
    )
