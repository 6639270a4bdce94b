"""What a compressed KV cache costs a language model: on the tokens after a long context, and on look-ups in one.

Every cache is made from one that has read the context wholly, so all of them judge the same forward pass, and what
differs is what was taken from the cache alone. Tokens after the context are compared with the full cache's, token by
token: accuracy, perplexity and KL in the form of `icd_lib.measure.quality_lm`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from icd_lib.data.language import Blocks
from icd_lib.data.lookups import LookUp
from icd_lib.errors import MeasureError
from icd_lib.measure.quality_lm import LanguageResult
from icd_lib.measure.statistics import paired_difference
from icd_lib.measure.token_scores import against, log_probabilities
from icd_lib.models.cache import PagedCache

FULL = "full"  # the name of the cache that has lost nothing
Compress = Callable[[PagedCache], PagedCache]


@dataclass(frozen=True)
class LookUpResult:
    """One cache on n look-ups: `exact` bool (n,), greedy decoding gives the answer; `log_prob` float64 (n,), of the
    whole answer; `rank` int64 (n,), the worst rank of its tokens, 1 is the most probable.
    """

    exact: np.ndarray
    log_prob: np.ndarray
    rank: np.ndarray


def judge_continued(
    model: nn.Module,
    blocks: Blocks,
    context: int,
    caches: Mapping[str, Compress],
    *,
    observed: int = 0,
    step: int | None = None,
    rows: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LanguageResult]:
    """Figures of every cache, and of `FULL`, on the tokens of blocks that follow the first `context` ones.

    blocks: (n, L) tokens; the scored ones are L − context − 1: the first after the context is predicted before
    anything is evicted. caches: name → what makes it from the cache that has read the context; `observed`: queries
    that this one keeps. step: tokens given at once, after which an evictor acts again (None: all). rows: blocks at a
    time. Raises `MeasureError` when there is no token to score or a figure is not finite.
    """
    length = blocks.ids.shape[1]
    scored = length - context - 1
    if context < 1 or scored < 1:
        raise MeasureError(
            f"blocks of {length} tokens have none to score after a context of {context} and the next one"
        )
    shape, names = (len(blocks), scored), (FULL, *caches)
    found = {name: (np.empty(shape, np.float32), np.empty(shape, bool), np.zeros(shape, np.float32)) for name in names}
    device = next(model.parameters()).device
    with torch.inference_mode():
        for first in range(0, len(blocks), rows):
            taken = slice(first, min(len(blocks), first + rows))
            ids = torch.from_numpy(blocks.ids[taken]).to(device)
            read = read_context(model, ids[:, :context], observed)
            targets = ids[:, context + 1 :]
            reference = None
            for name in names:
                cache = read.compressed() if name == FULL else caches[name](read)
                logits = continue_from(model, cache, ids[:, context:-1], step)
                reference = log_probabilities(logits) if reference is None else reference
                for whole, part in zip(found[name], against(reference, logits, targets), strict=True):
                    whole[taken] = part
            if progress is not None:
                progress(taken.stop, len(blocks))
    clusters = blocks.cluster[:, context + 1 :]
    for name, (log_probs, _, kl) in found.items():
        if not (np.isfinite(log_probs).all() and np.isfinite(kl).all()):
            raise MeasureError(f"a prediction with the cache '{name}' is not finite; check the model's weights")
    return {
        name: LanguageResult(log_probs, correct, clusters, kl, clusters)
        for name, (log_probs, correct, kl) in found.items()
    }


def judge_lookups(
    model: nn.Module,
    lookups: Sequence[LookUp],
    caches: Mapping[str, Compress],
    *,
    observed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LookUpResult]:
    """Figures of every cache, and of `FULL`, on look-ups: exact match, log-probability and rank of the answers.

    Answers are scored with the right tokens before them; all of them being the most probable is what greedy decoding
    needs to give the answer. Raises `MeasureError` without look-ups.
    """
    if not lookups:
        raise MeasureError("look-ups are judged on at least one question, got none")
    names = (FULL, *caches)
    found = {name: ([], [], []) for name in names}
    device = next(model.parameters()).device
    with torch.inference_mode():
        for number, lookup in enumerate(lookups):
            ids = torch.from_numpy(lookup.ids)[None].to(device)
            read = read_context(model, ids[:, : lookup.context], observed)
            targets = ids[0, -lookup.answer :, None]
            for name in names:
                cache = read.compressed() if name == FULL else caches[name](read)
                logits = continue_from(model, cache, ids[:, lookup.context : -1], None)[0, -lookup.answer :].double()
                right = logits.gather(-1, targets)
                ranks = 1 + (logits > right).sum(-1)
                exact, log_prob, rank = found[name]
                exact.append(bool((ranks == 1).all()))
                log_prob.append(float((right[:, 0] - logits.logsumexp(-1)).sum()))
                rank.append(int(ranks.max()))
            if progress is not None:
                progress(number + 1, len(lookups))
    return {
        name: LookUpResult(np.array(exact), np.array(log_prob), np.array(rank, dtype=np.int64))
        for name, (exact, log_prob, rank) in found.items()
    }


def compare_lookups(result: LookUpResult, full: LookUpResult, sources: Sequence[int] | None = None) -> dict:
    """Exact match in percent and what is lost against the full cache, paired by question; normal intervals.

    sources: of every question, the text that it lies in: questions of one text are one cluster.
    """
    lost = paired_difference(full.exact, result.exact, clusters=sources)
    return {
        "n": len(result.exact),
        "exact_pct": 100 * float(result.exact.mean()),
        "full_exact_pct": 100 * float(full.exact.mean()),
        "drop_pp": lost["drop_pp"],
        "se_pp": lost["se_pp"],
        "ci95": lost["ci95"],
        "median_rank": float(np.median(result.rank)),
        "log_prob": float(result.log_prob.mean()),
    }


def read_context(model: nn.Module, ids: torch.Tensor, observed: int) -> PagedCache:
    """A full cache that has read ids (B, n) and kept the last `observed` queries."""
    cache = PagedCache(model, observed=observed)
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
    return cache


def continue_from(model: nn.Module, cache: PagedCache, ids: torch.Tensor, step: int | None) -> torch.Tensor:
    """Logits (B, m, V) of ids (B, m) after what the cache has read, `step` tokens at a time."""
    pieces = ids.split(ids.shape[1] if step is None else step, dim=1)
    return torch.cat([model(input_ids=piece, past_key_values=cache).logits for piece in pieces], dim=1)
