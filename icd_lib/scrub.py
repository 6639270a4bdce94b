"""Take machine paths, user names and host names out of text that is shown or shared.

Only names of *this* machine are looked for, so scrubbing happens where the text was made. Embedded images
(`data:…;base64,…`) are left alone: a short host name can occur in them by chance.
"""

import getpass
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

_SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr", "var"}
_COMMON_HOSTS = {"localhost", "localdomain", "host", "linux", "runner", "computer", "python", "model", "bert"}
_EMBEDDED = re.compile(r"(data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+)")
_NAMES = ("<project>", "<data>", "<hub cache>", "<python>", "<home>", "<tmp>", "<path>", "<host>")
# A path may follow a terminal colour code, whose last character is a letter, but not what was replaced before.
_START = r"((?:\x1b\[[0-9;]*m)|(?<![\w.-]){})".format("".join(f"(?<!{name})" for name in _NAMES))


def scrub_text(text: str) -> str:
    """Replace this machine's paths, user and host by `<project>`, `<home>`, `<tmp>`, `<path>`, `<user>`, `<host>`."""
    environment = tuple(os.environ.get(name, "") for name in ("ICD_DATA_DIR", "HF_HOME", "HOME", "TMPDIR"))
    rules = _rules(os.getcwd(), environment)
    parts = _EMBEDDED.split(text)
    for i in range(0, len(parts), 2):
        for pattern, replacement in rules:
            parts[i] = pattern.sub(replacement, parts[i])
    return "".join(parts)


def scrub_strings(value):
    """`value` (nested dicts and lists) with every string scrubbed, keys included; images are kept."""
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {
            scrub_text(key): item if key.startswith(("image/p", "image/j", "image/g")) else scrub_strings(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [scrub_strings(item) for item in value]
    return value


@cache
def _rules(cwd: str, environment: tuple[str, ...]) -> list[tuple[re.Pattern, str | Callable]]:
    """Patterns and replacements, longest path first; cached for the values they were made from."""
    from icd_lib.scenario import project_root

    data, hub, home, _ = environment
    known = [
        (str(project_root()), "<project>"),
        (data, "<data>"),
        (hub, "<hub cache>"),
        (sys.prefix, "<python>"),
        (sys.base_prefix, "<python>"),
        (home, "<home>"),
        (str(Path.home()), "<home>"),
        (tempfile.gettempdir(), "<tmp>"),
    ]
    known += [(os.path.realpath(path), name) for path, name in known if path]
    # "/usr" is where Python lives on many systems: it says nothing about the machine.
    paths = {path.rstrip("/"): name for path, name in known if path.startswith("/") and path not in ("/", "/usr")}
    rules: list = []
    for path in sorted(paths, key=len, reverse=True):
        rules.append((re.compile(_START + re.escape(path) + r"(?![\w-])"), rf"\g<1>{paths[path]}"))
    rules.append((re.compile(_START + r"(?:/home/[\w.-]+|/Users/[\w.-]+|/root)(?![\w-])"), r"\g<1><home>"))
    tops = [name for name in os.listdir("/") if name not in _SYSTEM and re.fullmatch(r"[\w.-]+", name)]
    if tops:
        top = "|".join(map(re.escape, sorted(tops, key=len, reverse=True)))
        other = _START.replace("[\\w.-]", "[\\w.</-]") + rf"/(?:{top})(?:/[\w.+@~=,-]+)*/([\w.+@~=,-]+)"
        rules.append((re.compile(other), r"\g<1><path>/\g<2>"))
    for host in {socket.gethostname(), socket.gethostname().partition(".")[0]}:
        if len(host) > 2 and host.lower() not in _COMMON_HOSTS:
            rules.append((re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])"), "<host>"))
    if user := _user():
        # A user name can be an everyday word, so only where it cannot be one: user@host.
        rules.append((re.compile(rf"(?<![\w.-]){re.escape(user)}@"), "<user>@"))
    return rules


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose uid has no account
        return ""
