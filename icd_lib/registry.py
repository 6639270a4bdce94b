"""Tables of named rows: families, runtimes, transforms, workloads, arms, comparisons, metrics; and rows from outside.

A row of the project is named by its place, "module:attribute", and imported when it is first asked for, so that names
cost nothing. Rows from outside come from installed packages (entry points of the group `icd_lib.<table>`) and from
the modules that ICD_EXTENSIONS names, which call `add`.
"""

import difflib
import importlib
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from icd_lib.errors import ConfigError

VARIABLE = "ICD_EXTENSIONS"  # modules, separated by commas or spaces, on the Python path


class Registry(Mapping):
    """Name → row, in the order in which they were declared; a row may be given by its place.

    table: plural, as in messages and in the entry points' group; own: the project's rows, whose names stay in `own`.

    >>> colours = Registry("colours", {"red": "builtins:int"})
    >>> colours["red"], list(colours)
    (<class 'int'>, ['red'])
    """

    def __init__(self, table: str, own: Mapping[str, object]):
        self.table = table
        self.own = tuple(own)
        self._rows = dict(own)
        self._complete = False

    def add(self, name: str, row: object) -> None:
        """Add a row; `ConfigError` if another row has its name."""
        if self._rows.get(name, row) is not row:
            raise ConfigError(f"two {self.table} are called {name!r}; rename the one that comes from outside")
        self._rows[name] = row

    def __getitem__(self, name: str):
        self._load_outside()
        if name not in self._rows:
            near = difflib.get_close_matches(str(name), self._rows, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownRow(f"{name!r} is none of the {self.table}{hint} Known: {', '.join(self._rows)}")
        row = self._rows[name]
        if isinstance(row, str):
            module, _, attribute = row.partition(":")
            row = self._rows[name] = getattr(importlib.import_module(module), attribute)
        return row

    def __iter__(self) -> Iterator[str]:
        self._load_outside()
        return iter(self._rows)

    def __len__(self) -> int:
        self._load_outside()
        return len(self._rows)

    def _load_outside(self) -> None:
        if self._complete:
            return
        self._complete = True  # first: the modules imported here read this table too
        for point in entry_points(group=f"icd_lib.{self.table}"):
            self.add(point.name, point.value)
        load_extensions()


class UnknownRow(ConfigError, KeyError):
    """No row has this name; also a `KeyError`, so that a table behaves as a mapping."""

    __str__ = ConfigError.__str__


def load_extensions() -> None:
    """Import the modules of ICD_EXTENSIONS; `ConfigError` names the one that cannot be imported."""
    for name in os.environ.get(VARIABLE, "").replace(",", " ").split():
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"{VARIABLE} names {name!r}, which cannot be imported: {error}") from error
