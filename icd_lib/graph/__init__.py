"""Access graphs: who is touched together with whom, in bytes (design §2, W)."""

from icd_lib.graph.build import GRAPH_KINDS, build_w, hash_graph
from icd_lib.graph.coaccess import CoaccessStream
from icd_lib.graph.coactivation import CoactivationStream
from icd_lib.graph.contract import check_w
from icd_lib.graph.events import Events
from icd_lib.graph.mask import group_graph, mask_graph
from icd_lib.graph.mock import band_graph, planted_events, planted_graph
from icd_lib.graph.normalize import normalize_graph
from icd_lib.graph.trace import iter_events, read_events, trace_graph

__all__ = [
    "GRAPH_KINDS",
    "CoaccessStream",
    "CoactivationStream",
    "Events",
    "band_graph",
    "build_w",
    "check_w",
    "group_graph",
    "hash_graph",
    "iter_events",
    "mask_graph",
    "normalize_graph",
    "planted_events",
    "planted_graph",
    "read_events",
    "trace_graph",
]
