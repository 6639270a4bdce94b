"""Models and their calibration inputs, as users bring them."""

import torch

from icd_lib.errors import ConfigError
from icd_lib.models.families import find_adapter
from tests.inputs.case import Case

CASES = [
    Case(
        "model",
        "a model of no family",
        "refused, with what a supported one looks like",
        run=lambda ground: find_adapter(torch.nn.Linear(2, 2)),
        refused=ConfigError,
        message=("Linear", "supported: the BERT family"),
        families=("bert",),
    )
]
