"""Legalise-layout: what the target cannot do with a layout, in words; both compilers' passes ask here."""


def objection(entry: dict, dtype: str, lanes: int) -> str | None:
    """Why an axis of a weight is not offered as tiles; None where it can be.

    entry: {"axis", "dim", "tile", "width", "pi"} of `layout_of`; lanes: float32 numbers of a register.

    >>> objection({"axis": "ffn.0", "tile": 16, "width": 33}, "f32", 16)
    'ffn.0: 33 is no multiple of the tile 16'
    """
    axis, tile, width = entry["axis"], entry["tile"], entry["width"]
    if dtype != "f32":
        return f"{axis}: numbers are {dtype}, and tiles are given for f32"
    if tile == 1:
        return f"{axis}: its elements are single, there is no tile to keep"
    if width % tile:
        return f"{axis}: {width} is no multiple of the tile {tile}"
    if tile % lanes and lanes % tile:
        return f"{axis}: a tile of {tile} neither fills nor divides a register of {lanes}"
    return None
