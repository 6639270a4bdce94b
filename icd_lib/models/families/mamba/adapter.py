"""The Mamba family: axes and residual blocks of models built like `transformers.MambaModel` (Gu & Dao 2023).

Works for the bare backbone and for `MambaForCausalLM`, stock or compacted, with the stock or the fast scan.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from transformers.models.mamba.modeling_mamba import MambaMixer

from icd_lib.axes.axis import Attribute, Axis, Slot
from icd_lib.errors import ConfigError
from icd_lib.kernels.mixer import conv_output, scan_output, state_outputs, use_fast_scan
from icd_lib.models.adapter import Adapter, Block, Reader, Terms
from icd_lib.models.families.parts import linear_rows, unchanged
from icd_lib.models.quantized import with_scales


def find_backbone(model: nn.Module, mixer: type = MambaMixer) -> tuple[str, nn.Module] | None:
    """Dotted prefix ('' or 'backbone.') and module of `embeddings`, `norm_f` and `layers` that all have such mixers."""
    for name, module in model.named_modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, nn.ModuleList) and len(layers) and all(_mixes(layer, mixer) for layer in layers):
            return (f"{name}." if name else ""), module
    return None


def _mixes(layer: nn.Module, mixer: type) -> bool:
    return isinstance(getattr(layer, "mixer", None), mixer)


def prepare_mamba(model: nn.Module) -> None:
    """Give a Mamba-1 model the fast scan and a check of its token ids, in place; another model is left as it is."""
    found = find_backbone(model)
    if found is not None:
        use_fast_scan(model)
        if _check_ids_hook not in found[1]._forward_pre_hooks.values():
            found[1].register_forward_pre_hook(_check_ids_hook, with_kwargs=True)


def check_ids(input_ids: torch.Tensor, vocab_size: int) -> None:
    """Raise `ConfigError` unless input_ids (B, L) holds at least one token and only ids below `vocab_size`."""
    if input_ids.ndim != 2 or 0 in input_ids.shape:
        raise ConfigError(
            f"the prompt is empty: a model takes input_ids (batch, tokens) with at least one token, got shape "
            f"{tuple(input_ids.shape)}; begin with the tokenizer's BOS token"
        )
    lowest, highest = (int(bound) for bound in torch.aminmax(input_ids))
    if lowest < 0 or highest >= vocab_size:
        raise ConfigError(
            f"token id {lowest if lowest < 0 else highest} is outside 0..{vocab_size - 1}, the rows of the embedding; "
            "use the tokenizer that was saved beside the model"
        )


def _check_ids_hook(backbone: nn.Module, args: tuple, kwargs: dict) -> None:
    ids = kwargs.get("input_ids", args[0] if args else None)
    recording = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if ids is not None and ids.device.type == "cpu" and not recording:  # reading ids off a GPU would stall it
        check_ids(ids, backbone.embeddings.num_embeddings)


class MambaAdapter(Adapter):
    """Axes of design section 5 for Mamba, found from the module structure."""

    mixer: type = MambaMixer

    def __init__(self, model: nn.Module):
        super().__init__(model)
        found = find_backbone(model, self.mixer)
        if found is None:
            raise ConfigError(
                f"{type(model).__name__} has no layers with a {self.mixer.__name__}; find_adapter chooses the adapter "
                "that fits (MambaAdapter reads Mamba-1, Mamba2Adapter Mamba-2)"
            )
        self.prefix, self.backbone = found
        self.layers = self.backbone.layers

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        return find_backbone(model, cls.mixer) is not None

    def axes(self) -> list[Axis]:
        found = []
        for index, layer in enumerate(self.layers):
            found += self._layer_axes(index, f"{self.prefix}layers.{index}.mixer", layer.mixer)
        return with_scales(self.model, [*found, self._residual(), self._vocab()])

    def _layer_axes(self, index: int, path: str, mixer: nn.Module) -> list[Axis]:
        return [_inner(index, path, mixer), _state(index, path, mixer), _dt_rank(index, path, mixer)]

    def embed(self, inputs: dict) -> tuple[torch.Tensor, object]:
        if inputs["input_ids"].device.type == "cpu":
            check_ids(inputs["input_ids"], self.backbone.embeddings.num_embeddings)
        return self.backbone.embeddings(inputs["input_ids"]), inputs.get("attention_mask")

    def blocks(self) -> Iterator[Block]:
        for index, layer in enumerate(self.layers):
            yield Block(
                axis=f"inner.{index}",
                kind="inner",
                layer=index,
                unit=1,
                consumer=layer.mixer.out_proj,
                inner=partial(_scanned, layer),
                finish=unchanged,
                readers=(Reader(layer.mixer.x_proj, partial(_convolved, layer)),),
                terms=(self._states(index, layer.mixer),),
            )

    def _states(self, index: int, mixer: nn.Module) -> Terms:
        size, parts = mixer.A_log.shape[1], partial(self.state_terms, index)
        return Terms(f"state.{index}", "state", index, size, mixer.out_proj, parts, partial(_scale_states, mixer))

    def trunk(self) -> nn.Module:
        return self.layers

    def logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        head = getattr(self.model, "lm_head", None)
        return None if head is None else head(self.backbone.norm_f(hidden).to(head.weight.dtype)).float()

    @torch.inference_mode()
    def state_terms(self, index: int, hidden: torch.Tensor, context: object) -> Iterator[torch.Tensor]:
        """What each state dimension n of layer `index` adds to out_proj's input: C_n h_n silu(z), (B, L, inner) each.

        Summed over n, and with D u silu(z) added, they are the block's `inner`. Scaling C's row n of x_proj scales term
        n, so least squares over these terms is the compensation for removing some of them.
        """
        layer = self.layers[index]
        yield from state_outputs(layer.mixer, _normed(layer, hidden), context)

    def _residual(self) -> Axis:
        slots = [Slot(f"{self.prefix}embeddings.weight", 1), Slot(f"{self.prefix}norm_f.weight", 0)]
        for index, layer in enumerate(self.layers):
            path = f"{self.prefix}layers.{index}"
            slots += [Slot(f"{path}.norm.weight", 0), Slot(f"{path}.mixer.in_proj.weight", 1)]
            slots += linear_rows(f"{path}.mixer.out_proj", layer.mixer.out_proj)
        slots += [Slot("lm_head.weight", 1)] if self._has_own_head() else []
        outputs = () if self.prefix else (("last_hidden_state", -1),)
        size = self.backbone.embeddings.embedding_dim
        reason = "RMSNorm averages over the whole residual stream, so removing entries changes the function"
        return Axis("residual", "residual", size, tuple(slots), output_dims=outputs, fixed_because=reason)

    def _vocab(self) -> Axis:
        slots, maps = [Slot(f"{self.prefix}embeddings.weight", 0)], [f"{self.prefix}embeddings"]
        if getattr(self.model, "lm_head", None) is not None:
            slots += [Slot("lm_head.weight", 0)] if self._has_own_head() else []
            maps.append("lm_head")
        size = self.backbone.embeddings.num_embeddings
        reason = "every token id must keep a row"
        return Axis("vocab", "vocab", size, tuple(slots), token_maps=tuple(maps), fixed_because=reason)

    def _has_own_head(self) -> bool:
        head = getattr(self.model, "lm_head", None)
        return head is not None and head.weight is not self.backbone.embeddings.weight


def _inner(index: int, path: str, mixer: nn.Module) -> Axis:
    slots = linear_rows(f"{path}.in_proj", mixer.in_proj, copies=2)  # x rows, then z rows
    slots += linear_rows(f"{path}.conv1d", mixer.conv1d)
    slots += [Slot(f"{path}.x_proj.weight", 1), *linear_rows(f"{path}.dt_proj", mixer.dt_proj)]
    slots += [Slot(f"{path}.A_log", 0), Slot(f"{path}.D", 0), Slot(f"{path}.out_proj.weight", 1)]
    numbers = [Attribute(f"{path}.conv1d", name) for name in ("groups", "in_channels", "out_channels")]
    numbers.append(Attribute(path, "intermediate_size"))
    return Axis(f"inner.{index}", "inner", mixer.out_proj.in_features, tuple(slots), tuple(numbers))


def _state(index: int, path: str, mixer: nn.Module) -> Axis:
    slots = [Slot(f"{path}.A_log", 1), Slot(f"{path}.x_proj.weight", 0, start=mixer.dt_proj.in_features, copies=2)]
    numbers = (Attribute(path, "ssm_state_size"),)
    return Axis(f"state.{index}", "state", mixer.A_log.shape[1], tuple(slots), numbers)


def _dt_rank(index: int, path: str, mixer: nn.Module) -> Axis:
    slots = (Slot(f"{path}.x_proj.weight", 0, partial=True), Slot(f"{path}.dt_proj.weight", 1))
    return Axis(f"dt_rank.{index}", "dt_rank", mixer.dt_proj.in_features, slots, (Attribute(path, "time_step_rank"),))


def _scale_states(mixer: nn.Module, factors: torch.Tensor) -> None:
    """Scale what each state dimension adds to the output: C's rows of x_proj."""
    first = mixer.x_proj.out_features - len(factors)
    with torch.no_grad():
        mixer.x_proj.weight[first:] *= factors[:, None].to(mixer.x_proj.weight)


def _normed(layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    return layer.norm(hidden.to(layer.norm.weight.dtype))


def _scanned(layer: nn.Module, hidden: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    normed = _normed(layer, hidden)
    return scan_output(layer.mixer, normed, attention_mask=context).to(normed.dtype)


def _convolved(layer: nn.Module, hidden: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    return conv_output(layer.mixer, _normed(layer, hidden), context)
