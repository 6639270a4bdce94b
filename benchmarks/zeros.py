"""How many tiles scattered zeros leave untouched: in the stored order, in the solver's, and at best in any.

    python benchmarks/zeros.py             # a few minutes; writes docs/figures/zeros.json

The embedded MiniLM, of every FFN's weights the smallest (`torch.nn.utils.prune.l1_unstructured`) zero. Nothing is
timed: the figures are counts, the same every time.
"""

import argparse
import sys
from pathlib import Path

from torch import nn
from torch.nn.utils import prune

from icd_lib.codesign.zeros import count_zeros
from icd_lib.errors import IcdError
from icd_lib.models.checkpoint.loading import open_model
from icd_lib.models.families import find_adapter
from icd_lib.models.families.bert import DEFAULT_CHECKPOINT
from icd_lib.storage.atomic import atomic_write, to_json

ROOT = Path(__file__).resolve().parent.parent
FILE = "zeros.json"
SHARE, TILE = 0.8, 16
READINGS = ("now", "solved", "least")


def scatter_zeros(model: nn.Module, share: float) -> nn.Module:
    """The model with the smallest weights of every FFN's matrices zero, in place."""
    for name, module in find_adapter(model).trunk().named_modules():
        if isinstance(module, nn.Linear) and "attention" not in name:
            prune.l1_unstructured(module, "weight", share)
            prune.remove(module, "weight")
    return model


def summary(axes: list[dict]) -> str:
    """The least and the greatest share of every reading over the layers, as the page says them."""
    ends = {key: [f"{100 * pick(entry[key] for entry in axes):.0f}" for pick in (min, max)] for key in READINGS}
    told = {key: "–".join(dict.fromkeys(values)) + " %" for key, values in ends.items()}
    return f"{told['now']} touched, {told['solved']} after the solver, the bound {told['least']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=SHARE, help="of the weights that are zero")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help=f"folder of {FILE}")
    args = parser.parse_args()
    try:
        model, _, label = open_model(DEFAULT_CHECKPOINT)
        axes = [entry.to_json() for entry in count_zeros(scatter_zeros(model, args.share), TILE)]
        atomic_write(args.out / FILE, to_json({"model": label, "share": args.share, "tile": TILE, "axes": axes}))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(summary(axes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
