"""What columns that stay float cost in an int8 graph of OpenVINO: none, gathered into whole tiles, scattered.

    python benchmarks/outliers.py                   # minutes; writes docs/figures/outliers.json, docs/QUANTIZATION.md
    python benchmarks/outliers.py --tiles 2 --rounds 10 --out /tmp/outliers

The dense model of scenario `bert` in eight bits, of every FFN's second Linear the columns that stick out most in float
(in bf16 where the processor has it). The same columns lie in one stretch of whole tiles, as iterative lays them out, or
where the stored order has them; linear keeps every tile of its layout float in which one of them lies. All arms are
timed interleaved in one process, with the int8 graph twice.
"""

import argparse
import copy
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from torch import nn

from icd_lib.axes.permute import permute
from icd_lib.errors import IcdError
from icd_lib.measure.comparison import relative
from icd_lib.measure.conditions import warnings_of, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import bootstrap_ci, paired_ratio, summarise
from icd_lib.metric import figure
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import quantized_linears
from icd_lib.report.marked import with_marked
from icd_lib.report.words import interval_text, value_text
from icd_lib.run.artifacts import Run
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from icd_lib.transforms.quantization.outliers import widest
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.contexts import make_context

ROOT = Path(__file__).resolve().parent.parent
FILE, PAGE = "outliers.json", ROOT / "docs" / "QUANTIZATION.md"
INT8, AGAIN, FLOAT = "all int8", "all int8, again", "nothing int8"
TILE = 16
TILES = (1, 2, 5)
BATCHES = 2  # of calibration text: ranges hardly matter for the clock
SEED, RESAMPLES = 0, 2000


def with_float_columns(model: nn.Module, batches: list[dict], tiles: int = 0, granule: int = 1) -> nn.Module:
    """The model in eight bits; of every FFN so many tiles' worth of columns stay float, with their whole granules."""

    def left(axis: str, far: np.ndarray) -> np.ndarray | None:
        return widest(far, tiles * TILE / len(far), granule) if tiles and axis.startswith("ffn") else None

    return quantize(model, batches, Recipe(compensate=False, left=left))[0]


def gathered(model: nn.Module) -> nn.Module:
    """The same function in a layout in which the columns that stay float lie side by side, first of all."""
    made = copy.deepcopy(model)
    consumers = {block.axis: block.consumer for block in find_adapter(made).blocks()}
    for axis in find_adapter(made).axes():
        unrounded = getattr(consumers.get(axis.name), "unrounded", None)
        if unrounded is not None:
            permute(made, axis, np.argsort(-unrounded.numpy(), kind="stable"))
    return made


def float_columns(model: nn.Module) -> float:
    """Columns that stay float, mean over the Linears that have any; 0 without."""
    counts = [int((one.unrounded > 0).sum()) for one in quantized_linears(model).values() if one.unrounded is not None]
    return float(np.mean(counts)) if counts else 0.0


def arms_of(model: nn.Module, batches: list[dict], tiles: list[int]) -> dict[str, nn.Module]:
    """Arm → model; all but the float one are for an int8 runtime."""
    whole = with_float_columns(model, batches)
    arms = {INT8: whole, AGAIN: whole}
    for count in tiles:
        scattered = with_float_columns(model, batches, count)
        size = f"{count * TILE} columns"
        arms[f"{size} gathered"] = gathered(scattered)
        arms[f"{size} scattered"] = scattered
        arms[f"{size}, linear's whole tiles"] = with_float_columns(model, batches, count, TILE)
    return arms


def measure(context: Context, tiles: list[int], rounds: int, warmup: int) -> dict:
    """Every arm at every shape of the scenario."""
    arms = arms_of(context.model, context.calibration(64, 1024)[:BATCHES], tiles)
    int8, plain = context.deployed("openvino_int8"), context.deployed("openvino_bf16")
    found: dict = {"runtime": int8.row.label, "hints": dict(int8.row.hints), "tile": TILE, "rounds": rounds}
    found |= {"threads": context.run.scenario.get("threads"), "environment": fingerprint(), "shapes": {}}
    with ExitStack() as held:
        prepared = {name: int8.prepare(model, context.example) for name, model in arms.items()}
        prepared[FLOAT] = plain.prepare(context.model, context.example)
        ready = {name: held.enter_context(closing(one)) for name, one in prepared.items()}
        for batch, length in context.get("measure.shapes"):
            inputs = context.fixed(batch, length)
            for one in ready.values():
                one.warm(inputs)
            calls = {name: one.call(inputs) for name, one in ready.items()}
            with watched() as conditions:
                samples = measure_interleaved(calls, repeats=rounds, warmup=warmup, seed=SEED, settle_ms=SETTLE_MS)
            found["shapes"][f"{batch}x{length}"] = {
                "warnings": warnings_of(conditions, rounds),
                "arms": {name: entry(ms, samples[INT8], arms.get(name)) for name, ms in samples.items()},
            }
    return found


def entry(ms: np.ndarray, reference: np.ndarray, model: nn.Module | None) -> dict:
    """Figures of an arm at a shape; model: None where nothing of it is in eight bits."""
    summary, interval = summarise(ms), bootstrap_ci(ms, seed=SEED, resamples=RESAMPLES)
    latency = figure(summary["median"], "ms", "measured", n=len(ms), method="median, interleaved", ci95=interval)
    change = relative(paired_ratio(ms, reference, seed=SEED, resamples=RESAMPLES))
    columns = None if model is None else float_columns(model)
    return {"float_columns": columns, "latency_ms": latency, "vs_int8": change}


def table(found: dict) -> str:
    """Markdown: a line per arm, its latency and its change against the int8 graph at every shape."""
    shapes = found["shapes"]
    heads = [f"{label.replace('x', ' × ')}{words}" for label in shapes for words in (", ms", ", against all int8")]
    lines = [f"| arm | float columns a layer | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for name, item in next(iter(shapes.values()))["arms"].items():
        columns = "all" if item["float_columns"] is None else f"{item['float_columns']:.0f}"
        cells = [cell for at in shapes.values() for cell in cells_of(at["arms"][name], name == INT8)]
        lines.append(f"| {name} | {columns} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cells_of(item: dict, is_reference: bool) -> list[str]:
    """Median, and change with its interval."""
    latency, change = item["latency_ms"], item["vs_int8"]
    told = f"{value_text(change.value, change.unit)} ({interval_text(change.ci95, change.unit)})"
    return [f"{latency.value:.2f}", "–" if is_reference else told]


def main() -> int:
    """Measure, keep the figures, write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=list(TILES), help=f"tiles of {TILE} columns in float")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of the figures (default: docs/figures, and the page)")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            context = make_context(Run(load_scenario("bert", []), Path(folder)), lambda line: print(line, flush=True))
            with torch_threads(context.get("threads")):
                found = measure(context, args.tiles, args.rounds, args.warmup)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    atomic_write((args.out or ROOT / "docs" / "figures") / FILE, to_json(found))
    if args.out is None:
        atomic_write(PAGE, with_marked(PAGE.read_text(encoding="utf-8"), "outliers", table(found)))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
