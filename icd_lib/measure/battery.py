"""Quality of a text encoder over many domains, three readings of each task, paired against the dense model.

*own*: the field's protocol (Muennighoff et al. 2023, MTEB): probes are fitted on the judged model's own embeddings, and
retrieval looks among its own. *drop-in*: probes and index are the dense model's, the judged model only embeds the
texts that are asked about. *cosine*: mean inner product of the two models' embeddings.

A domain's tasks are of two sorts: *labelled* (labels that people or the text's own structure give, the reply or other
wording of a text, another text of the same document) and *topics* (binary attributes of the words). The sorts weigh
one half each, so that many easy topics cannot hide what labels lose; `own_labelled` is own over labelled tasks alone.
Probes are ridge regressions on one-hot labels, cross-fitted in `FOLDS` parts of whole documents, so that no text is
judged by a probe that has seen its document; all tasks of a domain share one factorisation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from icd_lib.data.batches import encode
from icd_lib.data.domains.domain import DomainText
from icd_lib.errors import ArtifactError, MeasureError
from icd_lib.measure.embed import Progress, embed
from icd_lib.measure.statistics import Z95
from icd_lib.measure.topics import topic_labels
from icd_lib.storage.tensor_file import load_tensors, save_tensors

FOLDS = 5
PROBE_RIDGE = 0.05  # of the mean diagonal of the second moments; chosen once on dense embeddings
READINGS = ("own", "dropin")
LABELLED, TOPIC = "labelled", "topic"
METHOD = "mean over domains, paired with dense, clustered by text; normal interval"
_ROWS = 2048


@dataclass(frozen=True)
class Task:
    """What is asked of a domain's texts.

    `rows` (m,): the texts that it asks about. A probe has `labels` (n,). A search has `candidates` (c,), the texts to
    look among, `answers` (c,), what each of them would answer, and `wanted` (m,); a text is never its own answer.
    """

    name: str
    sort: str  # LABELLED or TOPIC
    rows: np.ndarray
    labels: np.ndarray | None = None
    candidates: np.ndarray | None = None
    answers: np.ndarray | None = None
    wanted: np.ndarray | None = None


def tasks_of(domain: DomainText) -> list[Task]:
    """Everything that the battery asks of a domain."""
    everything = np.arange(len(domain))
    probes = [(name, LABELLED, labels) for name, labels in domain.labels.items()]
    probes += [(name, TOPIC, labels) for name, labels in topic_labels(domain.texts).items()]
    tasks = [Task(name, sort, everything, labels) for name, sort, labels in probes if len(np.unique(labels)) > 1]
    if domain.same_document:
        documents, counts = np.unique(domain.documents, return_counts=True)
        rows = np.flatnonzero(np.isin(domain.documents, documents[counts > 1]))
        if len(documents) > 1 and len(rows):
            wanted = domain.documents[rows]
            tasks.append(Task("same document", LABELLED, rows, None, everything, domain.documents, wanted))
    if domain.pairs is not None and len(domain.pairs) > 1:
        asked, replies = domain.pairs.T
        candidates = np.unique(replies)
        answers, wanted = domain.documents[candidates], domain.documents[replies]
        tasks.append(Task("counterpart", LABELLED, asked, None, candidates, answers, wanted))
    return tasks


class DomainJudge:
    """The tasks of one domain and the dense model's outputs on its texts: embeddings (n, D) float32, unit length.

    With `head_logits` (n, classes) of the dense model, a domain with one label is judged by the models' own heads.
    """

    def __init__(self, domain: DomainText, dense: np.ndarray, head_logits: np.ndarray | None = None, seed: int = 0):
        self.domain, self.dense = domain, dense
        self.tasks = tasks_of(domain)
        if head_logits is not None:
            self.tasks = [task for task in self.tasks if task.labels is not None and task.sort == LABELLED]
        self.by_head = head_logits is not None
        self.probed = [task for task in self.tasks if task.labels is not None]
        documents, inverse = np.unique(domain.documents, return_inverse=True)
        self.folds = (np.random.default_rng(seed).permutation(len(documents)) % FOLDS)[inverse]
        self.targets, self.spans = _one_hot([task.labels for task in self.probed], len(domain))
        self.probes = [] if self.by_head else self.fit(dense)
        self.dense_correct = self._score(self.probes, dense, dense, head_logits)

    @property
    def dense_pct(self) -> float:
        """The dense model's accuracy in percent, mean over tasks with the weights of `_weights`."""
        return 100 * sum(w * float(self.dense_correct[name].mean()) for name, w in _weights(self.tasks).items())

    def fit(self, embeddings: np.ndarray) -> list[np.ndarray]:
        """One matrix (D + 1, columns of all tasks) per fold, fitted on the other folds."""
        x = _with_ones(embeddings)
        gram, cross = x.T @ x, x.T @ self.targets
        ridge = PROBE_RIDGE * float(np.trace(gram)) / len(gram) * np.eye(len(gram))
        probes = []
        for fold in range(FOLDS):
            out = self.folds == fold
            left = gram - x[out].T @ x[out] + ridge
            probes.append(np.linalg.solve(left, cross - x[out].T @ self.targets[out]))
        return probes

    def _score(self, probes: list[np.ndarray], queries: np.ndarray, index: np.ndarray, logits=None) -> dict:
        """Task → bool (rows,): texts embedded as `queries`, judged by `probes` (or `logits`), looked for in `index`."""
        if self.by_head:
            return {task.name: logits.argmax(1) == task.labels for task in self.probed}
        scores, x = np.empty((len(queries), self.targets.shape[1])), _with_ones(queries)
        for fold, probe in enumerate(probes):
            out = self.folds == fold
            scores[out] = x[out] @ probe
        correct = {}
        for task, (start, end) in zip(self.probed, self.spans, strict=True):
            correct[task.name] = scores[:, start:end].argmax(1) == self.targets[:, start:end].argmax(1)
        for task in self.tasks:
            if task.labels is None:
                neighbours = nearest(queries[task.rows], index[task.candidates], task.rows, task.candidates)
                correct[task.name] = task.answers[neighbours] == task.wanted
        return correct

    def read(self, embeddings: np.ndarray, head_logits: np.ndarray | None = None) -> dict[str, dict[str, np.ndarray]]:
        """Reading → task → bool (rows,) of a model's outputs."""
        if self.by_head:
            return dict.fromkeys(READINGS, self._score([], embeddings, embeddings, head_logits))
        own = self._score(self.fit(embeddings), embeddings, embeddings)
        return {"own": own, "dropin": self._score(self.probes, embeddings, self.dense)}

    def compare(self, embeddings: np.ndarray, head_logits: np.ndarray | None = None) -> dict:
        """{"n", "cosine", "tasks", "own", "own_labelled", "dropin"} of a model against dense.

        The three readings are {"drop_pp", "se_pp", "dense_pct", "pct"}, means over tasks with the weights of
        `_weights`. The standard error is that of a mean over texts: a text's share is the sum of its centred losses,
        each times the weight of the task over the rows of the task.
        """
        read, tasks = self.read(embeddings, head_logits), {}
        losses: dict[str, dict[str, np.ndarray]] = {reading: {} for reading in READINGS}
        for task in self.tasks:
            dense = self.dense_correct[task.name]
            entry = {"sort": task.sort, "n": len(dense), "dense_pct": 100 * float(dense.mean())}
            for reading in READINGS:
                loss = losses[reading][task.name] = dense.astype(np.float64) - read[reading][task.name]
                entry[reading] = {"drop_pp": 100 * float(loss.mean()), "se_pp": 100 * _standard_error(loss)}
            tasks[task.name] = entry
        everything, labelled = _weights(self.tasks), _weights([t for t in self.tasks if t.sort == LABELLED])
        chosen = {"own": ("own", everything), "dropin": ("dropin", everything)}
        if labelled:
            chosen["own_labelled"] = ("own", labelled)
        return {
            "n": len(self.domain),
            "cosine": mean_cosine(embeddings, self.dense),
            "tasks": tasks,
            **{name: self._weighed(losses[reading], weights) for name, (reading, weights) in chosen.items()},
        }

    def _weighed(self, losses: dict[str, np.ndarray], weights: dict[str, float]) -> dict:
        share, drop, dense = np.zeros(len(self.domain)), 0.0, 0.0
        for task in self.tasks:
            if task.name in weights:
                loss, weight = losses[task.name], weights[task.name]
                np.add.at(share, task.rows, weight * (loss - loss.mean()) / len(loss))
                drop += weight * float(loss.mean())
                dense += weight * float(self.dense_correct[task.name].mean())
        se = 100 * math.sqrt(float((share**2).sum()))
        return {"drop_pp": 100 * drop, "se_pp": se, "dense_pct": 100 * dense, "pct": 100 * (dense - drop)}


@dataclass(frozen=True)
class BatteryResult:
    """One model's outputs on one split: domain → embeddings (n, D) float32, and head logits where a head judges."""

    split: str
    embeddings: dict[str, np.ndarray]
    head_logits: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        """Texts judged."""
        return sum(map(len, self.embeddings.values()))


class Battery:
    """The judge of an encoder. `judged`: split → domain → text."""

    def __init__(self, judged: Mapping[str, Mapping[str, DomainText]], tokenizer, *, max_length: int = 128):
        self.judged, self.tokenizer, self.max_length = judged, tokenizer, max_length
        self._judges: dict[str, tuple[BatteryResult, dict[str, DomainJudge]]] = {}

    @cached_property
    def sha256s(self) -> dict[str, dict[str, str]]:
        """Identity of every text that is judged."""
        return {
            split: {name: f"{text.sha256}-{self.max_length}" for name, text in texts.items()}
            for split, texts in self.judged.items()
        }

    def domains(self, split: str) -> Mapping[str, DomainText]:
        """The domains of a split that have text; `MeasureError` for a split that there is not, or without any."""
        if split not in self.judged:
            raise MeasureError(f"split '{split}' is not one of {sorted(self.judged)}")
        domains = {name: text for name, text in self.judged[split].items() if len(text)}
        if not domains:
            cure = "empty data.selection, then parts of the seen domains choose"
            if split != "validation":
                cure = f"name its domains in data.{split}, or more data.test_items"
            raise MeasureError(f"no text is judged as '{split}'; {cure}")
        return domains

    def evaluate(self, model, split: str = "unseen", progress: Progress | None = None) -> BatteryResult:
        """The model's outputs on a split; `progress` is called with (texts done, texts in all)."""
        domains = self.domains(split)
        embeddings, logits, done, total = {}, {}, 0, sum(map(len, domains.values()))
        for name, text in domains.items():
            own_head = uses_own_head(model, text)
            sequences = encode(self.tokenizer, text.texts, self.max_length)
            embeddings[name], head = embed(model, sequences, own_head=own_head)
            if own_head:
                logits[name] = head
            done += len(text)
            if progress is not None:
                progress(done, total)
        return BatteryResult(split, embeddings, logits)

    def compare(self, result: BatteryResult, dense: BatteryResult) -> dict:
        """What a model loses against dense on a split, for files and pages.

        {"split", "n_items", "own", "own_labelled", "dropin", "cosine", "worst_domain", "domains"}: the readings are
        {"drop_pp", "se_pp", "ci95", "dense_pct", "pct"}, each the mean over domains; `cosine` {"value", "ci95"} with an
        interval over domains' texts; `worst_domain` is the one with the largest own loss.
        Raises `MeasureError` when the results are of different splits or texts.
        """
        if result.split != dense.split or result.embeddings.keys() != dense.embeddings.keys():
            raise MeasureError(f"results of '{dense.split}' and '{result.split}' are not comparable")
        judges = self._judges_of(dense)
        domains = {name: judges[name].compare(result.embeddings[name], result.head_logits.get(name)) for name in judges}
        losses = {"split": result.split, "n_items": result.n_items, "method": METHOD}
        for reading in ("own", "own_labelled", "dropin"):
            losses[reading] = over_domains([entry[reading] for entry in domains.values() if reading in entry])
        cosines = [
            (result.embeddings[name].astype(np.float64) * dense.embeddings[name]).sum(1)
            for name in judges
            if result.embeddings[name].shape == dense.embeddings[name].shape
        ]
        losses["cosine"] = _mean_of_means(cosines)
        losses["worst_domain"] = max(domains, key=lambda name: domains[name]["own"]["drop_pp"])
        return losses | {"domains": domains}

    def _judges_of(self, dense: BatteryResult) -> dict[str, DomainJudge]:
        known = self._judges.get(dense.split)
        if known is None or known[0] is not dense:
            self._judges[dense.split] = known = (dense, self._judged_by(dense))
        return known[1]

    def _judged_by(self, result: BatteryResult) -> dict[str, DomainJudge]:
        """Domain → judge with `result` as the dense model's; `MeasureError` where a domain leaves nothing to ask."""
        judges = {}
        for name, text in self.domains(result.split).items():
            judge = judges[name] = DomainJudge(text, result.embeddings[name], result.head_logits.get(name))
            if not judge.tasks:  # it would count as a domain that loses nothing
                raise MeasureError(
                    f"nothing can be asked of the {len(text)} '{result.split}' texts of the domain '{name}': no label "
                    "has two values, no word is in two of them; raise data.test_items or leave the domain out"
                )
        return judges

    def save_result(self, result: BatteryResult, path) -> None:
        """Keep a model's outputs on a split, so that no stage runs it twice."""
        tensors = {f"embeddings/{name}": x for name, x in result.embeddings.items()}
        tensors |= {f"logits/{name}": x for name, x in result.head_logits.items()}
        save_tensors(tensors, Path(path), {"split": result.split, **self.sha256s[result.split]})

    def load_result(self, path) -> BatteryResult:
        """Read what `save_result` wrote; `ArtifactError` when it is damaged or of other texts."""
        tensors, meta = load_tensors(Path(path))
        split = meta.pop("split", "")
        if split not in self.judged or meta != self.sha256s[split]:
            raise ArtifactError(f"{path} was computed on other texts; delete it and run the stage again")
        parts: dict[str, dict[str, np.ndarray]] = {"embeddings": {}, "logits": {}}
        for key, tensor in tensors.items():
            what, _, name = key.partition("/")
            parts[what][name] = tensor
        order = list(self.judged[split])
        kept = {what: {name: found[name] for name in order if name in found} for what, found in parts.items()}
        return BatteryResult(split, kept["embeddings"], kept["logits"])

    def quality(self, model, split: str = "selection") -> float:
        """Mean own accuracy in percent: a `quality` callable for `icd.optimize`."""
        return float(np.mean([judge.dense_pct for judge in self._judged_by(self.evaluate(model, split)).values()]))


def over_domains(readings: list[dict]) -> dict | None:
    """The mean over domains, each weighing the same, with its standard error; None without any."""
    if not readings:
        return None
    drop, dense, pct = (float(np.mean([entry[key] for entry in readings])) for key in ("drop_pp", "dense_pct", "pct"))
    se = math.sqrt(sum(entry["se_pp"] ** 2 for entry in readings)) / len(readings)
    return {"drop_pp": drop, "se_pp": se, "ci95": [drop - Z95 * se, drop + Z95 * se], "dense_pct": dense, "pct": pct}


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Mean inner product of unit embeddings (n, D); None when the widths differ."""
    if a.shape != b.shape:
        return None
    return float(np.einsum("nd,nd->n", a, b, dtype=np.float64).mean())


def uses_own_head(model, text: DomainText) -> bool:
    """The model has a classification head with as many classes as the user's own domain has labels."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return False
    return model.config.num_labels == text.head_classes


def nearest(queries: np.ndarray, candidates: np.ndarray, rows: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Place of each query's nearest candidate that is another text, (m,); ties to the lowest place.

    queries (m, D), candidates (c, D); rows (m,) and names (c,) say which text each of them is.
    """
    keys = torch.from_numpy(np.ascontiguousarray(candidates)).T
    own, indices = torch.from_numpy(names), []
    for start in range(0, len(queries), _ROWS):
        part = torch.from_numpy(np.ascontiguousarray(queries[start : start + _ROWS])) @ keys
        part.masked_fill_(torch.from_numpy(rows[start : start + _ROWS])[:, None] == own[None], -torch.inf)
        indices.append(part.argmax(1))
    return torch.cat(indices).numpy()


def _weights(tasks: list[Task]) -> dict[str, float]:
    """Both sorts of task weigh the same, and within a sort every task."""
    counts = {sort: sum(task.sort == sort for task in tasks) for sort in {task.sort for task in tasks}}
    return {task.name: 1 / (len(counts) * counts[task.sort]) for task in tasks}


def _one_hot(labels: list[np.ndarray], rows: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(rows, columns) float64 with one span of columns per task, and the spans."""
    parts, spans, start = [np.empty((rows, 0))], [], 0
    for values in labels:
        classes, codes = np.unique(values, return_inverse=True)
        parts.append(np.eye(len(classes))[codes])
        spans.append((start, start + len(classes)))
        start += len(classes)
    return np.concatenate(parts, axis=1), spans


def _with_ones(embeddings: np.ndarray) -> np.ndarray:
    return np.concatenate([embeddings, np.ones((len(embeddings), 1), embeddings.dtype)], axis=1).astype(np.float64)


def _standard_error(loss: np.ndarray) -> float:
    return float(loss.std(ddof=1)) / math.sqrt(len(loss)) if len(loss) > 1 else math.inf


def _mean_of_means(groups: list[np.ndarray]) -> dict | None:
    """{"value", "ci95"}: the mean over groups of their means, with the interval that the spread within them gives."""
    if not groups:
        return None
    value = float(np.mean([group.mean() for group in groups]))
    se = math.sqrt(sum(_standard_error(group) ** 2 for group in groups if len(group) > 1)) / len(groups)
    return {"value": value, "ci95": [value - Z95 * se, value + Z95 * se]}
