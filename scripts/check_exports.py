"""Load exports as their users do, with optimum and sentence-transformers in environments of their own, and compare.

`make test-exports` makes those environments (environments/exports-*.txt) and runs this. Every model is exported for
every runtime and precision; what the others' loaders give for some texts is held against what the runtime's own Python
package gives here for the same tokens. ARGS="--folder outputs/bert/best" checks an export that lies there already.
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
from icd_lib.deploy.record import check_export
from icd_lib.deploy.sentence import Pooling
from icd_lib.deploy.target import find_target, targets
from icd_lib.deploy.verify import TEXTS, USERS_COSINE, compare, run_fresh
from icd_lib.errors import IcdError, ResourceError
from icd_lib.models.checkpoint.loading import open_model
from icd_lib.models.families.bert import DEFAULT_CHECKPOINT
from icd_lib.models.quantized import has_eight_bits
from icd_lib.paths import project_root
from icd_lib.transforms.quantization.calibrate import Recipe, quantize


def models(tokenizer, dense, calibration):
    """Name → model and tokenizer: a trained encoder, the same quantised, and with widths of its own in every layer.

    calibration: input dicts that ranges are taken from
    """
    yield "MiniLM", dense, tokenizer
    yield "MiniLM, quantised", quantize(dense, calibration, Recipe())[0], tokenizer
    uneven = open_model(DEFAULT_CHECKPOINT)[0]
    draw = random.Random(0)
    for axis in icd.find_axes(uneven, {"input_ids": torch.tensor([[101, 2023, 102]])}):
        if axis.kind == "ffn":
            alive = np.zeros(axis.size, bool)
            alive[draw.sample(range(axis.size), draw.choice((500, 777, 1024)))] = True
            icd.compact(uneven, axis, alive)
    yield "MiniLM, uneven widths", uneven, tokenizer


def check_folder(folder: Path, name: str) -> int:
    """Print a line for every loader; how many failed."""
    facts, failed = check_export(folder), 0
    read = Pooling(facts["pooling"], facts["normalize"], facts["max_length"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(list(TEXTS), padding=True, truncation=True, max_length=read.max_length, return_tensors="np")
    given = {key: np.asarray(tokens[key]) for key in facts["inputs"]}
    options = {"threads": torch.get_num_threads(), "hints": facts["hints"]}
    own = {"eager": "transformers" if facts["loads_plain"] else "icd"}.get(facts["runtime"], facts["runtime"])
    states = run_fresh(own, folder, given, options).output
    expected = {"optimum": states, "sentences": read(states, given["attention_mask"])}
    users = targets()[facts["runtime"], facts["precision"]].users
    # What PyTorch loads is loaded in both environments, the others' files in the one that has their loader.
    for environment in [users.backend] if users.prefix else ["openvino", "onnx"]:
        python = project_root() / ".venv-exports" / environment / "bin" / "python"
        for kind in ["optimum", "sentences"] if users.prefix else ["sentences"]:
            loader = f"{kind}_{users.backend}"
            asked = {"texts": list(TEXTS)} if kind == "sentences" else given
            try:
                found = run_fresh(loader, folder, asked, options, str(python))
                mask = None if kind == "sentences" else given["attention_mask"]
                compared = compare(found.output, expected[kind], mask)
                good = compared["min_cosine"] >= USERS_COSINE[facts["precision"]]
                good &= found.told.get("precision") in (None, facts["hints"].get("INFERENCE_PRECISION_HINT"))
                told = (
                    f"max abs {compared['max_abs_error']:.2g}, least cosine {compared['min_cosine']:.7f}, {found.told}"
                )
            except IcdError as error:
                good, told = False, str(error)
            failed += not good
            print("ok    " if good else "FAILED", f"{name}: {loader}: {told}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", action="append", help="an export that lies there already (repeatable)")
    folders = parser.parse_args().folder
    if folders:
        return min(1, sum(check_folder(Path(folder), folder) for folder in folders))
    failed, (dense, tokenizer, _) = 0, open_model(DEFAULT_CHECKPOINT)
    warnings.simplefilter("ignore", UserWarning)
    texts = [f"{text} {other}" for text in TEXTS for other in TEXTS]
    calibration = [dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))]
    with tempfile.TemporaryDirectory() as scratch:
        for name, model, words in models(tokenizer, dense, calibration):
            for runtime, precision in targets():
                if has_eight_bits(model) and precision != "int8":
                    continue
                told = f"{name}, {runtime} {precision}"
                try:
                    find_target(runtime, precision)
                except ResourceError as error:
                    print("absent", f"{told}: {error.args[0]}")
                    continue
                folder = Path(scratch) / f"{len(list(Path(scratch).iterdir()))}"
                given = None if has_eight_bits(model) else calibration
                icd.export(model, words, folder, runtime=runtime, precision=precision, calibration=given)
                failed += check_folder(folder, told)
    print("all loaded and compared" if not failed else f"{failed} failed")
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
