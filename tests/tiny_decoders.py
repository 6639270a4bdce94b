"""Tiny random decoders of the Llama family that several test modules share."""

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB, HIDDEN, LAYERS, FFN, SIZE = 61, 24, 2, 28, 6
CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "backbone": (LlamaConfig, LlamaModel),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}


def tiny_decoder(kind="llama", seed=0, dtype=torch.float64, spread=0.2, **changes):
    """Random decoder with two query heads in each of three KV groups; norms and biases are random too."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FFN,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": SIZE,
        "max_position_embeddings": 64,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": None,
        "tie_word_embeddings": True,
    }
    config_class, model_class = CLASSES[kind]
    torch.manual_seed(seed)
    model = model_class(config_class(**(sizes | changes))).eval().to(dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
    return model.requires_grad_(False)
