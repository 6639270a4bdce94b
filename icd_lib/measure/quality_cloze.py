"""How many cloze questions a language model answers: the candidate that it finds most probable after the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from icd_lib.data.cloze import ClozeQuestion
from icd_lib.errors import MeasureError
from icd_lib.measure.statistics import paired_difference
from icd_lib.models.modes import evaluating


@dataclass(frozen=True)
class ClozeResult:
    """One model on n questions: `right` bool (n,); `margin` float64 (n,), log-probability of the answer less that of
    the best other candidate, in nats; `clusters` int64 (n,), document of the question.
    """

    right: np.ndarray
    margin: np.ndarray
    clusters: np.ndarray


def judge_cloze(model: nn.Module, questions: Sequence[ClozeQuestion]) -> ClozeResult:
    """The model's answers, its whole cache kept: the first of the candidates with the largest log P(word | prompt).

    Log-probabilities are summed over a candidate's tokens and not divided by their number. Which modules of the model
    train is given back. Raises `MeasureError` without questions and for a log-probability that is not finite.
    """
    if not questions:
        raise MeasureError("a cloze is judged on at least one question, got none; make some with make_cloze")
    right, margin = [], []
    with torch.inference_mode(), evaluating(model):
        for number, question in enumerate(questions):
            scores = score_candidates(model, question)
            if not np.isfinite(scores).all():
                raise MeasureError(
                    f"a candidate of cloze question {number} has no finite probability; check the weights"
                )
            right.append(int(scores.argmax()) == question.answer)
            margin.append(scores[question.answer] - np.delete(scores, question.answer).max())
    clusters = np.array([question.source for question in questions], dtype=np.int64)
    return ClozeResult(np.array(right), np.array(margin), clusters)


def score_candidates(model: nn.Module, question: ClozeQuestion) -> np.ndarray:
    """log P(candidate | prompt) of every candidate in nats, float64 (C,): the prompt is read once, by all of them."""
    device = next(model.parameters()).device
    tokens = pad_sequence([torch.from_numpy(ids) for ids in question.candidates], batch_first=True).to(device)
    lengths = torch.tensor([len(ids) for ids in question.candidates], device=device)
    prompt = torch.from_numpy(question.prompt)[None].to(device)
    read = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    logits = read.logits.expand(len(tokens), -1, -1)
    if tokens.shape[1] > 1:
        cache = read.past_key_values
        cache.batch_repeat_interleave(len(tokens))
        # Padding stands behind a candidate, where a causal model does not look from inside it.
        rest = model(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([logits, rest], dim=1)
    log_probs = logits.log_softmax(-1, dtype=torch.float64).gather(-1, tokens[..., None])[..., 0]
    padding = torch.arange(tokens.shape[1], device=device) >= lengths[:, None]
    return log_probs.masked_fill(padding, 0).sum(1).cpu().numpy()


def compare_cloze(result: ClozeResult, dense: ClozeResult) -> dict:
    """Right answers in percent and what is lost against dense: paired by question, clustered by document.

    Raises `MeasureError` when the results are not of the same questions.
    """
    if not np.array_equal(result.clusters, dense.clusters):
        raise MeasureError(
            f"results of {len(dense.clusters)} and {len(result.clusters)} cloze questions are not of the same ones; "
            "judge both models on the same questions"
        )
    lost = paired_difference(dense.right, result.right, clusters=dense.clusters)
    return {
        "n": len(result.right),
        "right_pct": 100 * float(result.right.mean()),
        "dense_right_pct": 100 * float(dense.right.mean()),
        "drop_pp": lost["drop_pp"],
        "se_pp": lost["se_pp"],
        "ci95": lost["ci95"],
        "margin": float(result.margin.mean()),
        "dense_margin": float(dense.margin.mean()),
    }
