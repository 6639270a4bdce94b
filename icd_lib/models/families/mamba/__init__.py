"""The Mamba family: state space models built like `transformers.MambaModel` and `transformers.Mamba2Model`."""

from icd_lib.models.families.mamba import original
from icd_lib.models.families.mamba.adapter import MambaAdapter, prepare_mamba
from icd_lib.models.families.mamba.mamba2 import Mamba2Adapter
from icd_lib.models.family import Family, Layout, packaged

_TAKE = "take one of Mamba layers alone, such as state-spaces/mamba-130m-hf"
_NORMED = f"Falcon-Mamba: its mixer normalises Δ, B and C, so states and ranks cannot leave; {_TAKE}"
_HYBRID = f"a hybrid of Mamba and attention layers, which no family reads; {_TAKE}"
_REFUSED = {
    "falcon_mamba": _NORMED,
    "mamba2": "Mamba-2: icd.permute takes the loaded model, icd.compact its states, and no run prunes it",
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid", "jamba", "nemotron_h", "zamba", "zamba2"), _HYBRID),
}

FAMILY = Family(
    name="mamba",
    label="Mamba, Mamba-2",
    adapters=(MambaAdapter, Mamba2Adapter),
    model_types=("mamba",),
    axes_only=("mamba2",),
    refused=_REFUSED,
    kinds=("inner", "state", "dt_rank", "heads", "head_dim", "residual", "vocab"),
    judge="language",
    default=packaged("mamba-worlds", "python scripts/train_language.py --model mamba"),
    layouts=(
        Layout(
            original.is_original,
            original.check_original,
            original.read_config,
            original.sound_files,
            original.load_original,
        ),
    ),
    prepare=prepare_mamba,
    no_onnx="ONNX has no selective scan, so the graph would hold for one length only",
)
