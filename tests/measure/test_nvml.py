"""The board that a CUDA device is: NVML counts boards that CUDA does not see, and in an order of its own."""

import sys
import types

import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.measure.nvml import board_uuid, open_board


@pytest.fixture
def nvml(monkeypatch):
    """Puts a module in pynvml's place, of a machine with so many boards."""

    def put(count: int, **more):
        module = types.ModuleType("pynvml")
        module.nvmlInit = lambda: None
        module.nvmlDeviceGetCount = lambda: count
        module.nvmlDeviceGetHandleByIndex = lambda index: ("index", index)
        module.nvmlDeviceGetHandleByUUID = lambda uuid: ("uuid", uuid)
        for name, value in more.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "pynvml", module)

    return put


def test_a_number_is_nvml_s_own_and_a_lone_board_is_any_device(nvml):
    nvml(1)
    assert open_board(3)[1] == ("index", 3) and open_board("cuda:2")[1] == ("index", 0)
    assert open_board("GPU-12")[1] == ("uuid", "GPU-12")


def test_among_several_torch_says_which_one_it_means(nvml, monkeypatch):
    nvml(4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid=f"abc{device.index}")
    )
    assert open_board("cuda:1")[1] == ("uuid", "GPU-abc1")


@pytest.mark.parametrize(
    ("visible", "device", "index"),
    [("2,3", "cuda:1", 3), ("2,3", "cuda", 2), ("", "cuda:1", 1), ("GPU-1,GPU-2", "cuda:1", 1)],
)
def test_where_torch_does_not_say_boards_that_cuda_does_not_see_are_counted_over(
    nvml, monkeypatch, visible, device, index
):
    nvml(4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert open_board(device)[1] == ("index", index)


def test_a_uuid_is_text_and_its_absence_an_error(nvml):
    nvml(1, nvmlDeviceGetUUID=lambda board: b"GPU-9")
    assert board_uuid("cuda") == "GPU-9"
    nvml(1)
    with pytest.raises(ResourceError, match="names no UUID of cuda"):
        board_uuid("cuda")
