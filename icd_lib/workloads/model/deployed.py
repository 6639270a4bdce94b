"""What a decoder loses in the runtime that it decodes in, where inputs of products and the cache may be rounded too."""

from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import torch

from icd_lib.decoding import DECODERS
from icd_lib.decoding.openvino import OpenVino
from icd_lib.errors import ResourceError
from icd_lib.experiment.arms import DENSE
from icd_lib.measure.environment import versions
from icd_lib.metric import Figure, figure
from icd_lib.records.generation import DeployedPoint
from icd_lib.storage.machine import cpu_model, keep, read_kept
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.engines import Engines

KIND = "deployed"


def label_of(engines: Engines, arm: str) -> str:
    """An arm of `Engines` in words."""
    name, whose = engines.rows[arm]
    row = DECODERS[name]
    label = row.label_of(engines.models[whose]) if isinstance(row, OpenVino) else row.label
    return f"{whose}, {label}"


def deployed_points(context: Context, engines: Engines) -> list[DeployedPoint]:
    """What every arm in OpenVINO loses there, on every split that arms are judged on at the end.

    What was found of the dense model in a runtime is kept for this machine: it depends on nothing that a run decides.
    """
    points: list[DeployedPoint] = []
    for arm, (name, whose) in engines.rows.items():
        if not isinstance(DECODERS[name], OpenVino):
            continue
        try:
            with ExitStack() as held:
                compiled = cache(lambda arm=arm, held=held: held.enter_context(engines.judged(arm)))
                for split in context.judged:
                    key = machine_key(context, name, split) if whose == DENSE else None
                    points.append(_judged(context, engines, arm, compiled, split, key))
        except ResourceError as error:
            context.progress(f"{arm} was not judged: {error}")
    return points


def machine_key(context: Context, row: str, split: str) -> dict:
    """What the judgement of the dense model in a row of `DECODERS` depends on."""
    return {
        "model": context.checkpoint.sha256,
        "row": row,
        "split": split,
        "text": context.suite.sha256s[split],
        "threads": torch.get_num_threads(),
        "cpu": cpu_model(),
        "packages": versions(),
    }


def _judged(context: Context, engines: Engines, arm: str, compiled, split: str, key: dict | None) -> DeployedPoint:
    """compiled: makes the arm's graph for the judge, once; key: under which the finding is kept."""
    known = read_kept(KIND, key) if key else None
    if known is not None:
        context.progress(f"{label_of(engines, arm)} on {split} text: kept from an earlier run on this machine")
        return from_json(DeployedPoint, known, "the machine's cache")
    compared = context.suite.compare(context.suite.evaluate(compiled(), split), context.dense_result(split))
    point = DeployedPoint(
        arm=arm,
        label=label_of(engines, arm),
        split=split,
        n_tokens=compared["n_items"],
        drop_pp=lost_figure(compared),
        perplexity_ratio=ratio_figure(compared),
        kl=near_figure(compared, "kl", "nats"),
    )
    if key:
        keep(KIND, key, as_json(point))
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
