"""The board that a CUDA device is: NVML counts boards that CUDA does not see, and in an order of its own."""

import sys
import types

import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.measure.nvml import board_uuid, is_divided, open_board


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
    [("2,3", "cuda:1", 3), ("2,3", "cuda", 2), ("", "cuda:1", 1), ("2", "cuda:1", 1)],
)
def test_where_torch_does_not_say_boards_that_cuda_does_not_see_are_counted_over(
    nvml, monkeypatch, visible, device, index
):
    nvml(4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert open_board(device)[1] == ("index", index)


@pytest.mark.parametrize(
    ("visible", "device", "uuid"),
    [
        ("GPU-aaa,GPU-bbb", "cuda:1", "GPU-bbb"),
        (" GPU-aaa , GPU-bbb", "cuda", "GPU-aaa"),
        ("0,MIG-c", "cuda:1", "MIG-c"),
    ],
)
def test_a_board_that_is_made_visible_by_its_uuid_is_that_board(nvml, monkeypatch, visible, device, uuid):
    nvml(4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert open_board(device)[1] == ("uuid", uuid)


def test_whether_a_board_is_divided_is_asked_of_those_that_can_be():
    def refuses(board):
        raise RuntimeError("Not Supported")

    for answer, divided in ((lambda board: [1, 1], True), (lambda board: [0, 1], False), (refuses, False)):
        module = types.ModuleType("pynvml")
        module.nvmlDeviceGetMigMode = answer
        assert is_divided(module, "board") is divided
    assert not is_divided(types.ModuleType("pynvml"), "board"), "a package of before there was MIG"


def test_a_uuid_is_text_and_its_absence_an_error(nvml):
    nvml(1, nvmlDeviceGetUUID=lambda board: b"GPU-9")
    assert board_uuid("cuda") == "GPU-9"
    nvml(1)
    with pytest.raises(ResourceError, match="names no UUID of cuda"):
        board_uuid("cuda")
