"""What decides the weights of each embedded language model: its shape, its text's mixture, its schedule."""

import math
from dataclasses import dataclass

import torch
import transformers
from torch import nn

from icd_lib.kernels import use_fast_scan


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, beside the text. A model of Transformers is described by a subclass."""

    name: str  # of the checkpoint, and of its folder
    seed: int = 0
    vocab_size: int = 4096
    hidden_size: int = 256
    layers: int
    length: int = 512  # tokens per block
    batch: int = 4  # blocks per step
    steps: int
    learning_rate: float
    warmup: int
    horizon: int  # steps of the cosine that the rate follows after the warm-up,
    decay_from: int  # until here; then straight down
    final_rate: float = 0.02  # to this share of the peak
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    dropout: float = 0.1  # of embeddings and of what is projected back into the residual stream
    bf16: bool = False  # products in bfloat16 while training
    verses: float = 0.2  # of the tokens that are read,
    exponent: float = 0.5  # the others in proportion to size to this power,
    most_passes: float = 8.0  # and no domain more often than so
    held_out: float = 0.05  # of the calibration text of each domain: the validation text
    threads: int = 2
    log_every: int = 100
    judge_every: int = 400
    judge_blocks: int = 12  # of each domain, while training
    final_blocks: int = 60  # of each domain, at the end

    def build(self) -> nn.Module:
        """The untrained model; `build_model` seeds it and scales what writes to the residual stream."""
        raise NotImplementedError

    @property
    def common(self) -> dict:
        """What the configs of all kinds of models have."""
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
        }

    def writers(self, model: nn.Module) -> list[nn.Linear]:
        """The Linears whose output is added to the residual stream."""
        raise NotImplementedError

    def stays_float32(self, name: str, weight: torch.Tensor) -> bool:
        """Whether the checkpoint stores a weight in float32; the others are rounded to bfloat16."""
        return weight.dim() < 2

    def quicken(self, model: nn.Module) -> nn.Module:
        """The same model with this project's kernels, in place."""
        return model

    def words(self, model: nn.Module) -> str:
        """What kind of model it is, for the card."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LlamaRecipe(Recipe):
    """A decoder built like Llama: grouped query attention, RoPE, gated FFN, tied embeddings."""

    ffn_size: int = 704
    heads: int = 8
    kv_heads: int = 4
    head_size: int = 32

    def build(self) -> nn.Module:
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                intermediate_size=self.ffn_size,
                num_attention_heads=self.heads,
                num_key_value_heads=self.kv_heads,
                head_dim=self.head_size,
                max_position_embeddings=self.length,
                **self.common,
            )
        )

    def writers(self, model: nn.Module) -> list[nn.Linear]:
        return [part for layer in model.model.layers for part in (layer.self_attn.o_proj, layer.mlp.down_proj)]

    def words(self, model: nn.Module) -> str:
        return (
            f"Llama-like decoder ({self.layers} layers, {self.hidden_size} wide, FFN {self.ffn_size}, {self.heads} "
            f"query and {self.kv_heads} KV heads of {self.head_size}, RoPE over {self.length} positions, tied "
            "embeddings)"
        )


@dataclass(frozen=True, kw_only=True)
class MambaRecipe(Recipe):
    """A Mamba in the usual proportions: expand 2, convolution over 4 tokens, dt_rank = hidden / 16."""

    state_size: int = 16

    def build(self) -> nn.Module:
        # Not the config's `rescale_prenorm_residual`: with it transformers 5.23 scales loaded weights a second time.
        return transformers.MambaForCausalLM(
            transformers.MambaConfig(
                state_size=self.state_size,
                **self.common,
            )
        )

    def writers(self, model: nn.Module) -> list[nn.Linear]:
        return [layer.mixer.out_proj for layer in model.backbone.layers]

    def stays_float32(self, name: str, weight: torch.Tensor) -> bool:
        return weight.dim() < 2 or name.endswith("A_log")

    def quicken(self, model: nn.Module) -> nn.Module:
        return use_fast_scan(model)

    def words(self, model: nn.Module) -> str:
        config = model.config
        return (
            f"Mamba ({self.layers} layers, {self.hidden_size} wide, inner width {config.intermediate_size}, state "
            f"{self.state_size}, convolution over {config.conv_kernel} tokens, tied embeddings)"
        )


RECIPES: dict[str, Recipe] = {
    "llama": LlamaRecipe(
        name="llama-worlds",
        layers=4,
        steps=1600,
        learning_rate=3e-3,
        warmup=100,
        horizon=3200,
        decay_from=1100,
        bf16=True,
    ),
    "mamba": MambaRecipe(
        name="mamba-worlds",
        layers=6,
        length=256,
        batch=8,
        steps=1800,
        learning_rate=4e-3,
        warmup=100,
        horizon=3600,
        decay_from=1200,
    ),
}


def build_model(recipe: Recipe) -> nn.Module:
    """Seeded initial weights; what writes to the residual stream is scaled by 1/√(number of writers) (GPT-2)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = recipe.build().train()
    writers = recipe.writers(model)
    with torch.no_grad():
        for writer in writers:
            writer.weight /= math.sqrt(len(writers))
    return model


def install_dropout(model: nn.Module, recipe: Recipe) -> None:
    """Drop entries of the embeddings and of what every writer reads, while the model is in training mode."""

    def of_output(module, inputs, output):
        return nn.functional.dropout(output, recipe.dropout, module.training)

    def of_input(module, inputs):
        return (nn.functional.dropout(inputs[0], recipe.dropout, module.training),)

    model.get_input_embeddings().register_forward_hook(of_output)
    for writer in recipe.writers(model):
        writer.register_forward_pre_hook(of_input)
