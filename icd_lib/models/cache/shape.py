"""What a decoder caches: how many KV groups each layer has, how wide they are, how many positions there can be."""

from dataclasses import dataclass

from torch import nn

from icd_lib.errors import ConfigError


@dataclass(frozen=True)
class KvShape:
    """groups: KV heads of each layer, which a pruned model has uneven; head_dim: dims of each; positions: the most."""

    groups: tuple[int, ...]
    head_dim: int
    positions: int | None = None

    def check(self, layer: int, keys, values) -> None:
        """Raise `ConfigError` unless keys and values (B, G, L, d) are of this layer of such a model."""
        if layer >= len(self.groups):
            raise ConfigError(
                f"layer {layer} writes into a cache of {len(self.groups)} layers: it is another model's; "
                "make one with PagedCache(model)"
            )
        expected = self.groups[layer], self.head_dim
        for name, states in (("keys", keys), ("values", values)):
            found = states.shape[1], states.shape[3]
            if found != expected:
                raise ConfigError(
                    f"layer {layer} writes {name} of {found[0]} KV heads x {found[1]} dims into a cache of "
                    f"{expected[0]} x {expected[1]}: it is another model's; make one with PagedCache(model)"
                )


def kv_shape(model: nn.Module) -> KvShape:
    """The `KvShape` of a decoder of the Llama family; `ConfigError` for other models and for sliding windows."""
    layers, config = decoder_layers(model)
    attentions = [layer.self_attn for layer in layers]
    sliding = [index for index, attention in enumerate(attentions) if window_of(attention, config) is not None]
    if sliding:
        raise ConfigError(
            f"layer {sliding[0]} of {type(model).__name__} attends to a sliding window of "
            f"{window_of(attentions[sliding[0]], config)} tokens, which drops the past by itself; PagedCache takes "
            "full attention in every layer, use the stock cache of transformers"
        )
    sizes = {attention.head_dim for attention in attentions}
    if len(sizes) > 1:
        raise ConfigError(f"the heads of {type(model).__name__} have {sorted(sizes)} dims; PagedCache takes one width")
    size = sizes.pop()
    groups = tuple(attention.k_proj.out_features // size for attention in attentions)
    return KvShape(groups, size, getattr(config, "max_position_embeddings", None))


def decoder_layers(model: nn.Module) -> tuple[nn.ModuleList, object]:
    """The layers of a decoder and the config that its attention reads; `ConfigError` when it is of another family."""
    from icd_lib.models.families.llama.adapter import find_decoder  # the family's table imports much

    found = find_decoder(model)
    if found is None:
        raise ConfigError(f"{type(model).__name__} is no decoder of the Llama family, whose keys and values are cached")
    return found[1].layers, found[1].config


def windows_of(model: nn.Module) -> list[int]:
    """The sliding windows of those layers that drop a part of the past, in tokens; wide ones drop none."""
    layers, config = decoder_layers(model)
    positions = getattr(config, "max_position_embeddings", None)
    found = [window_of(layer.self_attn, config) for layer in layers]
    return [window for window in found if window is not None and (positions is None or window < positions)]


def window_of(attention: nn.Module, config) -> int | None:
    """Tokens that this layer looks back, or None for all; Qwen's config names a window that no layer uses."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(config, "sliding_window", None)
