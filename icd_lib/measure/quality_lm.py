"""Quality of a causal language model: next-token accuracy in percent, perplexity, and what a smaller model loses.

Exact, over every scored token of a split: the log-probability of the right token and whether it came first, hence
accuracy and perplexity and their paired differences. Exact over the whole vocabulary, but on evenly spaced blocks
only: KL(dense ‖ model), computed while a model is judged, because full distributions are too large to keep.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from icd_lib.data.language import Blocks, LanguageData
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.measure.embed import Progress, load_tensors, save_tensors
from icd_lib.measure.statistics import Z95, paired_difference

NEXT_TOKEN = "next_token"
TOKENS_PER_BATCH = 4096
LOGITS_PER_BATCH = 1 << 25  # 128 MiB in float32; wide vocabularies get fewer tokens at a time
KL_BLOCKS = 32
SUITE_FILE = "language.safetensors"


@dataclass(frozen=True)
class LanguageResult:
    """One model on one split: n blocks of S scored tokens.

    `log_probs`: float32 (n, S), log p(right token). `correct`: bool (n, S), it was the most probable one.
    `clusters`: int64 (n, S), chapter of the token. `kl`: float32 (m, S), KL(dense ‖ model) in nats at the tokens of m
    evenly spaced blocks, with `kl_clusters` (m, S); None when the judge has no dense model.
    """

    split: str
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
    def per_task_pct(self) -> dict[str, float]:
        return {NEXT_TOKEN: self.quality_pct}

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability per token."""
        return float(np.exp(-self.log_probs.mean(dtype=np.float64)))

    @property
    def n_items(self) -> int:
        """Scored tokens."""
        return self.log_probs.size


class LanguageSuite:
    """Tokenised splits and the judge, with the interface of `EncoderSuite`. `dense` is the model that KL refers to.

    `length`: tokens per block. `max_blocks`: split -> at most so many blocks, evenly spaced (default: all of them).
    """

    def __init__(self, data: LanguageData, tokenizer, dense=None, *, length: int = 256, max_blocks: dict | None = None):
        self.data = data
        self.tokenizer = tokenizer
        self.dense = dense
        self.length = length
        self.max_blocks = dict(max_blocks or {})
        self._blocks: dict[str, Blocks] = {}

    @classmethod
    def fit(cls, data: LanguageData, tokenizer, model, *, length: int = 256, max_blocks: dict | None = None):
        """A suite that measures KL to `model`; nothing needs fitting, the name is the encoder suite's."""
        return cls(data, tokenizer, model, length=length, max_blocks=max_blocks)

    def blocks(self, split: str) -> Blocks:
        """The token blocks of a split that are judged."""
        if split not in self._blocks:
            whole = self.data.blocks(self.tokenizer, split, self.length)
            self._blocks[split] = whole.spread(self.max_blocks.get(split))
        return self._blocks[split]

    @property
    def sha256(self) -> str:
        """Identity of text, splits and tokens: results of different suites must not be compared."""
        digest = hashlib.sha256(f"{self.data.sha256} {self.length}".encode())
        for split in ("validation", "test"):
            digest.update(split.encode() + np.ascontiguousarray(self.blocks(split).ids, "<i8").tobytes())
        return digest.hexdigest()

    def evaluate(self, model, split: str = "test", progress: Progress | None = None) -> LanguageResult:
        """Judge `model` on a split; `progress` is called after each batch with (tokens done, tokens in all)."""
        blocks = self.blocks(split)
        log_probs, correct = score_blocks(model, blocks, progress)
        first = first_scored(blocks)
        found = {"clusters": blocks.cluster[:, first:]}
        if self.dense is not None:
            subset = blocks.spread(KL_BLOCKS)
            found |= {"kl": kl_to_dense(model, self.dense, subset), "kl_clusters": subset.cluster[:, first:]}
        return LanguageResult(split, log_probs, correct, **found)

    def quality(self, model, split: str = "validation") -> float:
        """Next-token accuracy in percent: the `quality` callable of `optimize`."""
        return self.evaluate(model, split).quality_pct

    def compare(self, result: LanguageResult, dense: LanguageResult) -> dict:
        """What `result` loses against `dense`: see `compare_language_results`."""
        return compare_language_results(result, dense)

    def save(self, folder) -> Path:
        """Write the suite's identity to `folder`/language.safetensors."""
        path = Path(folder) / SUITE_FILE
        limits = {f"max_blocks.{split}": str(count) for split, count in self.max_blocks.items()}
        save_tensors({}, path, {"suite": self.sha256, "length": str(self.length), **limits})
        return path

    @classmethod
    def load(cls, folder, data: LanguageData, tokenizer, dense=None):
        """Read what `save` wrote; `ArtifactError` when it is missing, damaged, of other data or another tokenizer."""
        path = Path(folder) / SUITE_FILE
        _, meta = load_tensors(path)
        limits = {k.removeprefix("max_blocks."): int(v) for k, v in meta.items() if k.startswith("max_blocks.")}
        suite = cls(data, tokenizer, dense, length=int(meta.get("length", 256)), max_blocks=limits)
        if suite.sha256 != meta.get("suite"):
            raise ArtifactError(f"{path} belongs to other text or another tokenizer; delete it and run the setup again")
        return suite

    def save_result(self, result: LanguageResult, path) -> None:
        """Cache a model's figures per token, so that no stage runs it twice."""
        tensors = {"log_probs": result.log_probs, "correct": result.correct.astype(np.uint8)}
        if result.kl is not None:
            tensors["kl"] = result.kl
        save_tensors(tensors, Path(path), {"split": result.split, "suite": self.sha256})

    def load_result(self, path) -> LanguageResult:
        """Read what `save_result` wrote; `ArtifactError` when it is damaged or of another suite."""
        tensors, meta = load_tensors(Path(path))
        split = meta.get("split")
        if meta.get("suite") != self.sha256 or split not in self.data.splits:
            raise ArtifactError(f"{path} was computed with other text or tokens; delete it and run the stage again")
        blocks = self.blocks(split)
        first = first_scored(blocks)
        kl = tensors.get("kl")
        return LanguageResult(
            split,
            tensors["log_probs"],
            tensors["correct"].astype(bool),
            blocks.cluster[:, first:],
            kl,
            None if kl is None else blocks.spread(KL_BLOCKS).cluster[:, first:],
        )


def first_scored(blocks: Blocks) -> int:
    """Position of the first token that is predicted and is text."""
    return max(1, blocks.opening)


def score_blocks(model, blocks: Blocks, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """log p(right token) float32 (n, S) and whether it is the argmax, bool (n, S), of every scored token.

    Raises `MeasureError` when the model has no logits per token, a token id is out of its range, or a figure is not
    finite.
    """
    first = first_scored(blocks)
    shape = (len(blocks), blocks.ids.shape[1] - first)
    log_probs, correct = np.empty(shape, np.float32), np.empty(shape, bool)
    done = 0
    with torch.inference_mode():
        for rows, logits, targets in _predictions(model, blocks, first):
            right = logits.gather(-1, targets[..., None])[..., 0]
            log_probs[rows] = (right - logits.logsumexp(-1)).cpu().numpy()
            correct[rows] = (logits.argmax(-1) == targets).cpu().numpy()
            done += len(targets) * blocks.ids.shape[1]
            if progress is not None:
                progress(done, blocks.ids.size)
    finite = np.isfinite(log_probs)
    if not finite.all():
        bad = int(np.argmin(finite.all(axis=1)))
        raise MeasureError(f"the model's prediction of a token in block {bad} is not finite; check its weights")
    return log_probs, correct


def kl_to_dense(model, dense, blocks: Blocks) -> np.ndarray:
    """KL(dense ‖ model) = Σ_v p_v (log p_v − log q_v) at each scored token, float32 (n, S), in nats, summed in float64.

    Raises `MeasureError` when the two models have vocabularies of different sizes.
    """
    first = first_scored(blocks)
    found = np.empty((len(blocks), blocks.ids.shape[1] - first), np.float32)
    with torch.inference_mode():
        pairs = zip(_predictions(model, blocks, first), _predictions(dense, blocks, first), strict=True)
        for (rows, logits, _), (_, reference, _) in pairs:
            if logits.shape != reference.shape:
                raise MeasureError(
                    f"the models have {logits.shape[-1]} and {reference.shape[-1]} logits per token; KL to dense needs "
                    "the same vocabulary"
                )
            log_q, log_p = (x.double().log_softmax(-1) for x in (logits, reference.to(logits.device)))
            found[rows] = (log_p.exp() * (log_p - log_q)).sum(-1).float().cpu().numpy()
    return found


def _predictions(model, blocks: Blocks, first: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield (rows, logits (b, S, V) float32, targets (b, S)) of a batch of blocks at a time."""
    device = next(model.parameters()).device
    vocabulary = model.config.vocab_size
    if int(blocks.ids.max()) >= vocabulary:
        raise MeasureError(
            f"token id {int(blocks.ids.max())} is out of the model's range of {vocabulary}; "
            "use the tokenizer the model was trained with"
        )
    start = 0
    for inputs in blocks.batches(min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // vocabulary)):
        input_ids = inputs["input_ids"].to(device)
        logits = getattr(model(input_ids=input_ids, use_cache=False), "logits", None)
        if logits is None or logits.shape[:2] != input_ids.shape:
            raise MeasureError(
                f"{type(model).__name__} gives no logits per token; quality needs a causal language model"
            )
        yield slice(start, start + len(input_ids)), logits[:, first - 1 : -1].float(), input_ids[:, first:]
        start += len(input_ids)


def compare_language_results(result: LanguageResult, dense: LanguageResult) -> dict:
    """Paired comparison of two results on one split; positive drops are losses.

    Tokens are paired and clustered by chapter (both translations of a chapter are one cluster): standard errors by
    `paired_difference`, intervals ± 1.96 of them. `drop_pp` is lost next-token accuracy in percentage points;
    `perplexity_ratio` = exp(mean(log p_dense − log p_model)), 1.01 is one percent worse; `kl` in nats per token, None
    when the judge had no dense model. Raises `MeasureError` when the results are not of the same tokens.
    """
    if result.split != dense.split or result.log_probs.shape != dense.log_probs.shape:
        raise MeasureError(
            f"results of '{dense.split}' {dense.log_probs.shape} and '{result.split}' {result.log_probs.shape} "
            "are not comparable; evaluate both models with one suite on one split"
        )
    clusters = dense.clusters.ravel()
    accuracy = paired_difference(dense.correct.ravel(), result.correct.ravel(), clusters=clusters)
    drop = {key: accuracy[key] for key in ("drop_pp", "se_pp", "ci95")}
    log_ratio, log_se = _mean(dense.log_probs.astype(np.float64) - result.log_probs, clusters)
    kl, kl_se = (None, None) if result.kl is None else _mean(result.kl, result.kl_clusters)
    return {
        **drop,
        "dense_pct": dense.quality_pct,
        "pct": result.quality_pct,
        "per_task": {NEXT_TOKEN: {"dense_pct": dense.quality_pct, "pct": result.quality_pct, **drop}},
        "dense_perplexity": dense.perplexity,
        "perplexity": result.perplexity,
        "perplexity_ratio": float(np.exp(log_ratio)),
        "perplexity_ratio_ci95": [float(np.exp(log_ratio + side * Z95 * log_se)) for side in (-1, 1)],
        "kl": kl,
        "kl_ci95": None if kl is None else [kl - Z95 * kl_se, kl + Z95 * kl_se],
        "kl_items": 0 if kl is None else result.kl.size,
        "cosine": None,
        "n_items": result.n_items,
        "n_clusters": accuracy["n_clusters"],
        "method": "paired by token, clustered by chapter; normal interval",
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
    found = paired_difference(values.ravel(), np.zeros(values.size), clusters=clusters.ravel())
    return found["drop_pp"] / 100, found["se_pp"] / 100
