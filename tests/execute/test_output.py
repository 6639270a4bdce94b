"""Output and account of a command: an encoding, a reader that is gone, a user without a name never end a run."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import command
from notebook_factory import BODIES, write_project

from icd_lib.errors import ConfigError
from icd_lib.execute.account import some_account, user_name
from icd_lib.execute.output import Steady, steady_output
from icd_lib.paths import home_folder, project_root, user_path
from icd_lib.progress import Screen
from icd_lib.scrub.text import _rules, scrub_text
from icd_lib.storage.machine import cache_folder

LINES = "ΔC → π₀ · 模型\n"


@pytest.mark.parametrize(
    "encoding, shown",
    [("ascii", b"\\u0394C \\u2192 \\u03c0\\u2080 \\xb7 \\u6a21\\u578b\n"), ("utf-8", LINES.encode())],
)
def test_what_an_encoding_lacks_is_escaped(encoding, shown):
    raw = io.BytesIO()
    steady = Steady(io.TextIOWrapper(raw, encoding))
    Screen(1, steady).say(LINES.rstrip("\n"))
    steady.flush()
    assert raw.getvalue() == shown


def test_a_stream_that_fails_once_is_left_alone():
    class Full(io.StringIO):
        calls = 0

        def write(self, text):
            self.calls += 1
            raise OSError(28, "No space left on device")

    full = Full()
    steady = Steady(full)
    print("a\nb", file=steady, flush=True)
    print("c", file=steady, flush=True)
    assert full.calls == 1 and not steady.isatty()


def test_closed_and_absent_streams_take_everything():
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        steady = Steady(stream)
        print("x", file=steady, flush=True)
        assert not steady.isatty() and steady.encoding


def test_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), steady_output():
        print(LINES, end="")
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == LINES


def run(shell, **environment):
    environment = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, cwd=project_root(), env=environment, check=False
    )


LIST = f"{sys.executable} run_all.py --list"


@pytest.mark.parametrize(
    "shell",
    [
        LIST + " | true; exit ${PIPESTATUS[0]}",
        LIST + " | head -n 1; exit ${PIPESTATUS[0]}",
        LIST + " >&-",
        LIST + " 2>&-",
        LIST + " >&- 2>&- <&-",
        LIST + " > /dev/full",
    ],
)
def test_a_reader_that_is_gone_changes_no_exit_code(shell):
    done = run(shell)
    assert done.returncode == 0 and done.stderr == ""


COMMANDS = {
    "icd_lib.verify none.zip": 7,
    "icd_lib.validate --help": 0,
    "icd_lib.packaging --help": 0,
    "icd_lib.release.claims --check": 0,
    "icd_lib.release.evaluate --list": 0,
}


@pytest.mark.parametrize("where", ["| true; exit ${PIPESTATUS[0]}", "> /dev/full"])
@pytest.mark.parametrize("words", COMMANDS)
def test_nor_does_it_to_the_commands_that_check_and_pack(words, where):
    done = run(f"{sys.executable} -m {words} {where}")
    assert done.returncode == COMMANDS[words] and done.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_error_is_shown_in_any_encoding(encoding):
    done = run(f"{sys.executable} run_all.py --scenario 模型→", PYTHONIOENCODING=encoding)
    assert done.returncode == 2 and "[E_CFG_001]" in done.stderr and "Traceback" not in done.stderr
    assert run(f"{sys.executable} run_all.py --scenario 模型→ 2>&-").returncode == 2


@pytest.mark.notebooks
@pytest.mark.parametrize(
    "how",
    [
        "PYTHONIOENCODING=ascii {}",
        pytest.param("LANG=C LC_ALL=C {}", marks=pytest.mark.slow),
        "{} | head -n 1",
        pytest.param("{} >&-", marks=pytest.mark.slow),
        "{} >&- 2>&- <&-",
    ],
)
def test_a_whole_run_ends_as_ever(tmp_path, how):
    body = BODIES["01_build_graph"] + '\nprint("ΔC → π₀ · 模型", flush=True)\nimport os\nos.write(1, "π\\n".encode())'
    notebooks = write_project(tmp_path / "notebooks", build_graph=body)
    words = command(notebooks, "--quick", "--no-measure", "--mode", "linear", "--out", tmp_path / "out")
    call = shlex.join(words)
    done = run(how.format(call) + "; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
    stages = json.loads((tmp_path / "out" / "bert" / "stages.json").read_text())["stages"]
    assert {record["status"] for record in stages.values()} == {"done"}
    log = (tmp_path / "out" / "bert" / "run.log").read_text(encoding="utf-8")
    assert log.count('"status": "done"') == 3, "what nobody read is in the log"
    assert "ΔC → π₀ · 模型" in (tmp_path / "out" / "bert" / "01_build_graph.ipynb").read_text(encoding="utf-8")


@pytest.fixture
def nobody(monkeypatch):
    """A user id that the system does not know, without HOME."""
    import pwd

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "ICD_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    _rules.cache_clear()
    yield
    _rules.cache_clear()


def test_a_user_without_an_account_has_none_of_ours_assumed(nobody):
    assert home_folder() is None and user_name() is None
    assert (
        scrub_text("a text longer than sixty-four characters with /home/jane/x in it, and nothing else").count("<home>")
        == 1
    )
    assert str(os.getuid()) in cache_folder().name and cache_folder().is_absolute()
    with pytest.raises(ConfigError, match="is no path"):
        user_path("~/x")


def test_inside_a_run_libraries_find_a_home_and_a_name(nobody):
    with some_account():
        home = Path.home()
        assert home.is_dir() and user_name() == f"uid{os.getuid()}"
        (home / "kept.txt").write_text("x")
    assert not home.exists() and "HOME" not in os.environ and "LOGNAME" not in os.environ


def test_an_account_that_is_there_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "jane")
    before = dict(os.environ)
    with some_account():
        assert dict(os.environ) == before


NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""


@pytest.mark.notebooks
def test_a_run_of_a_user_without_an_account_ends_as_ever(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    body = "import getpass, pathlib\nassert getpass.getuser().startswith('uid') and pathlib.Path.home().is_dir()\n"
    body += BODIES["01_build_graph"]
    notebooks = write_project(tmp_path / "notebooks", build_graph=body)
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")}
    done = subprocess.run(
        command(notebooks, "--quick", "--no-measure", "--mode", "linear", "--out", tmp_path / "out"),
        capture_output=True,
        text=True,
        cwd=project_root(),
        env=environment | {"PYTHONPATH": f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (project_root() / "~").exists()
