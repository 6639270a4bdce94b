"""Dense, linear and iterative in the compilers of the bridge, beside eager, and what the compilers were told."""

from pathlib import Path

import numpy as np
from torch import nn

from icd_lib.bridge.options import BridgeOptions, Settings, using
from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.records.bridge import BRIDGED
from icd_lib.runtimes import BRIDGE, REFERENCE
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.measure import form_in, ladder_of

ARMS = (DENSE, "linear", RESULT)


def measure_bridge(context: Context, models: dict[str, nn.Module], ladder: dict | None) -> dict:
    """The ladder with a row for every compiler; measure/bridge.json says what was compiled.

    A compiler that is missing, refuses a model or takes too long is a row that is not measured, with the reason.
    """
    chosen = {arm: form_in(REFERENCE, models[arm]) for arm in ARMS if arm in models}
    names = {id(model): arm for arm, model in chosen.items()}
    compiled: dict[str, dict] = {}

    def keep(entry: dict, folder: Path) -> None:
        sources = {when: _text(folder / file) for when, file in entry["ir"].items()}
        compiled.setdefault(entry["engine"], {}).setdefault(names[entry.pop("model_id")], []).append(entry | {"ir": sources})

    options = BridgeOptions(**context.run.scenario.config["bridge"])
    pi = {model: _hashes(context, arm) for arm, model in chosen.items()}
    with using(Settings(options, context.get("transform.tile"), pi, keep)):
        found = ladder_of(context, [REFERENCE, *BRIDGE], chosen)
    context.run.write_json(BRIDGED, {"tiles": options.tiles, "compiled": compiled})
    if ladder is None:
        return found
    return ladder | {"runtimes": ladder["runtimes"] | {name: found["runtimes"][name] for name in BRIDGE}}
