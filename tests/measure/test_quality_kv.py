"""The judge of compressed caches: known values with the full cache, the same as a plain pass, and refusals."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_decoders import VOCAB, tiny_decoder

from icd_lib.data.language import Blocks
from icd_lib.data.lookups import LookUp
from icd_lib.errors import MeasureError
from icd_lib.measure.quality_kv import FULL, LookUpResult, compare_lookups, judge_continued, judge_lookups
from icd_lib.measure.quality_lm import compare_language_results
from icd_lib.models.cache import use_paged_attention
from icd_lib.transforms.kv import KvEvictor, KvPolicy

CONTEXT, LENGTH = 40, 61
POLICY = KvPolicy(budget=12, sinks=2, window=4, observe=4, every=5, page=4)


@pytest.fixture(scope="module")
def model():
    return use_paged_attention(tiny_decoder(max_position_embeddings=128))


@pytest.fixture(scope="module")
def blocks():
    rng = np.random.default_rng(0)
    return Blocks(rng.integers(3, VOCAB, (5, LENGTH)), np.repeat(np.arange(5), LENGTH).reshape(5, LENGTH))


def evict(policy):
    return lambda cache: cache.compressed(evictor=KvEvictor(policy))


CACHES = {
    "copy": lambda cache: cache.compressed(),
    "evicted": evict(POLICY),
    "linear": evict(dataclasses.replace(POLICY, layout="linear")),
    "int8": lambda cache: cache.compressed(store="int8"),
}


def test_full_is_a_plain_pass_and_copies_lose_nothing(model, blocks):
    found = judge_continued(model, blocks, CONTEXT, CACHES, observed=4, rows=2)
    logits = model(input_ids=torch.from_numpy(blocks.ids)).logits.log_softmax(-1)[:, CONTEXT:-1]
    targets = torch.from_numpy(blocks.ids)[:, CONTEXT + 1 :]
    expected = logits.gather(-1, targets[..., None])[..., 0]
    assert np.allclose(found[FULL].log_probs, expected, atol=1e-5)
    assert np.array_equal(found[FULL].correct, (logits.argmax(-1) == targets).numpy())
    assert found[FULL].log_probs.shape == (5, LENGTH - CONTEXT - 1)
    assert np.array_equal(found["copy"].log_probs, found[FULL].log_probs) and not found["copy"].kl.any()
    assert np.allclose(found["linear"].log_probs, found["evicted"].log_probs, atol=1e-6)
    assert found["evicted"].kl.mean() > found["int8"].kl.mean() > 0
    compared = compare_language_results(found["evicted"], found[FULL])
    assert compared["kl"] == pytest.approx(found["evicted"].kl.mean(), rel=1e-5)
    assert compared["n"] == 100 and compared["se_pp"] >= 0


def test_kl_is_that_of_the_formula(model, blocks):
    found = judge_continued(model, blocks.take(slice(0, 1)), CONTEXT, {"evicted": CACHES["evicted"]}, observed=4)
    from icd_lib.measure.quality_kv import continue_from, read_context

    ids = torch.from_numpy(blocks.ids[:1])
    read = read_context(model, ids[:, :CONTEXT], 4)
    p, q = (
        continue_from(model, cache, ids[:, CONTEXT:-1], None)[0].softmax(-1)
        for cache in (read.compressed(), CACHES["evicted"](read))
    )
    assert np.allclose(found["evicted"].kl[0], (p * (p / q).log()).sum(-1), rtol=1e-4, atol=1e-7)


def test_steps_evict_again(model, blocks):
    whole = judge_continued(model, blocks, CONTEXT, {"evicted": CACHES["evicted"]}, observed=4)
    steps = judge_continued(model, blocks, CONTEXT, {"evicted": CACHES["evicted"]}, observed=4, step=5)
    assert np.allclose(steps[FULL].log_probs, whole[FULL].log_probs, atol=1e-5)
    assert np.allclose(steps["evicted"].log_probs[:, :5], whole["evicted"].log_probs[:, :5], atol=1e-5)
    assert not np.allclose(steps["evicted"].log_probs[:, 5:], whole["evicted"].log_probs[:, 5:], atol=1e-3)


def lookups(model, right):
    """Questions whose answers are what the model says (or not)."""
    made = []
    for seed in range(3):
        ids = torch.randint(3, VOCAB, (1, 50), generator=torch.Generator().manual_seed(seed))
        answer = []
        for _ in range(2):
            said = model(input_ids=torch.cat([ids, torch.tensor([answer], dtype=torch.long)], 1)).logits[0, -1]
            answer.append(int(said.argmax() if right else said.argmin()))
        made.append(LookUp(np.concatenate([ids[0].numpy(), np.array(answer)]), 45, 2, 0.5, seed))
    return made


def test_lookups_know_right_from_wrong(model):
    right = judge_lookups(
        model, lookups(model, True), {"copy": CACHES["copy"], "evicted": CACHES["evicted"]}, observed=4
    )
    assert right[FULL].exact.all() and (right[FULL].rank == 1).all() and right["copy"].exact.all()
    assert (right["evicted"].log_prob != right[FULL].log_prob).all()
    wrong = judge_lookups(model, lookups(model, False), {}, observed=4)
    assert not wrong[FULL].exact.any() and (wrong[FULL].rank == VOCAB).all()
    with pytest.raises(MeasureError, match="at least one question"):
        judge_lookups(model, [], {})


def test_compared_lookups():
    full = LookUpResult(np.array([True, True, True, False]), np.zeros(4), np.ones(4, dtype=np.int64))
    result = LookUpResult(np.array([True, False, True, False]), np.full(4, -2.0), np.array([1, 9, 1, 5]))
    found = compare_lookups(result, full)
    assert (found["exact_pct"], found["full_exact_pct"], found["drop_pp"]) == (50, 75, 25)
    assert found["median_rank"] == 3 and found["ci95"][0] < 25 < found["ci95"][1]
    assert compare_lookups(full, full)["drop_pp"] == 0


def test_refuses_blocks_without_a_token_to_score(model, blocks):
    with pytest.raises(MeasureError, match="none to score after a context of 60"):
        judge_continued(model, blocks, 60, {})
