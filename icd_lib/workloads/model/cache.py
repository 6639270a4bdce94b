"""The share of a decoder's cache that a user's own text says can go; no label is needed, the next token is one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from icd_lib.data.language import Blocks
from icd_lib.errors import ConfigError
from icd_lib.measure.quality_kv import FULL, judge_continued
from icd_lib.measure.quality_lm import compare_language_results
from icd_lib.measure.statistics import Z95
from icd_lib.models.cache import PagedCache, use_paged_attention
from icd_lib.models.cache.shape import kv_shape
from icd_lib.transforms.kv import KvEvictor, KvPolicy
from icd_lib.transforms.options import KvOptions

LEAST_BLOCKS = 2


@dataclass(frozen=True)
class CacheChoice:
    """keep: share of a prompt's tokens that stays, None where all have to; report: what every share lost."""

    keep: float | None
    options: KvOptions
    report: list[dict] = field(default_factory=list)

    def new_cache(self, model: nn.Module, prompt: int) -> PagedCache:
        """An empty cache for a prompt of so many tokens; the model attends by `use_paged_attention` from then on."""
        use_paged_attention(model)
        options = self.options
        if self.keep is None:
            return PagedCache(model, page=options.page, store=options.store)
        return PagedCache(
            model, page=options.page, store=options.store, evictor=KvEvictor(policy_of(options, self.keep, prompt))
        )


def policy_of(options: KvOptions, keep: float, prompt: int) -> KvPolicy:
    """What a cache of this share of a prompt's tokens may keep, in whole pages."""
    page = options.page
    least = options.sinks + options.window + 2 * page
    budget = max(round(keep * prompt / page) * page, -(-least // page) * page)
    return KvPolicy(
        budget=budget,
        score=options.score,
        pool=options.pool,
        sinks=options.sinks,
        window=options.window,
        every=options.every,
        page=page,
    )


def policies_of(options: KvOptions) -> dict[str, KvPolicy]:
    """Share → what a cache of it may keep of a text on which quality is judged; `ConfigError` where options clash."""
    return {f"{keep}": policy_of(options, keep, options.context) for keep in options.keep}


def choose_cache(
    model: nn.Module,
    batches: list[dict],
    options: KvOptions,
    most_ratio: float,
    z: float,
    progress: Callable[[str], None] = lambda line: None,
) -> CacheChoice:
    """The smallest share of `options.keep` whose perplexity, with z standard errors, is at most `most_ratio` times.

    batches: unpadded text of the user's own, strung together to texts of `context` + `continued` tokens. It is the text
    that calibrated, so judge the choice on other text. Raises `ConfigError` as `check_cache` does.
    """
    check_cache(model, batches, options)
    stream = torch.cat([_tokens(batch) for batch in batches]).numpy()
    length = _length(options)
    count = min(len(stream) // length, options.blocks)
    ids = stream[: count * length].reshape(count, length)
    blocks = Blocks(ids, np.repeat(np.arange(count)[:, None], length, axis=1))
    policies = policies_of(options)
    caches = {name: compressed(policy, options.store) for name, policy in policies.items()}
    way = model.config._attn_implementation
    try:
        found = judge_continued(
            use_paged_attention(model),
            blocks,
            options.context,
            caches,
            observed=max(policy.observe for policy in policies.values()),
        )
    finally:
        model.set_attn_implementation(way)
    report, taken = [], None
    for keep in sorted(options.keep, reverse=True):
        compared = compare_language_results(found[f"{keep}"], found[FULL])
        bound = float(np.exp(compared["log_ratio"] + z * compared["log_ratio_se"]))
        report.append(
            {
                "keep": keep,
                "perplexity_ratio": float(np.exp(compared["log_ratio"])),
                "ci95": [
                    float(np.exp(compared["log_ratio"] + side * Z95 * compared["log_ratio_se"])) for side in (-1, 1)
                ],
                "drop_pp": compared["drop_pp"],
                "n": compared["n"],
            }
        )
        progress(f"cache with {keep:.0%} of a prompt: perplexity × {report[-1]['perplexity_ratio']:.4f}")
        if bound <= most_ratio:
            taken = keep
        else:
            break
    return CacheChoice(taken, options, report)


def check_cache(model: nn.Module, batches: list[dict], options: KvOptions) -> None:
    """Raise `ConfigError` where no cache can be chosen for the model on this text.

    That is options that clash, a model whose cache cannot lose tokens (of another family, with sliding windows), one
    with fewer positions than are judged, and text that does not give two texts of that length.
    """
    positions, length = kv_shape(model).positions, _length(options)
    policies_of(options)
    given = sum(len(_tokens(batch)) for batch in batches)
    if given // length < LEAST_BLOCKS:
        raise ConfigError(
            f"the calibration text has {given:,} tokens, and a cache is judged on {LEAST_BLOCKS} texts of {length}: "
            "give more, or lower kv.context and kv.continued"
        )
    if positions is not None and length - 1 > positions:
        raise ConfigError(
            f"a cache is judged after {length - 1} tokens (kv.context and kv.continued) and {type(model).__name__} has "
            f"{positions} positions; lower kv.context or kv.continued"
        )


def _length(options: KvOptions) -> int:
    """Tokens of a text on which a cache is judged; the last one is only predicted."""
    return options.context + options.continued + 1


def _tokens(batch: Mapping) -> torch.Tensor:
    mask = batch.get("attention_mask")
    return batch["input_ids"].reshape(-1) if mask is None else batch["input_ids"][mask.bool()]


def compressed(policy: KvPolicy, store: str) -> Callable[[PagedCache], PagedCache]:
    """What makes a compressed cache from one that has read a prompt wholly."""
    return lambda full: full.compressed(store=store, evictor=KvEvictor(policy))
