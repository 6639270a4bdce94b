"""Named shapes for random weights, those from outside too; to know their names needs no torch."""

from dataclasses import dataclass

from icd_lib.registry import Registry


@dataclass(frozen=True)
class Shape:
    """`config`: keywords of the Transformers config, `model_type` and `architectures` included."""

    family: str
    config: dict


def _bert(width: int, layers: int, heads: int, ffn: int) -> Shape:
    sizes = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
    }
    return Shape("bert", sizes)


def _mamba(width: int, layers: int) -> Shape:
    sizes = {
        "model_type": "mamba",
        "architectures": ["MambaForCausalLM"],
        "vocab_size": 50280,
        "state_size": 16,
        "hidden_size": width,
        "num_hidden_layers": layers,
    }
    return Shape("mamba", sizes)


def _llama(width: int, layers: int, heads: int, groups: int, ffn: int, vocab: int) -> Shape:
    sizes = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab,
        "max_position_embeddings": 8192,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": ffn,
        "tie_word_embeddings": True,
    }
    return Shape("llama", sizes)


# A family's first shape is the one that is taken when none is named.
SHAPES = Registry(
    "shapes",
    {
        "minilm-l6": _bert(384, 6, 12, 1536),
        "bert-base-uncased": _bert(768, 12, 12, 3072),
        "bert-large": _bert(1024, 24, 16, 4096),
        "smollm2-135m": _llama(576, 30, 9, 3, 1536, 49152),
        "smollm2-360m": _llama(960, 32, 15, 5, 2560, 49152),
        "mamba-130m": _mamba(768, 24),
        "mamba-2.8b": _mamba(2560, 64),
    },
)


def shape_names(family: str | None = None) -> list[str]:
    """What `model.shape` takes, of one family or of all.

    >>> shape_names("mamba")
    ['mamba-130m', 'mamba-2.8b']
    """
    return [name for name, shape in SHAPES.items() if family in (None, shape.family)]
