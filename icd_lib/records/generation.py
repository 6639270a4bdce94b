"""measure/generation.json: what a compressed cache costs and gives, and how fast every arm generates."""

from dataclasses import dataclass, field

from icd_lib.metric import Figure

GENERATION = "measure/generation.json"
EXPORTED_ARM = "iterative_openvino"  # what a run leaves for use: the result's model, its cache in the graph


@dataclass(frozen=True, kw_only=True)
class CachePoint:
    """One cache of the result's model on one split, against the dense model with a full cache.

    unit: "token", "page" whole pages, or "recent" the last tokens; keep: share of the prompt; full: against the same
    model with a full cache. pages: summed over layers, rows and KV groups; bytes: that one token's attention reads.
    """

    unit: str
    keep: float
    split: str
    n_tokens: int
    drop_pp: Figure
    perplexity_ratio: Figure
    kl_full: Figure
    drop_full_pp: Figure
    pages_full: float
    pages_linear: float
    pages_iterative: float
    bytes_full: float
    bytes_linear: float
    bytes_iterative: float


@dataclass(frozen=True, kw_only=True)
class LookUpPoint:
    """Look-ups of records in a long text, exact match in percent: of dense, and of one cache of the result.

    keep: share of the prompt, None: all; split: whose text, None: an older run's, which asked on what judges alone.
    """

    keep: float | None
    n: int
    exact_pct: Figure
    dense_pct: float
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClozePoint:
    """Cloze questions of one split's text answered by one arm with its whole cache, in percent.

    right_pct: its interval is of the difference to dense, paired by question; chance_pct: what guessing gets.
    """

    split: str
    arm: str
    n: int
    right_pct: Figure
    dense_pct: float
    chance_pct: float


@dataclass(frozen=True, kw_only=True)
class DecodeArm:
    """One arm at one shape: until the first token and per token, ms, and the change against dense.

    step_vs: arm → the change of the time per token against it, where the two are compared.
    """

    label: str
    first_ms: Figure
    step_ms: Figure
    first_vs_dense: Figure
    step_vs_dense: Figure
    bytes_per_token: Figure
    step_vs: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DecodeShape:
    """Arms at one batch and prompt; missing: arm → why it was not timed."""

    batch: int
    context: int
    arms: dict[str, DecodeArm]
    missing: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DeployedPoint:
    """An arm in the runtime that it decodes in, on a split's text, against the dense model in PyTorch, fp32."""

    arm: str
    label: str
    split: str
    n_tokens: int
    drop_pp: Figure
    perplexity_ratio: Figure
    kl: Figure


@dataclass(frozen=True, kw_only=True)
class Generation:
    """All of generation.json. keep: the share that was chosen, None where none holds the budget: then why.

    exported: the row in which the result is left for use, None where it is not left, and in older runs.
    cloze_missing: split → why no cloze question was asked of its text.
    """

    page: int
    context: int
    continued: int
    store: str
    keep: float | None
    why: str
    points: list[CachePoint]
    lookups: list[LookUpPoint]
    clock: list[DecodeShape]
    exported: str | None = None
    cloze: list[ClozePoint] = field(default_factory=list)
    cloze_missing: dict[str, str] = field(default_factory=dict)
    layout_error: float | None = None
    deployed: list[DeployedPoint] = field(default_factory=list)
