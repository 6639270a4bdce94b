"""Inputs of the selective scan and how closely the kernels agree; tolerances are those that docs/MAMBA.md states."""

import torch

from icd_lib.kernels import selective_scan, selective_scan_ref

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def make_inputs(sequences=2, width=37, states=5, length=9, dtype=torch.float32, layout="rows", seed=0, device="cpu"):
    """Everything `selective_scan` takes; A covers decays from nearly 1 to nearly 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def sequence(channels):
        if layout == "columns":
            return normal(sequences, channels, length).to(device, dtype)
        if layout == "sliced":  # as the halves of a Linear's output
            return normal(sequences, length, 2 * channels + 3).to(device, dtype)[..., 1 : channels + 1].transpose(1, 2)
        return normal(sequences, length, channels).to(device, dtype).transpose(1, 2)

    kind = torch.float64 if dtype == torch.float64 else torch.float32
    rest = {
        "A": -torch.exp(1.5 * normal(width, states)),
        "D": normal(width),
        "delta_bias": normal(width) - 2,
        "initial_state": normal(sequences, width, states),
    }
    inputs = {name: tensor.to(device, kind) for name, tensor in rest.items()}
    inputs |= {"u": sequence(width), "delta": sequence(width), "z": sequence(width)}
    inputs |= {"B": sequence(states), "C": sequence(states)}
    return {name: inputs[name] for name in NAMES} | {"delta_softplus": True}


def relative_error(got, wanted):
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def assert_agrees(inputs, tolerance, backend=None):
    """Output and last state, against the reference in the highest precision the inputs are worth."""
    exact = {name: x.double() if torch.is_tensor(x) else x for name, x in inputs.items()}
    wanted, wanted_last = selective_scan_ref(**exact, return_last_state=True)
    got, last = selective_scan(**inputs, return_last_state=True, backend=backend)
    assert got.dtype == inputs["u"].dtype and got.shape == inputs["u"].shape
    assert last.dtype == (torch.float64 if got.dtype == torch.float64 else torch.float32)
    assert relative_error(got, wanted) <= tolerance
    assert relative_error(last, wanted_last) <= min(tolerance, 2e-6)
