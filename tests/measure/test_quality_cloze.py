"""The judge of cloze questions: a naive pass per candidate says the same; known answers; refusals."""

import numpy as np
import pytest
import torch

from icd_lib.data.cloze import ClozeQuestion
from icd_lib.errors import MeasureError
from icd_lib.measure.quality_cloze import ClozeResult, compare_cloze, judge_cloze, score_candidates
from tests.tiny_decoders import VOCAB, tiny_decoder


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen3"])
def model(request):
    return tiny_decoder(request.param)


def question(seed: int, lengths=(3, 1, 2, 4), answer: int = 0) -> ClozeQuestion:
    rng = np.random.default_rng(seed)
    candidates = tuple(rng.integers(3, VOCAB, length) for length in lengths)
    return ClozeQuestion(rng.integers(3, VOCAB, 20), candidates, tuple(map(str, range(len(lengths)))), answer, seed)


def naive(model, asked: ClozeQuestion) -> np.ndarray:
    """One pass over prompt and candidate for each of them."""
    scores = []
    for ids in asked.candidates:
        whole = torch.from_numpy(np.concatenate([asked.prompt, ids]))[None]
        log_probs = model(input_ids=whole, use_cache=False).logits[0].log_softmax(-1)
        scores.append(sum(float(log_probs[place - 1, whole[0, place]]) for place in range(20, whole.shape[1])))
    return np.array(scores)


@pytest.mark.parametrize("lengths", [(3, 1, 2, 4), (1, 1, 1), (2, 2)])
def test_scores_are_those_of_a_pass_per_candidate(model, lengths):
    asked = question(1, lengths)
    scores = score_candidates(model, asked)
    assert scores.dtype == np.float64 and np.allclose(scores, naive(model, asked), rtol=1e-9)
    alone = [score_candidates(model, ClozeQuestion(asked.prompt, (ids,), ("",), 0, 0))[0] for ids in asked.candidates]
    assert np.allclose(scores, alone, rtol=1e-9)


def test_the_most_probable_candidate_is_the_answer(model):
    asked = [question(seed, answer=seed % 4) for seed in range(8)]
    found = judge_cloze(model, asked)
    for place, one in enumerate(asked):
        scores = naive(model, one)
        best_other = max(score for i, score in enumerate(scores) if i != one.answer)
        assert found.right[place] == (scores.argmax() == one.answer)
        assert found.margin[place] == pytest.approx(scores[one.answer] - best_other, rel=1e-8)
    assert np.array_equal(found.right, found.margin > 0) and found.clusters.tolist() == list(range(8))


def test_ties_go_to_the_first():
    model = tiny_decoder()
    asked = question(1)
    same = tuple(asked.candidates[0] for _ in range(3))
    first, last = (ClozeQuestion(asked.prompt, same, ("a", "b", "c"), answer, 0) for answer in (0, 2))
    found = judge_cloze(model, [first, last])
    assert found.right.tolist() == [True, False] and not found.margin.any()


def test_modes_are_given_back():
    model = tiny_decoder(attention_dropout=0.9).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    found = judge_cloze(model, [question(1)])
    assert [module.training for module in model.modules()] == before
    assert found.margin == judge_cloze(model.eval(), [question(1)]).margin


def test_compared_by_question_and_clustered():
    dense = ClozeResult(np.array([True, True, True, False]), np.ones(4), np.array([0, 0, 1, 2]))
    result = ClozeResult(np.array([True, False, True, False]), np.zeros(4), np.array([0, 0, 1, 2]))
    found = compare_cloze(result, dense)
    assert (found["n"], found["right_pct"], found["dense_right_pct"], found["drop_pp"]) == (4, 50, 75, 25)
    assert (found["margin"], found["dense_margin"]) == (0, 1)
    # sums of d - 0.25 by cluster: 0.5, -0.25, -0.25; sqrt(3 / 2 * 0.375) / 4
    assert found["se_pp"] == pytest.approx(18.75)
    assert found["ci95"][0] < 25 < found["ci95"][1]
    assert compare_cloze(dense, dense)["ci95"] == [0, 0]
    with pytest.raises(MeasureError, match="judge both models on the same questions"):
        compare_cloze(ClozeResult(dense.right, dense.margin, np.array([0, 1, 1, 2])), dense)


def test_refusals():
    model = tiny_decoder()
    with pytest.raises(MeasureError, match="at least one question"):
        judge_cloze(model, [])
    model.lm_head.weight[5] = float("nan")
    with pytest.raises(MeasureError, match="cloze question 0 has no finite probability"):
        judge_cloze(model, [question(1)])
