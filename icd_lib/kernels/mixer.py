"""Let one Hugging Face Mamba model use the kernels of this package; the library and every other model stay as they are.

As with the token maps (axes/vocab.py) a module changes its class, to a subclass with the same parameters: state_dict,
deepcopy, pickle, save_pretrained and isinstance work as before.
"""

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.models.mamba.modeling_mamba import MambaMixer

from icd_lib.errors import ConfigError
from icd_lib.kernels.scan import causal_conv1d, causal_conv1d_step, selective_scan, selective_scan_step


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

    One difference in function: several tokens after a filled cache continue from its state, where Transformers' fallback
    starts from zero. A graph that is being recorded (torch.compile, torch.export, tracing) gets the stock operators.
    """

    def forward(self, hidden_states, cache_params=None, attention_mask=None, **kwargs):
        recording = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if recording or (cache_params is not None and not hasattr(cache_params, "get_recurrent_state")):
            return super().forward(hidden_states, cache_params, attention_mask, **kwargs)
        inner = self.scan_output(hidden_states, cache_params, attention_mask)
        return self.out_proj(inner.to(hidden_states.dtype))

    def scan_output(self, hidden_states, cache_params=None, attention_mask=None) -> torch.Tensor:
        """What out_proj reads, shape (B, L, inner); reads and advances the cache of this layer."""
        if hidden_states.shape[1] == 0:
            raise ConfigError("the prompt is empty; a Mamba model takes at least one token (its BOS token, say)")
        if attention_mask is not None:
            hidden_states = (hidden_states * attention_mask[:, :, None]).to(hidden_states.dtype)
        x, gate = self.in_proj(hidden_states).chunk(2, dim=-1)
        state = recent = None
        if cache_params is not None:
            state = cache_params.get_recurrent_state(self.layer_idx)
            recent = cache_params.get_conv_state(self.layer_idx)
            if state is not None and x.shape[1] == 1 and not x.requires_grad:
                if not cache_params.is_recording_past(self.layer_idx):
                    return self._step(x[:, 0], gate[:, 0], recent, state).unsqueeze(1)
        x = self._convolve(x, recent, cache_params)
        delta, B, C = self._select(x)
        columns = [tensor.transpose(1, 2) for tensor in (x, delta, B, C, gate)]
        x, delta, B, C, gate = columns
        scanned, last = selective_scan(
            x, delta, self._rates(), B, C, self.D, gate, self.dt_proj.bias, True, state, return_last_state=True
        )
        if cache_params is not None:
            cache_params.update_recurrent_state(last, self.layer_idx)
        return scanned.transpose(1, 2)

    def _step(self, x, gate, recent, state) -> torch.Tensor:
        """One token, (B, inner) → (B, inner)."""
        x = causal_conv1d_step(recent, x, self.conv1d.weight[:, 0], self.conv1d.bias, self._fused_activation())
        if self._fused_activation() is None:
            x = self.act(x)
        delta, B, C = self._select(x)
        return selective_scan_step(
            state, x, delta, self._rates(), B, C, self.D, gate, self.dt_proj.bias, delta_softplus=True
        )

    def _convolve(self, x, recent, cache) -> torch.Tensor:
        """Convolution and activation of x (B, L, inner); the cache keeps the last inputs, and gives those before x."""
        columns, initial = x.transpose(1, 2), None
        if cache is not None:
            seen = cache.update_conv_state(columns, self.layer_idx, conv_kernel_size=self.conv_kernel_size)
            if recent is not None:
                first = seen.shape[-1] - x.shape[1]
                initial = seen[..., first - self.conv_kernel_size + 1 : first]
        weight, bias = self.conv1d.weight[:, 0], self.conv1d.bias
        x = causal_conv1d(columns, weight, bias, self._fused_activation(), initial).transpose(1, 2)
        return x if self._fused_activation() else self.act(x)

    def _select(self, x) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Δ before its bias and softplus, B and C: what makes the scan selective. Along the last dim of x."""
        sizes = [self.time_step_rank, self.ssm_state_size, self.ssm_state_size]
        time_step, B, C = self.x_proj(x).split(sizes, dim=-1)
        return linear(time_step, self.dt_proj.weight), B, C

    def _rates(self) -> torch.Tensor:
        """A (inner, N), at least in float32."""
        return -torch.exp(self.A_log if self.A_log.dtype == torch.float64 else self.A_log.float())

    def _fused_activation(self) -> str | None:
        return "silu" if self.activation in ("silu", "swish") else None


def _change_class(model: nn.Module, old: type, new: type) -> None:
    mixers = [module for module in model.modules() if isinstance(module, MambaMixer)]
    if not mixers:
        raise ConfigError(
            f"{type(model).__name__} has no Mamba mixer; the fast scan takes a model built like transformers.MambaModel"
        )
    for mixer in mixers:
        if type(mixer) is old:
            mixer.__class__ = new
