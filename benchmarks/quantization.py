"""What eight bits of the dense model lose and how fast they are: NNCF's against this project's, in OpenVINO.

    python benchmarks/quantization.py --out docs/figures           # minutes; quantization.json, part after part
    python benchmarks/quantization.py --table docs/QUANTIZATION.md # writes the page's tables from it, measures nothing
    python benchmarks/quantization.py --items 200 --rounds 5 --out /tmp/quantization

The dense model of scenario `bert`, judged in the compiled int8 graphs on unseen and on seen text against itself in
eager fp32, and timed with all graphs interleaved in one process, NNCF's first twice. NNCF gets the batches that the
ladder gives it, and 1,000 texts. A call that was interrupted goes on after the last part that is in the file, unless it
asks for something else or runs on another processor.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from icd_lib.errors import ConfigError, IcdError
from icd_lib.measure.battery import BatteryResult, over_domains
from icd_lib.measure.comparison import relative
from icd_lib.measure.conditions import warnings_of, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import bootstrap_ci, paired_difference, paired_ratio, summarise
from icd_lib.metric import figure
from icd_lib.report.marked import with_marked
from icd_lib.report.words import interval_text, value_text
from icd_lib.run.artifacts import Run
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes.base import Prepared
from icd_lib.runtimes.encoder import RuntimeEncoder
from icd_lib.runtimes.target import EAGER, Target
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from icd_lib.transforms.quantization.options import QuantizationOptions
from icd_lib.transforms.quantization.sensitivity import fewer
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.contexts import make_context

ROOT = Path(__file__).resolve().parent.parent
FILE, NOT_RUN = "quantization.json", "Not run yet."
RUNTIME = "openvino_int8"
DENSE = "dense, PyTorch eager, fp32"
LADDER, AGAIN = "NNCF, the ladder's batches", "NNCF, the ladder's batches, again"
MANY, OURS = "NNCF, 1,000 texts", "ours"
NNCF, JUDGED = (LADDER, MANY), (LADDER, MANY, OURS)
SPLITS = ("unseen", "seen")
TEXTS, TOKENS = 1000, 1024  # of NNCF's larger calibration: texts, and tokens of a batch
SEED, RESAMPLES = 0, 2000


@contextmanager
def prepared_arms(context: Context) -> Iterator[dict[str, Prepared]]:
    """Arm → the dense model in eight bits, compiled; closed at the end."""
    options = QuantizationOptions()
    ladder = Target.named(RUNTIME, context.deploy_calibration)
    many = Target.named(RUNTIME, context.calibration(TEXTS, TOKENS))
    text = fewer(context.calibration(context.get("data.calibration_texts"), 2048), options.tokens)
    with ExitStack() as held:

        def keep(name: str, target: Target, model) -> Prepared:
            context.progress(f"preparing {name}")
            return held.enter_context(closing(target.prepare(model, context.example)))

        found = {name: keep(name, ladder, context.model) for name in (LADDER, AGAIN)}
        found[MANY] = keep(MANY, many, context.model)
        context.progress("rounding, ours")
        rounded = quantize(context.model, text, Recipe(options.alpha, options.compensate))[0]
        yield found | {OURS: keep(OURS, ladder, rounded)}


def judge(context: Context, arms: dict[str, Prepared], split: str) -> dict:
    """Every arm on a split against dense in eager fp32, and ours against both of NNCF's."""
    suite, dense, results = context.suite, context.dense_result(split), {}
    for name in JUDGED:
        context.progress(f"{name} on {split} text")
        results[name] = suite.evaluate(RuntimeEncoder(arms[name]), split)
    told: dict = {"n_items": dense.n_items, "domains": list(dense.embeddings), "arms": {}}
    for name, result in results.items():
        compared = suite.compare(result, dense)
        told["arms"][name] = {key: compared[key] for key in ("own", "dropin", "cosine", "worst_domain")}
        if name == OURS:
            for other in NNCF:
                closer = cosine_lost(result, results[other], dense, documents_of(context, split))
                told["arms"][OURS].setdefault("cosine_lost_against", {})[other] = closer
    for other in NNCF:
        own = suite.compare(results[OURS], results[other])["own"]
        told["arms"][OURS].setdefault("own_against", {})[other] = own
    return told


def documents_of(context: Context, split: str) -> dict[str, np.ndarray]:
    return {name: text.documents for name, text in context.suite.domains(split).items()}


def cosine_lost(
    one: BatteryResult, other: BatteryResult, dense: BatteryResult, documents: dict[str, np.ndarray]
) -> dict:
    """1 − cosine to dense of `one` minus that of `other`, texts paired, clustered by document: {"value", "ci95"}."""
    found = []
    for name, wanted in dense.embeddings.items():
        near, far = ((result.embeddings[name].astype(np.float64) * wanted).sum(1) for result in (one, other))
        apart = paired_difference(far, near, clusters=documents[name])
        found.append({"drop_pp": apart["drop_pp"], "se_pp": apart["se_pp"], "dense_pct": 0.0, "pct": 0.0})
    mean = over_domains(found)
    assert mean is not None, "a split that is judged has a domain"
    return {"value": mean["drop_pp"] / 100, "ci95": [end / 100 for end in mean["ci95"]]}


def clock(context: Context, arms: dict[str, Prepared], rounds: int, warmup: int) -> dict:
    """Every arm and dense in eager at every shape of the scenario, interleaved."""
    shapes = {}
    for batch, length in context.get("measure.shapes"):
        inputs = context.fixed(batch, length)
        for one in arms.values():
            one.warm(inputs)
        calls = {DENSE: EAGER.call(context.model, inputs)} | {name: one.call(inputs) for name, one in arms.items()}
        context.progress(f"timing {len(calls)} arms at {batch} x {length}, {rounds} rounds")
        with watched() as conditions:
            samples = measure_interleaved(calls, repeats=rounds, warmup=warmup, seed=SEED, settle_ms=SETTLE_MS)
        entries = {name: entry(ms, samples) for name, ms in samples.items()}
        shapes[f"{batch}x{length}"] = {"warnings": warnings_of(conditions, rounds), "arms": entries}
    return shapes


def entry(ms: np.ndarray, samples: dict[str, np.ndarray]) -> dict:
    """An arm's median, its share of dense in eager, and its change against the graph that the ladder makes."""
    latency = figure(summarise(ms)["median"], "ms", "measured", n=len(ms), method="median, interleaved", ci95=ends(ms))
    change, share = (
        relative(paired_ratio(ms, samples[name], seed=SEED, resamples=RESAMPLES)) for name in (LADDER, DENSE)
    )
    assert share.value is not None and share.ci95 is not None, "a ratio that was measured has both"
    share = replace(share, value=1 + share.value, ci95=(1 + share.ci95[0], 1 + share.ci95[1]))
    return {"latency_ms": latency, "of_eager": share, "vs_ladder": change}


def ends(ms: np.ndarray) -> tuple[float, float]:
    return bootstrap_ci(ms, seed=SEED, resamples=RESAMPLES)


def fill(parts: dict[str, Callable[[], dict]], asked: dict, file: Path) -> dict:
    """`asked` and every part in JSON: those that the file has of the same `asked`, else made, each kept at once."""
    kept = read_text(file) if file.is_file() else {}
    found = kept if kept.get("asked") == json.loads(to_json(asked)) else {"asked": asked}
    for name, make in parts.items():
        if name not in found:
            found[name] = make()
            atomic_write(file, to_json(found))
    return read_text(file) if file.is_file() else found


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Every part that the file does not have yet."""
    overrides = [f"data.test_items={args.items}", "codesign.budget_on=unseen"]
    context = make_context(Run(load_scenario("bert", overrides), folder), lambda line: print(line, flush=True))
    with torch_threads(context.get("threads")), ExitStack() as held:
        opened: list[dict[str, Prepared]] = []

        def arms() -> dict[str, Prepared]:
            if not opened:
                opened.append(held.enter_context(prepared_arms(context)))
            return opened[0]

        machine = fingerprint()
        asked = {"items": args.items, "rounds": args.rounds, "warmup": args.warmup, "cpu": machine["cpu"]["model"]}
        asked |= {"threads": context.get("threads"), "runtime": Target.named(RUNTIME).row.label}
        parts: dict[str, Callable[[], dict]] = {"environment": lambda: machine}
        parts |= {split: lambda split=split: judge(context, arms(), split) for split in SPLITS}
        parts["shapes"] = lambda: clock(context, arms(), args.rounds, args.warmup)
        return fill(parts, asked, args.out / FILE)


def quality_table(found: dict) -> str:
    """Markdown: a line per arm and split."""
    titles = ["text", "int8 of the dense model", "own lost, pp", "drop-in lost, pp", "1 − cosine"]
    titles += ["1 − cosine, ours against it", "own lost by ours against it, pp"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for split in (split for split in SPLITS if split in found):
        arms = found[split]["arms"]
        for name, item in arms.items():
            lost = [f"{item[key]['drop_pp']:+.2f} ± {item[key]['se_pp']:.2f}" for key in ("own", "dropin")]
            apart, own = (arms[OURS][key].get(name) for key in ("cosine_lost_against", "own_against"))
            closer = "–" if apart is None else f"{apart['value']:+.5f} ({_ends(apart, 5)})"
            less = "–" if own is None else f"{own['drop_pp']:+.2f} ({_ends(own, 2)})"
            told = f"{split}, {found[split]['n_items']:,} texts"
            lines.append(
                f"| {told} | {name} | {' | '.join(lost)} | {1 - item['cosine']['value']:.5f} | {closer} | {less} |"
            )
    return "\n".join(lines)


def latency_table(found: dict) -> str:
    """Markdown: a line per arm; at every shape its median, its share of eager and its change against the ladder's."""
    heads = ["ms", "of eager", "against NNCF, the ladder's"]
    shapes = found.get("shapes", {})
    titles = [f"{label.replace('x', ' × ')}, {words}" for label in shapes for words in heads]
    lines = [f"| arm | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    for name in next(iter(shapes.values()))["arms"]:
        cells = []
        for at in shapes.values():
            item = at["arms"][name]
            share, change = item["of_eager"], item["vs_ladder"]
            told = f"{value_text(change['value'], change['unit'])} ({interval_text(change['ci95'], change['unit'])})"
            cells.append(f"{item['latency_ms']['value']:.2f}")
            cells.append("–" if name == DENSE else f"{share['value']:.3f} ({_ends(share, 3)})")
            cells.append("–" if name in (DENSE, LADDER) else told)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(found: dict) -> str:
    """What stands between the page's markers: what was not run yet says so."""
    if not any(split in found for split in SPLITS):
        return NOT_RUN
    timed = latency_table(found) if "shapes" in found else f"Latency: {NOT_RUN.lower()}"
    return f"{quality_table(found)}\n\n{timed}"


def _ends(item: dict, digits: int) -> str:
    return " to ".join(f"{end:+.{digits}f}" if item["ci95"][0] < 0 else f"{end:.{digits}f}" for end in item["ci95"])


def write_page(page: Path, found: dict) -> None:
    """The page with its tables made anew."""
    if not page.is_file():
        raise ConfigError(f"--table {page} is no file; give the page that has the markers, docs/QUANTIZATION.md")
    atomic_write(page, with_marked(page.read_text(encoding="utf-8"), "int8", tables(found)))


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, or write the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--items", type=int, default=3000, help="texts of each unseen domain; of a seen one half as many"
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help=f"folder of {FILE}")
    parser.add_argument("--table", type=Path, help="page whose tables are written from the file; nothing is measured")
    args = parser.parse_args(argv)
    try:
        if args.table is not None:
            file = args.out / FILE
            write_page(args.table, read_text(file) if file.is_file() else {})
            return 0
        with tempfile.TemporaryDirectory() as folder:
            print(tables(measure(args, Path(folder))))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
