"""Take paths, user and host names, addresses, tokens and e-mail addresses out of text that is shown or shared.

The names of *this* machine are looked for, so scrubbing happens where the text was made; beside them everything that
`scrub_rules` knows on sight. Embedded images (`data:…;base64,…`) are left alone: a short host name can occur in them
by chance.
"""

import getpass
import os
import re
import socket
import sys
import tempfile
from functools import cache, lru_cache

from icd_lib.scrub.rules import PLACEHOLDERS, RULES, Rule, is_secret, short_path
from icd_lib.scrub.rules import SECRET_KEY as _SECRET_KEY

_SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "sys", "usr", "var"}
_COMMON_HOSTS = {"localhost", "localdomain", "host", "linux", "runner", "computer", "python", "model", "bert"}
_COMMON_USERS = {"root", "user", "admin", "runner", "ubuntu", "jovyan", "test", "model", "data", "outputs"}
_EMBEDDED = re.compile(r"(data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+)")
_NAMES = tuple(f"<{name}>" for name in PLACEHOLDERS)
PLACEHOLDER = re.compile(rf"<({'|'.join(PLACEHOLDERS)})>")
# In a page a placeholder would be an element; two are names of real ones, so only where a path goes on.
_PLAIN = "project|hub cache|python|home|tmp|host|user|email|ip|mac|token|id"
_IN_PAGE = re.compile(rf"<({_PLAIN}|(?:path|data)(?=>/))>")
_SHOWN = re.compile(rf"&lt;({_PLAIN}|(?:path|data)(?=&gt;/))&gt;")
_KEY = re.compile(_SECRET_KEY, re.IGNORECASE)
# A path may follow a terminal colour code, whose last character is a letter, but not what was replaced before.
_START = r"((?:\x1b\[[0-9;]*m)|(?<![\w.-]){})".format("".join(f"(?<!{name})" for name in _NAMES))


def scrub_text(text: str) -> str:
    """Replace what gives people and machines away by `<project>`, `<home>`, `<path>`, `<user>`, `<token>` and others.

    >>> scrub_text("mail jane.doe@example.org, HF_TOKEN=hf_abcdefghijklmnopqrstuvwx")
    'mail <email>, HF_TOKEN=<token>'
    """
    return _scrub_short(text, *_environment()) if len(text) <= 64 else _scrub(text, _all_rules())


def _scrub(text: str, rules: tuple[Rule, ...]) -> str:
    parts = _EMBEDDED.split(text)
    for i in range(0, len(parts), 2):
        lowered = parts[i].lower()
        for rule in rules:
            if not rule.hints or any(hint in lowered for hint in rule.hints):
                parts[i] = rule.sub(parts[i])
    return "".join(parts)


@lru_cache(8192)  # the keys of JSON files come again and again
def _scrub_short(text: str, cwd: str, environment: tuple[str, ...]) -> str:
    return _scrub(text, _rules(cwd, environment))


def scrub_html(text: str) -> str:
    """`scrub_text` for a page: the placeholders stay visible."""
    return _IN_PAGE.sub(r"&lt;\1&gt;", scrub_text(plain_placeholders(text)))


def plain_placeholders(text: str) -> str:
    """`text` of a page with its placeholders as they are in plain text.

    >>> plain_placeholders("&lt;home&gt;/x &lt;b&gt;")
    '<home>/x &lt;b&gt;'
    """
    return _SHOWN.sub(r"<\1>", text)


def find_leaks(text: str, rules: tuple[Rule, ...] | None = None) -> list[tuple[str, int]]:
    """What `scrub_text` would replace: (what it is, position) of each; `rules` other than this machine's on wish."""
    found, at = [], 0
    rules = _all_rules() if rules is None else rules
    for i, part in enumerate(_EMBEDDED.split(text)):
        if not i % 2:
            lowered = part.lower()
            for rule in rules:
                if not rule.hints or any(hint in lowered for hint in rule.hints):
                    found += [(rule.what, at + match.start()) for match in rule.leaks(part)]
        at += len(part)
    return sorted(found, key=lambda leak: leak[1])


def scrub_strings(value):
    """`value` (nested dicts and lists) with every string scrubbed, keys included; images are kept.

    The value of a key such as "api_key" goes whole, and versions of packages are no addresses.
    """
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {scrub_text(key): _scrub_item(key, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub_strings(item) for item in value]
    return value


def restore_paths(value):
    """`value` with this machine's folders in place of `<project>`, `<home>` and the like at the start of a path."""
    if isinstance(value, dict):
        return {key: restore_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore_paths(item) for item in value]
    if not isinstance(value, str) or "<" not in value:
        return value
    for path, name in reversed(_known_folders(*_environment())):
        if path:
            value = re.sub(rf"{re.escape(name)}(?=/|$|\")", path.rstrip("/").replace("\\", "\\\\"), value)
    return value


def _scrub_item(key: str, item):
    if key.startswith(("image/p", "image/j", "image/g")):
        return item
    if isinstance(item, str) and _KEY.fullmatch(key) and is_secret(key, item):
        return "<token>"
    if key == "packages" and isinstance(item, dict):
        return {scrub_text(name): v if is_version(v) else scrub_strings(v) for name, v in item.items()}
    return scrub_strings(item)


def is_version(value) -> bool:
    """Whether `value` is a package's version, of whose parts there can be four.

    >>> is_version("9.10.2.21"), is_version("jane@example.org")
    (True, False)
    """
    return isinstance(value, str) and bool(re.fullmatch(r"\d[\w.+!]*", value))


def _environment() -> tuple[str, tuple[str, ...]]:
    return os.getcwd(), tuple(os.environ.get(name, "") for name in ("ICD_DATA_DIR", "HF_HOME", "HOME", "TMPDIR"))


def _all_rules() -> tuple[Rule, ...]:
    return _rules(*_environment())


def _known_folders(cwd: str, environment: tuple[str, ...]) -> list[tuple[str, str]]:
    """This machine's folders and their placeholders; the first of a placeholder's is the one it stands for."""
    from icd_lib.paths import home_folder, project_root

    data, hub, home, _ = environment
    return [
        (str(project_root()), "<project>"),
        (data, "<data>"),
        (hub, "<hub cache>"),
        (sys.prefix, "<python>"),
        (sys.base_prefix, "<python>"),
        (home, "<home>"),
        (str(home_folder() or ""), "<home>"),
        (tempfile.gettempdir(), "<tmp>"),
    ]


@cache
def _rules(cwd: str, environment: tuple[str, ...]) -> tuple[Rule, ...]:
    """This machine's rules, longest path first, then everybody's; cached for the values they were made from."""
    known = _known_folders(cwd, environment)
    known += [(os.path.realpath(path), name) for path, name in known if path]
    # "/usr" is where Python lives on many systems: it says nothing about the machine.
    paths = {path.rstrip("/"): name for path, name in known if path.startswith("/") and path not in ("/", "/usr")}
    rules = []
    for path in sorted(paths, key=len, reverse=True):
        pattern = re.compile(_START + re.escape(path) + r"(?![\w-])")
        rules.append(Rule("path", pattern, rf"\g<1>{paths[path]}", (path.lower(),)))
    home = re.compile(_START + r"(?:/home/[\w.-]+|/Users/[\w.-]+|/root)(?![\w-])")
    spaced, rest = [rule for rule in RULES if rule.first], [rule for rule in RULES if not rule.first]
    rules += spaced
    rules.append(Rule("home folder", home, r"\g<1><home>", ("/home/", "/users/", "/root")))
    tops = [name for name in os.listdir("/") if name not in _SYSTEM and re.fullmatch(r"[\w.-]+", name)]
    if tops:
        top = "|".join(map(re.escape, sorted(tops, key=len, reverse=True)))
        start = _START.replace("[\\w.-]", "[\\w.</-]")
        other = rf"{start}/(?:{top})(?P<inner>(?:/[\w.+@~=,-]+)*)/(?P<last>[\w.+@~=,-]+)"
        rules.append(Rule("path", re.compile(other), lambda match: match[1] + short_path(match), ("/",)))
    for host in sorted({socket.gethostname(), socket.gethostname().partition(".")[0]}, key=len, reverse=True):
        if len(host) > 2 and host.lower() not in _COMMON_HOSTS:
            pattern = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])")
            rules.append(Rule("host name", pattern, "<host>", (host.lower(),)))
    if user := _user():
        # A user name can be an everyday word, so only where it cannot be one: user@host, or a folder of that name.
        name = re.escape(user)
        rules.append(Rule("user name", re.compile(rf"(?<![\w.-]){name}@"), "<user>@", ("@",)))
        if len(user) > 2 and user.lower() not in _COMMON_USERS:
            rules.append(Rule("user name", re.compile(rf"(?<=[/\\]){name}(?=[/\\])"), "<user>", (user.lower(),)))
    return (*rules, *rest)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose uid has no account
        return ""
