"""Rows of report.csv about what generates: caches, look-ups, cloze questions, times per token, losses of runtimes."""

from dataclasses import replace

from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.metric import Figure
from icd_lib.records.generation import DecodeShape, DeployedPoint, Generation
from icd_lib.report.generation import decoding_of, generation_of
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing

Row = tuple[str, str, str, Figure]


def figures(results: Results) -> list[Row]:
    """(arm, shape, metric, figure) of a decoder's run; none of another's. The split's name ends a metric."""
    found = decoding_of(results) if "decode" in results.config else generation_of(results)
    if isinstance(found, Missing | DoesNotApply):
        return []
    asked = _asked(found, results.judging) if isinstance(found, Generation) else []
    return asked + _times(found.clock) + _deployed(found.deployed)


def _asked(found: Generation, judging: str) -> list[Row]:
    rows: list[Row] = []
    prompt = f"{found.context} tokens"
    for cache in found.points:
        for name in ("drop_pp", "perplexity_ratio", "kl_full", "drop_full_pp"):
            metric = f"cache.{cache.unit}.{cache.keep:g}.{name}.{cache.split}"
            rows.append((RESULT, prompt, metric, getattr(cache, name)))
    for one in found.lookups:
        split, share = one.split or judging, "all" if one.keep is None else f"{one.keep:g}"
        rows.append((RESULT, prompt, f"lookups.{share}.exact_pct.{split}", one.exact_pct))
        if one.keep is None:
            rows.append((DENSE, prompt, f"lookups.all.exact_pct.{split}", _reference(one.exact_pct, one.dense_pct)))
    dense = {}
    for item in found.cloze:
        rows.append((item.arm, "", f"cloze.right_pct.{item.split}", item.right_pct))
        dense[item.split] = _reference(item.right_pct, item.dense_pct)
    return rows + [(DENSE, "", f"cloze.right_pct.{split}", item) for split, item in dense.items()]


def _reference(item: Figure, value: float) -> Figure:
    """Of dense, what others' intervals are the difference to."""
    return replace(item, value=value, ci95=None, se_pp=None)


def _times(clock: list[DecodeShape]) -> list[Row]:
    names = ("first_ms", "step_ms", "first_vs_dense", "step_vs_dense", "bytes_per_token")
    return [
        (name, f"{shape.batch}x{shape.context}", f"decode.{figure}", getattr(arm, figure))
        for shape in clock
        for name, arm in shape.arms.items()
        for figure in names
    ]


def _deployed(points: list[DeployedPoint]) -> list[Row]:
    return [
        (point.arm, "", f"deployed.{name}.{point.split}", getattr(point, name))
        for point in points
        for name in ("drop_pp", "perplexity_ratio", "kl")
    ]
