"""NVIDIA's management library: the board that a CUDA device is."""

import os
import sys
from types import ModuleType

from icd_lib.errors import ResourceError
from icd_lib.optional import brief, load_optional

_UUIDS = ("GPU-", "MIG-")  # how one begins: of a board, of an instance


def open_board(device: str | int = 0) -> tuple[ModuleType, object]:
    """(pynvml, handle) of a board: NVML's own number or UUID of it, or a device as torch names it ("cuda", "cuda:1").

    Of a board that is divided into instances (MIG) it is the whole board, unless the UUID is an instance's.

    Raises `ResourceError` with the reason without pynvml, a driver or such a board.
    """
    nvml = load_optional("pynvml", "nvidia-ml-py")
    try:
        nvml.nvmlInit()
        return nvml, _handle(nvml, device)
    except Exception as error:  # beside NVMLError what ctypes raises on a driver that does not fit
        raise ResourceError(f"NVML does not work here: {str(error) or brief(error)}") from error


def board_uuid(device: str | int) -> str:
    """NVML's UUID of a board, by which another process finds it; `ResourceError` as `open_board`."""
    nvml, board = open_board(device)
    try:
        uuid = nvml.nvmlDeviceGetUUID(board)
    except Exception as error:
        raise ResourceError(f"NVML names no UUID of {device}: {str(error) or brief(error)}") from error
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def is_divided(nvml: ModuleType, board) -> bool:
    """Whether a board is divided into instances (MIG): its counters are then those of all of them."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(board)[0])
    except Exception:  # whatever NVML, ctypes or an old package raises where there is no such thing
        return False


def _handle(nvml: ModuleType, device: str | int):
    if isinstance(device, int):
        return nvml.nvmlDeviceGetHandleByIndex(device)
    if device.startswith(_UUIDS):
        return nvml.nvmlDeviceGetHandleByUUID(device)
    if nvml.nvmlDeviceGetCount() == 1:
        return nvml.nvmlDeviceGetHandleByIndex(0)
    return _handle(nvml, _uuid_of(device) or _visible(device))


def _uuid_of(device: str) -> str | None:
    """What NVML calls the board of a device; None where torch has no CUDA or does not say."""
    torch = sys.modules.get("torch")  # who names a CUDA device has it
    if torch is None or not torch.cuda.is_available():
        return None
    uuid = getattr(torch.cuda.get_device_properties(torch.device(device)), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


def _visible(device: str) -> int | str:
    """NVML's number or UUID of a device: CUDA_VISIBLE_DEVICES hides boards from CUDA, and none from NVML."""
    number = int(device.partition(":")[2] or 0)
    visible = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    word = visible[number] if number < len(visible) else ""
    if word.startswith(_UUIDS):
        return word
    return int(word) if word.isdigit() else number
