"""A guarded program: what it says and how it ends are its own, and nothing of it is left when its block ends."""

import subprocess
import sys

import psutil
import pytest
from killed_run import wait_until_gone

from icd_lib.measure.guarded import NOT_STARTED, guarded

PARENT = """
import subprocess, sys, time
part = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(part.pid, flush=True)
time.sleep(600)
"""


def run(*words: str) -> tuple[int, str, str]:
    with guarded(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("ends", "code"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 15)", 128 + 15)]
)
def test_its_words_and_its_code_are_those_of_the_program(ends, code):
    program = f"import os, sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); {ends}"
    assert run(sys.executable, "-c", program) == (code, "out\n", "err\n")


def test_it_has_no_input_and_knows_nothing_of_the_pipe():
    program = "import os, sys; print(repr(sys.stdin.read()), len(os.listdir('/proc/self/fd')))"
    plain = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run(sys.executable, "-c", program)[1] == plain.stdout


def test_what_cannot_be_started_says_so(tmp_path):
    code, _, err = run(str(tmp_path / "gone"))
    assert code == 1 and err == f"{NOT_STARTED}: No such file or directory\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_when_the_block_ends_early_the_program_and_what_it_started_end_too(error):
    with pytest.raises(error), guarded([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process:
        part = psutil.Process(int(process.stdout.readline()))
        every = [part, part.parent(), psutil.Process(process.pid)]
        raise error
    wait_until_gone(every)


def test_when_its_process_is_killed_its_starter_learns_that_it_ended():
    with guarded([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process:
        part = psutil.Process(int(process.stdout.readline()))
        part.parent().kill()
        assert process.wait(timeout=60) == 128 + 9
        part.kill()
