"""What the order of columns is worth when the weights of a decoder are rounded in groups, and what folding it costs.

    python benchmarks/order.py                       # writes docs/figures/order.json
    python benchmarks/order.py --tokens 8192 --test-tokens 8000 --every 6 --out /tmp/order
    python benchmarks/order.py --checkpoint llama-worlds --parts model --resume --out /tmp/order

`matrices`: relative squared output error of single matrices on the dense model's inputs, by order, group and bits.
`model`: every matrix of the blocks rounded, block after block: KL to dense, perplexity ratio and next-token accuracy on
domains of which no text calibrated. Nothing is timed: `seconds` say how long rounding took here, whatever else ran.
`bits`: 4 or 8 bits for every matrix under several budgets of bytes, in stored and in folded order, and NNCF's own
mixtures; which of them keep 0.1 points and a perplexity of 1.01 is chosen on domains of their own and judged unseen.

The embedded checkpoint comes as a file of 4-bit blocks of 32 columns in stored order (Q4_1), so that its weights lie on
such a grid already: rounding to nearest points in groups of 32 finds it again, and the stored order is favoured where
groups fall on it. The result says so; groups of 64 and more, 3 bits and another checkpoint are what to judge by:
`llama-worlds`, which this project trained, was never rounded to less than bfloat16.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from icd_lib.data.fetch import fetched_file
from icd_lib.data.language import domain_blocks, load_domains
from icd_lib.data.sources import SMOLLM2
from icd_lib.errors import ConfigError, IcdError
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.quality_lm import LanguageResult, LanguageSuite, SplitResult
from icd_lib.measure.statistics import Z95, paired_difference
from icd_lib.models.checkpoint.gguf import read_header
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.families import find_adapter
from icd_lib.models.families.llama import NAME as SMOLLM2_NAME
from icd_lib.optional import load_optional
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.transforms.quantization.sensitivity import fewer
from icd_lib.transforms.streams import ResidualStream
from icd_lib.transforms.weights.activity import column_activity, shared_activity
from icd_lib.transforms.weights.allocate import allocate
from icd_lib.transforms.weights.fold import fold
from icd_lib.transforms.weights.gptq import relative_error, round_in_groups
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.orders import Columns, order_of
from icd_lib.transforms.weights.readings import inputs_of, readings
from icd_lib.transforms.weights.rounding import Recipe, gather_moments, round_weights
from icd_lib.transforms.weights.sensitivity import choices_of, lone_losses
from icd_lib.transforms.weights.transform import PROBE_TOKENS

ROOT = Path(__file__).resolve().parent.parent
SEEN = ("encyclopaedia", "news", "docstrings", "films", "tweets", "dialogues")  # those of parameters/smollm2.yaml
UNSEEN = ("products", "editorials", "glosses")
SELECTION = ("verses", "manual")
BUDGET_PP, MOST_PERPLEXITY = 0.1, 1.01
MEAN_BITS = (5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.5)
NNCF_SHARES = (0.2, 0.4, 0.6)  # of the weights, that lie in int4
LENGTH = 256
NNCF_TOKENS = 8192
MATRIX_GROUPS, MATRIX_BITS = (32, 64, 128), (4, 3)
ARMS = {
    "nearest": {"order": "stored", "compensate": False},
    "stored": {"order": "stored"},
    "random": {"order": "random"},
    "free": {"order": "descending", "folded": False},
    "folded": {"order": "descending"},
    "folded, followed": {"order": "descending", "follow": True},
}
SPECS = {
    "int4, 64": (4, 64),
    "int4, 128": (4, 128),
    "int4, 192": (4, 192),  # SmolLM2's 576 columns have no whole groups of 128
    "int3, 64": (3, 64),
    "int8, 64": (8, 64),
}
# which arms are worth their minutes at which grid
PLAN = {
    "int4, 64": tuple(ARMS),
    "int4, 128": ("nearest", "stored", "random", "folded"),
    "int4, 192": ("nearest", "stored", "random", "folded"),
    "int3, 64": ("nearest", "stored", "random", "folded"),
    "int8, 64": ("nearest", "stored", "folded"),
}


def matrix_errors(model, batches: list[dict], every: int, searched: bool) -> Iterator[dict]:
    """Every `every`-th layer's matrices: {"matrix", "layer", "bits", "group", "order", "error"}."""
    adapter = find_adapter(model)
    columns = Columns.in_model(adapter.axes())
    activity = column_activity(model, batches)
    shared = {axis: v for axis, v in shared_activity(columns, activity).items() if axis == "residual"}
    names = {module: name for name, module in model.named_modules()}
    stream = ResidualStream(adapter, batches)
    for block in adapter.blocks():
        inner = stream.inner(block)
        if block.layer % every == 0:
            reads = [(stage[0], inputs_of(stage[0], block, stream)) for stage in readings(block, stream)]
            for linear, parts in [*reads, (block.consumer, stream.flat(inner))]:
                gram = gather_moments(parts).gram
                for row in errors_of(names[linear], linear.weight.detach().double(), gram, columns, shared, searched):
                    yield {"layer": block.layer, **row}
        stream.advance(block, stream.sums(block, inner))


def errors_of(name: str, weight: torch.Tensor, gram: torch.Tensor, columns: Columns, shared: dict, searched: bool):
    """One matrix in every order at every grid that divides its columns."""
    generator, size = np.random.default_rng(0), weight.shape[1]
    active = gram.diagonal().numpy()
    evidence = {axis: shared.get(axis, found) for axis, found in columns.evidence(name, gram.diagonal()).items()}
    perms = {axis: order_of("descending", found, generator) for axis, found in evidence.items()}
    orders = {
        "stored": None,
        "random": torch.from_numpy(generator.permutation(size)),
        "ascending": torch.from_numpy(order_of("descending", -active, generator)),
        "free": torch.from_numpy(order_of("descending", active, generator)),
        "folded": columns.order(name, size, perms),
    }
    for bits in MATRIX_BITS:
        for group in MATRIX_GROUPS:
            if size % group:
                continue
            spec = Spec(bits, group, searched=searched)
            found = {"nearest": round_in_groups(weight, None, spec, name=name)}
            found |= {key: round_in_groups(weight, gram, spec, order, name) for key, order in orders.items()}
            for order, result in found.items():
                error = relative_error(weight, result.values, gram)
                yield {"matrix": name.rpartition(".")[2], "bits": bits, "group": group, "order": order, "error": error}


def summarise_matrices(rows: list[dict]) -> list[dict]:
    """Mean over the layers per matrix, bits, group and order."""
    keys = list(dict.fromkeys((r["matrix"], r["bits"], r["group"], r["order"]) for r in rows))
    found = []
    for key in keys:
        errors = [r["error"] for r in rows if (r["matrix"], r["bits"], r["group"], r["order"]) == key]
        found.append(
            dict(zip(("matrix", "bits", "group", "order"), key, strict=True))
            | {"mean_error": float(np.mean(errors)), "layers": len(errors)}
        )
    return found


def model_point(
    model, batches: list[dict], suite: LanguageSuite, dense: SplitResult, arm: str, grid: str, shared: dict
):
    """The whole model in one arm at one grid: what it is judged, and what it takes."""
    bits, group = SPECS[grid]
    started = time.monotonic()
    recipe = Recipe(spec_of=lambda name: Spec(bits, group), shared=shared, **ARMS[arm])
    found = round_weights(model, batches, recipe)
    error = fold(found.model, found.perms, batches[0]) if recipe.folded else None
    seconds = time.monotonic() - started
    result = suite.evaluate(found.model, "unseen")
    compared = suite.compare(result, dense)
    entry = {
        "arm": arm,
        "grid": grid,
        "bits_per_weight": found.bits_per_weight,
        "mean_error": float(np.mean([held.error for held in found.done.values()])),
        "fold_max_rel_error": error,
        "seconds": round(seconds, 1),
        "accuracy_drop_pp": {key: compared["own"][key] for key in ("drop_pp", "se_pp")},
        **{key: compared[key] for key in ("n_items", "kl", "perplexity_ratio", "perplexity", "dense_perplexity")},
        "domains": {
            name: {key: item[key] for key in ("kl", "perplexity_ratio")} for name, item in compared["domains"].items()
        },
    }
    return entry, result


def undivided(model, group: int) -> list[int]:
    """Numbers of columns among the blocks' matrices that are no multiple of a group."""
    linears = [one for name, one in model.named_modules() if "layers" in name and isinstance(one, torch.nn.Linear)]
    return sorted({one.in_features for one in linears if one.in_features % group})


def kl_cut(better: SplitResult, worse: SplitResult) -> dict:
    """KL(better) / KL(worse) − 1, tokens paired and clustered by document, each domain weighing the same.

    The interval is that of the difference, relative to the worse one's mean.
    """
    means, ses, base = [], [], []
    for name, item in better.domains.items():
        found = paired_difference(item.kl.ravel(), other_of(worse, name).kl.ravel(), clusters=item.kl_clusters.ravel())
        means.append(found["drop_pp"] / 100)
        ses.append(found["se_pp"] / 100)
        base.append(float(other_of(worse, name).kl.mean()))
    value, se = np.mean(means) / np.mean(base), np.sqrt(np.sum(np.square(ses))) / len(ses) / np.mean(base)
    return {"value": float(value), "ci95": [float(value - Z95 * se), float(value + Z95 * se)]}


def other_of(result: SplitResult, name: str) -> LanguageResult:
    return result.domains[name]


def bits_points(args, model, batches: list[dict], suite: LanguageSuite, result: dict, save) -> None:
    """Mixtures of 4 and 8 bits by budget, in either order, and NNCF's; each judged where it is chosen and unseen."""
    dense = {split: suite.evaluate(model, split) for split in ("selection", "unseen")}
    probed, specs = fewer(batches, PROBE_TOKENS), [Spec(4, 64), Spec(8, 64, searched=False)]
    of_bits = {spec.bits: spec for spec in specs}
    if "lone_losses" not in result:  # ten minutes of SmolLM2: an interrupted call keeps them
        result["lone_losses"] = lone_losses(model, probed, specs[0])
        save()
    losses, activity = result["lone_losses"], column_activity(model, batches)
    choices = choices_of(model, losses, activity, specs[0], specs)
    columns = Columns.in_model(find_adapter(model).axes())
    shared = {axis: v for axis, v in shared_activity(columns, activity).items() if axis == "residual"}
    weights = sum(model.get_submodule(name).weight.numel() for name in losses)
    done = {(item["arm"], item["asked"]) for item in result["bits"]}
    for arm in ("folded", "stored"):
        for mean in args.mean_bits:
            if (arm, mean) in done:
                continue
            chosen = allocate(choices, int(weights * mean / 8))
            recipe = Recipe(lambda name, chosen=chosen: of_bits[chosen[name].bits], shared=shared, **ARMS[arm])
            found = round_weights(model, batches, recipe)
            if recipe.folded:
                fold(found.model, found.perms, batches[0])
            entry = {"arm": arm, "asked": mean, "bits_per_weight": found.bits_per_weight}
            entry["in_int4"] = float(np.mean([item.bits == 4 for item in chosen.values()]))
            keep_point(result, entry | judged_twice(suite, found.model, dense), save)
    for share in args.nncf:
        if ("nncf", share) not in done:
            made, held = by_nncf(model, batches, share)
            entry = {"arm": "nncf", "asked": share, "bits_per_weight": held}
            keep_point(result, entry | judged_twice(suite, made, dense), save)
    result["bits_chosen"] = {arm: fewest(result["bits"], arm) for arm in ("folded", "stored", "nncf")}
    save()


def keep_point(result: dict, entry: dict, save) -> None:
    result["bits"].append(entry)
    save()
    print(bits_table([entry]).splitlines()[-1], flush=True)


def judged_twice(suite: LanguageSuite, model, dense: dict[str, SplitResult]) -> dict:
    found = {}
    for split, reference in dense.items():
        compared = suite.compare(suite.evaluate(model, split), reference)
        found[split] = {key: compared[key] for key in ("n_items", "kl", "perplexity_ratio")}
        found[split]["accuracy_drop_pp"] = {key: compared["own"][key] for key in ("drop_pp", "se_pp", "ci95")}
    return found


def fewest(points: list[dict], arm: str) -> dict | None:
    """The point of an arm with the fewest bits that keeps the budget where it is chosen, its unseen figures with it."""
    kept = [p for p in points if p["arm"] == arm and keeps_budget(p["selection"])]
    return min(kept, key=lambda point: point["bits_per_weight"], default=None)


def keeps_budget(judged: dict) -> bool:
    """With one standard error of the perplexity, as the loop asks where it chooses."""
    ratio = judged["perplexity_ratio"]
    bound = ratio["value"] + (ratio["ci95"][1] - ratio["value"]) / Z95
    return judged["accuracy_drop_pp"]["drop_pp"] <= BUDGET_PP and bound <= MOST_PERPLEXITY


def by_nncf(model, batches: list[dict], share: float):
    """The model with a share of its weights in int4 groups of 64 and the rest in int8 per row, as NNCF does it best.

    Data-aware: which matrices, and scales by AWQ and scale estimation. Returns it with its bits per weight, of the
    blocks' matrices: NNCF's embeddings and head lie in int8 in every arm, and ours stay as they are.
    """
    nncf = load_optional("nncf", "'icd-lib[runtimes]'")
    nncf.set_log_level("ERROR")
    few = fewer(batches, NNCF_TOKENS)
    rows = [row for batch in few for row in batch["input_ids"].split(1)]
    made = nncf.compress_weights(
        copy.deepcopy(model),
        mode=nncf.CompressWeightsMode.INT4_ASYM,
        ratio=share,
        group_size=64,
        all_layers=False,
        sensitivity_metric=nncf.SensitivityMetric.MAX_ACTIVATION_VARIANCE,
        awq=True,
        scale_estimation=True,
        ignored_scope=nncf.IgnoredScope(patterns=[".*embed.*", ".*lm_head.*"], validate=False),
        dataset=nncf.Dataset([{"input_ids": row, "use_cache": False} for row in rows]),
    )
    return made, nncf_bits(made)


def nncf_bits(model) -> float:
    """Bits per weight of the compressed matrices of the blocks, scales and zeros counted."""
    size = weights = 0
    for name, parameter in model.named_parameters():
        if "layers" in name and name.endswith("_proj.weight"):
            size += parameter.numel() * parameter.element_size()
    for name, buffer in model.named_buffers():
        if "layers" in name and ("scale" in name or "zero_point" in name):
            size += buffer.numel() * buffer.element_size()
    for name, linear in model.named_modules():
        if "layers" in name and isinstance(linear, torch.nn.Linear):
            weights += linear.in_features * linear.out_features
    return 8 * size / weights


def bits_table(points: list[dict]) -> str:
    """Markdown: a line per arm and budget."""
    heads = ["arm", "asked", "bits per weight", "chosen: perplexity ×", "accuracy lost, pp", "unseen: perplexity ×"]
    lines = [f"| {' | '.join([*heads, 'accuracy lost, pp', 'KL'])} |", "|---" * (len(heads) + 2) + "|"]
    for item in points:
        cells = [item["arm"], f"{item['asked']:g}", f"{item['bits_per_weight']:.2f}"]
        for split in ("selection", "unseen"):
            ratio, drop = item[split]["perplexity_ratio"], item[split]["accuracy_drop_pp"]
            cells += [f"{ratio['value']:.4f} ± {ratio['ci95'][1] - ratio['value']:.4f}"]
            cells += [f"{drop['drop_pp']:+.2f} ± {Z95 * drop['se_pp']:.2f}"]
        cells.append(f"{item['unseen']['kl']['value']:.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(points: list[dict]) -> str:
    """Markdown: a line per grid and arm."""
    lines = ["| grid | order | bits per weight | KL to dense | perplexity × | accuracy lost, pp |", "|---" * 6 + "|"]
    for item in points:
        kl, ratio, drop = item["kl"], item["perplexity_ratio"], item["accuracy_drop_pp"]
        half = (kl["ci95"][1] - kl["ci95"][0]) / 2
        cells = [item["grid"], item["arm"], f"{item['bits_per_weight']:.2f}", f"{kl['value']:.4f} ± {half:.4f}"]
        cells += [f"{ratio['value']:.3f}", f"{drop['drop_pp']:+.2f} ± {Z95 * drop['se_pp']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def matrix_table(rows: list[dict]) -> str:
    """Markdown: a line per matrix, bits and group; a column per order."""
    orders = list(dict.fromkeys(row["order"] for row in rows))
    lines = [f"| matrix | bits | group | {' | '.join(orders)} |", "|---" * (len(orders) + 3) + "|"]
    for key in dict.fromkeys((r["matrix"], r["bits"], r["group"]) for r in rows):
        errors = {r["order"]: r["mean_error"] for r in rows if (r["matrix"], r["bits"], r["group"]) == key}
        lines.append(f"| {' | '.join(map(str, key))} | {' | '.join(f'{errors[o]:.5f}' for o in orders)} |")
    return "\n".join(lines)


def past_of(checkpoint) -> str:
    """Whether the weights were on a grid before, in words."""
    if (checkpoint.source, checkpoint.name) == ("embedded", SMOLLM2_NAME):
        types = read_header(fetched_file(SMOLLM2))["types"]
        return f"the file's own blocks are {types}; a Q4_1 block is 32 columns in stored order"
    if checkpoint.source == "embedded":
        return "none: trained by this project, its matrices stored in bfloat16"
    return "not known; see the checkpoint's card"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", help="a folder, GGUF file, hub id or llama-worlds (default: the embedded SmolLM2)"
    )
    parser.add_argument("--parts", nargs="+", default=["matrices", "model"], choices=["matrices", "model", "bits"])
    parser.add_argument("--tokens", type=int, default=32768, help="calibration tokens")
    parser.add_argument("--test-tokens", type=int, default=24576)
    parser.add_argument("--every", type=int, default=3, help="which layers' matrices are tried one by one")
    parser.add_argument("--grids", nargs="+", default=list(SPECS), choices=SPECS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--mean-bits", nargs="*", type=float, default=list(MEAN_BITS), help="budgets of the part bits")
    parser.add_argument("--nncf", nargs="*", type=float, default=list(NNCF_SHARES), help="shares in int4 by NNCF")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="file, or folder of order.json")
    parser.add_argument("--resume", action="store_true", help="keep the points of an interrupted call")
    args = parser.parse_args()
    try:
        return run(args)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def run(args: argparse.Namespace) -> int:
    checkpoint = resolve_checkpoint(args.checkpoint, family="llama")
    model, tokenizer = load_model(checkpoint)
    model.requires_grad_(False)
    blocks = {}
    wanted = [("seen", SEEN, args.tokens), ("unseen", UNSEEN, args.test_tokens)]
    wanted += [("selection", SELECTION, args.test_tokens)] if "bits" in args.parts else []
    for split, names, tokens in wanted:
        texts, missing = load_domains(list(names))
        for reason in missing.values():
            print(reason, flush=True)
        blocks[split] = domain_blocks(tokenizer, texts, LENGTH, tokens // LENGTH)
    batches = [batch for found in blocks["seen"].values() for batch in found.batches(2048)]
    file = args.out if args.out.suffix == ".json" else args.out / "order.json"
    result = read_text(file) if args.resume and file.is_file() else {}
    made = {
        "checkpoint": checkpoint.provenance(),
        "past": past_of(checkpoint),
        "calibration": {"domains": list(blocks["seen"]), "tokens": sum(b.ids.size for b in blocks["seen"].values())},
        "test": {"domains": list(blocks["unseen"]), "tokens": sum(b.ids.size for b in blocks["unseen"].values())},
    }
    check_same(result, made, file)
    result = {"matrices": [], "points": [], "bits": []} | result | made | {"environment": fingerprint()}
    if "matrices" in args.parts and not result["matrices"]:
        result["matrices"] = summarise_matrices(list(matrix_errors(model, batches, args.every, searched=False)))
        atomic_write(file, to_json(result))
    print(matrix_table(result["matrices"]), flush=True)
    if "model" in args.parts:
        judge_models(args, model, batches, blocks["unseen"], result, file)
    print(table(result["points"]))
    if "bits" in args.parts:
        suite = LanguageSuite({split: blocks[split] for split in ("selection", "unseen")}, model)
        bits_points(args, model, batches, suite, result, lambda: atomic_write(file, to_json(result)))
        print(bits_table(result["bits"]))
    return 0


def check_same(kept: dict, made: dict, file: Path) -> None:
    """Raise `ConfigError` where an interrupted call's file is of another checkpoint or text."""
    for key, value in json.loads(to_json(made)).items():
        if kept and kept.get(key) != value:
            raise ConfigError(f"--resume: {file.name} is of another {key}; give this call an --out of its own")


def judge_models(args, model, batches: list[dict], unseen: dict, result: dict, file: Path) -> None:
    suite = LanguageSuite({"unseen": unseen}, model)
    dense = suite.evaluate(model, "unseen")
    columns = Columns.in_model(find_adapter(model).axes())
    shared = shared_activity(columns, column_activity(model, batches))
    shared = {axis: values for axis, values in shared.items() if axis == "residual"}
    kept: dict[tuple[str, str], SplitResult] = {}
    done = {(item["grid"], item["arm"]) for item in result["points"]}
    for grid in args.grids:
        if uneven := undivided(model, SPECS[grid][1]):
            print(f"{grid}: no whole groups in {' and '.join(map(str, uneven))} columns, left out", flush=True)
            continue
        for arm in PLAN[grid]:
            if arm not in args.arms or (grid, arm) in done:
                continue
            entry, kept[grid, arm] = model_point(model, batches, suite, dense, arm, grid, shared)
            for other in ("nearest", "stored", "free"):
                if (grid, other) in kept and other != arm:
                    entry.setdefault("kl_against", {})[other] = kl_cut(kept[grid, arm], kept[grid, other])
            result["points"].append(entry)
            atomic_write(file, to_json(result))
            print(table([entry]).splitlines()[-1], entry.get("kl_against", ""), f"{entry['seconds']} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
