"""What OpenVINO gains by attention that is written out, and by graphs that are compiled for one shape.

    python benchmarks/shapes.py outputs/bert             # three minutes on a quiet machine; docs/figures/shapes.json
    python benchmarks/shapes.py outputs/bert --profile   # adds what the last form's time goes into; a minute
    python benchmarks/shapes.py outputs/bert --tables    # writes the tables of DECISIONS and FRONTIER, measures nothing

The dense model of scenario `bert` (int8 by NNCF, calibrated as the ladder does) and a run's iterative model, both in
OpenVINO's int8: exported with `scaled_dot_product_attention` and with attention written out as products and softmax
(`plain_attention`), compiled for inputs of any shape and for the shape that is timed; beside dense in PyTorch eager.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from settle import share
from torch import nn

from icd_lib.errors import IcdError
from icd_lib.measure.conditions import warnings_of, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import paired_ratio
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.models.export import as_arrays
from icd_lib.optional import load_optional
from icd_lib.report.marked import with_marked
from icd_lib.run.artifacts import Run
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes.base import Prepared
from icd_lib.runtimes.target import EAGER, Target
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.contexts import make_context

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, SEED, RESAMPLES = "openvino_int8", 0, 2000
SETTLING_CALLS = 2  # before a counted one
MODELS = DENSE, ITERATIVE = "dense", "iterative"
FUSED, PLAIN, FITTED = "SDPA, any shape", "written out, any shape", "written out, this shape"
PAGES = ((ROOT / "docs" / "DECISIONS.md", "shapes"), (ROOT / "docs" / "FRONTIER.md", "profile"))
FORMS = (FUSED, PLAIN, FITTED)
REFERENCE = "dense, PyTorch eager"


@contextmanager
def prepared_arms(context: Context, models: dict[str, nn.Module]) -> Iterator[dict[tuple[str, str], Prepared]]:
    """(model, form) → compiled, closed at the end; no form is warm for a shape yet."""
    target = Target.named(RUNTIME, context.deploy_calibration)
    with ExitStack() as held:
        found = {}
        for form in FORMS:
            traced = patch("icd_lib.models.export.plain_attention", lambda model: nullcontext())
            with traced if form == FUSED else nullcontext():
                for name, model in models.items():
                    found[name, form] = held.enter_context(closing(target.prepare(model, context.example)))
        yield found


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[tuple[Context, dict[str, nn.Module]]]:
    """The scenario's context with its threads, and the two models."""
    with tempfile.TemporaryDirectory() as folder:
        context = make_context(Run(load_scenario("bert", []), Path(folder)), lambda line: None)
        with torch_threads(context.get("threads")):
            yield context, {DENSE: context.model, ITERATIVE: load_optimized(args.run / "iterative" / "model")}


def measure(args: argparse.Namespace) -> dict:
    """Shape → model → form → median, share of dense in eager and of the first form, with intervals."""
    found: dict = {"environment": fingerprint(), "rounds": args.rounds, "shapes": {}}
    with opened(args) as (context, models), prepared_arms(context, models) as arms:
        for batch, length in context.get("measure.shapes"):
            inputs = context.fixed(batch, length)
            for name in models:
                arms[name, FITTED].warm(inputs)
            calls = {REFERENCE: EAGER.call(context.model, inputs)}
            calls |= {", ".join(key): one.call(inputs) for key, one in arms.items()}
            with watched() as conditions:
                samples = measure_interleaved(calls, repeats=args.rounds, warmup=3, seed=SEED, settle_ms=SETTLE_MS)
            eager = samples.pop(REFERENCE)
            found["shapes"][f"{batch}x{length}"] = {
                "warnings": warnings_of(conditions, args.rounds),
                "eager_ms": float(np.median(eager)),
                **{name: {form: entry(name, form, samples, eager) for form in FORMS} for name in models},
            }
    return found


def profile(args: argparse.Namespace) -> dict:
    """Shape → model → kind of operation → milliseconds of a call, by OpenVINO's own counters; median of the rounds."""
    found: dict = {}
    with opened(args) as (context, models), ExitStack() as held:
        target = Target.named(RUNTIME, context.deploy_calibration)
        made = {
            name: held.enter_context(closing(target.prepare(model, context.example))) for name, model in models.items()
        }
        for batch, length in context.get("measure.shapes"):
            inputs = as_arrays(context.fixed(batch, length))
            requests = {name: counting(one.network, inputs, target.row.hints) for name, one in made.items()}
            found[f"{batch}x{length}"] = counted(requests, inputs, args.rounds)
    return found


def counting(network, inputs: dict, hints: dict):
    """An inference request, compiled for the inputs' shape, that counts what its operations take."""
    settings = {**hints, "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERF_COUNT": True}
    fitted = network.clone()
    fitted.reshape({port: list(next(iter(inputs.values())).shape) for port in fitted.inputs})
    return load_optional("openvino").Core().compile_model(fitted, "CPU", settings).create_infer_request()


def counted(requests: dict, inputs: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Model → kind of operation → median milliseconds; the models take turns, each called a few times before."""
    kinds: dict = {name: defaultdict(lambda: [0.0] * rounds) for name in requests}
    for turn in range(rounds):
        for name, request in requests.items():
            for _ in range(SETTLING_CALLS + 1):
                request.infer(inputs, share_inputs=True)
            for node in request.profiling_info:
                kinds[name][node.node_type][turn] += node.real_time.total_seconds() * 1e3
    medians = {name: {kind: float(np.median(ms)) for kind, ms in told.items()} for name, told in kinds.items()}
    return {
        name: dict(sorted((item for item in told.items() if item[1] > 0), key=lambda item: -item[1]))
        for name, told in medians.items()
    }


def entry(name: str, form: str, samples: dict[str, np.ndarray], eager: np.ndarray) -> dict:
    ms = samples[f"{name}, {form}"]
    others = {"of_eager": eager, "of_sdpa": samples[f"{name}, {FUSED}"]}
    ratios = {key: paired_ratio(ms, other, seed=SEED, resamples=RESAMPLES) for key, other in others.items()}
    return {"median_ms": float(np.median(ms)), **ratios}


def table(found: dict) -> str:
    """Markdown: a line per shape, model and form."""
    lines = ["| shape | model, int8 | attention, compiled for | ms | of dense in eager | of SDPA, any shape |"]
    lines.append("|---" * 6 + "|")
    for shape, told in found["shapes"].items():
        for name in MODELS:
            for form, figures in told[name].items():
                of_sdpa = "–" if form == FUSED else share(figures["of_sdpa"])
                cells = [shape, name, form, f"{figures['median_ms']:.2f}", share(figures["of_eager"]), of_sdpa]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def profile_table(found: dict) -> str:
    """Markdown: a line per kind of operation that takes a fiftieth of dense's time or more, at every shape."""
    lines = ["| shape | operations | dense, ms | iterative, ms |", "|---" * 4 + "|"]
    for shape, told in found["profile"].items():
        total = {name: sum(told[name].values()) for name in MODELS}
        shown = [kind for kind, ms in told[DENSE].items() if ms >= total[DENSE] / 50]
        rows = {kind: [told[name].get(kind, 0.0) for name in MODELS] for kind in shown}
        rows["others"] = [total[name] - sum(row[place] for row in rows.values()) for place, name in enumerate(MODELS)]
        rows["all"] = list(total.values())
        lines += [f"| {shape} | {kind} | {dense:.2f} | {smaller:.2f} |" for kind, (dense, smaller) in rows.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of bert that was deployed in int8")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "shapes.json")
    parser.add_argument("--profile", action="store_true", help="count what the time goes into, and time nothing else")
    parser.add_argument(
        "--tables", action="store_true", help="write the pages' tables from the file; nothing is measured"
    )
    args = parser.parse_args()
    try:
        if args.tables:
            found = read_text(args.out)
            for (path, name), text in zip(PAGES, (table(found), profile_table(found)), strict=True):
                atomic_write(path, with_marked(path.read_text(encoding="utf-8"), name, text))
        elif args.profile:
            atomic_write(args.out, to_json(read_text(args.out) | {"profile": profile(args)}))
            print(profile_table(read_text(args.out)))
        else:
            atomic_write(args.out, to_json(measure(args)))
            print(table(read_text(args.out)))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
