"""Locked clocks: what is asked of the board, that they are given back however the block ends, and refusals."""

import os
import signal
import subprocess
import sys
import time
import warnings

import psutil
import pytest

from icd_lib.measure.clocks import locked_clocks
from tests.gpu_stand_ins import lines_of, put_pynvml

LOCKED = [["graphics", 1575, 1575], ["memory", 2619, 2619]]
BACK = [["graphics reset"], ["memory reset"]]
BLOCK = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from icd_lib.measure.clocks import locked_clocks
with locked_clocks("cuda"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Makes the module that stands in for NVML importable, here and in processes that are started."""

    def put(mode="counts"):
        state = put_pynvml(tmp_path, mode)
        folders = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)
        return state

    yield put
    sys.modules.pop("pynvml", None)


def test_clocks_are_locked_below_the_highest_for_the_block_and_given_back(board):
    state = board()
    with locked_clocks("cuda") as clocks:
        assert clocks.locked and clocks.reason is None
        assert clocks.how == "NVML: graphics at 1575 MHz, memory at 2619 MHz"
        assert lines_of(state) == LOCKED
    assert lines_of(state) == LOCKED + BACK


def test_they_are_given_back_after_an_error(board):
    state = board()
    with pytest.raises(KeyError), locked_clocks("cuda"):
        raise KeyError("in the block")
    assert lines_of(state)[-2:] == BACK


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_are_given_back_after_a_kill(board, number):
    state = board()
    process = subprocess.Popen([sys.executable, "-c", BLOCK], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n" and lines_of(state) == LOCKED
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    until = time.monotonic() + 60
    while len(lines_of(state)) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert lines_of(state) == LOCKED + BACK


def test_what_is_not_given_back_is_told_with_the_cure(board):
    state = board("keeps them")
    with pytest.warns(UserWarning, match=r"still be locked: graphics \(Unknown Error\); .* nvidia-smi -rgc"):
        with locked_clocks("cuda") as clocks:
            assert clocks.locked
    assert lines_of(state) == LOCKED + BACK, "the memory's clock is given back all the same"


def test_it_is_told_when_the_process_that_holds_them_is_gone(board):
    board()
    with pytest.warns(UserWarning, match="the process that locked them ended with -9"), locked_clocks("cuda"):
        (keeper,) = (one for one in psutil.Process().children() if "icd_lib.measure.clocks" in one.cmdline())
        keeper.kill()


def test_without_permission_nothing_is_changed_and_the_cure_is_given(board):
    state = board("no permission")
    with locked_clocks("cuda") as clocks:
        assert not clocks.locked
        assert "Insufficient Permissions; run as root" in clocks.reason and "could not be locked" in clocks.reason
    assert lines_of(state) == []


def test_memory_with_one_clock_is_left_as_it_is(board):
    state = board("one memory clock")
    with warnings.catch_warnings(action="error"), locked_clocks("cuda") as clocks:
        assert clocks.locked and "memory as it is (Not Supported)" in clocks.how
    assert lines_of(state) == [LOCKED[0], *BACK]


def test_without_nvml_the_reason_is_given(board):
    board("no driver")
    with locked_clocks("cuda") as clocks:
        assert not clocks.locked and "Driver Not Loaded" in clocks.reason
