"""Planted access graphs and streams, for which a good order is known: blocks and bands under shuffled labels.

Every function returns the planted order beside its graph or stream, in the convention of permutations:
order[new_position] = old_index, so that it is itself a layout that `icd.evaluate_cost` takes.
"""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError
from icd_lib.graph.events import Events, check_size
from icd_lib.graph.sparsify import build_symmetric

SIZE_KINDS = ("equal", "heavy")
BYTES = 4.0  # mean weight of an edge: one float32 touched together once
SPREAD = 0.5  # weights are uniform in BYTES * [1 - SPREAD, 1 + SPREAD]


def planted_graph(
    D: int,
    *,
    blocks: int = 8,
    sizes: str = "equal",
    degree: float = 64.0,
    noise: float = 0.1,
    seed: int = 0,
    shuffled: bool = True,
) -> tuple[sp.csr_array, np.ndarray]:
    """(W, order): W csr_array (D, D) in bytes with planted blocks, order int64 (D,) that lays them side by side.

    About D * degree stored entries, fewer where a block is too small for its share: (1 - noise) of them within blocks,
    the others anywhere across, and of the weight exactly the share `noise` across. sizes "equal" (up to one) or
    "heavy" (block b gets a share 1 / (b + 1), Zipf). Labels are shuffled, so the identity is not the answer.
    Deterministic in `seed`; O(nnz log nnz) time, O(nnz) memory. Raises `ConfigError` on bad settings.

    >>> W, order = planted_graph(64, blocks=4, degree=8, noise=0.0)
    >>> bool(W[order][:, order][:16, 16:].nnz)
    False
    """
    starts = _block_starts(D, blocks, sizes)
    _check_share("noise", noise)
    _check_positive("degree", degree)
    if blocks == 1 and noise:
        raise ConfigError(f"noise is the share of weight across blocks, which needs at least 2 of them, got {noise!r}")
    rng = _generator(seed)
    inside = [
        _draw_pairs(rng, int(s), (1 - noise) * degree * s / 2) + first
        for first, s in zip(starts[:-1].tolist(), np.diff(starts), strict=True)
    ]
    label = np.searchsorted(starts, np.arange(D), side="right") - 1
    allowed = _count_pairs(D) - sum(_count_pairs(int(s)) for s in np.diff(starts))
    across = _draw_pairs(rng, D, noise * degree * D / 2, allowed, lambda low, high: label[low] == label[high])
    return _weigh_and_shuffle(rng, np.concatenate(inside, axis=1), across, noise, D, shuffled)


def band_graph(
    D: int, *, width: int = 32, noise: float = 0.0, seed: int = 0, shuffled: bool = True
) -> tuple[sp.csr_array, np.ndarray]:
    """(W, order): every element is joined to the `width` that follow it in `order`; about 2 * D * width entries.

    Besides, noise / (1 - noise) times as many edges join elements anywhere else, with exactly the share `noise` of the
    weight. Deterministic in `seed`. Raises `ConfigError` on bad settings.

    >>> W, order = band_graph(10, width=1, shuffled=False)
    >>> W.nnz, order.tolist()[:3]
    (18, [0, 1, 2])
    """
    D = check_size(D)
    _check_share("noise", noise)
    _check_count("width", width, 1, max(1, D - 1))
    reach = np.minimum(width, D - 1 - np.arange(D))
    low = np.repeat(np.arange(D), reach)
    high = low + 1 + np.arange(len(low)) - np.repeat(np.cumsum(reach) - reach, reach)
    rng = _generator(seed)
    wanted = len(low) * noise / (1 - noise)
    far = _draw_pairs(rng, D, wanted, _count_pairs(D) - len(low), lambda a, b: b - a <= width)
    return _weigh_and_shuffle(rng, np.stack([low, high]), far, noise, D, shuffled)


def planted_events(
    D: int,
    *,
    blocks: int = 8,
    sizes: str = "equal",
    events: int = 10_000,
    per_event: int = 16,
    noise: float = 0.1,
    seed: int = 0,
    shuffled: bool = True,
    nbytes: float = 64.0,
    burst: int = 1,
) -> tuple[Events, np.ndarray]:
    """(Events, order): each event touches `per_event` elements of one block, a share `noise` of them from anywhere.

    A block is drawn in proportion to its size, its elements uniformly and with repeats, so every element is touched
    equally often and the structure is wholly in who is touched together. `nbytes` per touched element. `burst` events
    in a row share a block, as the requests of one topic or session do. Deterministic in `seed`. Raises `ConfigError`
    on bad settings.
    """
    starts = _block_starts(D, blocks, sizes)
    _check_share("noise", noise)
    _check_positive("nbytes", nbytes)
    _check_count("events", events, 0)
    _check_count("per_event", per_event, 1)
    _check_count("burst", burst, 1)
    rng = _generator(seed)
    block = np.searchsorted(starts, rng.integers(D, size=-(-events // burst)), side="right") - 1
    block = np.repeat(block, burst)[:events]
    first, length = starts[block], starts[block + 1] - starts[block]
    position = first[:, None] + (rng.random((events, per_event)) * length[:, None]).astype(np.int64)
    stray = rng.random(position.shape) < noise
    position[stray] = rng.integers(D, size=np.count_nonzero(stray))
    order = rng.permutation(D) if shuffled else np.arange(D)
    offsets = np.arange(events + 1, dtype=np.int64) * per_event
    return Events(order[position].ravel(), offsets, np.full(events, float(nbytes)), D), order


def _block_starts(D, blocks, sizes) -> np.ndarray:
    """First position of every block, and D; int64 (blocks + 1,)."""
    D = check_size(D)
    _check_count("blocks", blocks, 1, D)
    if sizes not in SIZE_KINDS:
        raise ConfigError(f"sizes is one of {SIZE_KINDS}, got {sizes!r}")
    if sizes == "equal":
        return np.arange(blocks + 1, dtype=np.int64) * D // blocks
    share = 1 / np.arange(1, blocks + 1)
    # One element each, the others by cumulative share: never an empty block, and the sum is D.
    rest = np.floor((D - blocks) * np.cumsum(share) / share.sum() + 0.5).astype(np.int64)
    return np.concatenate([np.zeros(1, np.int64), rest + np.arange(1, blocks + 1)])


def _count_pairs(n: int) -> int:
    return n * (n - 1) // 2


def _draw_pairs(rng, n: int, wanted: float, allowed: int | None = None, refuse=None) -> np.ndarray:
    """About `wanted` distinct pairs low < high of n elements, int64 (2, pairs), sorted by high.

    `refuse(low, high)` marks pairs that may not be drawn, so that only `allowed` of them may. Pairs are drawn with
    repeats and made distinct; more are drawn than wanted, so that as many are expected to remain.
    """
    possible = _count_pairs(n)
    allowed = possible if allowed is None else allowed
    if wanted <= 0 or allowed == 0:
        return np.empty((2, 0), np.int64)
    filled = min(wanted / allowed, 1.0)
    if filled > 0.5:
        chosen = np.flatnonzero(rng.random(possible) < filled)
    else:
        drawn = np.sort(rng.integers(possible, size=int(round(-possible * np.log1p(-filled)))))
        chosen = drawn[np.flatnonzero(np.diff(drawn, prepend=-1))]
    # Pair number q of the triangle high > low: q = high (high - 1) / 2 + low.
    high = ((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > chosen
    high += high * (high + 1) // 2 <= chosen
    pairs = np.stack([chosen - high * (high - 1) // 2, high])
    return pairs if refuse is None else pairs[:, ~refuse(*pairs)]


def _weigh_and_shuffle(rng, planted, other, noise, D, shuffled) -> tuple[sp.csr_array, np.ndarray]:
    weights = [BYTES * rng.uniform(1 - SPREAD, 1 + SPREAD, part.shape[1]) for part in (planted, other)]
    if planted.shape[1] and other.shape[1]:
        weights[1] *= noise / (1 - noise) * weights[0].sum() / weights[1].sum()
    order = rng.permutation(D) if shuffled else np.arange(D)
    ends = order[np.concatenate([planted, other], axis=1)]
    graph = build_symmetric(ends.min(axis=0), ends.max(axis=0), np.concatenate(weights), D)
    return graph, order


def _generator(seed) -> np.random.Generator:
    _check_count("seed", seed, 0)
    return np.random.default_rng(seed)


def _check_count(name: str, value, least: int, most: int | None = None) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        room = f">= {least}" if most is None else f"in {least}..{most}"
        raise ConfigError(f"{name} is an integer {room}, got {value!r}")


def _check_positive(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise ConfigError(f"{name} is a positive number, got {value!r}")


def _check_share(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < 1:
        raise ConfigError(f"{name} is a share in [0, 1), got {value!r}")
