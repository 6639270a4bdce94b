"""What a model loses against dense, as figures: by reading, split and domain, and held against the budget."""

from dataclasses import replace

from icd_lib.data.domains import DOMAINS
from icd_lib.measure.statistics import Z95
from icd_lib.metric import Figure
from icd_lib.records.attempts import Validation
from icd_lib.records.losses import DomainLoss, Loss, Nearness, SplitLoss
from icd_lib.report.results import Fastest, Results
from icd_lib.report.table import Flagged
from icd_lib.report.words import interval_text, value_text

READINGS = {"own": "own quality", "own_labelled": "labelled tasks only", "dropin": "drop-in quality"}
NEARNESS = {"cosine": "cosine to dense", "perplexity_ratio": "perplexity relative to dense", "kl": "KL to dense, nats"}
METHOD = "mean over tasks and domains, paired with dense"


def lost(loss: Loss | None, n: int) -> Figure | None:
    """A reading as a figure in percentage points; None where the model has no such reading."""
    if loss is None:
        return None
    drop, se = loss.drop_pp, loss.se_pp
    interval = loss.ci95 or (drop - Z95 * se, drop + Z95 * se)
    return Figure(value=drop, unit="pp", kind="measured", n=n, method=METHOD, ci95=interval, se_pp=se)


def stated(validation: Validation) -> Figure | None:
    """What was lost where strengths are chosen, as a figure; None where that was not judged."""
    if not validation.is_judged:
        return None
    return lost(Loss(drop_pp=validation.drop_pp, se_pp=validation.se_pp, ci95=validation.ci95), validation.n_items)


def near(entry: SplitLoss | DomainLoss, key: str, n: int) -> Figure | None:
    """How near a model stays to dense on a split or (a plain number) a domain; None where there is no such figure."""
    nearness = entry.nearness(key)
    if nearness is None:
        return None
    value, interval = (nearness.value, nearness.ci95) if isinstance(nearness, Nearness) else (nearness, None)
    unit = "nats" if key == "kl" else "1"
    return Figure(value=value, unit=unit, kind="measured", n=n, method="mean, against dense", ci95=interval)


def precise(item: Figure | None) -> Figure | None:
    """A figure near 1, to be shown with all its decimals."""
    return replace(item, unit="of 1") if item and item.unit == "1" else item


def readings(results: Results) -> dict[str, str]:
    """The readings of this kind of model, in words: a language model brings its own head, so it has but one."""
    return {"own": "next-token accuracy"} if results.is_language else READINGS


def is_outside(results: Results, split: str) -> bool:
    """Whether a split is outside the domain that the budget is for."""
    return results.judging == "seen" and split == "unseen"


def text_words(results: Results, split: str) -> str:
    """A split, and what it is to the budget."""
    if split == results.judging:
        return f"{split} (the budget's)"
    return f"{split}, outside its domain" if is_outside(results, split) else split


def exceeds(item: Figure | None, limit: float | None) -> bool:
    """Whether a loss is above a limit; its estimate is what counts, as in the gates."""
    return item is not None and limit is not None and item.value is not None and item.value > limit


def is_above(results: Results, item: Figure | None) -> bool:
    """Whether a loss is above the budget of own quality."""
    return exceeds(item, results.budget_pp)


def flagged(results: Results, split: str, reading: str, item: Figure | None) -> Figure | Flagged | None:
    """The figure, with words where it is above its budget; outside the domain own quality's holds for all readings."""
    if is_outside(results, split):
        return Flagged(item, "outside its domain") if is_above(results, item) else item
    budgets = {"own": (results.budget_pp, "the budget"), "dropin": (results.dropin_budget_pp, "the drop-in budget")}
    limit, words = budgets.get(reading, (None, ""))
    return Flagged(item, f"above {words}") if exceeds(item, limit) else item


def domains_above(results: Results) -> list[tuple[str, str, Figure]]:
    """(split, domain, own loss) of every domain that loses more than the budget, the largest loss first."""
    losses = [
        (split, name, lost(part.own, part.n))
        for split, entry in results.lost("iterative").items()
        for name, part in entry.domains.items()
    ]
    return sorted((row for row in losses if is_above(results, row[2])), key=lambda row: -row[2].value)


def lost_in(results: Results, fastest: Fastest) -> str:
    """What iterative loses in a runtime that is fastest here, in words; or why it was not judged there."""
    judged = (fastest.lost or {}).get("iterative")
    if not judged:
        return f"quality was judged in eager: {fastest.reason or 'not in this runtime'}"
    words = readings(results)
    parts = [
        f"{words[key]} {value_text(item.value, 'pp')} ({interval_text(item.ci95, item.unit)})"
        for key in ("own", "dropin")
        if key in words and (item := lost(judged.reading(key), judged.n_items))
    ]
    return f"in it the model loses {', '.join(parts)} on {results.judging} text"


def what_it_is(domain: str) -> str:
    """A domain's text in a few words."""
    return DOMAINS[domain].words if domain in DOMAINS else "text of your own"


def who_labelled(domain: str) -> str:
    """What a domain's labels say, and who gave them."""
    return DOMAINS[domain].labelled if domain in DOMAINS else "labels of your own"
