"""The Llama family: axes and residual blocks of decoders built like `transformers.LlamaModel`.

Works for the bare decoder and for models with a head on top, whatever the sizes: grouped heads (GQA), tied and untied
heads, biases (Qwen2), norms inside the heads (Qwen3), sliding windows (Mistral), scaled embeddings (Gemma).

Rotary embeddings turn dims i and i + head_dim / 2 of queries and keys by an angle that all layers share, computed from
the config and kept in no checkpoint (Su et al. 2021, section 3.4; in halves as Transformers lays them out). Another
order of these dims would need frequencies in that order, which no stock model loads, and nothing reads their order:
they are on no axis and stay where they are.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from icd_lib.axes.axis import Axis, Slot
from icd_lib.errors import ConfigError
from icd_lib.models.adapter import Adapter, Block
from icd_lib.models.families.llama.recorded import Recorded
from icd_lib.models.families.parts import has_module, linear_rows, unchanged
from icd_lib.models.quantized import with_scales

_PARTS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    "input_layernorm",
    "post_attention_layernorm",
)
_OTHER_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")  # on the branch: its scale would not fold
_HEADS = ("lm_head", "score", "qa_outputs", "classifier")


def find_decoder(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Dotted prefix ('' or 'model.') and module that holds `embed_tokens`, such `layers`, and `norm`."""
    for name, module in model.named_modules():
        layers = getattr(module, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not len(layers):
            continue
        around = all(hasattr(module, part) for part in ("embed_tokens", "norm", "rotary_emb"))
        if around and all(has_module(layers[0], part) for part in _PARTS):
            if not any(has_module(layers[0], part) for part in _OTHER_NORMS):
                return (f"{name}." if name else ""), module
    return None


class LlamaAdapter(Adapter):
    """Axes of design section 5 for decoders, found from the module structure."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        found = find_decoder(model)
        if found is None:
            raise ConfigError(
                f"{type(model).__name__} has no layers with self_attn.q/k/v/o_proj and mlp.gate/up/down_proj; "
                "find_adapter chooses the adapter that fits"
            )
        self.prefix, self.decoder = found
        self.layers = self.decoder.layers

    @staticmethod
    def accepts(model: nn.Module) -> bool:
        return find_decoder(model) is not None

    def axes(self) -> list[Axis]:
        found = []
        for index, layer in enumerate(self.layers):
            found += [self._ffn(index, layer), self._kv_groups(index, layer), *self._inside_groups(index, layer)]
        return with_scales(self.model, [*found, self._residual(), self._vocab()])

    def embed(self, inputs: dict) -> tuple[torch.Tensor, object]:
        return Recorded(self.decoder).run(inputs)

    def blocks(self) -> Iterator[Block]:
        for index, layer in enumerate(self.layers):
            size, per_group = _sizes(layer.self_attn)
            yield Block(
                axis=f"kv_groups.{index}",
                kind="kv_groups",
                layer=index,
                unit=per_group * size,
                consumer=layer.self_attn.o_proj,
                inner=partial(_attention_inner, index, layer),
                finish=unchanged,
            )
            yield Block(
                axis=f"ffn.{index}",
                kind="ffn",
                layer=index,
                unit=1,
                consumer=layer.mlp.down_proj,
                inner=partial(_ffn_inner, layer),
                finish=unchanged,
            )

    def max_tokens(self) -> int | None:
        return getattr(self.decoder.config, "max_position_embeddings", None)

    def trunk(self) -> nn.Module:
        return self.layers

    def logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        head = getattr(self.model, "lm_head", None)
        return None if head is None else head(self.decoder.norm(hidden)).float()

    def _path(self, index: int) -> str:
        return f"{self.prefix}layers.{index}"

    def _ffn(self, index: int, layer: nn.Module) -> Axis:
        path, mlp = f"{self._path(index)}.mlp", layer.mlp
        slots = linear_rows(f"{path}.gate_proj", mlp.gate_proj) + linear_rows(f"{path}.up_proj", mlp.up_proj)
        slots.append(Slot(f"{path}.down_proj.weight", 1))
        return Axis(f"ffn.{index}", "ffn", mlp.down_proj.in_features, tuple(slots))

    def _kv_groups(self, index: int, layer: nn.Module) -> Axis:
        path, attention = f"{self._path(index)}.self_attn", layer.self_attn
        size, per_group = _sizes(attention)
        slots = linear_rows(f"{path}.q_proj", attention.q_proj, block=size * per_group)
        slots += linear_rows(f"{path}.k_proj", attention.k_proj, block=size)
        slots += linear_rows(f"{path}.v_proj", attention.v_proj, block=size)
        slots.append(Slot(f"{path}.o_proj.weight", 1, block=size * per_group))
        return Axis(f"kv_groups.{index}", "kv_groups", attention.k_proj.out_features // size, tuple(slots))

    def _inside_groups(self, index: int, layer: nn.Module) -> Iterator[Axis]:
        """Query heads of one KV group, and the value dims that all of them read."""
        path, attention = f"{self._path(index)}.self_attn", layer.self_attn
        size, per_group = _sizes(attention)
        for group in range(attention.k_proj.out_features // size):
            first = {"start": group * per_group * size, "partial": True}  # other groups lie beside it
            heads = linear_rows(f"{path}.q_proj", attention.q_proj, block=size, **first)
            heads.append(Slot(f"{path}.o_proj.weight", 1, block=size, **first))
            values = linear_rows(f"{path}.v_proj", attention.v_proj, start=group * size, partial=True)
            values.append(Slot(f"{path}.o_proj.weight", 1, copies=per_group, **first))
            yield Axis(
                f"q_heads.{index}.{group}",
                "q_heads",
                per_group,
                tuple(heads),
                fixed_because="all KV groups of a model have one number of query heads; remove whole KV groups",
            )
            yield Axis(
                f"v.{index}.{group}",
                "v",
                size,
                tuple(values),
                fixed_because="values have as many dims as keys, and as those of the other groups",
            )

    def _residual(self) -> Axis:
        slots = [Slot(f"{self.prefix}embed_tokens.weight", 1), Slot(f"{self.prefix}norm.weight", 0)]
        for index, layer in enumerate(self.layers):
            path = self._path(index)
            slots += [Slot(f"{path}.{norm}.weight", 0) for norm in ("input_layernorm", "post_attention_layernorm")]
            slots += [Slot(f"{path}.self_attn.{name}_proj.weight", 1) for name in "qkv"]
            slots += [Slot(f"{path}.mlp.{name}_proj.weight", 1) for name in ("gate", "up")]
            slots += linear_rows(f"{path}.self_attn.o_proj", layer.self_attn.o_proj)
            slots += linear_rows(f"{path}.mlp.down_proj", layer.mlp.down_proj)
        slots += [Slot(f"{name}.weight", 1) for name in self._own_heads()]
        return Axis(
            "residual",
            "residual",
            self.decoder.embed_tokens.embedding_dim,
            tuple(slots),
            output_dims=() if self.prefix else (("last_hidden_state", -1),),
            fixed_because="RMSNorm averages over the whole residual stream, so removing entries changes the function",
        )

    def _vocab(self) -> Axis:
        slots, maps = [Slot(f"{self.prefix}embed_tokens.weight", 0)], [f"{self.prefix}embed_tokens"]
        if isinstance(getattr(self.model, "lm_head", None), nn.Linear):
            slots += [Slot("lm_head.weight", 0)] if "lm_head" in self._own_heads() else []
            maps.append("lm_head")
        return Axis(
            "vocab",
            "vocab",
            self.decoder.embed_tokens.num_embeddings,
            tuple(slots),
            token_maps=tuple(maps),
            fixed_because="every token id must keep a row",
        )

    def _own_heads(self) -> list[str]:
        """Heads that read the residual stream with a weight of their own."""
        heads = {name: getattr(self.model, name, None) for name in _HEADS}
        tied = self.decoder.embed_tokens.weight
        return [name for name, head in heads.items() if isinstance(head, nn.Linear) and head.weight is not tied]


def _sizes(attention: nn.Module) -> tuple[int, int]:
    """Dims of a head, and query heads per KV group."""
    size = attention.head_dim
    return size, attention.q_proj.out_features // attention.k_proj.out_features


def without(module: nn.Module, name: str) -> nn.Module:
    """The module with its submodule `name` passing its input through; both share everything else.

    >>> pair = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> without(pair, "1")(torch.ones(1, 2)).shape, pair(torch.ones(1, 2)).shape
    (torch.Size([1, 3]), torch.Size([1, 1]))
    """
    shallow = copy.copy(module)
    shallow.__dict__["_modules"] = {**module._modules, name: nn.Identity()}
    return shallow


def _attention_inner(index: int, layer: nn.Module, hidden: torch.Tensor, context: list[dict]) -> torch.Tensor:
    return without(layer.self_attn, "o_proj")(hidden_states=layer.input_layernorm(hidden), **context[index])[0]


def _ffn_inner(layer: nn.Module, hidden: torch.Tensor, _context: object) -> torch.Tensor:
    return without(layer.mlp, "down_proj")(layer.post_attention_layernorm(hidden))
