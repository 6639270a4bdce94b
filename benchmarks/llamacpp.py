"""The decoder in llama.cpp: the GGUF that it comes as, ours, and llama.cpp's own rounding, on text unseen.

    ICD_LLAMACPP_PYTHON=/path/to/python python benchmarks/llamacpp.py           # docs/figures/llamacpp.json, a table
    python benchmarks/llamacpp.py --parts clock --resume                        # times alone; with nothing beside it
    python benchmarks/llamacpp.py --parts quality --tokens 1536 --out /tmp/llamacpp
    python benchmarks/llamacpp.py --files mine=outputs/mine/model.gguf --resume --out /tmp/llamacpp

Every arm is a file that llama.cpp loads, of one model: the checkpoint's own weights as floats (f32: what the runtime
itself rounds), as we export them (q8_0, q4_0, q4_1), as llama.cpp writes them (Q4_K_M, from the f32 file, without an
importance matrix), the file as it came, and whatever --files names. Quality is against the checkpoint in PyTorch, fp32:
the file as it came stands for just those weights, so what it loses is the runtime's rounding of inputs and cache. The
clock times all files interleaved, token by token, against the file as it came, which runs twice (A/A).
"""

import argparse
import gc
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch
import transformers
from decode import DOMAINS, WARMUP, texts
from order import LENGTH, UNSEEN

from icd_lib.data.fetch import fetched_file
from icd_lib.data.language import Blocks, domain_blocks, load_domains
from icd_lib.data.sources import SMOLLM2
from icd_lib.decoding import DECODERS
from icd_lib.decoding.judged import Judged
from icd_lib.decoding.llamacpp import LlamaCppDecoder, quantize_gguf
from icd_lib.deploy.gguf import TYPES, write_gguf
from icd_lib.errors import ConfigError, IcdError
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.decode import change_figure, measure_decoding, time_figure
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.quality_lm import LanguageSuite, SplitResult
from icd_lib.measure.statistics import Z95
from icd_lib.models.checkpoint.gguf import read_header
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.report.marked import with_marked
from icd_lib.report.words import interval_text, value_text
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.storage.record_json import as_json

ROOT = Path(__file__).resolve().parent.parent
FIGURES, FILE, PAGE = ROOT / "docs" / "figures", "llamacpp.json", ROOT / "docs" / "DECODER.md"
CAME, AGAIN, FLOATS = "as it came", "as it came, again", "f32"
OWN = (FLOATS, "q8_0", "q4_1", "q4_0")
THEIRS = ("Q4_K_M",)
ROWS = 2  # texts that llama.cpp reads at once when it is judged
NOT_RUN = "Not run yet."


def files_of(args, model, tokenizer, folder: Path) -> dict[str, Path]:
    """Arm → file; those that are made are written to `folder`."""
    came = fetched_file(SMOLLM2)
    files = {CAME: came} | {name: Path(path) for name, path in args.files}
    for kind in args.arms:
        if kind == CAME:
            continue
        path = folder / f"{kind}.gguf"
        if kind in TYPES:
            write_gguf(model, tokenizer, path, kind=kind, source=came)
        else:
            floats = folder / f"{FLOATS}.gguf"
            if not floats.is_file():
                write_gguf(model, tokenizer, floats, kind=FLOATS, source=came)
            quantize_gguf(floats, path, kind, args.threads)
        files[kind] = path
    return files


def opened(file: Path, threads: int, texts: int, context: int) -> LlamaCppDecoder:
    return DECODERS["llamacpp"].prepare(None, threads=threads, file=file, texts=texts, context=context)


def judge(
    file: Path, suite: LanguageSuite, dense: SplitResult, model, threads: int, *, length: int = LENGTH, rows: int = ROWS
) -> dict:
    """What llama.cpp loses with a file against the model in PyTorch, and what the file holds."""
    began = time.monotonic()
    with closing(opened(file, threads, rows, length)) as decoder:
        compared = suite.compare(suite.evaluate(Judged(decoder, model), dense.split), dense)
        told = decoder.told
    return {
        "bytes": told["bytes"],
        "version": told["version"],
        "blocks": read_header(file)["types"],
        "accuracy_drop_pp": {key: compared["own"][key] for key in ("drop_pp", "se_pp", "ci95")},
        **{key: compared[key] for key in ("n_items", "kl", "perplexity_ratio")},
        "seconds": round(time.monotonic() - began, 1),
    }


def quality(args, files: dict[str, Path], model, tokenizer, result: dict, save) -> None:
    """Every file that has not been judged yet; saved after each."""
    found, missing = load_domains(list(UNSEEN))
    for reason in missing.values():
        print(reason, flush=True)
    blocks: dict[str, Blocks] = domain_blocks(tokenizer, found, LENGTH, args.tokens // LENGTH)
    result["text"] = {"domains": list(blocks), "tokens": sum(one.ids.size for one in blocks.values())}
    suite = LanguageSuite({"unseen": blocks}, model)
    dense = suite.evaluate(model, "unseen")
    for arm, file in files.items():
        if arm not in result["quality"]:
            result["quality"][arm] = judge(file, suite, dense, model, args.threads)
            save()
            print(quality_lines({arm: result["quality"][arm]})[0], flush=True)


def clock(args, files: dict[str, Path], model, tokenizer, result: dict, save) -> None:
    """Time to the first token and per token of every file, interleaved; a shape is measured wholly or not at all."""
    longest = max(args.contexts) + WARMUP + args.steps
    ids = texts(tokenizer, list(DOMAINS), max(args.batches), longest)
    for batch in args.batches:
        for context in args.contexts:
            shape = f"{batch} × {context}"
            if set(result["clock"].get(shape, {}).get("arms", ())) >= {*files, AGAIN}:
                continue
            arms = {
                name: opened(file, args.threads, batch, context + WARMUP + args.steps + 8)
                for name, file in {CAME: files[CAME], AGAIN: files[CAME], **files}.items()
            }
            plan = {"context": context, "steps": args.steps, "rounds": args.rounds, "warmup": WARMUP}
            try:
                with watched() as conditions:
                    times = measure_decoding(arms, ids[:batch], **plan)
            finally:
                for decoder in arms.values():
                    decoder.close()
                gc.collect()
            entries = {
                name: {
                    "first_ms": time_figure(one.first_ms),
                    "step_ms": time_figure(one.step_ms),
                    "step_vs_came": change_figure(one.step_ms, times[CAME].step_ms),
                }
                for name, one in times.items()
            }
            result["clock"][shape] = {"threads": args.threads, "warnings": disturbances(conditions)}
            result["clock"][shape]["arms"] = as_json(entries)
            save()


def quality_lines(judged: dict[str, dict]) -> list[str]:
    """A row of Markdown for every file."""
    lines = []
    for arm, entry in judged.items():
        kl, ratio, drop = entry["kl"], entry["perplexity_ratio"], entry["accuracy_drop_pp"]
        cells = [
            arm,
            entry["blocks"],
            f"{entry['bytes'] / 1e6:.1f}",
            f"{kl['value']:.4f} ± {kl['ci95'][1] - kl['value']:.4f}",
        ]
        cells += [f"{ratio['value']:.4f} ({ratio['ci95'][0]:.4f} … {ratio['ci95'][1]:.4f})"]
        cells += [f"{drop['drop_pp']:+.2f} ± {Z95 * drop['se_pp']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def clock_lines(shapes: dict[str, dict]) -> list[str]:
    """A row of Markdown for every shape and file."""
    lines = []
    for shape, found in shapes.items():
        for arm, entry in found["arms"].items():
            change = entry["step_vs_came"]
            told = f"{value_text(change['value'], change['unit'])} ({interval_text(change['ci95'], change['unit'])})"
            cells = [shape, arm, f"{entry['first_ms']['value']:.1f}", f"{entry['step_ms']['value']:.2f}"]
            lines.append(f"| {' | '.join([*cells, '–' if arm == CAME else told])} |")
        lines += [f"| {shape} | {warning} |  |  |  |" for warning in found["warnings"]]
    return lines


def table(result: dict) -> str:
    """What the page holds between its markers."""
    if not result.get("quality"):
        return NOT_RUN
    heads = ["file", "tensors by block", "MB", "KL to dense, nats", "perplexity ×", "accuracy lost, pp"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *quality_lines(result["quality"])]
    text = result["text"]
    lines += ["", f"{text['tokens']:,} tokens of {', '.join(text['domains'])}."]
    if result.get("clock"):
        heads = ["batch × context", "file", "first token, ms", "token, ms", "against the file as it came"]
        lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *clock_lines(result["clock"])]
    else:
        lines += ["", "Its clock was not run yet."]
    return "\n".join(lines)


PARTS = {"quality": quality, "clock": clock}


def named_file(word: str) -> tuple[str, Path]:
    name, _, path = word.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"--files takes NAME=PATH, got '{word}'")
    return name, Path(path)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--arms", nargs="*", default=[*OWN, *THEIRS], help="our types, or kinds of llama.cpp's")
    parser.add_argument("--files", nargs="*", type=named_file, default=[], help="NAME=PATH of files of the same model")
    parser.add_argument("--tokens", type=int, default=24576, help="of unseen text")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--contexts", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--steps", type=int, default=24, help="tokens that are timed in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--out", type=Path, default=FIGURES, help=f"folder of {FILE}")
    parser.add_argument("--resume", action="store_true", help="keep what an interrupted call has found")
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    DECODERS["llamacpp"].check()
    if args.tokens < 3 * LENGTH:
        raise ConfigError(f"--tokens takes at least a block of {LENGTH} for each of three domains, got {args.tokens}")
    checkpoint = resolve_checkpoint(None, family="llama")
    model, tokenizer = load_model(checkpoint)
    model.requires_grad_(False)
    out = args.out / FILE
    result: dict = {"quality": {}, "clock": {}}
    if args.resume and out.is_file():
        result |= read_text(out)
    result |= {"checkpoint": checkpoint.provenance(), "environment": fingerprint()}

    def save() -> None:
        atomic_write(out, to_json(result))

    with torch_threads(args.threads), tempfile.TemporaryDirectory() as folder:
        args.threads = torch.get_num_threads()
        files = files_of(args, model, tokenizer, Path(folder))
        for part in args.parts:
            PARTS[part](args, files, model, tokenizer, result, save)
    print(table(result))
    if args.out == FIGURES:
        atomic_write(PAGE, with_marked(PAGE.read_text(encoding="utf-8"), "llamacpp", table(result)))
    return 0


def main() -> int:
    args = parse_options()
    transformers.logging.set_verbosity_error()
    try:
        return run(args)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
