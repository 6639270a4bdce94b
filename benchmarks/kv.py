"""What a smaller KV cache costs in quality and gives in pages, bytes and time.

    python benchmarks/kv.py quality                    # KL, accuracy, perplexity after 1,024 tokens of running text
    python benchmarks/kv.py lookup                     # records in running text, asked for afterwards
    python benchmarks/kv.py latency                    # time per token, interleaved, with nothing beside it
    python benchmarks/kv.py quality --blocks 2 --keep 0.5 --out /tmp/kv.json

Each part writes its section of one file and leaves the others alone. The model is the embedded decoder. Arms: token
and page (attention of the last queries), recent, random (placebo), and token_uneven, the same as token with budgets by
measured attention mass; each in float and in int8. A keep of 0.5 is a budget of half the context's tokens.
"""

import argparse
import copy
import dataclasses
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from kv_tables import TABLES
from transformers import DynamicCache

from icd_lib.data.language import Blocks, domain_blocks, load_domains
from icd_lib.data.lookups import make_lookups
from icd_lib.errors import IcdError
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.quality_kv import FULL, compare_lookups, judge_continued, judge_lookups
from icd_lib.measure.quality_lm import LanguageSuite, SplitResult
from icd_lib.measure.statistics import bootstrap_ci, paired_ratio, summarise
from icd_lib.models.cache import PAGE, PagedCache, use_paged_attention
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.transforms.kv import KvEvictor, KvPolicy, record_cache
from icd_lib.transforms.kv.allocate import allocate_budgets, measure_mass

ROOT = Path(__file__).resolve().parent.parent
DOMAINS = {
    "seen": ("encyclopaedia", "docstrings"),  # their text decides the uneven budgets
    "unseen": ("news", "films", "editorials", "products", "verses"),
}
ARMS = {
    "token": {},
    "page": {"unit": "page"},
    "recent": {"score": "recent"},
    "random": {"score": "random"},
    "key_norm": {"score": "key_norm"},
    "token_pooled": {"pool": 7},
    "token_uneven": {},
}
STORES = ("float", "int8")
KEEP = (1.0, 0.75, 0.5, 0.25, 0.1)
TOTALS = ("pages_before", "pages", "pages_read", "bytes_full", "bytes_needed", "bytes_read")
CALIBRATION = 8  # contexts whose attention mass decides the uneven budgets


def policy_of(arm: str, keep: float, context: int, page: int, mass: np.ndarray | None) -> KvPolicy | None:
    """The policy of an arm at a share of the context; None for all of it."""
    if keep >= 1:
        return None
    budget = round(keep * context / page) * page
    policy = KvPolicy(budget=budget, page=page, **ARMS[arm])
    if arm != "token_uneven":
        return policy
    budgets = allocate_budgets(mass, budget, least=policy.least, page=page)
    return dataclasses.replace(policy, budget=budgets)


def policies_of(args, mass: np.ndarray | None) -> dict[str, tuple[str, float, str, KvPolicy | None]]:
    """Name → (arm, keep, store, policy) of every cache that is judged."""
    found = {}
    for keep in args.keep:
        for arm in args.arms if keep < 1 else ["all"]:
            for store in args.stores:
                if (keep >= 1 and store == "float") or (store == "int8" and arm not in ("all", *args.int8)):
                    continue
                policy = policy_of(arm, keep, args.context, args.page, mass)
                found[f"{arm} {keep:.0%} {store}"] = (arm, keep, store, policy)
    return found


def compressors(policies: dict, notes: dict) -> dict:
    """Name → what makes the cache; the totals of its record, and of its linear layout's, go to `notes`."""

    def make(name: str, store: str, policy: KvPolicy | None):
        def compress(full: PagedCache) -> PagedCache:
            cache = full.compressed(store=store, evictor=None if policy is None else KvEvictor(policy))
            notes[name, "iterative"].append([record_cache(cache).total(total) for total in TOTALS])
            if policy is not None:
                scattered = KvEvictor(dataclasses.replace(policy, layout="linear"))
                record = record_cache(full.compressed(store=store, evictor=scattered))
                notes[name, "linear"].append([record.total(total) for total in TOTALS])
            return cache

        return compress

    return {name: make(name, store, policy) for name, (_, _, store, policy) in policies.items()}


def entry_of(name: str, policies: dict, notes: dict) -> dict:
    """What an arm is, its pages and bytes; `compressors` has filled the notes."""
    arm, keep, store, policy = policies[name]
    found = {"arm": arm, "keep": keep, "store": store, "budget": None if policy is None else policy.budget}
    for layout in ("linear", "iterative"):
        if notes[name, layout]:
            found[layout] = dict(zip(TOTALS, np.mean(notes[name, layout], axis=0).tolist(), strict=True))
    return found


def blocks_of(args, tokenizer, split: str, length: int, count: int) -> dict[str, Blocks]:
    """Blocks of every domain of a split, `count` each, evenly spaced; the domains that are not there are named."""
    texts, missing = load_domains(list(DOMAINS[split]))
    for name, reason in missing.items():
        print(f"  without {name}: {reason}", flush=True)
    return domain_blocks(tokenizer, texts, length, count * len(texts))


def mass_of(args, model, tokenizer) -> np.ndarray | None:
    """Attention mass by rank on text of the seen domains that is not judged."""
    if "token_uneven" not in args.arms:
        return None
    blocks = blocks_of(args, tokenizer, "seen", args.context, CALIBRATION // 2 + 1)
    prompts = [torch.from_numpy(block[None]) for text in blocks.values() for block in text.ids[1:]]
    return measure_mass(model, prompts)


def quality(args, model, tokenizer, save) -> dict:
    """The frontier on the tokens after a context, on unseen and seen domains; saved after each domain."""
    policies = policies_of(args, mass_of(args, model, tokenizer))
    observed = max([policy.observe for *_, policy in policies.values() if policy], default=0)
    found = {"context": args.context, "continued": args.continued, "page": args.page, "step": args.step, "splits": {}}
    notes: dict = defaultdict(list)
    for split in ("unseen", "seen"):
        judged = blocks_of(args, tokenizer, split, args.context + args.continued + 1, args.blocks)
        results: dict = defaultdict(dict)
        for domain, blocks in judged.items():
            start = time.perf_counter()
            caches = compressors(policies, notes)
            by_cache = judge_continued(model, blocks, args.context, caches, observed=observed, step=args.step)
            for name, result in by_cache.items():
                results[name][domain] = result
            print(f"  {split} {domain}: {len(blocks)} blocks, {time.perf_counter() - start:.0f} s", flush=True)
            full = SplitResult(split, results[FULL])
            found["splits"][split] = {
                name: LanguageSuite({}).compare(SplitResult(split, results[name]), full) for name in policies
            }
            found["arms"] = {name: entry_of(name, policies, notes) for name in policies}
            save(found)
    return found


def lookup(args, model, tokenizer, save) -> dict:
    """Exact match on records in running text, asked for after the cache is compressed and before."""
    policies = policies_of(args, mass_of(args, model, tokenizer))
    observed = max([policy.observe for *_, policy in policies.values() if policy], default=0)
    blocks = blocks_of(args, tokenizer, "unseen", args.context, max(1, args.questions // len(DOMAINS["unseen"])))
    text = Blocks(*(np.concatenate([getattr(b, name) for b in blocks.values()]) for name in ("ids", "cluster")))
    found: dict = {"context": args.context, "page": args.page, "tasks": {}}
    notes: dict = defaultdict(list)
    for records in args.records:
        for asked in ("after", "before"):
            options = {"records": records, "length": args.context, "asked": asked, "seed": 1}
            questions = make_lookups(tokenizer, text, count=args.questions, **options)
            start = time.perf_counter()
            results = judge_lookups(model, questions, compressors(policies, notes), observed=observed)
            found["tasks"][f"{records} records, asked {asked}"] = {
                name: compare_lookups(results[name], results[FULL]) for name in policies
            }
            right = 100 * results[FULL].exact.mean()
            print(
                f"  {records} records, {asked}: {right:.0f} % with all, {time.perf_counter() - start:.0f} s", flush=True
            )
            found["arms"] = {name: entry_of(name, policies, notes) for name in policies}
            save(found)
    return found


def latency(args, model, tokenizer, save) -> dict:
    """Time per token of every cache, interleaved in one process, at each batch and context."""
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("sdpa")
    found = {"page": args.page, "repeats": args.repeats, "points": []}
    for context in args.contexts:
        blocks = blocks_of(args, tokenizer, "unseen", context, 2)
        ids = torch.from_numpy(np.concatenate([text.ids for text in blocks.values()]))
        for batch in args.batches:
            found["points"].append(latency_point(args, model, stock, ids[:batch]))
            show_latency(found["points"][-1])
            save(found)
    return found


def latency_point(args, model, stock, ids: torch.Tensor) -> dict:
    """One batch and context: the caches, a step of each, their pages and bytes, and what an eviction takes."""
    batch, context = ids.shape
    with torch.inference_mode():
        caches, evicting_ms = latency_caches(args, model, ids)
        records = {name: record_cache(cache) for name, cache in caches.items()}
        token = ids[:, -1:]
        arms = {name: step_of(model, cache, token) for name, cache in caches.items()}
        arms["full again"] = arms[FULL]
        arms["stock"] = step_of(stock, stock_copy(stock, caches[FULL]), token)
        with watched() as conditions:
            samples = measure_interleaved(arms, repeats=args.repeats, warmup=args.warmup)
    entry: dict = {"batch": batch, "context": context, "conditions": conditions, "warnings": disturbances(conditions)}
    entry["arms"] = {
        name: {
            "latency_ms": {**summarise(sample), "ci95": bootstrap_ci(sample)},
            "vs_full": paired_ratio(sample, samples[FULL]),
            "vs_stock": paired_ratio(sample, samples["stock"]),
        }
        for name, sample in samples.items()
    }
    for name, record in records.items():
        entry["arms"][name] |= {total: record.total(total) for total in TOTALS}
        entry["arms"][name]["allocated_bytes"] = sum(layer.store.allocated_bytes() for layer in caches[name].layers)
        linear = name.replace("iterative", "linear")
        if linear != name and linear in samples:
            entry["arms"][name]["vs_linear"] = paired_ratio(samples[name], samples[linear])
        if name in evicting_ms:
            entry["arms"][name]["evicting_ms"] = evicting_ms[name]
    return entry


def latency_caches(args, model, ids: torch.Tensor) -> tuple[dict[str, PagedCache], dict[str, float]]:
    """The caches that are timed, each after the same prompt, and the milliseconds that evicting from it took, once."""
    batch, context = ids.shape
    spare = args.repeats + args.warmup
    full = PagedCache(model, page=args.page, room=context + 2 * spare + 2, observed=KvPolicy.observe)
    model(input_ids=ids, past_key_values=full, logits_to_keep=1)
    caches, evicting_ms = {FULL: full}, {}
    for keep in args.keep:
        for store in args.stores:
            for layout in ("linear", "iterative") if keep < 1 else ("all",):
                if keep >= 1 and store == "float":
                    continue
                policy = policy_of("token", keep, context, args.page, None)
                evictor = None
                if policy is not None:
                    evictor = KvEvictor(dataclasses.replace(policy, layout=layout, every=2 * spare))
                start = time.perf_counter()
                full.compressed(store=store) if evictor else None
                copying = time.perf_counter() - start
                start = time.perf_counter()
                caches[f"{layout} {keep:.0%} {store}"] = full.compressed(store=store, evictor=evictor)
                if evictor:
                    evicting_ms[f"{layout} {keep:.0%} {store}"] = 1e3 * (time.perf_counter() - start - copying)
    return caches, evicting_ms


def stock_copy(stock, full: PagedCache) -> DynamicCache:
    """Transformers' own cache with the same keys and values."""
    cache = DynamicCache(config=stock.config)
    for layer in full.layers:
        keys, values = layer.store.read()
        cache.update(keys.clone(), values.clone(), layer.index)
    return cache


def step_of(model, cache, token: torch.Tensor):
    """Decode one token."""

    def step():
        with torch.inference_mode():
            return model(input_ids=token, past_key_values=cache).logits

    return step


def show_latency(point: dict) -> None:
    print(f"  batch {point['batch']}, context {point['context']}: {'; '.join(point['warnings']) or 'quiet'}")
    for name, entry in point["arms"].items():
        ratio = entry["vs_full"]
        low, high = (100 * end for end in ratio["ci95"])
        against = f"{100 * ratio['value']:+.1f} % [{low:+.1f}, {high:+.1f}] against full"
        print(f"    {name:24s} {entry['latency_ms']['median']:8.2f} ms  {against}", flush=True)


PARTS = {"quality": quality, "lookup": lookup, "latency": latency}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=STORES)
    parser.add_argument("--int8", nargs="+", default=["token", "page"], choices=ARMS, help="arms that are rounded too")
    parser.add_argument("--keep", type=float, nargs="+", default=list(KEEP), help="shares of the context's tokens")
    parser.add_argument("--context", type=int, default=1024, help="tokens before the eviction (quality, lookup)")
    parser.add_argument("--continued", type=int, default=128, help="scored tokens after it")
    parser.add_argument("--step", type=int, help="tokens between evictions while going on (default: none)")
    parser.add_argument("--blocks", type=int, default=4, help="of each domain")
    parser.add_argument("--questions", type=int, default=30, help="of each look-up task")
    parser.add_argument("--records", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096], help="of the latency")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=40, help="interleaved rounds")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--page", type=int, default=PAGE)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "kv.json")
    return parser.parse_args()


def main() -> int:
    args = parse_options()
    try:
        checkpoint = resolve_checkpoint(None, family="llama")
        model, tokenizer = load_model(checkpoint)
        about = {"model": checkpoint.provenance(), "environment": fingerprint()}

        def save(section: dict) -> None:
            whole = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
            atomic_write(args.out, to_json(whole | {args.part: section | about}))

        with torch_threads(args.threads):
            print(TABLES[args.part](PARTS[args.part](args, use_paged_attention(model), tokenizer, save)))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
