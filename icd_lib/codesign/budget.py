"""What a candidate's quality must keep."""

from icd_lib.codesign.inputs import Judgement, Settings


def over_budget(judgement: Judgement, settings: Settings) -> list[str]:
    """What is wrong with a candidate's quality, in words; nothing if a latency target was asked for instead."""
    reasons = []
    if settings.latency_target_rel is not None:
        return reasons
    # "Not within" and not "beyond": a figure that is no number keeps no budget.
    if not judgement.bound(settings.selection_z) <= settings.quality_budget_pp:
        reasons.append(
            f"quality lost {judgement.drop_pp:+.3f} ± {judgement.se_pp:.3f} pp; with {settings.selection_z:g} "
            f"standard errors that exceeds the budget of {settings.quality_budget_pp:g} pp"
        )
    dropin, most = judgement.detail.get("dropin"), settings.dropin_budget_pp
    if most is not None and dropin and not dropin["drop_pp"] + settings.selection_z * dropin["se_pp"] <= most:
        reasons.append(
            f"drop-in quality lost {dropin['drop_pp']:+.3f} ± {dropin['se_pp']:.3f} pp; with "
            f"{settings.selection_z:g} standard errors that exceeds {most:g} pp"
        )
    cosine = judgement.detail.get("cosine")
    if settings.min_cosine is not None and cosine is not None and not cosine >= settings.min_cosine:
        reasons.append(f"cosine to dense {cosine:.4f} is below {settings.min_cosine:g}")
    ratio, most = judgement.detail.get("perplexity_ratio"), settings.max_perplexity_ratio
    if most is not None and ratio is not None and not ratio <= most:
        reasons.append(f"perplexity is {ratio:.4f} times the dense model's, more than {most:g}")
    return reasons
