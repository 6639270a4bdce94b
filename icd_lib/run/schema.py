"""What a scenario file may say: one nested table of fields, and the checks that apply it.

A new option is one line in `SCHEMA`. Every leaf is a `Field` (type, default, bounds, meaning); every branch a dict.
"""

import copy
import difflib
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icd_lib.axes.kinds import KINDS
from icd_lib.errors import ConfigError
from icd_lib.models.families import DEFAULT_FAMILY, family_names
from icd_lib.models.shapes import shape_names
from icd_lib.runtimes import OWN as OWN_RUNTIMES
from icd_lib.runtimes import RUNTIMES

REQUIRED = object()  # default of a key that a scenario must give
OMITTED = object()  # default of a key that stays absent when a scenario does not give it

# Latency against dense, in steps that the noise of the judge can tell apart.
STRENGTHS = (-0.1, -0.15, -0.2, -0.25, -0.3, -0.35, -0.4, -0.45, -0.5, -0.6)

_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", list: "a list"}


@dataclass(frozen=True)
class Field:
    """One option: its type, default, bounds and meaning; `item` describes the elements of a list."""

    kind: type
    default: Any
    doc: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple = ()
    nullable: bool = False
    item: "Field | None" = None
    length: tuple[int, int | None] = (0, None)
    is_path: bool = False  # a relative path is made absolute when the scenario is read

    def takes(self) -> str:
        """Say in words which values are accepted.

        >>> Field(int, 0, "", low=0).takes()
        'an integer, at least 0'
        """
        words = _WORDS[self.kind]
        if self.choices:
            words = "one of " + ", ".join(map(str, self.choices))
        if self.item is not None:
            least, most = self.length
            if least == most:
                words = f"a list of {least}"
            elif least:
                words += f" of at least {least}"
            words += f", each {self.item.takes()}"
        limits = [f"at least {self.low:.12g}"] if self.low is not None else []
        limits += [f"more than {self.above:.12g}"] if self.above is not None else []
        limits += [f"at most {self.high:.12g}"] if self.high is not None else []
        return ", ".join([words, *limits]) + (" (or null)" if self.nullable else "")


def number(default, doc, low=None, high=None, above=None, **more) -> Field:
    """A float field."""
    return Field(float, default, doc, low, high, above, **more)


def count(default, doc, low=0, high=None, **more) -> Field:
    """An integer field, not negative unless `low` says so."""
    return Field(int, default, doc, low, high, **more)


def choice(default, choices, doc, **more) -> Field:
    """A string field that takes one of `choices`."""
    return Field(str, default, doc, choices=tuple(choices), **more)


def text(default, doc, **more) -> Field:
    """A free string field."""
    return Field(str, default, doc, **more)


def flag(default, doc) -> Field:
    """A true/false field."""
    return Field(bool, default, doc)


def _gate(latency_rel, l2_pp, ept_rel, quality_drop_pp) -> dict:
    """Thresholds of one gate; null leaves a check out."""

    def limit(default, doc, low, high) -> Field:
        return number(default, f"{doc}; null leaves it out", low, high, nullable=True)

    return {
        "latency_rel": limit(latency_rel, "latency in the judged comparison, at most (-0.2 is 20 % less)", -1, 0),
        "l2_pp": limit(l2_pp, "L2 hit rate gained, percentage points, at least", 0, 100),
        "ept_rel": limit(ept_rel, "energy per token relative to linear, at most", -1, 0),
        "quality_drop_pp": limit(quality_drop_pp, "quality lost against dense, percentage points, at most", 0, 100),
        "delta_c_rel": limit(OMITTED, "C of π₁ relative to π₀ on W′, at most (-0.1 is 10 % less)", -1, 1),
        "delta_q": limit(OMITTED, "Q of π₁ less Q of π₀ on W′, at least", -2, 2),
    }


def _domains(default: list[str], doc: str) -> Field:
    """A list of domains of text; which there are is checked against their registry (`icd_lib.data.domains`)."""
    return Field(list, default, doc, item=text(None, ""))


SCHEMA: dict = {
    "scenario": text(REQUIRED, "name of the scenario and of its folder in the output root"),
    "seed": count(0, "seeds every random generator", high=2**32 - 1),
    "threads": count(0, "CPU threads; 0 takes all cores", high=4096),
    "workload": {
        "kind": choice("model", ["model", "mock", "trace"], "what is laid out: a model, or a table of rows"),
        "rows": count(65536, "rows of the mock's table, D", low=2, high=2**26),
        "row_bytes": count(16, "bytes of one row of the table, a multiple of 8", low=8, high=2**20),
        "blocks": count(1024, "communities planted in the mock's accesses", low=1),
        "sizes": choice("heavy", ["equal", "heavy"], "sizes of the planted communities"),
        "events": count(80_000, "access events of the mock", low=2),
        "per_event": count(12, "rows that one event of the mock touches", low=1),
        "noise": number(0.1, "share of the mock's accesses that go anywhere", 0, 0.99),
        "burst": count(1, "events of the mock in a row that keep to one community", low=1),
        "unseen_share": number(
            0.5, "share of the events, the last ones, that no layout is solved on", above=0, high=0.9
        ),
        "max_accesses": count(4_000_000, "accesses of a trace that are used, from its start", low=1),
    },
    "model": {
        "checkpoint": text(None, "path or hub id; null takes the embedded model", nullable=True),
        "revision": text(None, "revision of a hub checkpoint", nullable=True),
        "family": choice(DEFAULT_FAMILY, family_names(), "which adapter reads the model"),
        "weights": choice("trained", ["trained", "random"], "random weights are for latency only"),
        "dtype": choice("float32", ["float32", "bfloat16", "auto"], "of the weights; auto is the wider one that fits"),
        "shape": choice(None, shape_names(), "shape of a model of random weights", nullable=True),
    },
    "data": {
        "name": choice(
            "auto", ["auto", "bible", "sst2"], "a labelled set of one's own that joins the seen domains; auto: none"
        ),
        "seen": _domains(
            ["encyclopaedia", "news", "docstrings", "films", "tweets", "dialogues"],
            "domains whose unlabelled text calibrates; parts of them are held out and judged",
        ),
        "selection": _domains(
            ["verses", "manual", "examples"], "domains that calibrate nothing and on which strengths are chosen"
        ),
        "unseen": _domains(
            ["products", "editorials", "glosses"], "domains that nothing has seen, judged once at the end"
        ),
        "calibration_texts": count(
            5000, "unlabelled texts that the transform sees, as even over domains as can be", low=1
        ),
        "distill_texts": count(16000, "unlabelled texts for distillation"),
        "validation_items": count(1000, "texts per domain on which strengths are chosen", low=1),
        "test_items": count(6000, "texts per domain on which the result is judged once", low=1),
        "split_seed": count(
            0, "deals the texts; apart from seed, so that runs with other seeds are judged on the same"
        ),
        "max_length": count(128, "longest text in tokens", low=4, high=8192),
    },
    "graph": {
        "nnz_cap": count(200_000, "heaviest edges kept per access graph", low=1),
        "remeasure": flag(False, "measure again what costs how much, even if this machine's figures are known"),
        "trace": text(None, "file of access events; null takes the shipped trace", nullable=True, is_path=True),
        "normalize": choice("none", ["none", "row", "sym"], "weaken edges of rows that are touched with everything"),
        "window": count(1, "consecutive events whose rows count as touched together", low=1, high=1000),
    },
    "solver": {
        "method": text("auto", "ordering to use; auto lets them compete"),
        "time_budget_s": number(120.0, "seconds per permutation", above=0),
        "refine_steps": count(2000, "steps of local search"),
        "reuse_perm": text(None, "file or run folder whose permutations are the starting point", nullable=True),
        "cache": flag(False, "take layouts that earlier runs solved for exactly the same graph and settings"),
    },
    "cost": {
        "alpha": number(1.0, "weight of C, the distance cost", 0),
        "beta": number(0.2, "weight of R_align", 0),
        "gamma_s": number(0.1, "weight of R_stab", 0),
        "mu": number(0.5, "weight of Q, the modularity", 0),
        "g": count(16, "tile: elements that the hardware touches at once", low=1),
        "lam": number(3.0, "distance in tiles up to which cost grows with slope 1", 0),
        "tau": number(0.25, "slope of the cost beyond lam", 0, 1),
        "gamma": number(1.2, "resolution of the modularity", above=0),
        "k": count(4, "contiguous blocks of the modularity; 0 takes the 4 KB pages of a table of rows"),
        "v": count(16, "vector width that R_align aligns to", low=1),
        "h": count(0, "distance in elements beyond which R_stab counts a move; 0 is half the axis"),
    },
    "transform": {
        "axes": Field(
            list,
            list(KINDS),
            "kinds of axes that are pruned, where the model has them",
            item=choice(None, list(KINDS), ""),
            length=(1, None),
        ),
        "head_dim": count(None, "shrink Q/K and V/O inside every head to this many dimensions", low=1, nullable=True),
        "tile": count(16, "widths are kept to multiples of this many neurons", low=1),
        "ridge": number(0.01, "ridge of the Hessian, relative to its mean diagonal", above=0),
        "sequential": flag(
            True,
            "refit block after block on the pruned network; false: every block alone, in closed form and in seconds",
        ),
        "uniform": flag(False, "pad all layers to one width, for plain transformers"),
        "distill_steps": count(140, "optimiser steps of label-free distillation; 0 leaves it out"),
        "distill_lr": number(4e-4, "learning rate of the distillation", above=0, high=1),
        "distill_tokens": count(1024, "tokens per distillation step", low=1),
        "dead_share": number(0.5, "share of the table's rows that the transform removes", 0, 0.99),
        "scatter": number(1.0, "spread of the rows' saliency around the logarithm of their accesses", 0, 100),
    },
    "calibration": {
        "pilots": count(20, "layouts measured to weigh the cost; 0 keeps the weights of cost", high=1000),
        "repeats": count(15, "interleaved rounds of every pilot", low=3),
        "apply": flag(True, "solve with the calibrated weights where the fit is good"),
    },
    "codesign": {
        "quality_budget_pp": number(0.1, "own quality that may be lost against dense, percentage points", 0, 100),
        "budget_on": choice(
            "unseen",
            ["unseen", "seen"],
            "whose text the budget is for: any other text, or the calibration's own domains",
        ),
        "dropin_budget_pp": number(
            None, "quality that may be lost where probes and index stay the dense model's", 0, 100, nullable=True
        ),
        "latency_target_rel": number(None, "stop at this latency relative to dense", -1, 0, nullable=True),
        "selection_z": number(1.0, "standard errors of safety when a strength is chosen", 0, 10),
        "min_cosine": number(
            None, "least mean cosine to the dense model's embeddings where strengths are chosen", 0, 1, nullable=True
        ),
        "max_perplexity_ratio": number(
            1.01, "most perplexity of a language model relative to dense on validation data", above=1, nullable=True
        ),
        "max_rounds": count(6, "rounds of re-permute and transform", low=1, high=100),
        "epsilon_j": number(1e-3, "least fall of J for which a solved layout is taken over packing the present one", 0),
        "strengths": Field(
            list,
            list(STRENGTHS),
            "latencies relative to dense among which every mode looks for its strongest, from the middle one on",
            item=number(None, "", -0.95, 0),
            length=(1, None),
        ),
    },
    "measure": {
        "shapes": Field(
            list,
            [[8, 128], [1, 32]],
            "batch and length of every latency measurement",
            item=Field(list, None, "", item=count(None, "", low=1), length=(2, 2)),
            length=(1, None),
        ),
        "repeats": count(40, "interleaved rounds", low=3),
        "max_repeats": count(120, "rounds that may be taken where the noise asks for more", low=3),
        "detect_rel": number(0.02, "change of latency that the rounds have to be able to detect", above=0, high=1),
        "warmup": count(8, "rounds that are thrown away first"),
        "bootstrap": count(2000, "bootstrap resamples", low=100),
        "ladder": flag(True, "measure the other runtimes too"),
        "ncu": flag(True, "ask for L2 counters (NVIDIA Nsight Compute); false leaves L2 not measured"),
        "energy": flag(True, "ask for energy counters (RAPL, NVML); false leaves energy not measured"),
        "clocks": choice("auto", ["auto", "unlocked"], "whether clocks count as fixed: as found, or not at all"),
        "runtimes": Field(list, list(OWN_RUNTIMES), "runtimes of the ladder", item=choice(None, RUNTIMES, "")),
    },
    "gates": {
        "comparison": choice(
            "same_transform",
            ["same_transform", "same_quality"],
            "what iterative is judged against: linear's layout with the same transform, or linear at the same budget",
        ),
        "smoke": _gate(-0.10, 5.0, -0.08, OMITTED),
        "strict": _gate(-0.20, 10.0, -0.15, 0.1),
    },
    "stage_timeout_s": number(3600.0, "seconds after which a stage is stopped", above=0),
}


def check_config(given: Mapping, schema: Mapping = SCHEMA, where: str = "", *, partial: bool = False) -> dict:
    """Return `given` as plain Python with defaults filled in (`partial` fills none), or raise `ConfigError`."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where or 'the scenario'} takes a mapping of keys, got {_show(given)}")
    for key in given:
        if key not in schema:
            raise ConfigError(unknown_key(f"{where}.{key}" if where else str(key), str(key), schema))
    checked = {}
    for key, entry in schema.items():
        path = f"{where}.{key}" if where else key
        if isinstance(entry, Mapping):
            if key in given or not partial:
                checked[key] = check_config(given.get(key, {}), entry, path, partial=partial)
        elif key in given:
            checked[key] = check_value(given[key], entry, path)
        elif entry.default is REQUIRED and not partial:
            raise ConfigError(f"{path} is missing; it takes {entry.takes()}: {entry.doc}")
        elif entry.default is not OMITTED and not partial:
            checked[key] = copy.deepcopy(entry.default)
    return checked


def check_value(value, field: Field, path: str):
    """Return `value` if `field` accepts it (an integer where a number is wanted becomes a float)."""
    if value is None and field.nullable:
        return None
    if field.kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not field.kind:
        raise ConfigError(f"{path} takes {field.takes()}; got {_show(value)}")
    if field.kind is str and any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{path} takes {field.takes()}; {_show(value)} has characters that are no text")
    if field.kind is float and not math.isfinite(value):
        raise ConfigError(f"{path} takes a finite number; got {value}")
    if field.choices and value not in field.choices:
        near = difflib.get_close_matches(str(value), map(str, field.choices), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{path} takes {field.takes()}; got {_show(value)}{hint}")
    too_low = (field.low is not None and value < field.low) or (field.above is not None and value <= field.above)
    if too_low or (field.high is not None and value > field.high):
        raise ConfigError(f"{path} is out of range: it takes {field.takes()}; got {_digits(value)}")
    if field.kind is list:
        least, most = field.length
        if len(value) < least or (most is not None and len(value) > most):
            raise ConfigError(f"{path} takes {field.takes()}; got {_show(value)}")
        return [check_value(item, field.item, f"{path}[{i}]") for i, item in enumerate(value)]
    return value


def unknown_key(path: str, key: str, schema: Mapping) -> str:
    """The message for a key that `schema` does not have, with the nearest valid name anywhere in the tree."""
    near = difflib.get_close_matches(key, list(schema), n=1)
    if near:
        prefix = path.rpartition(".")[0]
        return f"unknown key {path!r}; did you mean {(prefix + '.' if prefix else '') + near[0]!r}?"
    paths = key_paths(SCHEMA)
    leaves = {p.rpartition(".")[2]: p for p in paths}
    near = [key] if key in leaves else difflib.get_close_matches(path, paths, n=1)
    near = near or difflib.get_close_matches(key, leaves, n=1)
    hint = f"did you mean {leaves.get(near[0], near[0])!r}? " if near else ""
    return f"unknown key {path!r}; {hint}valid keys here: {', '.join(schema)}"


def key_paths(schema: Mapping = SCHEMA, where: str = "") -> list[str]:
    """Every leaf of the table as a dotted path, in order."""
    paths = []
    for key, entry in schema.items():
        path = f"{where}.{key}" if where else key
        paths += key_paths(entry, path) if isinstance(entry, Mapping) else [path]
    return paths


def _show(value) -> str:
    brief = reprlib.Repr()
    brief.maxlevel = 2  # a few lines of YAML aliases can stand for billions of items
    brief.repr_int = lambda value, level: _digits(value)
    return f"{brief.repr(value)} ({type(value).__name__})"


def _digits(value) -> str:
    """A number in digits, unless it has more than Python would write (YAML's octal numbers have no limit)."""
    return f"{value}" if type(value) is not int or value.bit_length() < 1000 else f"{value.bit_length()} bits"
