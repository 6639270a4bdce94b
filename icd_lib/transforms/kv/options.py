"""Options of the KV cache's compression."""

from typing import Annotated, Literal

from pydantic import Field

from icd_lib.models.cache.cache import PAGE
from icd_lib.options import Section, option
from icd_lib.runtimes.options import Shape

Share = Annotated[float, Field(gt=0, lt=1)]


class KvOptions(Section):
    """What a decoder's cache may lose, and where that is judged and timed; the section asks for it."""

    keep: tuple[Share, ...] = option(
        (0.75, 0.5, 0.25), "shares of a prompt's tokens that stay; the smallest is taken whose quality holds", least=1
    )
    page: int = option(PAGE, "tokens of a page, read whole or not at all", unit="tokens", low=1)
    score: Literal["attention", "key_norm", "recent", "random"] = option(
        "attention", "what decides which tokens stay: what the last queries paid them, or a simpler rule"
    )
    sinks: int = option(4, "first tokens, which always stay", unit="tokens", low=0)
    window: int = option(32, "last tokens, which always stay", unit="tokens", low=1)
    every: int = option(64, "tokens that are decoded between two evictions", unit="tokens", low=1)
    store: Literal["float", "int8"] = option("float", "how keys and values are kept")
    max_perplexity_ratio: float | None = option(
        None, "most perplexity with the share that is taken; null: codesign.max_perplexity_ratio", above=1
    )
    context: int = option(1024, "tokens that are read before the first eviction", unit="tokens", low=64)
    continued: int = option(128, "tokens behind them on which quality is judged", unit="tokens", low=8)
    blocks: int = option(8, "texts of that length per split, evenly over its domains", low=1)
    questions: int = option(16, "look-ups in texts of that length", low=1)
    clock: tuple[Shape, ...] = option(
        ((1, 128), (1, 1024), (8, 512)), "batch and prompt of every measurement of decoding", least=1
    )
    rounds: int = option(3, "interleaved rounds of every prompt", low=1)
    steps: int = option(24, "decoded tokens of a round", unit="tokens", low=2)
