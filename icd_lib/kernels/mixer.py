"""Let one Hugging Face Mamba model use the kernels of this package; the library and every other model stay as they are.

As with the token maps (axes/vocab.py) a module changes its class, to a subclass with the same parameters: state_dict,
deepcopy, pickle, save_pretrained and isinstance work as before.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.models.mamba.modeling_mamba import MambaMixer

from icd_lib.errors import ConfigError
from icd_lib.kernels.doubling import selective_scan_doubling
from icd_lib.kernels.scan import (
    causal_conv1d,
    causal_conv1d_step,
    mixer_step,
    selective_scan,
    selective_scan_step,
)


def use_fast_scan(model: nn.Module) -> nn.Module:
    """Give every mixer of this Mamba model the fast convolution and scan, in place; returns the model.

    Works on pruned and uneven mixers too. `use_stock_scan` undoes it. Raises `ConfigError` for a model without mixers.
    """
    _change_class(model, MambaMixer, FastMambaMixer)
    return model


def use_stock_scan(model: nn.Module) -> nn.Module:
    """Give every mixer Transformers' own forward back, in place; returns the model."""
    _change_class(model, FastMambaMixer, MambaMixer)
    return model


class FastMambaMixer(MambaMixer):
    """MambaMixer whose convolution and scan are this package's.

    One difference in function: several tokens after a filled cache continue from its state, where Transformers'
    fallback starts from zero. A graph that is being recorded (torch.compile, export, tracing) gets the stock operators.
    """

    def forward(self, hidden_states, cache_params=None, attention_mask=None, **kwargs):
        recording = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if recording or (cache_params is not None and not hasattr(cache_params, "get_recurrent_state")):
            return super().forward(hidden_states, cache_params, attention_mask, **kwargs)
        return self.out_proj(scan_output(self, hidden_states, cache_params, attention_mask).to(hidden_states.dtype))


class DoublingMambaMixer(MambaMixer):
    """MambaMixer of torch's own operators whose scan takes log2(L) steps; it keeps no cache."""

    def forward(self, hidden_states, cache_params=None, attention_mask=None, **kwargs):
        x, gate = _project(self, hidden_states, attention_mask)
        x = _mask(_convolve(self, x, None, None), attention_mask)
        x, delta, B, C, gate = (tensor.transpose(1, 2) for tensor in (x, *select(self, x), gate))
        scanned = selective_scan_doubling(x, delta, rates(self), B, C, self.D, gate, self.dt_proj.bias, True)
        return self.out_proj(scanned.transpose(1, 2).to(hidden_states.dtype))


@contextmanager
def doubling_scan(model: nn.Module) -> Iterator[None]:
    """Within, the model's Mamba mixers, if it has any, are recorded in log2(L) steps instead of L."""
    mixers = [(module, type(module)) for module in model.modules() if type(module) in (MambaMixer, FastMambaMixer)]
    try:
        for module, _ in mixers:
            module.__class__ = DoublingMambaMixer
        yield
    finally:
        for module, kind in mixers:
            module.__class__ = kind


def conv_output(mixer: MambaMixer, hidden_states, attention_mask=None) -> torch.Tensor:
    """What x_proj reads, shape (B, L, inner), from the mixer's input (B, L, D)."""
    x, _ = _project(mixer, hidden_states, attention_mask)
    return _mask(_convolve(mixer, x, None, None), attention_mask)


def scan_output(mixer: MambaMixer, hidden_states, cache_params=None, attention_mask=None) -> torch.Tensor:
    """What out_proj reads, shape (B, L, inner), from the mixer's input (B, L, D); advances the cache of its layer."""
    x, gate = _project(mixer, hidden_states, attention_mask)
    state = recent = None
    if cache_params is not None:
        state = cache_params.get_recurrent_state(mixer.layer_idx)
        recent = cache_params.get_conv_state(mixer.layer_idx)
        if state is not None and x.shape[1] == 1 and not x.requires_grad:
            if not cache_params.is_recording_past(mixer.layer_idx):
                return _step(mixer, x[:, 0], gate[:, 0], recent, state, attention_mask).unsqueeze(1)
    x = _mask(_convolve(mixer, x, recent, cache_params), attention_mask)
    x, delta, B, C, gate = (tensor.transpose(1, 2) for tensor in (x, *select(mixer, x), gate))
    bias = mixer.dt_proj.bias
    scanned, last = selective_scan(
        x, delta, rates(mixer), B, C, mixer.D, gate, bias, True, state, return_last_state=True
    )
    if cache_params is not None:
        cache_params.update_recurrent_state(last, mixer.layer_idx)
    return scanned.transpose(1, 2)


def state_outputs(mixer: MambaMixer, hidden_states, attention_mask=None) -> Iterator[torch.Tensor]:
    """What each state dimension n adds to out_proj's input, C_n h_n silu(z), shape (B, L, inner), in turn."""
    x, gate = _project(mixer, hidden_states, attention_mask)
    x = _mask(_convolve(mixer, x, None, None), attention_mask)
    x, delta, B, C, gate = (tensor.transpose(1, 2) for tensor in (x, *select(mixer, x), gate))
    A, bias = rates(mixer), mixer.dt_proj.bias
    for n in range(A.shape[1]):
        one = slice(n, n + 1)
        yield selective_scan(x, delta, A[:, one], B[:, one], C[:, one], None, gate, bias, True).transpose(1, 2)


def select(mixer: MambaMixer, x) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Δ before its bias and softplus (…, inner), B and C (…, N) from x (…, inner): what makes the scan selective."""
    rank, states = mixer.time_step_rank, mixer.ssm_state_size
    time_step, B, C = mixer.x_proj(x).split([rank, states, states], dim=-1)
    return linear(time_step, mixer.dt_proj.weight), B, C


def rates(mixer: MambaMixer) -> torch.Tensor:
    """A (inner, N), at least in float32."""
    return -torch.exp(mixer.A_log if mixer.A_log.dtype == torch.float64 else mixer.A_log.float())


def _project(mixer: MambaMixer, hidden_states, attention_mask) -> tuple[torch.Tensor, ...]:
    """x and z (B, L, inner) of in_proj."""
    if hidden_states.shape[1] == 0:
        raise ConfigError("the prompt is empty; a Mamba model takes at least one token (its BOS token, say)")
    return mixer.in_proj(_mask(hidden_states, attention_mask)).chunk(2, dim=-1)


def _mask(tensor, attention_mask) -> torch.Tensor:
    """Padded tokens of (B, L, …) as zeros, before in_proj and after the convolution as in the stock mixer."""
    if attention_mask is None:
        return tensor
    return (tensor * attention_mask[:, -tensor.shape[1] :, None]).to(tensor.dtype)


def _step(mixer: MambaMixer, x, gate, recent, state, attention_mask) -> torch.Tensor:
    """One token, (B, inner) → (B, inner); advances the states of the convolution and of the scan in place."""
    fused = _fused_activation(mixer)
    if fused and attention_mask is None and _is_plain(mixer.x_proj):
        found = mixer_step(recent, state, x, gate, _weights(mixer))
        if found is not None:
            return found
    x = causal_conv1d_step(recent, x, mixer.conv1d.weight[:, 0], mixer.conv1d.bias, fused)
    x = _mask((x if fused else mixer.act(x)).unsqueeze(1), attention_mask).squeeze(1)
    delta, B, C = select(mixer, x)
    return selective_scan_step(state, x, delta, rates(mixer), B, C, mixer.D, gate, mixer.dt_proj.bias, True)


def _is_plain(linear: nn.Linear) -> bool:
    """Whether a Linear is a product with its weight and nobody looks on: what one kernel can do in its place."""
    looks = linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear)
    return type(linear).forward is nn.Linear.forward and linear.bias is None and not looks


def _weights(mixer: MambaMixer) -> tuple:
    """What a step reads besides its token and its states, as `mixer_step` takes it."""
    conv, step = mixer.conv1d, mixer.dt_proj
    return conv.weight[:, 0], conv.bias, mixer.x_proj.weight, step.weight, step.bias, mixer.A_log, mixer.D


def _convolve(mixer: MambaMixer, x, recent, cache) -> torch.Tensor:
    """Convolution and activation of x (B, L, inner); the cache keeps the last inputs, and gives those before x."""
    columns, initial, fused = x.transpose(1, 2), None, _fused_activation(mixer)
    if cache is not None:
        seen = cache.update_conv_state(columns, mixer.layer_idx, conv_kernel_size=mixer.conv_kernel_size)
        if recent is not None:
            first = seen.shape[-1] - x.shape[1]
            initial = seen[..., first - mixer.conv_kernel_size + 1 : first]
    x = causal_conv1d(columns, mixer.conv1d.weight[:, 0], mixer.conv1d.bias, fused, initial).transpose(1, 2)
    return x if fused else mixer.act(x)


def _fused_activation(mixer: MambaMixer) -> str | None:
    return "silu" if mixer.activation in ("silu", "swish") else None


def _change_class(model: nn.Module, old: type, new: type) -> None:
    mixers = [module for module in model.modules() if isinstance(module, MambaMixer)]
    if not mixers:
        raise ConfigError(
            f"{type(model).__name__} has no Mamba mixer; the fast scan takes a model built like transformers.MambaModel"
        )
    for mixer in mixers:
        if type(mixer) is old:
            mixer.__class__ = new
