"""Quality of a text encoder in percent, and how much of it a smaller model loses, with a paired interval.

The probes are fitted once, on the *dense* model's embeddings, and then judge every model: a model that keeps the dense
function keeps its score. Tasks: each label of the data (linear probe, or the model's own head) and, for data with two
views, retrieval of an item's second view from its first (top 1 among the split's items).
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icd_lib.data.batches import encode, token_batches
from icd_lib.data.text import TextData
from icd_lib.errors import ArtifactError, MeasureError

RETRIEVAL = "retrieval"
TOKENS_PER_BATCH = 2048
PROBE_SHRINKAGE = 0.03  # chosen once on the dense model's validation data: same accuracy, better likelihood
Z95 = 1.959964
_SIMILARITY_ROWS = 2048
Progress = Callable[[int, int], None]  # (tokens done, tokens in all)


@dataclass(frozen=True)
class Probe:
    """A linear classifier: `weight` (classes, D), `bias` (classes,), float64; `classes` its labels (classes,) int64."""

    weight: np.ndarray
    bias: np.ndarray
    classes: np.ndarray

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        return embeddings.astype(np.float64) @ self.weight.T + self.bias


@dataclass(frozen=True)
class QualityResult:
    """One model on one split of n items in v views.

    `correct`: task -> bool (n, v), (n, 1) for retrieval. `embeddings`: float32 (v, n, D), unit length.
    `log_probabilities`: labelled task -> float64 (v, n, classes).
    `head_logits`: float32 (v, n, classes) when the model's own head was judged, else None.
    """

    split: str
    correct: dict[str, np.ndarray]
    embeddings: np.ndarray
    log_probabilities: dict[str, np.ndarray]
    head_logits: np.ndarray | None = None

    @property
    def per_task_pct(self) -> dict[str, float]:
        return {task: float(100 * hits.mean()) for task, hits in self.correct.items()}

    @property
    def quality_pct(self) -> float:
        """Mean accuracy over the tasks, in percent."""
        return float(np.mean(list(self.per_task_pct.values())))

    @property
    def n_items(self) -> int:
        """Texts judged: items × views."""
        return self.embeddings.shape[0] * self.embeddings.shape[1]


class EncoderSuite:
    """Tokenised splits, probes and the judge. Build it with `EncoderSuite.fit` or `EncoderSuite.load`."""

    def __init__(self, data: TextData, tokenizer, probes: dict[str, Probe], *, max_length: int = 128):
        self.data = data
        self.tokenizer = tokenizer
        self.probes = probes
        self.max_length = max_length
        self._sequences: dict[str, list[list[int]]] = {}

    @classmethod
    def fit(cls, data: TextData, tokenizer, model, *, max_length: int = 128, progress: Progress | None = None):
        """Fit one probe per labelled task on the dense `model`'s embeddings of the probe split.

        A model with a classification head of as many classes as the one labelled task is judged by its own logits.
        """
        suite = cls(data, tokenizer, {}, max_length=max_length)
        if _uses_own_head(model, data):
            return suite
        embeddings, _ = suite._forward(model, "probe", progress)
        flat = embeddings.reshape(-1, embeddings.shape[-1])
        for task, labels in data.labels.items():
            suite.probes[task] = fit_probe(flat, np.tile(labels[data.splits["probe"]], len(data.views)))
        return suite

    @property
    def sha256(self) -> str:
        """Identity of the data, its splits and the probes: results of different suites must not be compared."""
        digest = hashlib.sha256(f"{self.data.provenance.get('sha256')} {self.max_length}".encode())
        for name in sorted(self.data.splits):
            digest.update(name.encode() + np.ascontiguousarray(self.data.splits[name], "<i8").tobytes())
        for task in sorted(self.probes):
            digest.update(task.encode() + np.ascontiguousarray(self.probes[task].weight, "<f8").tobytes())
        return digest.hexdigest()

    def evaluate(self, model, split: str = "test", progress: Progress | None = None) -> QualityResult:
        """Judge `model` on a split; `progress` is called after each batch with (tokens done, tokens in all)."""
        return self.score(*self._forward(model, split, progress), split)

    def score(self, embeddings: np.ndarray, head_logits: np.ndarray | None, split: str) -> QualityResult:
        """Result for given outputs: embeddings (v, n, D) float32, head logits (v, n, classes) or None."""
        items = self.data.splits[split]
        correct, log_probabilities = {}, {}
        for task, labels in self.data.labels.items():
            if head_logits is not None:
                logits, classes = head_logits.astype(np.float64), np.arange(head_logits.shape[-1])
            else:
                probe = self.probes[task]
                logits, classes = probe.logits(embeddings), probe.classes
            correct[task] = (classes[logits.argmax(-1)] == labels[items]).T
            log_probabilities[task] = log_softmax(logits)
        if self.data.retrieval:
            found = nearest(embeddings[0], embeddings[1])
            groups = self.data.groups[items]
            correct[RETRIEVAL] = (groups[found] == groups)[:, None]
        return QualityResult(split, correct, embeddings, log_probabilities, head_logits)

    def quality(self, model, split: str = "validation") -> float:
        """Mean accuracy over the tasks in percent: the `quality` callable of `optimize`."""
        return self.evaluate(model, split).quality_pct

    def save(self, folder) -> Path:
        """Write the probes to `folder`/probes.safetensors."""
        tensors = {}
        for task, probe in self.probes.items():
            tensors |= {f"{task}.weight": probe.weight, f"{task}.bias": probe.bias, f"{task}.classes": probe.classes}
        path = Path(folder) / "probes.safetensors"
        save_tensors(
            tensors, path, {"tasks": " ".join(self.probes), "suite": self.sha256, "max_length": str(self.max_length)}
        )
        return path

    @classmethod
    def load(cls, folder, data: TextData, tokenizer):
        """Read what `save` wrote; `ArtifactError` when it is missing, damaged or of other data."""
        path = Path(folder) / "probes.safetensors"
        tensors, meta = load_tensors(path)
        probes = {
            task: Probe(tensors[f"{task}.weight"], tensors[f"{task}.bias"], tensors[f"{task}.classes"])
            for task in meta.get("tasks", "").split()
        }
        suite = cls(data, tokenizer, probes, max_length=int(meta.get("max_length", 0)))
        if suite.sha256 != meta.get("suite"):
            raise ArtifactError(f"{path} belongs to other data or other splits; delete it and run the setup again")
        return suite

    def save_result(self, result: QualityResult, path) -> None:
        """Cache a model's outputs on a split (float32 embeddings, and head logits), so that no stage runs it twice."""
        tensors = {"embeddings": result.embeddings}
        if result.head_logits is not None:
            tensors["head_logits"] = result.head_logits
        save_tensors(tensors, Path(path), {"split": result.split, "suite": self.sha256})

    def load_result(self, path) -> QualityResult:
        """Read what `save_result` wrote and score it again; `ArtifactError` when it is of another suite."""
        tensors, meta = load_tensors(Path(path))
        if meta.get("suite") != self.sha256 or meta.get("split") not in self.data.splits:
            raise ArtifactError(f"{path} was computed with other data or probes; delete it and run the stage again")
        return self.score(tensors["embeddings"], tensors.get("head_logits"), meta["split"])

    def compare(self, result: QualityResult, dense: QualityResult) -> dict:
        """What `result` loses against `dense`: see `compare_results`."""
        return compare_results(result, dense)

    def _forward(self, model, split: str, progress: Progress | None) -> tuple[np.ndarray, np.ndarray | None]:
        if split not in self.data.splits:
            raise MeasureError(f"split '{split}' is not one of {sorted(self.data.splits)}")
        if split not in self._sequences:
            self._sequences[split] = encode(self.tokenizer, self.data.texts(split), self.max_length)
        sequences = self._sequences[split]
        outputs = embed(model, sequences, own_head=_uses_own_head(model, self.data), progress=progress)
        shape = (len(self.data.views), len(self.data.splits[split]), -1)
        return tuple(None if x is None else x.reshape(shape) for x in outputs)


def embed(
    model, sequences: list[list[int]], *, own_head: bool = False, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean-pooled, L2-normalised embeddings (n, D) float32 of token sequences, and head logits (n, classes) or None.

    Raises `MeasureError` when the model returns something that is not finite.
    """
    encoder = model if own_head else getattr(model, "base_model", model)  # without a task head the encoder alone runs
    extra = {"output_hidden_states": True} if own_head else {}
    total, done = sum(map(len, sequences)), 0
    embeddings = logits = None
    with torch.inference_mode():
        for indices, input_ids, mask in token_batches(sequences, TOKENS_PER_BATCH):
            output = encoder(input_ids=input_ids, attention_mask=mask, **extra)
            hidden = output.hidden_states[-1] if own_head else output.last_hidden_state
            pooled = mean_pool(hidden, mask)
            if embeddings is None:
                embeddings = np.empty((len(sequences), pooled.shape[1]), np.float32)
                logits = np.empty((len(sequences), output.logits.shape[1]), np.float32) if own_head else None
            embeddings[indices] = pooled.float().numpy()
            if own_head:
                logits[indices] = output.logits.float().numpy()
            done += sum(len(sequences[i]) for i in indices)
            if progress is not None:
                progress(done, total)
    if embeddings is None:
        raise MeasureError("there is no text to embed; give data.test_items, validation_items and probe_items above 0")
    if not np.isfinite(embeddings).all():
        bad = int(np.argmin(np.isfinite(embeddings).all(axis=1)))
        raise MeasureError(f"the model's embedding of text {bad} is not finite; check its weights")
    return embeddings, logits


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the unmasked tokens of hidden (B, L, D), mask (B, L), then scaled to unit length: (B, D)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


def fit_probe(embeddings: np.ndarray, labels: np.ndarray) -> Probe:
    """Linear discriminant analysis of labels (n,) on embeddings (n, D), in closed form and float64.

    Logit of class c: x·S⁻¹m_c − ½ m_c·S⁻¹m_c + log(share of c), S the pooled covariance shrunk towards its mean
    variance. It takes a second where 66-way logistic regression takes minutes, and was no less accurate than 100 of
    its L-BFGS steps on validation data of the embedded corpus.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    classes = np.unique(labels)
    if len(classes) < 2:
        raise MeasureError(f"a probe needs two classes, the probe split has {len(classes)}; raise data.probe_items")
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=PROBE_SHRINKAGE)
    fitted.fit(embeddings.astype(np.float64), labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(classes) == 2:  # sklearn keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(weight, bias, classes)


def nearest(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Index of the candidate with the largest inner product for each query (n, D) -> (n,); ties to the lowest index."""
    keys = torch.from_numpy(np.ascontiguousarray(candidates)).T
    rows = torch.from_numpy(np.ascontiguousarray(queries)).split(_SIMILARITY_ROWS)
    return torch.cat([(row @ keys).argmax(1) for row in rows]).numpy()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log p over the last axis, shifted by the maximum for stability."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def compare_results(result: QualityResult, dense: QualityResult) -> dict:
    """Paired comparison of two results on one split; positive drops are losses, in percentage points.

    An item (its views and tasks together) is one cluster: with d_i the mean over tasks and views of
    dense correct − model correct, drop = mean d_i, se = std(d_i) / √n, ci95 = drop ± 1.96 se. `cosine` is the mean
    inner product of the two models' embeddings, `kl` the mean KL(dense ‖ model) of the labelled tasks, in nats.
    Raises `MeasureError` when the results are not of the same split and tasks.
    """
    if result.split != dense.split or result.correct.keys() != dense.correct.keys():
        raise MeasureError(
            f"results of '{dense.split}' {sorted(dense.correct)} and '{result.split}' {sorted(result.correct)} "
            "are not comparable; evaluate both models with one suite on one split"
        )
    if result.embeddings.shape[:2] != dense.embeddings.shape[:2]:
        raise MeasureError(f"the results have {result.n_items} and {dense.n_items} texts; evaluate one split with both")
    losses = {
        task: (dense.correct[task].astype(np.float64) - result.correct[task]).mean(axis=1) for task in dense.correct
    }
    per_task = {
        task: {"dense_pct": dense.per_task_pct[task], "pct": result.per_task_pct[task], **_drop(loss)}
        for task, loss in losses.items()
    }
    return {
        **_drop(np.mean(list(losses.values()), axis=0)),
        "dense_pct": dense.quality_pct,
        "pct": result.quality_pct,
        "per_task": per_task,
        "cosine": mean_cosine(result.embeddings, dense.embeddings),
        "kl": _mean_kl(dense.log_probabilities, result.log_probabilities),
        "n_items": result.n_items,
        "n_clusters": len(next(iter(losses.values()))),
        "method": "paired, clustered by item; normal interval",
    }


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Mean inner product of unit embeddings (..., D); None when the widths differ."""
    if a.shape != b.shape:
        return None
    return float(np.einsum("...d,...d->...", a, b, dtype=np.float64).mean())


def _drop(loss: np.ndarray) -> dict:
    drop = float(100 * loss.mean())
    se = float(100 * loss.std(ddof=1) / math.sqrt(len(loss))) if len(loss) > 1 else math.inf
    return {"drop_pp": drop, "se_pp": se, "ci95": [drop - Z95 * se, drop + Z95 * se]}


def _mean_kl(dense: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return float(np.mean([(np.exp(p) * (p - other[task])).sum(-1).mean() for task, p in dense.items()]))


def _uses_own_head(model, data: TextData) -> bool:
    """The model has a classification head with as many classes as the data's only labelled task."""
    if len(data.labels) != 1 or not type(model).__name__.endswith("ForSequenceClassification"):
        return False
    (labels,) = data.labels.values()
    return model.config.num_labels == int(labels.max()) + 1


def save_tensors(tensors: dict[str, np.ndarray], path: Path, meta: dict[str, str]) -> None:
    """Write arrays and words as safetensors, wholly or not at all; `ArtifactError` where that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, partial, metadata=meta)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ArtifactError(f"cannot write {path} ({error}); check the free space and the rights of --out") from error


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What `save_tensors` wrote; `ArtifactError` if it is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is missing or damaged ({error}); run the stage that writes it again") from error
