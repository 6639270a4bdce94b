"""The BERT family: axes and residual blocks of encoders built like `transformers.BertModel`.

Works for the bare encoder and for models with a head on top (classification, masked LM, tokens), whatever the sizes.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from icd_lib.axes.axis import Attribute, Axis, Slot
from icd_lib.models.adapter import Adapter, Attention, Block
from icd_lib.models.families.parts import has_module
from icd_lib.models.quantized import with_scales


def find_encoder(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Dotted prefix ('' or 'bert.') and module that holds `embeddings` and `encoder.layer`."""
    for name, module in model.named_modules():
        layers = getattr(getattr(module, "encoder", None), "layer", None)
        if isinstance(layers, nn.ModuleList) and hasattr(module, "embeddings"):
            parts = ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.LayerNorm")
            if all(has_module(layers[0], part) for part in parts) and hasattr(module.embeddings, "word_embeddings"):
                return (f"{name}." if name else ""), module
    return None


def linear_out(path: str, **slot) -> list[Slot]:
    """Rows and bias of a Linear that writes the axis."""
    return [Slot(f"{path}.weight", 0, **slot), Slot(f"{path}.bias", 0, **slot)]


def linear_in(path: str, **slot) -> list[Slot]:
    """Columns of a Linear that reads the axis."""
    return [Slot(f"{path}.weight", 1, **slot)]


def norm(path: str) -> list[Slot]:
    """Scale and shift of a LayerNorm over the axis."""
    return [Slot(f"{path}.weight", 0), Slot(f"{path}.bias", 0)]


class BertAdapter(Adapter):
    """Axes of design section 5 for the BERT family, found from the module structure."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.prefix, self.encoder = find_encoder(model)
        self.layers = self.encoder.encoder.layer

    @staticmethod
    def accepts(model: nn.Module) -> bool:
        return find_encoder(model) is not None

    def axes(self) -> list[Axis]:
        found = []
        for index, layer in enumerate(self.layers):
            found += [self._ffn(index, layer), self._heads(index, layer), *self._inside_heads(index, layer)]
        return with_scales(self.model, [*found, self._residual(), self._vocab()])

    def embed(self, inputs: dict) -> tuple[torch.Tensor, object]:
        names = ("input_ids", "token_type_ids", "position_ids")
        hidden = self.encoder.embeddings(**{name: inputs[name] for name in names if inputs.get(name) is not None})
        if has_module(self.encoder, "embeddings_project"):
            hidden = self.encoder.embeddings_project(hidden)
        mask, least = inputs.get("attention_mask"), torch.finfo(hidden.dtype).min
        causal = getattr(getattr(self.encoder, "config", None), "is_decoder", False)
        if not causal and (mask is None or bool(mask.all())):
            return hidden, None
        if mask is None:
            mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(mask == 0, least)
        bias = bias[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        if causal:  # a token sees none that comes after it
            later = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).triu(1)
            bias = bias.masked_fill(later, least)
        return hidden, bias

    def blocks(self) -> Iterator[Block]:
        for index, layer in enumerate(self.layers):
            attention, output = layer.attention, layer.output
            yield Block(
                axis=f"heads.{index}",
                kind="heads",
                layer=index,
                unit=attention.self.attention_head_size,
                consumer=attention.output.dense,
                inner=partial(_attention_inner, attention.self),
                finish=attention.output.LayerNorm,
                attention=_attention_of(attention.self),
            )
            yield Block(
                axis=f"ffn.{index}",
                kind="ffn",
                layer=index,
                unit=1,
                consumer=output.dense,
                inner=partial(_ffn_inner, layer.intermediate),
                finish=output.LayerNorm,
            )

    def max_tokens(self) -> int | None:
        table = getattr(self.encoder.embeddings, "position_embeddings", None)
        if table is None:
            return None
        first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from behind its padding
        return table.num_embeddings - first

    def trunk(self) -> nn.Module:
        return self.encoder.encoder

    def _path(self, index: int) -> str:
        return f"{self.prefix}encoder.layer.{index}"

    def _ffn(self, index: int, layer: nn.Module) -> Axis:
        path = self._path(index)
        slots = linear_out(f"{path}.intermediate.dense") + linear_in(f"{path}.output.dense")
        return Axis(f"ffn.{index}", "ffn", layer.output.dense.in_features, tuple(slots))

    def _heads(self, index: int, layer: nn.Module) -> Axis:
        path, dim = f"{self._path(index)}.attention", layer.attention.self.attention_head_size
        slots = [slot for name in ("query", "key", "value") for slot in linear_out(f"{path}.self.{name}", block=dim)]
        slots += linear_in(f"{path}.output.dense", block=dim)
        attributes = (
            Attribute(f"{path}.self", "num_attention_heads"),
            Attribute(f"{path}.self", "all_head_size", per_element=dim),
        )
        return Axis(f"heads.{index}", "heads", layer.attention.self.value.out_features // dim, tuple(slots), attributes)

    def _inside_heads(self, index: int, layer: nn.Module) -> Iterator[Axis]:
        path, dim = f"{self._path(index)}.attention", layer.attention.self.attention_head_size
        reason = "all heads of a layer share one head_dim; use the head_dim transform, which shrinks them together"
        for head in range(layer.attention.self.value.out_features // dim):
            inside = {"start": head * dim, "partial": True}  # other heads lie beside it
            qk = linear_out(f"{path}.self.query", **inside) + linear_out(f"{path}.self.key", **inside)
            v = linear_out(f"{path}.self.value", **inside) + linear_in(f"{path}.output.dense", **inside)
            yield Axis(f"qk.{index}.{head}", "qk", dim, tuple(qk), fixed_because=reason)
            yield Axis(f"v.{index}.{head}", "v", dim, tuple(v), fixed_because=reason)

    def _residual(self) -> Axis:
        embeddings = f"{self.prefix}embeddings"
        if has_module(self.encoder, "embeddings_project"):  # ELECTRA: the embeddings have a width of their own
            slots = linear_out(f"{self.prefix}embeddings_project")
        else:
            tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
            slots = [Slot(f"{embeddings}.{t}.weight", 1) for t in tables if hasattr(self.encoder.embeddings, t)]
            slots += norm(f"{embeddings}.LayerNorm")
        for index in range(len(self.layers)):
            path = self._path(index)
            for reader in ("attention.self.query", "attention.self.key", "attention.self.value", "intermediate.dense"):
                slots += linear_in(f"{path}.{reader}")
            for writer in ("attention.output", "output"):
                slots += linear_out(f"{path}.{writer}.dense") + norm(f"{path}.{writer}.LayerNorm")
        slots += self._head_slots()
        outputs = (("last_hidden_state", -1),) if not self.prefix else ()
        return Axis(
            "residual",
            "residual",
            self.layers[0].attention.self.query.in_features,
            tuple(slots),
            output_dims=outputs,
            fixed_because="LayerNorm averages over the whole residual stream, so removing entries changes the function",
        )

    def _head_slots(self) -> list[Slot]:
        """Whatever stands on top of the encoder and reads the residual stream."""
        slots = []
        if getattr(self.encoder, "pooler", None) is not None:
            slots += linear_in(f"{self.prefix}pooler.dense")
        elif isinstance(getattr(self.model, "classifier", None), nn.Linear):
            slots += linear_in("classifier")
        for name in (
            "qa_outputs",
            "classifier.dense",
            "discriminator_predictions.dense",
            "generator_predictions.dense",
        ):
            if has_module(self.model, name):
                slots += linear_in(name)
        if has_module(self.model, "lm_head.decoder"):
            slots += linear_in("lm_head.dense")
            if self._is_tied("lm_head.decoder"):  # then the decoder's columns go with the embeddings'
                slots += linear_out("lm_head.dense") + norm("lm_head.layer_norm")
        if has_module(self.model, "generator_lm_head") and not has_module(self.encoder, "embeddings_project"):
            if self._is_tied("generator_lm_head"):
                slots += linear_out("generator_predictions.dense") + norm("generator_predictions.LayerNorm")
        if has_module(self.model, "cls.predictions.transform.dense"):
            head = "cls.predictions.transform"
            slots += linear_in(f"{head}.dense") + linear_out(f"{head}.dense") + norm(f"{head}.LayerNorm")
            if not self._is_tied("cls.predictions.decoder"):
                slots += linear_in("cls.predictions.decoder")
        return slots

    def _vocab(self) -> Axis:
        name = f"{self.prefix}embeddings.word_embeddings"
        slots, maps = [Slot(f"{name}.weight", 0)], [name]
        for decoder in ("cls.predictions.decoder", "lm_head.decoder", "generator_lm_head"):
            if has_module(self.model, decoder):
                slots += [Slot(f"{decoder}.bias", 0)] + (
                    [] if self._is_tied(decoder) else [Slot(f"{decoder}.weight", 0)]
                )
                maps.append(decoder)
        return Axis(
            "vocab",
            "vocab",
            self.encoder.embeddings.word_embeddings.num_embeddings,
            tuple(slots),
            token_maps=tuple(maps),
            fixed_because="every token id must keep a row",
        )

    def _is_tied(self, decoder: str) -> bool:
        return self.model.get_submodule(decoder).weight is self.encoder.embeddings.word_embeddings.weight


def _attention_of(module: nn.Module) -> Attention:
    heads = module.query.out_features // module.attention_head_size

    def set_head_size(size: int) -> None:
        module.attention_head_size, module.all_head_size = size, size * heads

    return Attention(module.query, module.key, module.value, module.attention_head_size, set_head_size)


def _attention_inner(attention: nn.Module, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return attention(hidden, attention_mask=bias)[0]


def _ffn_inner(intermediate: nn.Module, hidden: torch.Tensor, _context: object) -> torch.Tensor:
    return intermediate(hidden)
