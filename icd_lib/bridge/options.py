"""Options of the bridge, and those that hold now: runtimes are rows of a table and take no options of their own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from icd_lib.options import Section, option


class BridgeOptions(Section):
    """The compilers StableHLO/IREE and TVM Relax as further runtimes of the ladder; the section asks for them."""

    enable: bool = option(False, "measure dense, linear and iterative in both compilers too")
    tiles: bool = option(True, "offer the layout's tiles to the compiler")
    compile_timeout_s: float = option(600.0, "seconds after which a compile is stopped", unit="s", above=0)
    max_module_mb: int = option(
        1900, "weights of a module at most; both compilers address less than 2 GiB", unit="MB", low=1, high=2047
    )


@dataclass(frozen=True)
class Settings:
    """options: the section; tile: elements of one tile; pi: axis → hash of the permutation that was applied."""

    options: BridgeOptions = field(default_factory=BridgeOptions)
    tile: int = 16
    pi: Mapping[str, str] = field(default_factory=dict)


_NOW: ContextVar[Settings | None] = ContextVar("bridge settings", default=None)


def current() -> Settings:
    """The settings that hold here."""
    return _NOW.get() or Settings()


@contextmanager
def using(settings: Settings) -> Iterator[None]:
    """Let `settings` hold within."""
    token = _NOW.set(settings)
    try:
        yield
    finally:
        _NOW.reset(token)
