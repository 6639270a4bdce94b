"""Which device a run computes on: the one that is named, or by what the memory of the GPU has free.

Names cost no import: torch is asked when a device is looked for.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icd_lib.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    import torch
    from torch import nn

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
DEFAULT = CPU
SUGGESTED = (AUTO, CPU, CUDA, "cuda:0")
_TAKES = "auto, cpu, cuda or cuda:N (N counts from 0)"
_NAME = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?")
# What computes on the CPU alone so far, by the section of a scenario that asks for it.
ON_CPU = {
    "bridge": "its compilers write code for the CPU",
    "kv": "caches are judged and timed on the CPU",
    "masked": "masks are taken out on the CPU",
    "quantization": "weights are put on a grid on the CPU, and no runtime of a GPU computes in int8 here",
}
HEADS_ON_CPU = "heads are made smaller on the CPU"
_SEVERAL = re.compile(r"cuda(:[0-9]+)?(\s*,\s*(cuda:)?[0-9]+)+")
_ONE = (
    "a run computes on one device: its clock, CUDA graphs, profiles and board counters are of one, and a layer that "
    "waits for another device would be timed with the way between them; take one with the memory (cuda:N), or a "
    "smaller model"
)
# Copies of the dense model that the loop holds at its widest: dense, the best so far, the one being changed and its
# copy (4), its gradients and Adam's two moments (3); and, of every number, one in float64 for certificates.
WORKING_COPIES, CERTIFICATE_BYTES = 7, 8
# Of every calibration token: the stream, what the consumer reads, sums, goals, and what a product needs beside them.
ACTIVATION_COPIES = 6


@dataclass(frozen=True)
class Device:
    """name: as torch names it ("cpu", "cuda:0"); label: what it is; why: it was taken."""

    name: str = CPU
    label: str = "CPU"
    why: str = "the scenario names no other"

    @property
    def is_cpu(self) -> bool:
        return self.name == CPU

    @property
    def torch(self) -> torch.device:
        import torch

        return torch.device(self.name)

    def current(self) -> AbstractContextManager:
        """Within, what names no device of its own (kernels, events, captures) goes to this one."""
        import torch

        return torch.cuda.device(self.torch) if self.torch.type == CUDA else nullcontext()

    @property
    def key(self) -> dict[str, str]:
        """What distinguishes figures of this device in a cache of the machine's; nothing on the CPU."""
        return {} if self.is_cpu else {"device": self.label}

    def place(self, inputs: dict) -> dict:
        """The inputs of a model that is here: its tensors on the device, the rest as it is."""
        return inputs if self.is_cpu else placed(inputs, self.torch)


def check_device(asked: Any, where: str = "device") -> str:
    """`asked` where it names a device (None: the default), else `ConfigError`; whether it is there is not asked.

    >>> check_device("cuda:1"), check_device(None)
    ('cuda:1', 'cpu')
    """
    if asked is None:
        return DEFAULT
    if isinstance(asked, str) and _SEVERAL.fullmatch(asked):
        raise ConfigError(f"{where}={asked}: {_ONE}")
    if not isinstance(asked, str) or not _NAME.fullmatch(asked):
        raise ConfigError(f"{where} takes {_TAKES}; got {asked!r:.60}")
    return asked


def why_on_cpu(config: Mapping) -> str:
    """What of a scenario computes on the CPU alone, in words; empty where all of it can be on a GPU."""
    if (kind := config["workload"]["kind"]) != "model":
        return f"workload.kind={kind}: a table of rows is laid out for the processor's caches"
    if config["transform"]["head_dim"] is not None:
        return f"transform.head_dim: {HEADS_ON_CPU}"
    # A quantization for models that are deployed in int8 alone asks for nothing where no row computes in it.
    asked = {name for name in ON_CPU if config.get(name) is not None}
    asked -= {"quantization"} if (config.get("quantization") or {}).get("only_in") == "int8" else set()
    section = next((name for name in ON_CPU if name in asked), None)
    return "" if section is None else f"the section {section}: {ON_CPU[section]}"


def check_device_of(config: Mapping) -> None:
    """Raise `ConfigError` where a scenario names no device, or one that something of it cannot use."""
    asked = check_device(config.get("device"))
    if asked not in (AUTO, CPU) and (why := why_on_cpu(config)):
        raise ConfigError(f"device={asked}: not with {why}; leave device out, or take that out")


def find_device(asked: str | None, need_bytes: int = 0, where: str = "device") -> Device:
    """The device that `asked` means on this machine.

    need_bytes: what the run holds there at its widest. auto takes the GPU with the most free memory where that
    suffices, else the CPU, and says why. A named one that is not there, or has not so much free, is a `ResourceError`.
    """
    asked = check_device(asked, where)
    if asked == CPU:
        return Device(why="it is named")
    if missing := _why_no_cuda():
        if asked == AUTO:
            return Device(why=f"auto: {missing}")
        raise ResourceError(
            f"{where}={asked}: {missing}; install a CUDA build of torch on a machine with an NVIDIA device, "
            f"or set {where} to cpu or auto"
        )
    import torch

    count = torch.cuda.device_count()
    if asked == AUTO:
        index = max(range(count), key=_free_bytes)
        free = _free_bytes(index)
        if free < need_bytes:
            return Device(
                why=f"auto: {_label(index)} has {as_gb(free)} free, and the run needs about {as_gb(need_bytes)}"
            )
        return Device(f"{CUDA}:{index}", _label(index), f"auto: {as_gb(free)} are free, {as_gb(need_bytes)} are needed")
    index = int(asked.partition(":")[2] or torch.cuda.current_device())
    if index >= count:
        there = ", ".join(f"cuda:{i} ({_label(i)})" for i in range(count))
        raise ResourceError(f"{where}={asked}: there is no such device; torch sees {there}")
    if (free := _free_bytes(index)) < need_bytes:
        raise ResourceError(
            f"{where}={asked}: {_label(index)} has {as_gb(free)} free, and the run needs about {as_gb(need_bytes)}"
            + (f" (the memory of {count} GPUs is not put together: a run computes on one)" if count > 1 else "")
            + f"; end what else uses it, take fewer calibration texts (data.calibration_texts), or set {where} to cpu"
        )
    return Device(f"{CUDA}:{index}", _label(index), "it is named")


def _why_no_cuda() -> str:
    """Why torch cannot use an NVIDIA device here; empty where it can."""
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count():
        return ""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return f"torch {torch.__version__} finds no CUDA device"


def _free_bytes(index: int) -> int:
    import torch

    return torch.cuda.mem_get_info(index)[0]


def _label(index: int) -> str:
    import torch

    return torch.cuda.get_device_name(index)


def as_gb(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB"


def needed_bytes(model: nn.Module, tokens: int, widest: int) -> int:
    """What the loop holds on a device: copies of the dense model, and what `tokens` of calibration text are there.

    model: it may be an outline, on torch's meta device; widest: the most numbers that a block reads or writes per token
    """
    held = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return WORKING_COPIES * held + CERTIFICATE_BYTES * numbers + activation_bytes(tokens, widest)


def activation_bytes(tokens: int, widest: int) -> int:
    """What passes of so many tokens hold beside the model."""
    return ACTIVATION_COPIES * 4 * tokens * widest


def placed(inputs: dict, device: torch.device) -> dict:
    """The inputs with their tensors on a device."""
    import torch

    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in inputs.items()}


def device_of(model: Any) -> torch.device:
    """Where a model's weights lie; the CPU for one that is no torch module, or has none."""
    import torch

    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    first = next(parameters, None)
    return torch.device(CPU) if first is None else first.device


def back_on_cpu(model: nn.Module | None) -> nn.Module | None:
    """The model itself where it lies on the CPU, else a copy there."""
    return model if model is None or device_of(model).type == CPU else copy.deepcopy(model).to(CPU)


@contextmanager
def telling_of_memory(doing: str, cure: str) -> Iterator[None]:
    """A device that runs out of memory within is a `ResourceError` that names what was done, and the cure."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = next(iter(str(error).splitlines()), "").strip()[:160]
        torch.cuda.empty_cache()
        raise ResourceError(
            f"the device ran out of memory while {doing}: {reason}; {cure}, or set device to cpu"
        ) from error
