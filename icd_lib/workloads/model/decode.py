"""A model with a state that generates: every arm's time to first token and per token, and the tokens they say.

Its past is a state of one size, so there is nothing to evict and nothing to page: what is pruned makes the state
smaller too. Linear's layout of iterative's mask (`same_transform`) computes the same function, so it says the same
tokens; that is checked here by greedy decoding. On a GPU a decoder is timed so too, with Transformers' own cache.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from contextlib import closing

import numpy as np
import torch
from torch import nn

from icd_lib.decoding import REFERENCE, row_at
from icd_lib.decoding.base import Decoder, DecodeRuntime
from icd_lib.errors import ConfigError
from icd_lib.experiment.arms import ARMS, DENSE, MODEL, MODES, RESULT
from icd_lib.kernels import use_stock_scan
from icd_lib.measure.options import DecodeOptions
from icd_lib.models.check import check_length
from icd_lib.models.families import find_adapter
from icd_lib.models.families.mamba.adapter import find_backbone
from icd_lib.records.decoding import Decoding, SameTokens
from icd_lib.records.generation import EXPORTED_ARM, DeployedPoint
from icd_lib.storage.devices import CPU
from icd_lib.storage.record_json import as_json
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.decode_clock import WARMUP, Arms, Clock
from icd_lib.workloads.model.deployed import deployed_points, label_of
from icd_lib.workloads.model.engines import Engines, exported_in

STOCK, SAME = "stock", "same_transform"
TEXTS, PROMPT = 4, 64  # that are continued greedily, and tokens of each


def measure_decode(context: Context, models: Mapping[str, nn.Module], controls: Mapping[str, nn.Module]) -> dict:
    """What measure/decoding.json holds; models: the compared arms, controls: as the clock of prompts has them."""
    options = DecodeOptions(**context.run.scenario.config["decode"])
    row, plain = rows_of_run(context)
    with torch.inference_mode():
        engines = Engines(models, options.peers)
        elsewhere = {}
        if not context.device.is_cpu:  # what they compile is for the CPU
            elsewhere = dict.fromkeys(engines.arms, "it computes on the CPU, and this run does not")
            engines = Engines(models, (), exports=False)
        others = (SAME, *(mode for mode in MODES if mode != RESULT))
        against = engines.against | {RESULT: others, DENSE: (STOCK,)}
        clock = Clock(context, options.steps, options.rounds, against, elsewhere)
        arms = arms_of(engines, controls, row)
        found = Decoding(
            clock=[
                clock.shape(arms, batch, length, lambda arm, held=length: held + options.steps / 2)
                for batch, length in options.clock
            ],
            exported=exported_in(engines),
            same_tokens=same_tokens(context, options, arms if plain is row else arms_of(engines, controls, plain)),
            deployed=exported_loss(context, engines),
        )
        return as_json(found)


def rows_of_run(context: Context) -> tuple[DecodeRuntime, DecodeRuntime]:
    """Eager where the run computes: in the precision that models are deployed in, and with nothing rounded.

    On the CPU both are eager as the model is.
    """
    if context.device.is_cpu:
        row = row_at(None)
        return row, row
    there, deployed = context.device.name, context.target.row.precision
    row = row_at(there, deployed)
    return row, row if deployed == context.precision else row_at(there, context.precision)


def check_state(model: nn.Module, device: str = CPU, options: DecodeOptions | None = None) -> None:
    """Raise `ConfigError` for a model that the section `decode` is not for, or whose positions its texts exceed.

    device: where the run computes. On a GPU a decoder may have the section too: kv, which times it on the CPU, is
    refused there.
    """
    if not hasattr(model, "lm_head") or (find_backbone(model) is None and device == CPU):
        raise ConfigError(
            f"the section decode times a Mamba with a language head while it generates, and {type(model).__name__} is "
            "none; leave it out (decoders have the section kv)"
        )
    if options is not None:
        adapter, longest = find_adapter(model), max(length for _, length in options.clock)
        check_length(adapter, longest + options.steps + WARMUP, "the longest of decode.clock with its steps", "cut it")
        check_length(adapter, PROMPT + options.greedy, f"a prompt of {PROMPT} tokens with decode.greedy", "cut it")


def arms_of(engines: Engines, controls: Mapping[str, nn.Module], row: DecodeRuntime) -> Arms:
    """Arm → what it is, and how it is made ready: every model on our kernels, dense on Transformers' own too.

    row: eager, in which all but those of `engines` are
    """
    models = dict(engines.models)

    def eager(model: nn.Module) -> Callable[[], Decoder]:
        return lambda: row.prepare(model)

    ours, place = (", our step kernel", "") if row.name == REFERENCE else ("", f" ({row.label})")
    arms = {DENSE: (f"dense{ours}{place}", eager(models[DENSE]))}
    arms["dense_again"] = (f"dense{ours}, again{place}", eager(models[DENSE]))
    if find_backbone(models[DENSE]) is not None:
        arms[STOCK] = (
            f"dense, Transformers' own kernels and cache{place}",
            lambda: row.prepare(stock(models[DENSE])),
        )
    arms |= {mode: (f"{mode}{place}", eager(models[mode])) for mode in MODES if mode in models}
    if SAME in controls:
        arms[SAME] = (f"{ARMS[SAME].words[MODEL]}{place}", eager(controls[SAME]))
    return arms | {arm: (label_of(engines, arm), functools.partial(engines.decoder, arm)) for arm in engines.rows}


def stock(model: nn.Module) -> nn.Module:
    """The model with Transformers' own mixers: another module, with the same weights."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return use_stock_scan(copy.deepcopy(model, shared))


def same_tokens(context: Context, options: DecodeOptions, arms: Arms) -> list[SameTokens]:
    """Greedy continuations of pairs of arms with one function."""
    ids = context.fixed(TEXTS, PROMPT)["input_ids"].numpy()
    said = {}
    for arm in (DENSE, STOCK, RESULT, SAME):
        if arm in arms:
            with closing(arms[arm][1]()) as decoder:
                said[arm] = decoder.greedy(ids, options.greedy)
    pairs = [pair for pair in ((RESULT, SAME), (DENSE, STOCK)) if set(pair) <= set(said)]
    found = [_compared(pair, *(said[arm] for arm in pair)) for pair in pairs]
    for item in found:
        context.progress(f"{item.arm} and {item.other}: {item.equal} of {item.texts} greedy texts are the same")
    return found


def _compared(pair: tuple[str, str], first: np.ndarray, second: np.ndarray) -> SameTokens:
    apart = first != second
    places = np.flatnonzero(apart.any(0))
    return SameTokens(
        arm=pair[0],
        other=pair[1],
        texts=len(first),
        tokens=first.shape[1],
        equal=int((~apart.any(1)).sum()),
        first_apart=int(places[0]) if len(places) else None,
    )


def exported_loss(context: Context, engines: Engines) -> list[DeployedPoint]:
    """What the result loses in the runtime that it decodes in, and nothing of the peers: they are timed alone."""
    if not context.is_trained or EXPORTED_ARM not in engines.rows:
        return []
    return deployed_points(context, Engines(engines.models, (), chosen=engines.exported))
