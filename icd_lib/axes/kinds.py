"""What an algorithm must know of a prunable axis kind: a new architecture adds a line here and an adapter."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """`words`: its elements, for people; `tiled`: kept in whole hardware tiles (else each element is its own tile).

    `probe_keep`: share that is kept when the sensitivity of one block is probed.
    """

    words: str
    tiled: bool
    probe_keep: float


KINDS = {
    "ffn": Kind("FFN neurons", tiled=True, probe_keep=0.5),
    "heads": Kind("attention heads", tiled=False, probe_keep=0.75),
    "kv_groups": Kind("KV groups", tiled=False, probe_keep=0.75),
    "inner": Kind("inner channels", tiled=True, probe_keep=0.75),
    "state": Kind("state dimensions", tiled=False, probe_keep=0.75),
}
PAGE = 16  # tokens of a KV cache that are read together, as paged engines have it
SINGLE = dict.fromkeys(KINDS, 1)


def granules(tile: int) -> dict[str, int]:
    """Elements that go together, per axis kind, for a hardware tile of `tile` elements.

    >>> granules(16)["ffn"], granules(16)["heads"]
    (16, 1)
    """
    return {name: tile if kind.tiled else 1 for name, kind in KINDS.items()}
