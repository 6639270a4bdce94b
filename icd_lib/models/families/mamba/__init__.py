"""The Mamba family: state space models built like `transformers.MambaModel` and `transformers.Mamba2Model`."""

from icd_lib.models.families.mamba import original
from icd_lib.models.families.mamba.adapter import MambaAdapter, prepare_mamba
from icd_lib.models.families.mamba.mamba2 import Mamba2Adapter
from icd_lib.models.family import Family, Layout, packaged

FAMILY = Family(
    name="mamba",
    label="Mamba, Mamba-2",
    adapters=(MambaAdapter, Mamba2Adapter),
    model_types=("mamba",),
    axes_only=("mamba2",),
    kinds=("inner", "state", "dt_rank", "heads", "head_dim", "residual", "vocab"),
    judge="language",
    default=packaged("mamba-verse", "git checkout -- icd_lib/models/embedded/mamba-verse"),
    others=(packaged("mamba-worlds", "python scripts/train_language.py --model mamba"),),
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
