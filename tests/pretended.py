"""A pretended device: tensors that say pretend:0, hold CPU data, and refuse to meet CPU tensors as CUDA's do."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretend", _Module())
DEVICE = torch.device("pretend:0")
CPU = torch.device("cpu")
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class There(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"There({self.inner})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def tolist(self):
        return self.inner.tolist()

    def numpy(self, *a, **k):
        raise TypeError("can't convert pretend:0 device type tensor to numpy. Use Tensor.cpu()")

    def __array__(self, *a, **k):
        self.numpy()


def inside(t):
    return t.inner if isinstance(t, There) else t


def run(func, args, kwargs):
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, There)]
    here = [t for t in tensors if not isinstance(t, There)]
    if func is aten.copy_.default:
        inside(args[0]).copy_(inside(args[1]))
        return args[0]
    if there and any(t.dim() > 0 for t in here):
        allowed = (
            func in INDEXING
            and isinstance(args[0], There)
            and all(t.dtype in (torch.int64, torch.bool, torch.uint8) or t.dim() == 0 for t in here)
        )
        if not allowed:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found pretend:0 and cpu in {func}: {[(type(t).__name__, tuple(t.shape), t.dtype) for t in tensors]}"
            )
    goes = bool(there)
    if (device := kwargs.get("device")) is not None:
        goes = torch.device(device).type != "cpu"
        kwargs = {**kwargs, "device": CPU}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    known = {id(t.inner): t for t in there}
    out = func(*tree_map(inside, args), **tree_map(inside, kwargs))
    if func is aten._to_copy.default and not goes and there:
        return out

    def back(t):
        if not isinstance(t, torch.Tensor) or isinstance(t, There):
            return t
        return known.get(id(t)) or There(t) if goes else t

    return tree_map(
        lambda t: (
            (known[id(t)] if id(t) in known else There(t))
            if goes and isinstance(t, torch.Tensor) and not isinstance(t, There)
            else t
        ),
        out,
    )


class Pretended(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class _Inference:
    """Wrappers cannot be inference tensors: within, `inference_mode` only says whether gradients are kept."""

    def enter(self):
        self._icd_grad = torch.set_grad_enabled(not self.mode)
        self._icd_grad.__enter__()

    def leave(self, *args):
        self._icd_grad.__exit__(*args)


@contextlib.contextmanager
def pretending():
    kind = torch.autograd.grad_mode.inference_mode
    kept = kind.__enter__, kind.__exit__
    kind.__enter__, kind.__exit__ = _Inference.enter, _Inference.leave
    # `parameter.data = …` would change what a wrapper says of itself, and not what it holds.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with Pretended():
            yield
    finally:
        kind.__enter__, kind.__exit__ = kept
        torch.__future__.set_swap_module_params_on_conversion(False)
