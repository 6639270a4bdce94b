"""A pretended GPU: tensors that say they lie on pretend:0, hold numbers of the CPU, and refuse to meet the CPU's.

Within `pretending` whatever computes on a device runs as it would on a CUDA one, and a tensor that was left on the CPU
is met by CUDA's own complaint. Nothing about speed or rounding can be learned from it.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from icd_lib.storage.devices import Device

CPU = torch.device("cpu")
DEVICE = Device("pretend:0", "a pretended GPU", "the test says so")
FINDERS = ("icd_lib.api.find_device", "icd_lib.workloads.model.context.find_device")
_aten = torch.ops.aten
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_INDICES = (torch.int64, torch.bool, torch.uint8)


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretend", _Module())


class There(torch.Tensor):
    """A tensor of the device; `inner` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE.torch,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"There({self.inner})"

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, *_, **__):
        raise TypeError("can't convert pretend:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _inside(value):
    return value.inner if isinstance(value, There) else value


def _run(func, args, kwargs):
    """An operator on the numbers of both sorts of tensors, if it is one that a device would run."""
    if func is _aten.copy_.default:  # the one that crosses from device to device
        _inside(args[0]).copy_(_inside(args[1]))
        return args[0]
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    if any(value.is_meta for value in tensors) or torch.device(kwargs.get("device") or CPU).type == "meta":
        return func(*args, **kwargs)  # shapes alone are nowhere
    there = [value for value in tensors if isinstance(value, There)]
    strangers = [value for value in tensors if not isinstance(value, There) and value.ndim]
    may_index = func in _INDEXING and isinstance(args[0], There) and all(one.dtype in _INDICES for one in strangers)
    if there and strangers and not may_index:
        shapes = [(type(value).__name__, tuple(value.shape)) for value in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device, pretend:0 and cpu in {func}: {shapes}")
    goes = bool(there)
    if (device := kwargs.get("device")) is not None:
        goes = torch.device(device).type != CPU.type
        kwargs = kwargs | {"device": CPU}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    known = {id(value.inner): value for value in there}
    result = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))

    def outside(value):
        if not goes or not isinstance(value, torch.Tensor) or isinstance(value, There):
            return value
        return known[id(value)] if id(value) in known else There(value)

    return tree_map(outside, result)


class _Pretended(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


_tensor = torch.tensor


def _made_there(*args, device=None, **kwargs):
    """`torch.tensor`, which reaches no dispatch mode before it asks for memory of the device."""
    made = _tensor(*args, **kwargs)
    return made if device is None else made.to(device)


def _enter(self):
    self._gradients = torch.set_grad_enabled(not self.mode)
    self._gradients.__enter__()


def _leave(self, *error):
    self._gradients.__exit__(*error)


@contextlib.contextmanager
def pretending() -> Iterator[None]:
    """Every device that is asked for is the pretended one, as long as the block lasts.

    There `inference_mode` only says whether gradients are kept: a wrapper cannot be an inference tensor.
    """
    modes = mock.patch.multiple(torch.autograd.grad_mode.inference_mode, __enter__=_enter, __exit__=_leave)
    # `parameter.data = …` would change what a wrapper says of itself, and not what it holds.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with modes, contextlib.ExitStack() as found:
            found.enter_context(mock.patch("torch.tensor", _made_there))
            for place in FINDERS:
                found.enter_context(mock.patch(place, lambda *_, **__: DEVICE))
            with _Pretended():
                yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
