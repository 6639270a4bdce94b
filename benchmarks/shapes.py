"""What OpenVINO gains by attention that is written out, and by graphs that are compiled for one shape.

    python benchmarks/shapes.py outputs/bert             # three minutes on a quiet machine; docs/figures/shapes.json
    python benchmarks/shapes.py outputs/bert --table docs/DECISIONS.md   # writes the page's table, measures nothing

The dense model of scenario `bert` (int8 by NNCF, calibrated as the ladder does) and a run's iterative model, both in
OpenVINO's int8: exported with `scaled_dot_product_attention` and with attention written out as products and softmax
(`plain_attention`), compiled for inputs of any shape and for the shape that is timed; beside dense in PyTorch eager.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
from torch import nn

from icd_lib.errors import IcdError
from icd_lib.measure.conditions import warnings_of, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import paired_ratio
from icd_lib.models.checkpoint.optimized import load_optimized
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
MODELS = DENSE, ITERATIVE = "dense", "iterative"
FUSED, PLAIN, FITTED = "SDPA, any shape", "written out, any shape", "written out, this shape"
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


def measure(args: argparse.Namespace) -> dict:
    """Shape → model → form → median, share of dense in eager and of the first form, with intervals."""
    found: dict = {"environment": fingerprint(), "rounds": args.rounds, "shapes": {}}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        context = make_context(Run(load_scenario("bert", []), Path(folder)), lambda line: None)
        held.enter_context(torch_threads(context.get("threads")))
        models = {DENSE: context.model, ITERATIVE: load_optimized(args.run / "iterative" / "model")}
        arms = held.enter_context(prepared_arms(context, models))
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


def share(ratio: dict) -> str:
    low, high = (1 + end for end in ratio["ci95"])
    return f"{1 + ratio['value']:.3f} ({low:.3f} to {high:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of bert that was deployed in int8")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "shapes.json")
    parser.add_argument("--table", type=Path, help="page whose table is written from the file; nothing is measured")
    args = parser.parse_args()
    try:
        if args.table is None:
            atomic_write(args.out, to_json(measure(args)))
            print(table(read_text(args.out)))
        else:
            page = args.table.read_text(encoding="utf-8")
            atomic_write(args.table, with_marked(page, "shapes", table(read_text(args.out))))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
