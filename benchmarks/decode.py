"""Time to first token and time per token of a decoder in every runtime that is here, interleaved in one process.

    python benchmarks/decode.py
    python benchmarks/decode.py --batches 8 --contexts 4096 --rounds 1 --arms eager openvino_int8   # the largest cell
    python benchmarks/decode.py --model outputs/smollm2/iterative/model --memory --out /tmp/decode.json

Every cell (batch x context) times its arms on the same texts, in turns at every token. "eager again" is eager fp32 once
more (A/A): its intervals must hold 0. Changes are relative to eager fp32. llama.cpp runs the embedded GGUF as it comes
(or --gguf). Bytes of a token are by arithmetic. Run it alone: what else computes is reported, not taken out.
"""

import argparse
import gc
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from icd_lib.data.fetch import fetched_file
from icd_lib.data.language import domain_blocks, load_domains
from icd_lib.data.sources import SMOLLM2
from icd_lib.decoding import DECODERS, REFERENCE
from icd_lib.decoding.base import Decoder
from icd_lib.decoding.bytes import bytes_per_token
from icd_lib.errors import ConfigError, MeasureError, ResourceError
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.decode import change_figure, measure_decoding, time_figure
from icd_lib.measure.decode_peak import decode_peak
from icd_lib.measure.environment import fingerprint, versions
from icd_lib.metric import Figure, not_measured
from icd_lib.models.checkpoint.loading import open_model
from icd_lib.models.families.llama import NAME
from icd_lib.report.words import interval_text, value_text
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.record_json import as_json

ROOT = Path(__file__).resolve().parent.parent
AGAIN = "eager again"
DOMAINS = ("encyclopaedia", "news", "films", "verses")
PACKAGES = ("torch", "transformers", "openvino", "nncf", "gguf")
WARMUP = 2


def texts(tokenizer, names: list[str], batch: int, length: int) -> np.ndarray:
    """int64 (batch, length) of real running text, of the domains that are here."""
    found, missing = load_domains(names)
    blocks = [one.ids for one in domain_blocks(tokenizer, found, length, batch).values()] if found else []
    ids = np.concatenate(blocks)[:batch] if blocks else np.empty((0, length), np.int64)
    if len(ids) < batch:
        raise MeasureError(f"{batch} texts of {length} tokens are needed, {len(ids)} were found; missing: {missing}")
    return ids


def prepare(names: list[str], model, options: argparse.Namespace, cell: tuple[int, int]) -> tuple[dict, dict]:
    """Arm → decoder of those that are here, and arm → why it is not."""
    arms: dict[str, Decoder] = {}
    absent: dict[str, str] = {}
    batch, context = cell
    for name in names:
        row = DECODERS[REFERENCE if name == AGAIN else name]
        try:
            row.check()
            arms[name] = row.prepare(model, threads=options.threads, **row_options(name, options, batch, context))
        except (ResourceError, ConfigError) as error:
            absent[name] = error.args[0]
    return arms, absent


def row_options(name: str, options: argparse.Namespace, batch: int, context: int) -> dict:
    room = WARMUP + options.steps + 8
    if name == "llamacpp":
        return {"file": options.gguf or fetched_file(SMOLLM2), "texts": batch, "context": context + room}
    if name == "compile":
        return {"room": room}
    return {"group": options.group} if name == "openvino_int4" else {}


def measure_cell(model, ids: np.ndarray, options: argparse.Namespace, batch: int, context: int) -> list[dict]:
    """A record for every arm."""
    names = [REFERENCE, AGAIN, *(name for name in options.arms if name != REFERENCE)]
    arms, absent = prepare(names, model, options, (batch, context))
    with watched() as conditions:
        times = measure_decoding(
            arms,
            ids[:batch],
            context=context,
            steps=options.steps,
            rounds=options.rounds,
            warmup=WARMUP,
            progress=lambda done, total: print(f"  {batch} x {context}: round {done} of {total}", file=sys.stderr),
        )
    found = []
    for name in names:
        record = {"batch": batch, "context": context, "arm": name}
        if name in absent:
            found.append(record | {"absent": absent[name]})
            continue
        first, step = times[name].first_ms, times[name].step_ms
        against = times[REFERENCE]
        record |= {
            "first_ms": time_figure(first),
            "step_ms": time_figure(step),
            "tokens_per_s": 1000 * batch / time_figure(step).value,
            "first_vs_eager": change_figure(first, against.first_ms),
            "step_vs_eager": change_figure(step, against.step_ms),
            "bytes_per_token": moved(arms[name], batch, context),
            "samples": {"first_ms": first.tolist(), "step_ms": step.tolist()},
            "disturbances": disturbances(conditions),
        }
        if options.memory and name != AGAIN:
            known = {"threads": options.threads} | row_options(name, options, batch, context)
            record["peak_mb"] = decode_peak(name, options.model or NAME, batch, context, **known)
        found.append(record)
    for decoder in arms.values():
        decoder.close()
    gc.collect()
    return found


def moved(decoder: Decoder, batch: int, context: int) -> Figure:
    if decoder.weight_bytes is None or decoder.cache_bytes is None:
        return not_measured("bytes", "the runtime does not say what it holds")
    return bytes_per_token(decoder.weight_bytes, decoder.cache_bytes, batch, context, decoder.state_bytes)


def table(records: list[dict]) -> str:
    """Markdown: a line per arm of every cell."""
    heads = ["batch x context", "arm", "first token, ms", "against eager", "token, ms", "against eager", "tokens/s"]
    lines = [f"| {' | '.join([*heads, 'MB per token'])} |", "|---" * (len(heads) + 1) + "|"]
    for one in records:
        cell = f"{one['batch']} x {one['context']}"
        if "absent" in one:
            lines.append(f"| {cell} | {one['arm']} | {one['absent']} |  |  |  |  |  |")
            continue
        read = one["bytes_per_token"].value
        told = [
            f"{one['first_ms'].value:.1f}",
            told_change(one["first_vs_eager"]),
            f"{one['step_ms'].value:.2f}",
            told_change(one["step_vs_eager"]),
            f"{one['tokens_per_s']:.0f}",
            "" if read is None else f"{read / 1e6:.1f}",
        ]
        lines.append(f"| {cell} | {one['arm']} | {' | '.join(told)} |")
    return "\n".join(lines)


def told_change(change: Figure) -> str:
    return f"{value_text(change.value, change.unit)} ({interval_text(change.ci95, change.unit)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help=f"checkpoint or folder (default: the embedded {NAME})")
    parser.add_argument("--gguf", type=Path, help="file that llama.cpp runs (default: the embedded one)")
    parser.add_argument("--arms", nargs="+", default=list(DECODERS), help="rows of icd_lib.decoding")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--contexts", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--steps", type=int, default=24, help="tokens that are timed in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--group", type=int, default=64, help="columns that share a scale in int4")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), help="where the texts are from")
    parser.add_argument("--memory", action="store_true", help="peak memory too, of a process per arm")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--out", type=Path, help="JSON (default: docs/figures/decode.json)")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    began = time.monotonic()
    with torch_threads(options.threads):
        options.threads = torch.get_num_threads()
        model, tokenizer, label = open_model(options.model or NAME)
        longest = max(options.contexts) + WARMUP + options.steps
        ids = texts(tokenizer, options.domains, max(options.batches), longest)
        records = []
        for batch in options.batches:
            for context in options.contexts:
                DECODERS["compile"].reset()
                records += measure_cell(model, ids, options, batch, context)
    result = {
        "model": label,
        "threads": options.threads,
        "seconds": time.monotonic() - began,
        "records": as_json(records),
        "environment": fingerprint(),
        "versions": versions(PACKAGES),
    }
    atomic_write(options.out or ROOT / "docs" / "figures" / "decode.json", to_json(result))
    print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
