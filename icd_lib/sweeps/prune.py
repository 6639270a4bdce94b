"""Which points are not worth their time, by what weaker ones lost."""

from collections.abc import Iterable, Mapping, Sequence

from icd_lib.sweeps.options import PruneOptions
from icd_lib.sweeps.plan import Point

Z = 1.96  # standard errors: the loss is above the limit with some certainty


def too_much(lost: tuple[float, float] | None, options: PruneOptions) -> str | None:
    """Why a point that loses `lost` (pp, standard error) is stopped; None where it may go on, or was not judged."""
    if lost is None:
        return None
    drop, error = lost
    if drop - Z * error <= options.max_drop_pp:
        return None
    return (
        f"loses {drop:+.3f} ± {error:.3f} pp where strengths are chosen: more than {options.max_drop_pp:g} pp "
        f"by {Z} standard errors"
    )


def ruled_out(
    point: Point, lost: Iterable[Point], along: Sequence[str], factors: Mapping[str, Sequence[str]]
) -> Point | None:
    """One of the points that `lost` too much of which this one is a stronger form: further along, and else the same."""
    order = {name: {level: place for place, level in enumerate(factors[name])} for name in along}
    for weaker in lost:
        if any(level != weaker.levels[name] for name, level in point.levels.items() if name not in along):
            continue
        places = [(order[name][weaker.levels[name]], order[name][point.levels[name]]) for name in along]
        if all(a <= b for a, b in places) and any(a < b for a, b in places):
            return weaker
    return None
