"""Quality of a causal language model: next-token accuracy in percent, perplexity, and what a smaller model loses.

Exact, over every scored token of a domain: the log-probability of the right token and whether it came first, hence
accuracy and perplexity and their paired differences. Exact over the whole vocabulary, but on evenly spaced blocks
only: KL(dense ‖ model), computed while a model is judged, because full distributions are too large to keep.

Over domains as the encoders' judge has it (`icd_lib.measure.battery`): each weighs the same. A language model brings
its own head, so what it loses is one reading, *own*; there is nothing to drop it into and no embedding to compare.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from icd_lib.data.language import Blocks, spread_rows
from icd_lib.errors import ArtifactError, MeasureError, NotFinite
from icd_lib.measure.battery import LABELLED, over_domains
from icd_lib.measure.embed import Progress
from icd_lib.measure.logits import DenseLogits, predictions
from icd_lib.measure.statistics import Z95, paired_difference
from icd_lib.measure.token_scores import divergence, right_tokens
from icd_lib.storage.tensor_file import load_tensors, save_tensors

NEXT_TOKEN = "next_token"
KL_BLOCKS = 32  # of each domain
METHOD = "mean over domains, paired with dense by token, clustered by document; normal interval"


@dataclass(frozen=True)
class LanguageResult:
    """One model on one domain: n blocks of S scored tokens.

    `log_probs`: float32 (n, S), log p(right token). `correct`: bool (n, S), it was the most probable one.
    `clusters`: int64 (n, S), document of the token. `kl`: float32 (m, S), KL(dense ‖ model) in nats at the tokens of m
    evenly spaced blocks, with `kl_clusters` (m, S); None when the judge has no dense model.
    """

    log_probs: np.ndarray
    correct: np.ndarray
    clusters: np.ndarray
    kl: np.ndarray | None = None
    kl_clusters: np.ndarray | None = None

    @property
    def quality_pct(self) -> float:
        """Next-token accuracy in percent."""
        return float(100 * self.correct.mean())

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability per token; infinite where no float holds it."""
        with np.errstate(over="ignore"):
            return float(np.exp(-self.log_probs.mean(dtype=np.float64)))

    @property
    def n_items(self) -> int:
        """Scored tokens."""
        return self.log_probs.size


@dataclass(frozen=True)
class SplitResult:
    """One model on one split: domain → figures per token."""

    split: str
    domains: dict[str, LanguageResult]

    @property
    def n_items(self) -> int:
        """Scored tokens."""
        return sum(result.n_items for result in self.domains.values())


class LanguageSuite:
    """The judge of a language model, with the interface of `Battery`.

    `judged`: split → domain → blocks of tokens; `dense`: the model that KL refers to (None: no KL);
    `states`: where this machine keeps what its head reads (`DenseLogits`); `choosing`: the split on which strengths
    are chosen, by accuracy and perplexity alone: KL would take a fifth of the time there, and nobody asks for it.
    """

    def __init__(
        self,
        judged: Mapping[str, Mapping[str, Blocks]],
        dense: nn.Module | None = None,
        states: Callable[[str], Path] | None = None,
        choosing: str | None = None,
    ):
        self.judged, self.choosing = judged, choosing
        self.dense = None if dense is None else DenseLogits(dense, states)

    @cached_property
    def sha256s(self) -> dict[str, dict[str, str]]:
        """Identity of everything that is judged."""
        return {
            split: {
                name: f"{blocks.sha256}-{0 if split == self.choosing else KL_BLOCKS}" for name, blocks in texts.items()
            }
            for split, texts in self.judged.items()
        }

    def domains(self, split: str) -> Mapping[str, Blocks]:
        """The domains of a split; `MeasureError` for one that there is not, or without text."""
        if split not in self.judged:
            raise MeasureError(f"split '{split}' is not one of {sorted(self.judged)}")
        if not self.judged[split]:
            raise MeasureError(f"no text is judged as '{split}'; name its domains in data.{split} (make fetch_data)")
        return self.judged[split]

    def evaluate(self, model, split: str = "unseen", progress: Progress | None = None) -> SplitResult:
        """The model's figures on a split; `progress` is called with (tokens done, tokens in all)."""
        domains, judged, done = self.domains(split), {}, 0
        dense = None if split == self.choosing else self.dense
        total = sum(blocks.ids.size for blocks in domains.values())
        for name, blocks in domains.items():
            step = None if progress is None else lambda n, _, before=done: progress(before + n, total)
            judged[name] = judge_blocks(model, blocks, dense, step)
            done += blocks.ids.size
        return SplitResult(split, judged)

    def quality(self, model, split: str = "validation") -> float:
        """Next-token accuracy in percent, mean over domains: a `quality` callable for `icd.optimize`."""
        return float(np.mean([result.quality_pct for result in self.evaluate(model, split).domains.values()]))

    def compare(self, result: SplitResult, dense: SplitResult) -> dict:
        """What a model loses against dense on a split, for files and pages; the keys are those of `Battery.compare`.

        `own` (and `own_labelled`, the same) is next-token accuracy; `dropin` and `cosine` are None. Beside them `kl` in
        nats per token (None when the judge has no dense model), `perplexity` and `dense_perplexity` (exp of the mean
        over domains of the loss) and `perplexity_ratio` (exp of the mean over domains of log p_dense − log p_model:
        1.01 is one percent worse). Raises `MeasureError` when the results are of different splits or texts, `NotFinite`
        when the ratio is beyond any float.
        """
        if result.split != dense.split or result.domains.keys() != dense.domains.keys():
            raise MeasureError(f"results of '{dense.split}' and '{result.split}' are not comparable")
        compared = {name: compare_language_results(result.domains[name], dense.domains[name]) for name in dense.domains}
        entries = list(compared.values())
        own = over_domains(entries)
        ratio = _mean_over(entries, "log_ratio")
        return {
            "split": result.split,
            "n_items": result.n_items,
            "method": METHOD,
            "own": own,
            "own_labelled": own,
            "dropin": None,
            "cosine": None,
            "kl": _mean_over(entries, "kl"),
            "perplexity_ratio": {"value": _exp(ratio["value"]), "ci95": [_exp(end) for end in ratio["ci95"]]},
            "perplexity": _geometric_mean([entry["perplexity"] for entry in entries]),
            "dense_perplexity": _geometric_mean([entry["dense_perplexity"] for entry in entries]),
            "worst_domain": max(compared, key=lambda name: compared[name]["drop_pp"]),
            "domains": {name: _domain_entry(entry) for name, entry in compared.items()},
        }

    def save_result(self, result: SplitResult, path) -> None:
        """Keep a model's figures per token on a split, so that no stage runs it twice."""
        tensors = {}
        for name, figures in result.domains.items():
            tensors |= {f"log_probs/{name}": figures.log_probs, f"correct/{name}": figures.correct.astype(np.uint8)}
            if figures.kl is not None:
                tensors[f"kl/{name}"] = figures.kl
        save_tensors(tensors, Path(path), {"split": result.split, **self.sha256s[result.split]})

    def load_result(self, path) -> SplitResult:
        """Read what `save_result` wrote; `ArtifactError` when it is damaged or of other texts or tokens."""
        tensors, meta = load_tensors(Path(path))
        split = meta.pop("split", "")
        if split not in self.judged or meta != self.sha256s[split]:
            raise ArtifactError(f"{path} was computed on other text or tokens; delete it and run the stage again")
        results = {}
        for name, blocks in self.judged[split].items():
            log_probs, correct = tensors[f"log_probs/{name}"], tensors[f"correct/{name}"].astype(bool)
            kl = tensors.get(f"kl/{name}")
            results[name] = LanguageResult(log_probs, correct, **_clusters(blocks, kl))
        return SplitResult(split, results)


def judge_blocks(
    model, blocks: Blocks, dense: DenseLogits | None = None, progress: Progress | None = None
) -> LanguageResult:
    """The model's figures on blocks of one text, with KL to `dense` where there is one."""
    log_probs, correct, kl = score_blocks(model, blocks, dense, progress)
    return LanguageResult(log_probs, correct, **_clusters(blocks, kl))


def _clusters(blocks: Blocks, kl: np.ndarray | None) -> dict:
    """The documents that a result's tokens and the tokens of its `kl` belong to, and `kl`."""
    first = first_scored(blocks)
    of_kl = None if kl is None else blocks.spread(KL_BLOCKS).cluster[:, first:]
    return {"clusters": blocks.cluster[:, first:], "kl": kl, "kl_clusters": of_kl}


def first_scored(blocks: Blocks) -> int:
    """Position of the first token that is predicted and is text."""
    return max(1, blocks.opening)


def score_blocks(
    model, blocks: Blocks, dense: DenseLogits | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """log p(right token) float32 (n, S) and whether it is the argmax, bool (n, S), of every scored token; and KL.

    KL(dense ‖ model) = Σ_v p_v (log p_v − log q_v) at each scored token of `KL_BLOCKS` evenly spaced blocks, float32
    (m, S), in nats, summed in float64; None without `dense`.
    Raises `MeasureError` when the model has no logits per token, a token id is out of range, or the two models have
    vocabularies of different sizes; `NotFinite` when a figure is not finite.
    """
    first = first_scored(blocks)
    shape = (len(blocks), blocks.ids.shape[1] - first)
    log_probs, correct = np.empty(shape, np.float32), np.empty(shape, bool)
    compared = np.empty(0, np.int64) if dense is None else spread_rows(len(blocks), KL_BLOCKS)
    kl = np.zeros((len(compared), shape[1]), np.float32)
    reference = blocks.take(compared)
    done = 0
    itself = dense is not None and dense.model is model
    reading = dense.reading(reference, first) if dense is not None and itself else nullcontext()
    with torch.inference_mode(), reading as reader:
        for rows, logits, targets in predictions(model, blocks, first):
            log_probs[rows], correct[rows] = right_tokens(logits, targets)
            inside = np.flatnonzero((compared >= rows.start) & (compared < rows.stop))
            here = compared[inside] - rows.start
            if reader is not None:
                reader.take(here, logits)
            if dense is not None and not itself and inside.size:
                given = logits if len(here) == len(logits) else logits[here]
                kl[inside] = divergence(dense.of(reference, inside, first), given)
            done += len(targets) * blocks.ids.shape[1]
            if progress is not None:
                progress(done, blocks.ids.size)
    finite = np.isfinite(log_probs)
    if not finite.all():
        bad = int(np.argmin(finite.all(axis=1)))
        raise NotFinite(f"the model's prediction of a token in block {bad} is not finite; check its weights")
    return log_probs, correct, None if dense is None else kl


def compare_language_results(result: LanguageResult, dense: LanguageResult) -> dict:
    """Paired comparison of two results on one domain; positive drops are losses.

    Tokens are paired and clustered by document (both translations of a chapter are one cluster): standard errors by
    `paired_difference`. `drop_pp` is lost next-token accuracy in percentage points, `log_ratio` the mean of
    log p_dense − log p_model; `kl` in nats per token, None when the judge had no dense model. Each has its `…_se`
    (`se_pp`). Raises `MeasureError` when the results are not of the same tokens.
    """
    if result.log_probs.shape != dense.log_probs.shape or not np.array_equal(result.clusters, dense.clusters):
        raise MeasureError(
            f"results of {dense.log_probs.shape} and {result.log_probs.shape} tokens are not comparable, or not of the "
            "same documents; judge both models on the same blocks"
        )
    clusters = dense.clusters.ravel()
    accuracy = paired_difference(dense.correct.ravel(), result.correct.ravel(), clusters=clusters)
    log_ratio, log_ratio_se = _mean(dense.log_probs.astype(np.float64) - result.log_probs, clusters)
    kl, kl_se = (None, None) if result.kl is None else _mean(result.kl, result.kl_clusters)
    return {
        "n": result.n_items,
        "drop_pp": accuracy["drop_pp"],
        "se_pp": accuracy["se_pp"],
        "dense_pct": dense.quality_pct,
        "pct": result.quality_pct,
        "dense_perplexity": dense.perplexity,
        "perplexity": result.perplexity,
        "log_ratio": log_ratio,
        "log_ratio_se": log_ratio_se,
        "kl": kl,
        "kl_se": kl_se,
    }


def _domain_entry(compared: dict) -> dict:
    """One domain's comparison with the keys of `DomainJudge.compare`."""
    own = {key: compared[key] for key in ("drop_pp", "se_pp", "dense_pct", "pct")}
    task = {"drop_pp": own["drop_pp"], "se_pp": own["se_pp"]}
    return {
        "n": compared["n"],
        "cosine": None,
        "own": own,
        "own_labelled": own,
        "dropin": None,
        "kl": compared["kl"],
        "perplexity": compared["perplexity"],
        "dense_perplexity": compared["dense_perplexity"],
        "perplexity_ratio": _exp(compared["log_ratio"]),
        "tasks": {
            NEXT_TOKEN: {
                "sort": LABELLED,
                "n": compared["n"],
                "dense_pct": own["dense_pct"],
                "own": task,
                "dropin": None,
            }
        },
    }


def summarise_result(result: LanguageResult) -> dict:
    """Accuracy and perplexity of one model with clustered intervals: {"pct", "se_pp", "perplexity", ...}."""
    accuracy, accuracy_se = _mean(result.correct.astype(np.float64), result.clusters)
    loss, loss_se = _mean(-result.log_probs.astype(np.float64), result.clusters)
    return {
        "pct": 100 * accuracy,
        "se_pp": 100 * accuracy_se,
        "loss": loss,
        "perplexity": float(np.exp(loss)),
        "perplexity_ci95": [float(np.exp(loss + side * Z95 * loss_se)) for side in (-1, 1)],
        "n_items": result.n_items,
        "n_clusters": len(np.unique(result.clusters)),
    }


def _mean(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Mean and its clustered standard error."""
    paired = paired_difference(values.ravel(), np.zeros(values.size), clusters=clusters.ravel())
    return paired["drop_pp"] / 100, paired["se_pp"] / 100


def _mean_over(entries: list[dict], key: str) -> dict | None:
    """{"value", "ci95"}: the mean over domains, each weighing the same; None when a domain has no such figure."""
    values = [entry[key] for entry in entries]
    if None in values:
        return None
    value = float(np.mean(values))
    se = math.sqrt(sum(entry[f"{key}_se"] ** 2 for entry in entries)) / len(entries)
    return {"value": value, "ci95": [value - Z95 * se, value + Z95 * se]}


def _exp(log_ratio: float) -> float:
    try:
        return math.exp(log_ratio)
    except OverflowError as error:
        raise NotFinite(
            f"the loss rose by {log_ratio:.4g} nats per token, and no float holds such a perplexity; check the weights"
        ) from error


def _geometric_mean(values: list[float]) -> float:
    return math.exp(float(np.mean(np.log(values))))
