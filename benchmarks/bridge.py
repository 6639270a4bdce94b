"""Models in the compilers of the bridge: equal to eager, how fast, and whether tiles that the compiler knows help.

    python benchmarks/bridge.py equivalence          random models of every family, several shapes, relative errors;
                                                     cases of compilers that --engines leaves out stay
    python benchmarks/bridge.py bert mamba           the embedded models, dense and in the widths of the reference runs
    python benchmarks/bridge.py bert --repeats 60    more rounds; --shapes 8x128 1x32, --engines tvm_relax
    python benchmarks/bridge.py mamba --kept artifacts/bridge --minutes 3
                                                     what is compiled stays in the folder for the next call (2 GB with
                                                     bert), and the rounds of a shape end after three minutes
    python benchmarks/bridge.py mamba --kept artifacts/bridge --repeats 0
                                                     compile and compare, nothing on the clock

Figures go to docs/figures/bridge.json and the tables of docs/PASS_DOC.md: compilers, shapes and sections that a call
leaves out stay. A shape is written when everything is compiled, without times, and after every few rounds, so a call
that is cut short leaves what it has. A compiler whose packages are missing is an error before anything runs.
Latencies are interleaved in one process; "again" is the same module once more (A/A).
"""

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import bridge_tables
import numpy as np
import torch
import transformers
from bridge_kept import kept_folder
from bridge_tables import MODELS
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.axes.double import KeepDouble
from icd_lib.bridge.compile import PACKAGES
from icd_lib.bridge.options import BridgeOptions
from icd_lib.bridge.program import MainOutput
from icd_lib.bridge.settings import Settings, using
from icd_lib.errors import ResourceError
from icd_lib.measure.environment import fingerprint, versions
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import paired_ratio, summarise
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.export import as_arrays, as_tensors
from icd_lib.models.families import find_adapter
from icd_lib.paths import user_path
from icd_lib.runtimes import BRIDGE, RUNTIMES
from icd_lib.runtimes.bridge import PreparedBridge
from icd_lib.storage.atomic import atomic_write, to_json

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "figures" / "bridge.json"
KINDS = ("ffn", "inner", "state")
TILE = 16
WARMUP, GROUP = 3, 5  # rounds that are not kept, and rounds between two looks at the clock


def main() -> int:
    options = parse_options()
    try:
        for engine in options.engines:
            RUNTIMES[engine].check()
    except ResourceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    for what in options.what:
        if what == "equivalence":
            write(what, with_others(written(what), equivalence(options), options.engines))
        else:
            embedded(what, options)
    return 0


def figures() -> dict:
    return json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}


def written(what: str) -> dict:
    """What there is of a section."""
    return figures().get(what, {})


def write(what: str, told: dict) -> None:
    """Put a section in its place, and the page's tables with it."""
    atomic_write(FIGURES, to_json(figures() | {what: told}))
    bridge_tables.main()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["equivalence", *MODELS])
    parser.add_argument("--engines", nargs="+", default=list(BRIDGE), choices=list(BRIDGE))
    parser.add_argument("--shapes", nargs="+", help="batch x tokens, 8x128; the first is reported first")
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds; 0: compile and compare only")
    parser.add_argument("--minutes", type=float, help=f"of rounds at one shape; after {GROUP} rounds they may end")
    parser.add_argument("--kept", type=user_path, help="folder where what is compiled stays for the next call")
    parser.add_argument("--seeds", type=int, default=2, help="random models of every family, for equivalence")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that a compile may take")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def rows_error(output: np.ndarray, wanted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Per token ‖output − wanted‖₂ / ‖wanted‖₂, padded tokens left out."""
    seen = mask.astype(bool)
    apart, size = (np.linalg.norm(item[seen].astype(np.float64), axis=-1) for item in (output - wanted, wanted))
    return apart / size


def whole_error(output: np.ndarray, wanted: np.ndarray, mask: np.ndarray) -> float:
    """‖output − wanted‖₂ / ‖wanted‖₂ over all tokens that are not padded."""
    seen = mask.astype(bool)
    return float(np.linalg.norm((output - wanted)[seen]) / np.linalg.norm(wanted[seen]))


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: dict) -> np.ndarray:
    tensors = as_tensors(inputs)
    return MainOutput(model, list(tensors))(*tensors.values()).numpy()


def errors_of(prepared, model: nn.Module, inputs: dict) -> dict:
    """To eager float32 and to the same model in float64; and eager's own distance to that, which is rounding."""
    mask = as_arrays(inputs)["attention_mask"]
    given, eager = prepared.run(inputs).astype(np.float64), outputs_of(model, inputs).astype(np.float64)
    with KeepDouble():
        exact = outputs_of(copy.deepcopy(model).double(), inputs)
    rows = rows_error(given, exact, mask)
    return {
        "to_float64": whole_error(given, exact, mask),
        "to_eager": whole_error(given, eager, mask),
        "eager_to_float64": whole_error(eager, exact, mask),
        "per_token_to_float64": {
            "median": float(np.median(rows)),
            "p95": float(np.quantile(rows, 0.95)),
            "max": float(rows.max()),
            "n": len(rows),
        },
    }


def equivalence(options: argparse.Namespace) -> dict:
    """Every family with random weights, dense and with axes cut, at several shapes."""
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes or ["2x12", "1x7", "3x33"]]
    cases = []
    for engine in options.engines:
        for name, arm, seed, model in random_models(options.seeds):
            with compiler(engine, options, tiles=True) as prepare:
                for batch, length in shapes:
                    inputs = random_inputs(model, batch, length, seed)
                    case = {"engine": engine, "family": name, "arm": arm, "seed": seed, "shape": f"{batch}x{length}"}
                    try:
                        case |= errors_of(prepare(model, inputs), model, inputs)
                    except ResourceError as error:
                        case["reason"] = error.args[0]
                    print(case, flush=True)
                    cases.append(case)
    ran = {"threads": options.threads, "environment": fingerprint()}
    return {
        "norm": "l2 over all tokens that are not padded, relative",
        "cases": cases,
        "ran": {engine: ran | {"packages": versions(PACKAGES[engine].values())} for engine in options.engines},
    }


def with_others(earlier: dict, section: dict, engines: list[str]) -> dict:
    """The section of these compilers with what the earlier one has of others."""
    cases = [case for case in earlier.get("cases", []) if case["engine"] not in engines] + section["cases"]
    others = {engine: ran for engine, ran in earlier.get("ran", {}).items() if engine not in engines}
    order = list(BRIDGE).index
    return section | {"cases": sorted(cases, key=lambda case: order(case["engine"])), "ran": others | section["ran"]}


def random_models(seeds: int) -> Iterator[tuple[str, str, int, nn.Module]]:
    """(family, arm, seed, model): "dense", and "cut" with a part of every prunable axis gone."""
    for seed in range(seeds):
        for name, (kind, config) in RANDOM.items():
            torch.manual_seed(seed)
            model = getattr(transformers, kind)(getattr(transformers, config[0])(**config[1])).eval()
            generator = torch.Generator().manual_seed(seed + 1)
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
            yield name, "dense", seed, model.requires_grad_(False)
            yield name, "cut", seed, cut(copy.deepcopy(model), lambda axis: max(1, axis.size - TILE))


SMALL = {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2}
FFN = {"intermediate_size": 112, "num_attention_heads": 4, "max_position_embeddings": 64}
RANDOM = {
    "bert": ("BertModel", ("BertConfig", SMALL | FFN)),
    "llama": ("LlamaModel", ("LlamaConfig", SMALL | FFN | {"num_key_value_heads": 2})),
    "qwen3": ("Qwen3Model", ("Qwen3Config", SMALL | FFN | {"num_key_value_heads": 2, "head_dim": 16})),
    "mamba": ("MambaModel", ("MambaConfig", SMALL | {"state_size": 8, "time_step_rank": 4})),
}


def random_inputs(model: nn.Module, batch: int, length: int, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, model.config.vocab_size, (batch, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def cut(model: nn.Module, width: Callable) -> nn.Module:
    """The first elements of every axis that pruning removes, as many as `width` says."""
    for axis in find_adapter(model).axes():
        if axis.kind in KINDS and (kept := width(axis)) < axis.size:
            compact(model, axis, np.arange(axis.size) < kept)
    return model


@contextmanager
def compiler(engine: str, options: argparse.Namespace, *, tiles: bool) -> Iterator:
    """A function that compiles a model, or takes what was kept of it; all is closed at the end."""
    settings = Settings(BridgeOptions(tiles=tiles, compile_timeout_s=options.timeout), TILE)
    with ExitStack() as held, using(settings):

        def prepare(model: nn.Module, inputs: dict) -> PreparedBridge:
            told = {"tiles": tiles, "tile": TILE}
            kept = options.kept and kept_folder(options.kept, engine, model, inputs, told)
            prepared = held.enter_context(closing(PreparedBridge(engine, model, options.threads, kept)))
            prepared.warm(inputs)
            for source in kept.rglob("module.mlir") if kept else ():
                source.unlink()  # the weights in hexadecimal, which nothing reads again
            return prepared

        yield prepare


def embedded(name: str, options: argparse.Namespace) -> None:
    """The embedded model and two of the widths that the committed reference run gave it, in every compiler and eager.

    Weights: the embedded model's, the first neurons of every axis: latency follows the shapes alone.
    """
    dense, _ = load_model(resolve_checkpoint(family=name))
    dense = getattr(dense, "base_model", dense).float().eval().requires_grad_(False)
    models = {"dense": dense}
    for arm in ("linear", "iterative"):
        file = ROOT / "outputs" / "reference" / name / arm / "metrics.json"
        widths = json.loads(file.read_text())["widths"]
        models[arm] = cut(copy.deepcopy(dense), lambda axis, widths=widths: widths.get(axis.name, axis.size))
    for shape in options.shapes or MODELS[name]:
        batch, length = map(int, shape.split("x"))
        print(f"{name} at {shape}", flush=True)
        for entry in at_shape(models, random_inputs(dense, batch, length, 0), options):
            write(name, with_shape(written(name), type(dense).__name__, shape, entry))
        print(json.dumps(entry["median_ms"], indent=1), flush=True)


def with_shape(earlier: dict, model: str, shape: str, entry: dict) -> dict:
    """The section with one shape's figures, which stands where it stood."""
    return {"model": model, "shapes": earlier.get("shapes", {}) | {shape: entry}}


def at_shape(models: dict, inputs: dict, options: argparse.Namespace) -> Iterator[dict]:
    """Everything interleaved: eager; per compiler every arm with and without tiles; one module again.

    What is known is given when all are compiled, and again after every few rounds.
    """
    entry: dict = {"median_ms": {}, "ratios": {}, "compiled": {}, "errors": {}, "refused": {}, "rounds": 0}
    entry |= {"threads": options.threads, "environment": fingerprint()}
    with ExitStack() as held:
        calls = prepared_calls(models, inputs, options, entry, held)
        yield entry
        for samples in rounds(calls, options):
            medians = {label: summarise(sample)["median"] for label, sample in samples.items()}
            count = len(next(iter(samples.values())))
            yield entry | {"median_ms": medians, "ratios": ratios(samples), "rounds": count}


def prepared_calls(models: dict, inputs: dict, options: argparse.Namespace, entry: dict, held: ExitStack) -> dict:
    """Label → what is timed; what compiling took, errors and refusals go into `entry`."""
    calls: dict[str, Callable] = {}
    for arm, model in models.items():
        calls[f"eager/{arm}"] = RUNTIMES["eager"].prepare(model, inputs).call(inputs)
    for engine in options.engines:
        for tiles in (False, True):
            prepare = held.enter_context(compiler(engine, options, tiles=tiles))
            for arm, model in models.items():
                label = f"{engine}/{arm}/{'tiles' if tiles else 'plain'}"
                try:
                    prepared = prepare(model, inputs)
                except ResourceError as error:
                    entry["refused"][label] = error.args[0]
                    print(f"{label}: {error.args[0]}", flush=True)
                    continue
                entry["compiled"][label] = told(next(iter(prepared.records.values())))
                entry["errors"][label] = errors_of(prepared, model, inputs)
                calls[label] = prepared.call(inputs)
                print(label, entry["compiled"][label], entry["errors"][label]["to_float64"], flush=True)
        if (first := f"{engine}/dense/plain") in calls:
            calls[f"{engine}/dense/again"] = calls[first]
    return calls


def rounds(calls: dict[str, Callable], options: argparse.Namespace) -> Iterator[dict[str, np.ndarray]]:
    """Label → milliseconds of all rounds so far, after every `GROUP` of them, until there are enough or time is up."""
    start, samples = time.monotonic(), {label: np.empty(0) for label in calls}
    for done in range(0, options.repeats, GROUP):
        count = min(GROUP, options.repeats - done)
        more = measure_interleaved(calls, repeats=count, warmup=0 if done else WARMUP, seed=done, settle_ms=SETTLE_MS)
        samples = {label: np.concatenate([sample, more[label]]) for label, sample in samples.items()}
        took = time.monotonic() - start
        print(f"round {done + count} of {options.repeats}, {took:.0f} s", flush=True)
        yield samples
        if options.minutes and took >= 60 * options.minutes:
            return


def told(entry: dict) -> dict:
    return {key: entry[key] for key in ("seconds", "peak_memory_mb", "gathers")} | {
        "tiled": len(entry["passes"].get("tile", []))
    }


def ratios(samples: dict[str, np.ndarray]) -> dict:
    """Paired: iterative and linear over dense in the same place, tiles over plain, A/A, and the compiler over eager."""
    found = {}
    for label, sample in samples.items():
        engine, arm, *how = label.split("/")
        others = {
            "vs_dense": "/".join([engine, "dense", *how]),
            "vs_plain": f"{engine}/{arm}/plain",
            "vs_eager": f"eager/{arm}",
        }
        for name, other in others.items():
            if other in samples and other != label and not (name == "vs_plain" and how not in (["tiles"], ["again"])):
                ratio = paired_ratio(sample, samples[other])
                found.setdefault(label, {})[name] = {key: ratio[key] for key in ("value", "ci95", "n")}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
