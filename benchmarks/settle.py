"""What a short call costs in turns with other arms, and what it costs once its arm has settled.

    python benchmarks/settle.py outputs/bert             # two minutes on a quiet machine; docs/figures/settle.json
    python benchmarks/settle.py outputs/bert --table docs/DECISIONS.md   # writes the page's table, measures nothing

Dense in PyTorch eager, dense in OpenVINO's int8 (NNCF, calibrated as the ladder does), and a run's iterative model in
OpenVINO's int8, interleaved: first one call a turn, then with `measure_interleaved`'s `settle_ms`.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from icd_lib.errors import IcdError
from icd_lib.measure.conditions import warnings_of, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import paired_ratio
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.report.marked import with_marked
from icd_lib.run.artifacts import Run
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes.target import EAGER, Target
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.workloads.model.contexts import make_context

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, SEED, RESAMPLES = "openvino_int8", 0, 2000
EAGER_ARM, DENSE, ITERATIVE = "dense, eager", "dense, int8", "iterative, int8"
SETTLE = (0.0, SETTLE_MS)


def measure(args: argparse.Namespace) -> dict:
    """Shape → milliseconds of settling → arm → median, and the iterative model's ratios with their intervals."""
    smaller = load_optimized(args.run / "iterative" / "model")
    found: dict = {"environment": fingerprint(), "rounds": args.rounds, "shapes": {}}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        context = make_context(Run(load_scenario("bert", []), Path(folder)), lambda line: None)
        held.enter_context(torch_threads(context.get("threads")))
        target = Target.named(RUNTIME, context.deploy_calibration)
        models = {DENSE: context.model, ITERATIVE: smaller}
        made = {
            name: held.enter_context(closing(target.prepare(model, context.example))) for name, model in models.items()
        }
        for batch, length in context.get("measure.shapes"):
            inputs = context.fixed(batch, length)
            calls = {EAGER_ARM: EAGER.call(context.model, inputs)}
            calls |= {name: one.call(inputs) for name, one in made.items()}
            entry: dict = found["shapes"].setdefault(f"{batch}x{length}", {})
            for settle_ms in SETTLE:
                with watched() as conditions:
                    samples = measure_interleaved(calls, repeats=args.rounds, seed=SEED, settle_ms=settle_ms)
                entry[f"{settle_ms:g}"] = summary(samples) | {"warnings": warnings_of(conditions, args.rounds)}
    return found


def summary(samples: dict[str, np.ndarray]) -> dict:
    ratios = {
        name: paired_ratio(samples[ITERATIVE], samples[other], seed=SEED, resamples=RESAMPLES)
        for name, other in (("of_eager", EAGER_ARM), ("of_dense", DENSE))
    }
    return {"median_ms": {name: float(np.median(ms)) for name, ms in samples.items()}, **ratios}


def table(found: dict) -> str:
    """Markdown: a line per shape and time of settling."""
    lines = [
        f"| shape | settled for, ms | {EAGER_ARM}, ms | {DENSE}, ms | {ITERATIVE}, ms | of eager | of dense int8 |"
    ]
    lines.append("|---" * 7 + "|")
    for shape, entries in found["shapes"].items():
        for settled, entry in entries.items():
            medians = [f"{entry['median_ms'][name]:.2f}" for name in (EAGER_ARM, DENSE, ITERATIVE)]
            cells = [shape, settled, *medians, share(entry["of_eager"]), share(entry["of_dense"])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(ratio: dict) -> str:
    low, high = (1 + end for end in ratio["ci95"])
    return f"{1 + ratio['value']:.3f} ({low:.3f} to {high:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of bert that was deployed in int8")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "settle.json")
    parser.add_argument("--table", type=Path, help="page whose table is written from the file; nothing is measured")
    args = parser.parse_args()
    try:
        if args.table is None:
            atomic_write(args.out, to_json(measure(args)))
            print(table(read_text(args.out)))
        else:
            page = args.table.read_text(encoding="utf-8")
            atomic_write(args.table, with_marked(page, "settle", table(read_text(args.out))))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
