"""Pilot layouts: from random to good, and mixed in ways that move C, Q and R_align apart from each other."""

from collections.abc import Callable

import numpy as np

from icd_lib.axes.permutation import check_permutation, invert_permutation
from icd_lib.errors import ConfigError, ResourceError, SolverNotConverged
from icd_lib.solver.cost import CostConfig, block_of_position
from icd_lib.solver.portfolio import fit_permutation

LEAST_PILOTS = 8
SEARCH_BUDGET_S = 30.0
SEARCH_STEPS = 100


def pilot_layouts(
    W, cost: CostConfig, count: int, seed: int, given: dict | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, np.ndarray]:
    """`count` layouts of W by name, each int64 (D,): the order as it is, random, spectral, local search, and mixtures.

    The first is "identity". `given` (name -> permutation) are used as they are; with a layout named "search" among
    them nothing is searched. Mixtures start from the search, at several shares:
    elements  a share of the elements trade places: everything gets worse
    tiles     a share of the tiles do: whoever shares a tile still does
    within    as elements, but inside the k blocks of Q: C rises, Q stays
    rolled    all positions move on by a share of such a block: Q falls, C hardly rises
    dealt     neighbours of the first share go v positions apart: R_align falls, C rises
    blend     positions are averaged with random ones: what is near goes first
    Raises `ConfigError` with fewer than 8 pilots.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < LEAST_PILOTS:
        raise ConfigError(f"pilots is a whole number >= {LEAST_PILOTS}, got {count!r}")
    say = progress or (lambda message: None)
    D, rng = W.shape[0], np.random.default_rng(seed)
    pilots = {"identity": np.arange(D, dtype=np.int64)}
    for number in range(max(1, count // 10)):
        pilots[f"random {number + 1}"] = rng.permutation(D)
    for name, pi in (given or {}).items():
        pilots[name] = check_permutation(pi, D, f"pilot {name!r}")
    if "search" not in pilots:
        pilots |= _solved(W, cost, seed, say)
    mixtures = _mixtures(pilots, cost, count - len(pilots), rng)
    return dict(list((pilots | mixtures).items())[:count])


def shuffle_share(pi: np.ndarray, share: float, g: int, rng: np.random.Generator) -> np.ndarray:
    """`pi` with this share of its tiles of g positions traded among themselves at random; a last short tile stays.

    >>> shuffle_share(np.arange(6), 0.0, 2, np.random.default_rng(0))
    array([0, 1, 2, 3, 4, 5])
    """
    tiles = len(pi) // g
    chosen = np.flatnonzero(rng.random(tiles) < share)
    mixed = pi.copy()
    mixed[: tiles * g].reshape(tiles, g)[chosen] = pi[: tiles * g].reshape(tiles, g)[rng.permutation(chosen)]
    return mixed


def blend(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Order by (1 - share) times the position in `first` plus share times that in `second`.

    >>> blend(np.array([0, 1, 2]), np.array([2, 1, 0]), 0.9)
    array([2, 1, 0])
    """
    mean = (1 - share) * invert_permutation(first) + share * invert_permutation(second)
    return np.argsort(mean, kind="stable")


def deal(pi: np.ndarray, v: int) -> np.ndarray:
    """`pi` with its neighbours v positions apart, in the same residue modulo v.

    >>> deal(np.arange(6), 2)
    array([0, 3, 1, 4, 2, 5])
    """
    dealt = np.empty_like(pi)
    dealt[np.argsort(np.arange(len(pi)) % v, kind="stable")] = pi
    return dealt


def _solved(W, cost: CostConfig, seed: int, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Plain orderings and a short local search from the best of them; an ordering that fails on W is left out."""
    layouts, best, best_j = {}, None, np.inf
    for method in ("spectral", "bisection"):
        say(f"pilot {method}")
        try:
            pi, stats = fit_permutation(
                W, cost, method=method, refine_steps=0, seed=seed, time_budget_s=SEARCH_BUDGET_S
            )
        except (SolverNotConverged, ResourceError) as error:
            say(f"pilot {method} left out: {error.args[0]}")
            continue
        layouts[method] = pi
        if stats["after"]["J"] < best_j:
            best, best_j = method, stats["after"]["J"]
    say("pilot local search")
    layouts["search"], _ = fit_permutation(
        W,
        cost,
        method=best or "rcm",
        initial=layouts.get(best),
        refine_steps=SEARCH_STEPS,
        seed=seed,
        time_budget_s=SEARCH_BUDGET_S,
    )
    return layouts


def _mixtures(pilots: dict, cost: CostConfig, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`count` mixtures of the search with disorder, the kinds in turn, each at evenly spaced shares."""
    search, other, D = pilots["search"], pilots["random 1"], len(pilots["search"])
    g, k, v = int(cost.g), int(cost.k), int(cost.v)

    def within(share: float) -> np.ndarray:
        blocks = np.split(search, np.flatnonzero(np.diff(block_of_position(D, k))) + 1)
        return np.concatenate([shuffle_share(block, share, 1, rng) for block in blocks])

    def dealt(share: float) -> np.ndarray:
        cut = int(share * D)
        return np.concatenate([deal(search[:cut], v), search[cut:]])

    # A kind that would be another one or the search itself, with tiles, blocks or lanes of one, is left out.
    kinds = {"elements": lambda share: shuffle_share(search, share, 1, rng)}
    kinds |= {"tiles": lambda share: shuffle_share(search, share, g, rng)} if g > 1 else {}
    kinds |= {"within": within, "rolled": lambda share: np.roll(search, int(share * D / k))} if k > 1 else {}
    kinds |= {"dealt": dealt} if v > 1 else {}
    kinds |= {"blend": lambda share: blend(search, other, share)}
    mixtures = {}
    for number, (kind, mix) in enumerate(kinds.items()):
        of_kind = len(range(number, count, len(kinds)))
        for step in range(1, of_kind + 1):
            share = step / (of_kind + 1)
            mixtures[f"{kind} {100 * share:.0f} %"] = mix(share)
    return mixtures
