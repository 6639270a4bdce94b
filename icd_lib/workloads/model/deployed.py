"""What a decoder loses in the runtime that it decodes in, where inputs of products and the cache may be rounded too."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace

from icd_lib.decoding import DECODERS
from icd_lib.decoding.openvino import OpenVino
from icd_lib.errors import ResourceError
from icd_lib.experiment.arms import DENSE
from icd_lib.measure.environment import versions
from icd_lib.metric import Figure, figure
from icd_lib.records.generation import DeployedPoint
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.engines import Engines


def label_of(engines: Engines, arm: str) -> str:
    """An arm of `Engines` in words."""
    name, whose = engines.rows[arm]
    row = DECODERS[name]
    label = row.label_of(engines.models[whose]) if isinstance(row, OpenVino) else row.label
    return f"{whose}, {label}"


def deployed_points(context: Context, engines: Engines) -> list[DeployedPoint]:
    """What every arm in OpenVINO loses there, on every split that arms are judged on at the end."""
    points: list[DeployedPoint] = []
    for arm, (name, _) in engines.rows.items():
        if not isinstance(DECODERS[name], OpenVino):
            continue
        try:
            with ExitStack() as held:
                opened = functools.cache(lambda arm=arm, held=held: held.enter_context(engines.judged(arm)))
                points += [_judged(context, engines, arm, opened, split) for split in context.judged]
        except ResourceError as error:
            context.progress(f"{arm} was not judged: {error}")
    return points


def _judged(context: Context, engines: Engines, arm: str, opened: Callable, split: str) -> DeployedPoint:
    """opened: gives the compiled model; what this machine has judged of dense there before needs none."""
    name, whose = engines.rows[arm]
    row = DECODERS[name]
    row.check()
    if whose == DENSE:
        told = f"{label_of(engines, arm)} on {split} text"
        how = {"row": asdict(row), "told": row.hints, "packages": versions(row.PACKAGES)}
        result = context.deployed_result(split, told, how, lambda: context.suite.evaluate(opened(), split))
    else:
        result = context.suite.evaluate(opened(), split)
    compared = context.suite.compare(result, context.dense_result(split))
    point = DeployedPoint(
        arm=arm,
        label=label_of(engines, arm),
        split=split,
        n_tokens=compared["n_items"],
        drop_pp=lost_figure(compared),
        perplexity_ratio=ratio_figure(compared),
        kl=near_figure(compared, "kl", "nats"),
    )
    context.progress(f"{point.label}: loses {point.drop_pp.value:+.3f} pp on {split} text")
    return point


def lost_figure(compared: dict) -> Figure:
    """Next-token accuracy that a comparison of a language suite finds lost, pp."""
    own = compared["own"]
    item = figure(
        own["drop_pp"], "pp", "measured", n=compared["n_items"], method=compared["method"], ci95=tuple(own["ci95"])
    )
    return replace(item, se_pp=own["se_pp"])


def near_figure(compared: dict, key: str, unit: str) -> Figure:
    """A mean of the comparison with its interval."""
    near = compared[key]
    return figure(
        near["value"], unit, "measured", n=compared["n_items"], method=compared["method"], ci95=tuple(near["ci95"])
    )


def ratio_figure(compared: dict) -> Figure:
    """Perplexity relative to the other model's."""
    return near_figure(compared, "perplexity_ratio", "1")
