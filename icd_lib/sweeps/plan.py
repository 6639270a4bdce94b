"""A sweep: one file, or what Python gave, as the list of its points. A point is an ordinary run of a scenario."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from icd_lib.errors import ConfigError
from icd_lib.options.check import check_values, unknown_key
from icd_lib.options.field import fields
from icd_lib.options.option import plain
from icd_lib.run.configuration import (
    Scenario,
    absolute_override,
    check_name,
    config_digest,
    merge,
    parse_override,
)
from icd_lib.run.scenario import load_scenario, read_mapping, scenario_file
from icd_lib.sweeps.factors import Factor, Level, read_factor, settings, slug
from icd_lib.sweeps.options import SweepOptions

MANY = 1000  # points that nobody starts by mistake
_LONGEST = 120  # characters of a point's name, which is its folder's
_POINTS = ("base", "grid", "list", "overrides")  # what says which points there are


@dataclass(frozen=True)
class Point:
    """One run of a sweep. source: its scenario; levels: factor → level; merged: names of points that are the same."""

    name: str
    source: str
    levels: dict[str, str]
    overrides: tuple[str, ...]
    merged: tuple[str, ...] = ()

    def scenario(self, quick: bool = False) -> Scenario:
        """The validated scenario, which has the point's name."""
        return load_scenario(self.source, [*self.overrides, f"scenario={self.name}"], quick=quick)


@dataclass(frozen=True)
class Sweep:
    """What is run: `factors` (name → its levels in order) and the points, weakest level first."""

    name: str
    factors: dict[str, tuple[str, ...]]
    points: tuple[Point, ...]
    options: SweepOptions = field(default_factory=SweepOptions)
    quick: bool = False

    @property
    def merged(self) -> int:
        """How many points repeated another."""
        return sum(len(point.merged) for point in self.points)


def read_sweep(
    name_or_path: str | Path, overrides: Iterable[str] = (), *, quick: bool = False, yes: bool = False
) -> Sweep:
    """A sweep file (`docs/SWEEPS.md`), a name in `parameters/` or a path; `ConfigError` names the key and the cure.

    overrides: for every point, laid over what the file says; quick: the file's `quick` block, and every point's own.
    yes: more than `MANY` points are meant.
    """
    path = scenario_file(name_or_path)
    return sweep_of(read_mapping(path), path.stem, path.parent, overrides, quick=quick, yes=yes)


def sweep_of(
    given: Mapping,
    name: str,
    folder: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    quick: bool = False,
    yes: bool = False,
) -> Sweep:
    """The sweep of what a file says, or would say; relative paths count from `folder` (None: the working directory)."""
    folder = folder or Path.cwd()
    known = [*_POINTS, *fields(SweepOptions)]
    given = dict(plain(given))
    further = given.pop("quick", None) or {}
    if not isinstance(further, Mapping):
        raise ConfigError(f"quick takes keys of the sweep, such as grid, got {further!r:.60}")
    # A file with a typo in its quick block is wrong also when the block is not used.
    for key, where in [*((key, "") for key in given), *((key, "quick.") for key in further)]:
        if key not in known:
            raise ConfigError(unknown_key(f"{where}{key}", str(key), known, known))
    if quick:
        given |= further
    options = SweepOptions(**check_values({k: v for k, v in given.items() if k not in _POINTS}, SweepOptions))
    name = options.sweep or name
    check_name(name)
    factors = _factors(given, folder)
    if options.repeat:
        factors.append(Factor("seed", tuple(Level(str(seed), (f"seed={seed}",)) for seed in options.repeat)))
    asked = tuple(map(absolute_override, overrides))
    _check_asked(asked, factors)
    common = (*settings(given.get("overrides") or {}, "overrides", folder), *asked)
    _check_along(options, factors)
    count = math.prod(len(factor.levels) for factor in factors) * len(given.get("list") or [0])
    if count > MANY and not yes:
        raise ConfigError(f"the sweep {name} has {count:,} points; say that so many are meant with --yes")
    base = Level("base", (), None) if isinstance(given["base"], list | Mapping) else _base(given["base"], {}, folder)
    combined = _listed(given, factors, folder) if "list" in given else itertools.product(*(f.levels for f in factors))
    names = tuple(factor.name for factor in factors)
    points = _points(names, combined, base, common, quick)
    shown = {factor.name: tuple(level.name for level in factor.levels) for factor in factors}
    if "list" in given:
        shown = {key: tuple(dict.fromkeys(point.levels[key] for point in points)) for key in points[0].levels}
    return Sweep(name, shown, points, options, quick)


def _factors(given: Mapping, folder: Path) -> list[Factor]:
    """Those of the base, if there are several, and of the grid."""
    if "base" not in given:
        raise ConfigError("base is missing; it takes the name of a scenario, such as 'base: bert', or a list of them")
    if ("grid" in given) == ("list" in given):
        raise ConfigError("a sweep has either grid (factors and their levels) or list (one mapping of options a point)")
    factors = []
    base = given["base"]
    if isinstance(base, list):
        base = {str(name): {} for name in base}
    if isinstance(base, Mapping):
        if not base:
            raise ConfigError("base names no scenario")
        factors.append(Factor("base", tuple(_base(name, more or {}, folder) for name, more in base.items())))
    if "grid" in given:
        grid = given["grid"]
        if not isinstance(grid, Mapping) or not grid:
            raise ConfigError("grid is empty; it takes factors, such as 'transform.rate: [0.3, 0.5]'")
        factors += [read_factor(str(name), levels, folder) for name, levels in grid.items()]
    elif not isinstance(given["list"], list) or not given["list"]:
        raise ConfigError("list is empty; it takes one mapping of options a point, such as '- {transform.rate: 0.3}'")
    if "seed" in [factor.name for factor in factors] and given.get("repeat"):
        raise ConfigError("seed is a factor and repeat gives seeds too; keep one of them")
    return factors


def _base(name, more, folder: Path) -> Level:
    """A scenario as a level: its file, if it is given by one, counted from `folder`."""
    source = str(name)
    if source.endswith((".yaml", ".yml")):
        source = str((folder / source).resolve())
    load_scenario(source)  # a wrong name is said before anything runs
    return Level(slug(Path(source).stem), settings(more, f"base.{name}", folder), source)


def _listed(given: Mapping, factors: list[Factor], folder: Path) -> Iterator[tuple[Level, ...]]:
    """Every entry of the list with every base and seed; its level is the entry itself, told apart by its options."""
    entries = []
    for place, entry in enumerate(given["list"]):
        overrides = settings(entry, f"list[{place}]", folder)
        entries.append(Level("", overrides))
    bases = [factor.levels for factor in factors if factor.name == "base"]
    seeds = [factor.levels for factor in factors if factor.name == "seed"]
    return itertools.product(*bases, entries, *seeds)


def _points(
    names: tuple[str, ...], combined: Iterable[tuple[Level, ...]], base: Level, common: tuple[str, ...], quick: bool
) -> tuple[Point, ...]:
    """The points, each once: one whose options are those of an earlier one is merged into that."""
    configs: dict[str, dict] = {}
    parsed: dict[str, dict] = {}
    made: dict[str, Point] = {}  # by what identifies a configuration, its name left out
    combined = list(combined)
    free = _free_keys(combined) if any(not level.name for levels in combined[:1] for level in levels) else ()
    for levels in combined:
        source = next((level.source for level in levels if level.source), base.source)
        assert source is not None
        told = _told(names, levels, free)
        given = (*base.overrides, *common, *(text for level in levels for text in level.overrides))
        overrides = tuple({text.partition("=")[0]: text for text in given}.values())  # the last of a key counts
        if source not in configs:
            configs[source] = load_scenario(source, quick=quick).config
        config = configs[source]
        for override in overrides:
            if override not in parsed:
                parsed[override] = parse_override(override)
            config = merge(config, parsed[override])
        key = config_digest(config)  # configurations of two scenarios differ in `scenario`
        point = Point(_point_name(told), source, told, overrides)
        if key in made:
            made[key] = replace(made[key], merged=(*made[key].merged, point.name))
        else:
            made[key] = point
    return _unique(list(made.values()))


def _free_keys(combined: list[tuple[Level, ...]]) -> tuple[str, ...]:
    """The options that the entries of a list set, in the order in which they come."""
    entries = [level for levels in combined for level in levels if not level.name]
    return tuple(dict.fromkeys(text.partition("=")[0] for entry in entries for text in entry.overrides))


def _told(names: tuple[str, ...], levels: tuple[Level, ...], free: tuple[str, ...]) -> dict[str, str]:
    """Factor → level. The options of a list's entry are factors; one that the entry leaves alone has the level –."""
    named = [level for level in levels if level.name]
    told = dict(zip(names, (level.name for level in named), strict=True))
    entry = next((level for level in levels if not level.name), None)
    given = dict(text.split("=", 1) for text in entry.overrides) if entry else {}
    return told | {key: slug(given[key]) if key in given else "–" for key in free}


def _point_name(told: Mapping[str, str]) -> str:
    """The name of a folder: factor-level, joined; what is too long is cut and told apart by a hash."""
    short = [key.rpartition(".")[2] for key in told]
    parts = [
        value if key == "base" else f"{slug(leaf if short.count(leaf) == 1 else key)}-{slug(value)}"
        for (key, value), leaf in zip(told.items(), short, strict=True)
        if value != "–"
    ]
    name = "_".join(parts) or "point"
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _unique(points: list[Point]) -> tuple[Point, ...]:
    """Names that would be the same folder, which slugs can make, get a hash of what they stand for."""
    names = Counter(point.name for point in points)

    def told_apart(point: Point) -> Point:
        if names[point.name] == 1:
            return point
        return replace(point, name=f"{point.name}_{hashlib.sha256(repr(point.overrides).encode()).hexdigest()[:8]}")

    return tuple(map(told_apart, points))


def _check_asked(asked: tuple[str, ...], factors: list[Factor]) -> None:
    """Raise `ConfigError` for an option given for every point that the points differ in: it would have no effect."""
    for override in asked:
        key = override.partition("=")[0]
        for factor in factors:
            if any(key in level.keys for level in factor.levels):
                raise ConfigError(f"{key} is set for every point, and the factor {factor.name!r} varies it; keep one")


def _check_along(options: SweepOptions, factors: list[Factor]) -> None:
    names = [factor.name for factor in factors]
    for name in options.prune.along if options.prune else ():
        if name not in names:
            raise ConfigError(
                f"prune.along names {name!r}, which is no factor; the factors: {', '.join(names) or 'none'}"
            )
