"""Access graphs: who is touched together with whom, in bytes (design §2, W)."""

from icd_lib.graph.build import GRAPH_KINDS, build_w
from icd_lib.graph.coactivation import CoactivationStream
from icd_lib.graph.contract import check_w
from icd_lib.graph.mask import mask_graph

__all__ = ["GRAPH_KINDS", "CoactivationStream", "build_w", "check_w", "mask_graph"]
