"""benchmarks/kv.py on a tiny decoder: its arms, its times, its pages; docs/KV.md holds the tables of its figures."""

import copy
import sys
from argparse import Namespace
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tiny_caches import paged_decoder, prompt

from icd_lib.storage.json_text import read_text

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import kv
import kv_tables

CONTEXT = 128
ARGS = Namespace(
    keep=[1.0, 0.5],
    arms=["token", "page", "token_uneven"],
    stores=["float", "int8"],
    int8=["token"],
    context=CONTEXT,
    page=8,
    repeats=4,
    warmup=1,
)


@pytest.fixture(scope="module")
def model():
    return paged_decoder()


def test_arms_spend_the_same_budget():
    mass = -np.sort(-np.random.default_rng(0).random((2, CONTEXT)), axis=1)
    found = kv.policies_of(ARGS, mass)
    assert list(found) == [
        "all 100% int8",
        "token 50% float",
        "token 50% int8",
        "page 50% float",
        "token_uneven 50% float",
    ]
    budgets = [policy.budgets for *_, policy in found.values() if policy]
    assert {sum(b) / len(b) for b in budgets} == {64}


def test_compressors_note_both_layouts(model):
    policies, notes = kv.policies_of(ARGS, np.ones((2, CONTEXT)) / CONTEXT), defaultdict(list)
    full = kv.PagedCache(model, page=8, observed=32)
    model(input_ids=prompt(1, CONTEXT), past_key_values=full)
    for make in kv.compressors(policies, notes).values():
        make(full)
    token = kv.entry_of("token 50% float", policies, notes)
    assert token["iterative"]["pages_read"] == 2 * 3 * 8 < token["linear"]["pages_read"]
    assert token["iterative"]["pages_before"] == 2 * 3 * 16
    page = kv.entry_of("page 50% float", policies, notes)
    assert page["linear"] == page["iterative"]
    rounded = kv.entry_of("token 50% int8", policies, notes)
    assert rounded["iterative"]["bytes_read"] < token["iterative"]["bytes_read"]


def test_a_point_of_latency(model):
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("sdpa")
    point = kv.latency_point(ARGS, model, stock, prompt(2, CONTEXT))
    arms = point["arms"]
    assert set(arms) == {
        "full",
        "full again",
        "stock",
        "all 100% int8",
        *(f"{layout} 50% {store}" for layout in ("linear", "iterative") for store in ("float", "int8")),
    }
    assert all(arm["latency_ms"]["n"] == 4 and arm["latency_ms"]["median"] > 0 for arm in arms.values())
    assert "vs_linear" in arms["iterative 50% int8"] and "vs_linear" not in arms["linear 50% int8"]
    assert arms["full"]["pages"] == 2 * 2 * 3 * 16
    table = kv_tables.latency_table({"points": [point]})
    assert len(table.splitlines()) == 2 + len(arms)


def test_the_page_holds_the_tables_of_the_figures():
    page = kv_tables.PAGE.read_text(encoding="utf-8")
    figures = read_text(kv_tables.FIGURES) if kv_tables.FIGURES.is_file() else {}
    assert kv_tables.page_with(page, figures) == page
    for part in kv_tables.TABLES:
        assert (part in figures) == (kv_tables.NOT_RUN not in page.split(f"<!-- {part}: start -->")[1].split("<!--")[0])
