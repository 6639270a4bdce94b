"""What holds for the compiles of a while: runtimes are rows of a table and take no options of their own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from icd_lib.bridge.options import BridgeOptions


@dataclass(frozen=True)
class Settings:
    """What holds for a compile.

    options: the section; tile: elements of one tile; pi: model → axis → hash of the permutation that was applied to it;
    keep: is given what icd.json says of an artifact, and its folder, which does not stay
    """

    options: BridgeOptions = field(default_factory=BridgeOptions)
    tile: int = 16
    pi: Mapping[nn.Module, Mapping[str, str]] = field(default_factory=dict)
    keep: Callable[[nn.Module, dict, Path], None] | None = None


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
