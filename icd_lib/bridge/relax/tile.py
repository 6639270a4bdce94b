"""Tile on Relax: products are scheduled in tiles, multiples of g where the layout of their weight says so.

TVM's own pipeline gives a product on a CPU plain loops; so it is scheduled here with and without the layout, and what
differs is the tile alone.
"""

import itertools

from icd_lib.bridge.relax.annotate import layout_on
from icd_lib.bridge.relax.imported import weight_vars
from icd_lib.bridge.tiles import output_tile, row_tile
from icd_lib.optional import load_optional

NEAR_ROWS = 4  # of a tile, at most
# A sum over so many elements at most is added to the one before it: one sum over all of a depth rounds worse by far.
MOST_DEPTH, LEAST_DEPTH = 64, 16
_OPAQUE = 8  # OpPatternKind: what is scheduled already is not fused with others


def offered_tiles(module) -> tuple[dict[tuple[int, int], int], list[str]]:
    """((depth, width) of a product with an annotated weight → columns of its tile, log)."""
    offers, log, layout = {}, [], layout_on(module)
    shapes = {var.name: [int(size) for size in var.ty.shape] for var in weight_vars(module)}
    for variable, entries in layout.items():
        by_dim = {entry["dim"]: entry for entry in entries}
        if len(shapes[variable]) == 2 and 0 in by_dim:  # rows of a Linear are the product's columns
            width, depth = shapes[variable]
            offers[depth, width] = output_tile(width, by_dim[0]["tile"])
            log.append(f"{variable}: {depth} × {width} in tiles of {offers[depth, width]} columns")
    return offers, log


def schedule_products(module, offers: dict[tuple[int, int], int], lanes: int):
    """The legalised module with every product in tiles: those offered, else the largest divisor of its width to 64."""
    tirx = load_optional("tvm.tirx", "apache-tvm")
    changed = module.clone()
    for place, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc) and (found := _product(function, offers, lanes)) is not None:
            changed[place] = found.with_attr("op_pattern", _OPAQUE).with_attr("tirx.is_scheduled", True)
    return changed


def schedule_rest(module, lanes: int):
    """Everything else spread over the threads, row by row, in vectors where the rows allow it."""
    tirx = load_optional("tvm.tirx", "apache-tvm")
    changed = module.clone()
    for place, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc) and "tirx.is_scheduled" not in (function.attrs or {}):
            changed[place] = _spread(function, lanes).with_attr("tirx.is_scheduled", True)
    return changed


def _product(function, offers: dict[tuple[int, int], int], lanes: int):
    """The function scheduled; None where it is no product."""
    s_tir = load_optional("tvm.s_tir", "apache-tvm")
    schedule = s_tir.Schedule(function)
    root = schedule.get_child_blocks(schedule.get_sblock("root"))
    if len(root) != 1 or schedule.get(root[0]).name_hint != "matmul":
        return None
    block = root[0]
    *outer, columns, depth = schedule.get_loops(block)
    sizes = [int(schedule.get(loop).extent) for loop in (*outer, columns, depth)]
    width = sizes[-2]
    tile = offers.get((sizes[-1], width)) or row_tile(width, 64)
    vector = next(size for size in (64, 32, 16, 8, 4, 2, 1) if size <= 4 * lanes and tile % size == 0)
    # Rows of a tile are rows of one matrix: where they reach into the next, TVM copies rows that are not computed yet.
    near_rows = row_tile(next((size for size in reversed(sizes[:-2]) if size > 1), 1), NEAR_ROWS)
    if not outer:
        return None
    near_depth = row_tile(sizes[-1], MOST_DEPTH)
    parts = None
    if LEAST_DEPTH <= near_depth < sizes[-1]:
        parts = schedule.rfactor(schedule.split(depth, [None, near_depth])[0], 0)
        *outer, columns, depth = schedule.get_loops(block)
    line = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
    cell = schedule.cache_write(block, 0, "local")
    far, near = schedule.split(line, [None, near_rows])
    across, along, lane = schedule.split(columns, [None, tile // vector, vector])
    schedule.reorder(far, across, along, depth, near, lane)
    if parts is not None:
        schedule.compute_at(parts, depth)
        schedule.set_scope(parts, 0, "local")
    schedule.reverse_compute_at(cell, along)
    schedule.parallel(schedule.fuse(far, across))
    schedule.unroll(near)
    schedule.vectorize(lane)
    if vector > 1:  # else the copy has no loop of its own for it, and its last one would be `along` or the rows
        schedule.vectorize(schedule.get_loops(cell)[-1])
    if parts is not None:
        _in_registers(schedule, parts, vector)
    started = schedule.decompose_reduction(block, depth)
    schedule.vectorize(schedule.get_loops(started)[-1])
    return schedule.mod["main"]


def _in_registers(schedule, parts, vector: int) -> None:
    """The sums of one piece of the depth: for every element of it all of a tile's rows and columns."""
    _parallel, _along, _depth, *near, piece = schedule.get_loops(parts)
    schedule.reorder(piece, *near)
    if vector > 1:
        schedule.vectorize(near.pop())
    for loop in near:
        schedule.unroll(loop)
    started = schedule.decompose_reduction(parts, piece)
    if vector > 1:
        schedule.vectorize(schedule.get_loops(started)[-1])


def _spread(function, lanes: int):
    """Outer loops over the threads, the last one in vectors of a register."""
    s_tir = load_optional("tvm.s_tir", "apache-tvm")
    schedule = s_tir.Schedule(function)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = schedule.get_loops(block)
        kinds = [int(item.iter_type) for item in schedule.get(block).iter_vars]
        spatial = list(itertools.takewhile(lambda pair: pair[1] == 0, zip(loops, kinds, strict=False)))
        outer = [loop for loop, _ in spatial][: len(loops) - 1]
        last = loops[-1]
        try:
            if outer:
                schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])
            stored = [region.source.dtype for region in (*schedule.get(block).reads, *schedule.get(block).writes)]
            plain = "bool" not in map(str, stored)  # TVM's vectors of booleans do not type-check
            if plain and len(spatial) == len(loops) and int(schedule.get(last).extent) % lanes == 0:
                schedule.vectorize(schedule.split(last, [None, lanes])[1])
        except s_tir.ScheduleError:  # a block whose loops depend on each other stays as it is
            continue
    return schedule.mod["main"]
