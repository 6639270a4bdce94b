"""A decoder that generates: its cache compressed within the quality budget, and every arm's time per token.

The cache is the third thing that is transformed (K, after S and Q). Which tokens stay is decided by their unit and
score; how they lie is the layout: linear keeps every page with a living token, iterative packs the living tokens into
whole pages. Both compute the same. The share that stays is chosen where strengths are chosen, and judged once on the
text that judges.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from icd_lib.data.language import join_blocks
from icd_lib.data.lookups import lookups_sha256, make_lookups
from icd_lib.decoding import DECODERS, PEERS, REFERENCE
from icd_lib.decoding.base import Decoder
from icd_lib.errors import ConfigError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.measure.quality_kv import FULL, LookUpResult, compare_lookups, judge_continued, judge_lookups
from icd_lib.measure.quality_lm import LanguageResult, LanguageSuite, SplitResult
from icd_lib.measure.statistics import Z95
from icd_lib.metric import figure
from icd_lib.models.cache import PagedCache, use_paged_attention
from icd_lib.models.cache.shape import kv_shape
from icd_lib.models.check import check_length
from icd_lib.models.families import find_adapter
from icd_lib.records.generation import (
    CachePoint,
    ClozePoint,
    DecodeShape,
    Generation,
    LookUpPoint,
)
from icd_lib.storage.record_json import as_json
from icd_lib.transforms.kv import KvEvictor, KvPolicy, record_cache
from icd_lib.transforms.options import KvOptions
from icd_lib.workloads.model.cache import compressed, policies_of, policy_of
from icd_lib.workloads.model.cloze import cloze_points
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.decode_clock import WARMUP, Clock
from icd_lib.workloads.model.deployed import (
    deployed_points,
    label_of,
    lost_figure,
    near_figure,
    ratio_figure,
)
from icd_lib.workloads.model.engines import Engines, exported_in
from icd_lib.workloads.model.solve import settings_of

UNITS: dict[str, dict] = {
    "token": {},
    "page": {"unit": "page", "pool": 1},  # kv.pool is about single tokens
    "recent": {"score": "recent", "pool": 1},
}
LAYOUT_PROBE = 24  # tokens on which the two layouts' equality is proved


@dataclass(frozen=True)
class Options:
    """The section `kv` of a scenario."""

    values: Mapping

    def __getitem__(self, name: str):
        return self.values[name]

    @property
    def peers(self) -> tuple[str, ...]:
        """Rows of `DECODERS` in which dense decodes beside the arms."""
        return PEERS if self["peers"] is None else tuple(self["peers"])

    def policy(self, unit: str, keep: float, context: int, layout: str = "iterative") -> KvPolicy:
        """What a cache of this unit and share may keep."""
        return replace(policy_of(KvOptions(**self.values), keep, context), layout=layout, **UNITS[unit])


def check_generation(context: Context) -> None:
    """Raise `ConfigError` where the section kv asks for what the model cannot do: before anything is computed."""
    options, adapter = Options(context.run.scenario.config["kv"]), find_adapter(context.model)
    try:
        kv_shape(context.model)
    except ConfigError as error:
        raise ConfigError(f"{error.args[0]}; for a run without it leave the section kv out") from error
    policies_of(KvOptions(**options.values))
    check_length(adapter, options["context"] + options["continued"], "kv.context with kv.continued", "lower their sum")
    longest = max(length for _, length in options["clock"])
    check_length(
        adapter, longest + options["steps"] + WARMUP, f"kv.clock, {longest} with kv.steps and {WARMUP},", "lower that"
    )


def measure_generation(context: Context, models: Mapping[str, nn.Module]) -> dict:
    """What measure/generation.json holds; models: the compared arms."""
    with torch.inference_mode():
        return as_json(_measure(context, Options(context.run.scenario.config["kv"]), models))


def paged(model: nn.Module) -> nn.Module:
    """The model with the attention that reads a `PagedCache`: another module, with the same weights."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return use_paged_attention(copy.deepcopy(model, shared))


def _measure(context: Context, options: Options, models: Mapping[str, nn.Module]) -> Generation:
    dense, result = paged(models[DENSE]), paged(models.get(RESULT, models[DENSE]))
    points, keep, why = [], None, "random weights: quality is not measured"
    lookups: list[LookUpPoint] = []
    cloze: list[ClozePoint] = []
    cloze_missing: dict[str, str] = {}
    if context.is_trained:
        points = judged(context, options, dense, result, context.selecting)
        keep, why = chosen(context, [point for point in points if point.unit == "token"])
        context.progress(f"cache: {why}")
        for split in context.judged:
            points += judged(context, options, dense, result, split)
        lookups = [point for split in context.judged for point in looked_up(context, options, dense, result, split)]
        cloze, cloze_missing = cloze_points(context, models, count=options["cloze"], longest=options["context"])
    engines = Engines(models, options.peers)
    clock = [shape_times(context, options, engines, keep, batch, length) for batch, length in options["clock"]]
    return Generation(
        page=options["page"],
        context=options["context"],
        continued=options["continued"],
        store=options["store"],
        keep=keep,
        why=why,
        points=points,
        lookups=lookups,
        cloze=cloze,
        cloze_missing=cloze_missing,
        clock=clock,
        exported=exported_in(engines),
        layout_error=layout_error(context, options, result),
        deployed=deployed_points(context, engines) if context.is_trained else [],
    )


def judged(context: Context, options: Options, dense: nn.Module, result: nn.Module, split: str) -> list[CachePoint]:
    """Every unit and share on a split's text."""
    length = options["context"] + options["continued"] + 1
    blocks = context.long_blocks(split, length, options["blocks"], cure="lower kv.context or kv.continued")
    plans = {f"{unit} {keep}": (unit, keep) for unit in UNITS for keep in options["keep"]}
    policies = {name: options.policy(*plan, options["context"]) for name, plan in plans.items()}
    totals: dict[str, list[list[float]]] = {name: [] for name in plans}
    caches = {
        name: _compress(policy, options["store"], totals[name], unit_of=plans[name][0])
        for name, policy in policies.items()
    }
    observed = max(policy.observe for policy in policies.values())
    of_dense: dict[str, LanguageResult] = {}
    found: dict[str, dict[str, LanguageResult]] = {}
    for domain, text in blocks.items():
        of_dense[domain] = context.of_dense(
            "continued",
            {"text": text.sha256, "context": options["context"]},
            LanguageResult,
            lambda text=text: judge_continued(dense, text, options["context"], {})[FULL],
        )
        for name, item in judge_continued(result, text, options["context"], caches, observed=observed).items():
            found.setdefault(name, {})[domain] = item
        context.progress(f"caches on {split} text: {domain}, {len(text)} texts of {text.ids.shape[1]} tokens")
    against = {"dense": SplitResult(split, of_dense), "full": SplitResult(split, found[FULL])}
    return [_point(plans[name], split, SplitResult(split, found[name]), against, totals[name]) for name in plans]


def _compress(
    policy: KvPolicy, store: str, totals: list[list[float]], unit_of: str
) -> Callable[[PagedCache], PagedCache]:
    """What makes the cache; notes pages and bytes of a full one, of the linear layout and of the iterative one."""

    def compress(full: PagedCache) -> PagedCache:
        cache = full.compressed(store=store, evictor=KvEvictor(policy))
        packed = record_cache(cache)
        scattered = packed
        if unit_of != "page":
            spread = full.compressed(store=store, evictor=KvEvictor(replace(policy, layout="linear")))
            scattered = record_cache(spread)
        pages = [packed.total("pages_before"), scattered.total("pages_read"), packed.total("pages_read")]
        read = [packed.total("bytes_full"), scattered.total("bytes_read"), packed.total("bytes_read")]
        totals.append(pages + read)
        return cache

    return compress


def _point(
    plan: tuple[str, float], split: str, result: SplitResult, against: dict[str, SplitResult], totals: list[list[float]]
) -> CachePoint:
    unit, keep = plan
    suite = LanguageSuite({})
    total, own = (suite.compare(result, against[name]) for name in ("dense", "full"))
    means = np.mean(totals, axis=0).tolist()
    names = [f"{what}_{which}" for what in ("pages", "bytes") for which in ("full", "linear", "iterative")]
    return CachePoint(
        unit=unit,
        keep=keep,
        split=split,
        n_tokens=result.n_items,
        drop_pp=lost_figure(total),
        perplexity_ratio=ratio_figure(total),
        kl_full=near_figure(own, "kl", "nats"),
        drop_full_pp=lost_figure(own),
        **dict(zip(names, means, strict=True)),
    )


def chosen(context: Context, points: list[CachePoint]) -> tuple[float | None, str]:
    """The smallest share whose quality holds where strengths are chosen, and why it is that one.

    What counts is the whole loss against the dense model with its full cache: the accuracy lost, and the perplexity
    with `selection_z` standard errors, which far fewer tokens show than a tenth of a point of accuracy takes.
    """
    settings = settings_of(context)
    most = context.run.scenario.config["kv"]["max_perplexity_ratio"] or settings.max_perplexity_ratio
    z = settings.selection_z
    reasons = []
    for point in sorted(points, key=lambda point: point.keep):
        ratio, lost = point.perplexity_ratio, point.drop_pp
        bound = ratio.value + z * (ratio.ci95[1] - ratio.value) / Z95
        told = f"{point.keep:.0%} of a prompt: accuracy {lost.value:+.2f} pp, perplexity × {ratio.value:.4f}"
        if lost.value <= settings.quality_budget_pp and (most is None or bound <= most):
            return point.keep, f"{told}; the smallest share that keeps the budget where strengths are chosen"
        reasons.append(told)
    return None, f"no share keeps the budget where strengths are chosen ({'; '.join(reasons)}): the cache stays whole"


def looked_up(context: Context, options: Options, dense: nn.Module, result: nn.Module, split: str) -> list[LookUpPoint]:
    """Records in a split's text, asked for after the cache was compressed: full and every share, by exact match."""
    blocks = context.long_blocks(
        split, options["context"], options["questions"], cure="lower kv.context, which look-ups fill"
    )
    text = join_blocks(blocks.values())
    asked = make_lookups(
        context.tokenizer, text, count=options["questions"], length=options["context"], seed=context.get("seed")
    )
    policies = {share: options.policy("token", share, options["context"]) for share in options["keep"]}
    caches = {f"{share}": compressed(policy, options["store"]) for share, policy in policies.items()}
    observed = max(policy.observe for policy in policies.values())
    of_dense = context.of_dense(
        "lookups",
        {"questions": lookups_sha256(asked)},
        LookUpResult,
        lambda: judge_lookups(dense, asked, {})[FULL],
    )
    found = judge_lookups(result, asked, caches, observed=observed)
    context.progress(f"{len(asked)} look-ups in {split} texts of {options['context']} tokens")
    shares = {FULL: None} | {f"{share}": share for share in policies}
    texts = [question.source for question in asked]
    return [_look_up(split, shares[name], compare_lookups(found[name], of_dense, texts)) for name in shares]


def _look_up(split: str, keep: float | None, compared: dict) -> LookUpPoint:
    dense_pct, n = compared["full_exact_pct"], compared["n"]
    ends = tuple(sorted(dense_pct - end for end in compared["ci95"]))
    method = "greedy, paired with dense by question, clustered by text"
    item = figure(compared["exact_pct"], "%", "measured", n=n, method=method, ci95=ends)
    return LookUpPoint(split=split, keep=keep, n=n, exact_pct=item, dense_pct=dense_pct)


def layout_error(context: Context, options: Options, model: nn.Module) -> float:
    """Largest difference of logits between the two layouts of one eviction, relative to their largest."""
    ids = context.fixed(1, min(options["context"], 256) + LAYOUT_PROBE)["input_ids"]
    prompt, rest = ids[:, :-LAYOUT_PROBE], ids[:, -LAYOUT_PROBE:]
    outputs = []
    for layout in ("linear", "iterative"):
        policy = options.policy("token", 0.5, prompt.shape[1], layout)
        cache = PagedCache(model, page=options["page"], evictor=KvEvictor(policy))
        model(input_ids=prompt, past_key_values=cache, logits_to_keep=1)
        outputs.append(model(input_ids=rest, past_key_values=cache).logits)
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def shape_times(
    context: Context, options: Options, engines: Engines, keep: float | None, batch: int, length: int
) -> DecodeShape:
    """Time to first token and per token of every arm, interleaved, on the same text."""
    clock = Clock(context, options["steps"], options["rounds"], engines.against)
    return clock.shape(
        arms_of(options, engines, keep, length),
        batch,
        length,
        lambda arm: _held(options, keep if arm in COMPRESSED else None, length),
    )


COMPRESSED = ("linear", "same_transform", RESULT)


def _held(options: Options, keep: float | None, length: int) -> float:
    """Tokens of a text that are in the cache."""
    return length if keep is None else options.policy("token", keep, length).budget


def arms_of(
    options: Options, engines: Engines, keep: float | None, length: int
) -> dict[str, tuple[str, Callable[[], Decoder]]]:
    """Arm → what it is, and how it is made ready.

    `dense` is the model with a cache that copies nothing; the arms of the loop are their models with the cache that was
    chosen, in their layout; `same_transform` is iterative's model with linear's layout of the cache.
    """
    models = engines.models

    def eager(arm: str, layout: str | None) -> Callable[[], Decoder]:
        def make() -> Decoder:
            model = paged(models[arm])
            return DECODERS[REFERENCE].prepare(model, new_cache=lambda: new_cache(model, layout))

        return make

    def new_cache(model: nn.Module, layout: str | None) -> PagedCache:
        if layout is None or keep is None:
            return PagedCache(model, page=options["page"])
        policy = options.policy("token", keep, length, layout)
        return PagedCache(model, page=options["page"], store=options["store"], evictor=KvEvictor(policy))

    share = "whole cache" if keep is None else f"{keep:.0%} of a prompt's tokens kept"
    arms: dict[str, tuple[str, Callable[[], Decoder]]] = {
        DENSE: ("dense, cache in place", eager(DENSE, None)),
        "dense_again": ("dense, cache in place, again", eager(DENSE, None)),
        "stock": ("dense, Transformers' own cache", lambda: DECODERS[REFERENCE].prepare(models[DENSE])),
    }
    if "linear" in models:
        arms["linear"] = (f"linear, {share}, in the pages where they were", eager("linear", "linear"))
    if RESULT in models:
        if keep is not None:
            arms["same_transform"] = ("iterative's model, tokens in the pages where they were", eager(RESULT, "linear"))
        arms[RESULT] = (f"iterative, {share}, in whole pages", eager(RESULT, "iterative"))
    arms |= {arm: (label_of(engines, arm), functools.partial(engines.decoder, arm)) for arm in engines.rows}
    return arms
