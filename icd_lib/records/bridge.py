"""measure/bridge.json: what the compilers of the bridge were told of the arms, and what compiling took."""

from dataclasses import dataclass, field

BRIDGED = "measure/bridge.json"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One artifact. shape: of its inputs; passes: name → log; gathers: kind → how many are left at run time;
    before, after: the IR without its weights, "" where it is not kept.
    """

    shape: str
    seconds: dict[str, float]
    peak_memory_mb: float
    passes: dict[str, list[str]]
    gathers: dict[str, int]
    before: str = ""
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class Bridged:
    """tiles: whether they were offered; compiled: runtime → arm → one entry per shape."""

    tiles: bool
    compiled: dict[str, dict[str, list[Compiled]]] = field(default_factory=dict)
