"""Tables of quality: every arm on seen and on unseen text, and the result by domain and by task."""

import numpy as np

from icd_lib.experiment.arms import DENSE
from icd_lib.metric import Figure
from icd_lib.records.losses import TaskLoss
from icd_lib.report.losses import NEARNESS, flagged, lost, near, precise, readings, text_words, what_it_is, who_labelled
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Table
from icd_lib.report.words import value_text

TOPICS = "word topics"
_LABELS = {
    "same document": "the text's own documents",
    "counterpart": "its reply or other wording",
    "next_token": "the text's next token",
}
NOTE = (
    "measured once, at the end; positive = worse than dense. Own: probes and retrieval on the judged model's own "
    "embeddings, as in MTEB; drop-in: probes and index stay the dense model's. Brackets: 95 % CI, paired with dense"
)
TOPIC_NOTE = "Word topics: in which half of its domain a text is, by its words; both sorts of task weigh one half each"
LANGUAGE_NOTE = "measured once, at the end; positive = worse than dense. Brackets: 95 % CI, paired with dense by token"


def side_by_side(results: Results) -> Table | Missing:
    """Every arm and split: own quality and what is lost of it in every reading, nearness to dense, the worst domain."""
    title = "Quality, seen and unseen text side by side"
    if results.quality_reason:
        return Missing(title, f"not_measured: {results.quality_reason}")
    kinds = _kinds(results)
    rows = [_dense_row(results, split, len(readings(results)) + len(kinds)) for split in results.splits]
    rows += [
        _arm_row(results, arm, split, kinds)
        for arm in results.arms
        for split in results.splits
        if split in results.lost(arm)
    ]
    columns = ["arm", "text", "own quality", *_lost_columns(results), *(NEARNESS[key] for key in kinds)]
    note = f"{_note(results)}. {_budget_note(results)}"
    return Table(title, [*columns, "worst domain, own", "n"], rows, note)


def _dense_row(results: Results, split: str, empty: int) -> list:
    entry = results.measure.quality.dense[split]
    own = f"{entry.quality_pct:.2f} %"
    return ["dense", text_words(results, split), own, "the reference", *["–"] * empty, f"{entry.n_items:,}"]


def _arm_row(results: Results, arm: str, split: str, kinds: list[str]) -> list:
    entry = results.lost(arm)[split]
    n, worst = entry.n_items, entry.worst_domain
    losses = [flagged(results, split, key, lost(entry.reading(key), n)) for key in readings(results)]
    domain = entry.domains.get(worst)
    named = f"{worst}: {value_text(domain.own.drop_pp, 'pp')}" if domain else worst
    cells = [*losses, *(precise(near(entry, key, n)) for key in kinds), named]
    name = "dense, deployed" if arm == DENSE else arm
    return [name, text_words(results, split), f"{entry.own.pct:.2f} %", *cells, f"{n:,}"]


def by_domain(results: Results) -> Table | Missing:
    """What iterative loses in every domain, seen and unseen."""
    title, kinds = "Quality by domain, iterative", _kinds(results)
    if not results.lost("iterative"):
        return Missing(title, results.quality_reason or "the run has no iterative arm")
    rows = []
    for split, entry in results.lost("iterative").items():
        for name, part in entry.domains.items():
            n = part.n
            losses = [flagged(results, split, key, lost(part.reading(key), n)) for key in readings(results)]
            dense = f"{part.own.dense_pct:.2f} %"
            nearness = [precise(near(part, key, n)) for key in kinds]
            rows.append([name, what_it_is(name), text_words(results, split), f"{n:,}", dense, *losses, *nearness])
    columns = ["domain", "what it is", "text", "n", "dense", *_lost_columns(results)]
    return Table(title, [*columns, *(NEARNESS[key] for key in kinds)], rows, _note(results))


def by_task(results: Results) -> Table | Missing:
    """What iterative loses in every labelled task; the topics of a domain are one row."""
    title = "Quality by task, iterative"
    if not results.lost("iterative"):
        return Missing(title, results.quality_reason or "the run has no iterative arm")
    rows = []
    for split, entry in results.lost("iterative").items():
        for name, part in entry.domains.items():
            labelled = {task: loss for task, loss in part.tasks.items() if loss.sort == "labelled"}
            topics = [loss for task, loss in part.tasks.items() if task not in labelled]
            rows += [_task_row(results, name, split, task, loss) for task, loss in labelled.items()]
            rows += [_topics_row(results, name, split, topics)] if topics else []
    columns = ["domain", "text", "task", "labels", "n", "dense", *_task_columns(results)]
    return Table(title, columns, rows, LANGUAGE_NOTE if results.is_language else f"{NOTE}. {TOPIC_NOTE}")


def _task_row(results: Results, domain: str, split: str, task: str, loss: TaskLoss) -> list:
    n, labels = loss.n, _LABELS.get(task) or who_labelled(domain)
    losses = [flagged(results, split, "task", lost(loss.reading(key), n)) for key in _task_readings(results)]
    return [domain, text_words(results, split), task, labels, f"{n:,}", f"{loss.dense_pct:.2f} %", *losses]


def _topics_row(results: Results, domain: str, split: str, topics: list[TaskLoss]) -> list:
    """The mean over a domain's topics; its error is that of the domain, not of one task, so it has no interval here."""
    losses = [flagged(results, split, "task", _mean(topics, key)) for key in _task_readings(results)]
    dense = f"{np.mean([topic.dense_pct for topic in topics]):.2f} %"
    task = f"{TOPICS}, mean of {len(topics)}"
    return [domain, text_words(results, split), task, "the text's own words", f"{topics[0].n:,}", dense, *losses]


def _mean(tasks: list[TaskLoss], reading: str) -> Figure | None:
    losses = [loss for task in tasks if (loss := task.reading(reading))]
    if not losses:
        return None
    drop = float(np.mean([loss.drop_pp for loss in losses]))
    return Figure(value=drop, unit="pp", kind="measured", n=tasks[0].n, method="mean over topics")


def _task_readings(results: Results) -> list[str]:
    return [key for key in readings(results) if key != "own_labelled"]  # a task is labelled or it is not


def _task_columns(results: Results) -> list[str]:
    return [f"{words} lost" for key, words in readings(results).items() if key != "own_labelled"]


def _lost_columns(results: Results) -> list[str]:
    return [f"{words}, lost" for words in readings(results).values()]


def _kinds(results: Results) -> list[str]:
    """The figures of nearness that this kind of model has."""
    entries = [entry for arm in results.arms for entry in results.lost(arm).values()]
    return [key for key in NEARNESS if any(entry.nearness(key) for entry in entries)]


def _note(results: Results) -> str:
    return LANGUAGE_NOTE if results.is_language else NOTE


def _budget_note(results: Results) -> str:
    if results.budget_pp is None:
        return "The run has no quality budget"
    dropin = f", {results.dropin_budget_pp:g} pp of drop-in quality" if results.dropin_budget_pp is not None else ""
    budget = f"The budget is {results.budget_pp:g} pp of own quality{dropin}, on {results.judging} text"
    return f"{budget}; the arms beside iterative are judged on that text only"
