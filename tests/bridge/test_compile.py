"""The child process: it is stopped in time, with what it started, and what it says becomes the reason."""

import os
import sys
import time

import pytest

from icd_lib.bridge.compile import run_child
from icd_lib.errors import ResourceError

HANGS = """import subprocess, sys, time
started = subprocess.Popen([sys.executable, "-c", {slow}])
open("{pid}", "w").write(str(started.pid))
time.sleep(600)"""


def child(folder, code):
    return run_child("stablehlo_iree", "Tiny", folder, 20.0, [sys.executable, "-c", code])


def test_a_compile_that_hangs_is_stopped_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    code = HANGS.format(pid=pid, slow=repr("import time; time.sleep(600)"))
    with pytest.raises(ResourceError, match=r"did not compile Tiny within 2 s \(bridge.compile_timeout_s\)"):
        run_child("stablehlo_iree", "Tiny", tmp_path, 2.0, [sys.executable, "-c", code])
    started = int(pid.read_text())
    for _ in range(50):
        if not alive(started):
            break
        time.sleep(0.1)
    assert not alive(started)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split(") ")[1][0] != "Z"


def test_a_refusal_is_the_reason(tmp_path):
    (tmp_path / "refused.json").write_text('{"reason": "no StableHLO for aten.foo, called at model.py:3"}')
    with pytest.raises(ResourceError, match="stablehlo_iree: no StableHLO for aten.foo, called at model.py:3"):
        child(tmp_path, "raise SystemExit(3)")


def test_a_crash_is_told_with_its_last_words(tmp_path):
    with pytest.raises(ResourceError, match="ended with exit code 1 while it compiled Tiny: ValueError: no"):
        child(tmp_path, "raise ValueError('no')")
    with pytest.raises(ResourceError, match="ended with exit code -6"):
        child(tmp_path, "import os; os.abort()")
