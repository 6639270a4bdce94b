"""Tile sizes of a matrix product that follow the layout: multiples of g that divide what they cut."""

import math

MOST = 128  # elements of a tile along an output dimension: three tiles of it stay in a core's L1 and L2


def output_tile(width: int, tile: int) -> int:
    """The largest multiple of the layout's tile, at most `MOST`, that divides the width.

    >>> output_tile(992, 16), output_tile(1536, 16), output_tile(48, 64)
    (32, 128, 48)
    """
    sizes = [size for size in range(tile, min(width, MOST) + 1, tile) if width % size == 0]
    return sizes[-1] if sizes else min(width, tile)


def row_tile(rows: int, most: int = 64) -> int:
    """The largest divisor of the number of rows up to `most`.

    >>> row_tile(1024), row_tile(32), row_tile(24)
    (64, 32, 24)
    """
    return max(size for size in range(1, min(rows, most) + 1) if rows % size == 0)


def depth_pieces(depth: int, most: int, granule: int = 16) -> list[int]:
    """As few pieces of a depth as `most` allows, about alike; multiples of the granule where the depth is one.

    >>> depth_pieces(384, 128), depth_pieces(400, 128), depth_pieces(130, 128), depth_pieces(100, 128)
    ([128, 128, 128], [112, 112, 112, 64], [65, 65], [100])
    """
    unit = granule if depth % granule == 0 else 1
    size = math.ceil(depth / math.ceil(depth / most) / unit) * unit
    return [min(size, depth - start) for start in range(0, depth, size)]
