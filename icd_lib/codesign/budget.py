"""What a candidate's quality must keep."""

from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.options import Settings
from icd_lib.records.reasons import Reason


def over_budget(judgement: Judgement, settings: Settings) -> list[Reason]:
    """What is wrong with a candidate's quality; nothing if a latency or a rate was asked for instead."""
    if not settings.is_bounded:
        return []
    reasons = [_own(judgement, settings), _dropin(judgement, settings)]
    reasons += [_cosine(judgement, settings), _perplexity(judgement, settings)]
    return [reason for reason in reasons if reason]


# "Not within" and not "beyond": a figure that is no number keeps no budget.
def _own(judgement: Judgement, settings: Settings) -> Reason | None:
    z, most = settings.selection_z, settings.quality_budget_pp
    if judgement.bound(z) <= most:
        return None
    text = (
        f"quality lost {judgement.drop_pp:+.3f} ± {judgement.se_pp:.3f} pp; with {z:g} "
        f"standard errors that exceeds the budget of {most:g} pp"
    )
    return Reason("quality", text, judgement.bound(z), most)


def _dropin(judgement: Judgement, settings: Settings) -> Reason | None:
    z, most, lost = settings.selection_z, settings.dropin_budget_pp, judgement.detail.get("dropin")
    if most is None or not lost or lost["drop_pp"] + z * lost["se_pp"] <= most:
        return None
    text = (
        f"drop-in quality lost {lost['drop_pp']:+.3f} ± {lost['se_pp']:.3f} pp; with "
        f"{z:g} standard errors that exceeds {most:g} pp"
    )
    return Reason("drop-in quality", text, lost["drop_pp"] + z * lost["se_pp"], most)


def _cosine(judgement: Judgement, settings: Settings) -> Reason | None:
    cosine, least = judgement.detail.get("cosine"), settings.min_cosine
    if least is None or cosine is None or cosine >= least:
        return None
    return Reason("cosine", f"cosine to dense {cosine:.4f} is below {least:g}", cosine, least)


def _perplexity(judgement: Judgement, settings: Settings) -> Reason | None:
    ratio, most = judgement.detail.get("perplexity_ratio"), settings.max_perplexity_ratio
    if most is None or ratio is None or ratio <= most:
        return None
    return Reason("perplexity", f"perplexity is {ratio:.4f} times the dense model's, more than {most:g}", ratio, most)
