"""Dense, linear and iterative in the compilers of the bridge, beside eager, and what the compilers were told."""

from pathlib import Path

from torch import nn

from icd_lib.bridge.engines import AFTER, BEFORE
from icd_lib.bridge.options import BridgeOptions
from icd_lib.bridge.settings import Settings, using
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.records.bridge import BRIDGED
from icd_lib.runtimes import BRIDGE, REFERENCE
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.measure import form_in, ladder_of

ARMS = (DENSE, "linear", RESULT)


def measure_bridge(context: Context, models: dict[str, nn.Module], ladder: dict | None) -> dict:
    """The ladder with a row for every compiler; measure/bridge.json says what was compiled.

    ladder: the other runtimes', None where they were not measured. A compiler that is missing, refuses a model or takes
    too long is a row that is not measured, with the reason.
    """
    chosen = {arm: form_in(REFERENCE, models[arm]) for arm in ARMS if arm in models}
    kept = Kept({model: arm for arm, model in chosen.items()})
    options = BridgeOptions(**context.run.scenario.config["bridge"])
    pi = {model: hashes_of(context, arm) for arm, model in chosen.items()}
    with using(Settings(options, context.get("transform.tile"), pi, kept)):
        found = ladder_of(context, [REFERENCE, *BRIDGE], chosen)
    context.run.write_json(BRIDGED, {"tiles": options.tiles, "compiled": kept.compiled})
    if ladder is None:
        return found
    return ladder | {"runtimes": ladder["runtimes"] | {name: found["runtimes"][name] for name in BRIDGE}}


def hashes_of(context: Context, arm: str) -> dict[str, str]:
    """Axis → hash of the permutation that an arm ended with."""
    if arm == DENSE:
        return {}
    axes = context.run.read_json(f"{arm}/perm_after.json")["axes"]
    return {axis: entry["hash"] for axis, entry in axes.items()}


class Kept:
    """What is kept of every artifact; its IR of the result's first one in each compiler."""

    def __init__(self, arms: dict[nn.Module, str]):
        self.arms = arms
        self.compiled: dict[str, dict[str, list[dict]]] = {}

    def __call__(self, model: nn.Module, entry: dict, folder: Path) -> None:
        arm = self.arms[model]
        told = self.compiled.setdefault(entry["engine"], {}).setdefault(arm, [])
        shown = arm == RESULT and not told
        told.append(
            {
                "shape": "x".join(map(str, entry["inputs"][0]["shape"])),
                **{key: entry[key] for key in ("seconds", "peak_memory_mb", "passes", "gathers")},
                "before": (folder / BEFORE).read_text() if shown else "",
                "after": (folder / AFTER).read_text() if shown else "",
            }
        )
