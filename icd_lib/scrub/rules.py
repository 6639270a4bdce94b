"""What gives people and machines away in any text, wherever it was written: patterns and what stands in their place.

A rule's replacement may decide to keep a match (a version that looks like an address); then it is no leak.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

# Folders at the top of a file system that people and sites name; /usr, /etc, /proc ... are everybody's.
TOPS = (
    "afs|app|beegfs|cache|cluster|code|content|data|dataset|datasets|disk|efs|export|fsx|github|gpfs|hdd|hpc|kaggle|lfs|"
    "lustre|media|mnt|net|nfs|nvme|opt|p|private|project|projects|proj|raid|repo|repos|scratch|share|shared|srv|ssd|"
    "storage|tmp|u|users|vol|volume|Volumes|work|workdir|workspace|workspaces"
)
PLACEHOLDERS = (
    "project",
    "data",
    "hub cache",
    "python",
    "home",
    "tmp",
    "path",
    "host",
    "user",
    "email",
    "ip",
    "mac",
    "token",
    "id",
)
# What follows a placeholder is no new path.
_NEW = "(?=/)" + "".join(f"(?<!<{name}>)" for name in PLACEHOLDERS)
_SEGMENT = r"[\w.+@~=,%-]+"
_NOBODY = {"none", "null", "true", "false", "undefined", "default", "unknown", "str", "string", "bytes", "int", "bool"}
_NOBODY |= {"optional", "required", "object", "any", "text", "self", "name", "user", "host", "localhost", "value"}


class Rule(NamedTuple):
    """`what` it finds, in words; the pattern; what replaces a match; and text without which it cannot match."""

    what: str
    pattern: re.Pattern
    replacement: str | Callable[[re.Match], str]
    hints: tuple[str, ...] = ()  # in lower case
    first: bool = False  # before the rules of this machine

    def sub(self, text: str) -> str:
        """`text` with every match replaced."""
        return self.pattern.sub(self.replacement, text)

    def leaks(self, text: str):
        """Matches that would be replaced."""
        for match in self.pattern.finditer(text):
            given = self.replacement
            if (given(match) if callable(given) else match.expand(given)) != match.group():
                yield match


def _rule(what: str, pattern: str, replacement, *hints: str, flags=0, first=False) -> Rule:
    return Rule(what, re.compile(pattern, flags), replacement, tuple(hint.lower() for hint in hints), first)


def short_path(match: re.Match) -> str:
    """`<path>/last`, without the last part where it stands alone: a folder there is often named after its owner."""
    inner, last = match["inner"], match["last"]
    return f"<path>/{last}" if inner or "." in last else "<path>"


def _address4(match: re.Match) -> str:
    found = match.group()
    parts = found.split(".")
    if any(int(part) > 255 or (part != "0" and part.startswith("0")) for part in parts):
        return found
    if parts[0] in ("0", "127", "255") or _VERSION_BEFORE.search(
        match.string[max(0, match.start() - 60) : match.start()]
    ):
        return found
    return "<ip>"


_VERSION_BEFORE = re.compile(
    r"(?:[=<>~!^]=\s*|\bv\.?|\bversions?\W{0,6}|\brelease\W{0,3}|\b(?:section|table|figure|fig\.?|chapter)\s*|§\s*|"
    r"\b(?:nvidia|cuda|cudnn|nccl|cublas|driver|tensorrt|openvino|chrome|bios|firmware)[\w-]*(?:\W|</?\w+>){1,8})$",
    re.IGNORECASE,
)


def _address6(match: re.Match) -> str:
    found = match.group()
    try:
        address = ipaddress.IPv6Address(found)
    except ValueError:
        return found
    first = found.partition(":")[0]
    is_slice = found.replace(":", "").isdigit() and found.count(":") == 2
    return found if is_slice or len(first) < 2 or address.is_loopback else "<ip>"


def _assigned(match: re.Match) -> str:
    """`key=value` where the value looks like what the key says it is."""
    key, value = match["key"].lower(), match["value"]
    after = match.string[match.end() : match.end() + 1]
    return match.group() if after == "(" or not is_secret(key, value) else f"{match['before']}<token>"


def is_secret(key: str, value: str) -> bool:
    """Whether `value` can be the secret that a key such as "api_key" announces, not a type, special token or path."""
    if value.lower() in _NOBODY or not re.match(r"[A-Za-z0-9_/+!@#^.~-]", value) or len(value) < 4:
        return False
    if re.search(r"passw|passphrase|pwd", key, re.IGNORECASE):
        return not value.startswith(("/", "./", "~"))
    has_digit = bool(re.search(r"\d", value))
    if re.search(r"token$|cookie$|session", key, re.IGNORECASE):
        mixed = re.fullmatch(r"[A-Za-z0-9+/=-]{16,}", value) and value not in (value.lower(), value.upper())
        return len(value) >= 8 and bool(re.search(r"[A-Za-z]", value)) and (has_digit or bool(mixed))
    return len(value) >= 8 and not re.fullmatch(r"[A-Za-z_]+(?:\.[A-Za-z_]+)+", value)


SECRET_KEY = (
    r"[\w-]{0,40}?(?:password|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|"
    r"account[_-]?key|signing[_-]?key|encryption[_-]?key|token|credentials?|session[_-]?id)"
)


def _named(group: str, placeholder: str) -> Callable[[re.Match], str]:
    """Replace the named group unless it is a word that names nobody, or is called."""

    def replace(match: re.Match) -> str:
        value = match[group]
        if value.lower() in _NOBODY or match.string[match.end() : match.end() + 1] in ("(", "=", "["):
            return match.group()
        start, end = (edge - match.start() for edge in match.span(group))
        return match.group()[:start] + placeholder + match.group()[end:]

    return replace


def _mail(match: re.Match) -> str:
    # The account of a public code host in a clone address names nobody.
    return match.group() if re.fullmatch(r"git@(?:github|gitlab|bitbucket)\.(?:com|org)", match.group()) else "<email>"


_AT = r"(?:@|%40|&#64;|&#x40;|\\u0040|\s?[\[(]at[\])]\s?)"
_DOT = r"(?:\.|\s?[\[(]dot[\])]\s?)"
_W = r"(?<![\w-])"  # a word starts

RULES: tuple[Rule, ...] = (
    _rule(
        "private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
        "<token>",
        "PRIVATE KEY",
        flags=re.DOTALL,
    ),
    _rule(
        "SSH key",
        r"\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-[\w-]+)\s+AAAA[\w+/=]{20,}(?:\s+[\w.-]+@[\w.-]+)?",
        "<token>",
        "AAAA",
    ),
    _rule("Hugging Face token", _W + r"(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,})", "<token>", "hf_", "api_org_"),
    _rule(
        "GitHub token",
        _W + r"(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
        "<token>",
        "gh",
    ),
    _rule(
        "AWS key",
        _W + r"(?:AKIA|ASIA|AIDA|AROA|AGPA|ANPA|ANVA|AIPA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",
        "<token>",
        "A",
    ),
    _rule("JWT", _W + r"eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?", "<token>", "eyJ"),
    _rule(
        "service token",
        _W + r"(?:sk-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|xox[abeprs]-[\w-]{10,}|xapp-[\w-]{20,}|AIza[\w-]{30,}|"
        r"ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}|gl(?:pat|ptt|rt|dt)-[\w-]{16,}|pypi-[\w-]{20,}|npm_[A-Za-z0-9]{30,}|"
        r"dckr_pat_[\w-]{20,}|dapi[0-9a-f]{32}|SG\.[\w-]{16,}\.[\w-]{16,}|hvs\.[\w-]{20,}|r8_[A-Za-z0-9]{30,}|nvapi-[\w-]{20,}|wandb_v1_\w{20,}|\d{8,10}:AA[\w-]{30,})",
        "<token>",
    ),
    _rule(
        "authorization header",
        r"(?P<before>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:[A-Za-z]+\s+)?)[^\s\"'<>,]{8,}",
        r"\g<before><token>",
        "uthorization",
        "UTHORIZATION",
        flags=re.IGNORECASE,
    ),
    _rule(
        "bearer token",
        r"(?P<before>\b(?:bearer|basic)\s+)(?=[\w.~+/-]*[\dA-Z=])(?=\S*[a-z\d])[\w.~+/-]{12,}={0,2}",
        lambda m: (
            m.group()
            if m.group().split()[-1].isalpha() and m.group().split()[-1][1:].islower()
            else m["before"] + "<token>"
        ),
        "earer",
        "asic",
        "EARER",
        flags=re.IGNORECASE,
    ),
    _rule(
        "cookie",
        r"(?P<before>\b(?:set-)?cookie:\s*)[^\r\n\"<]{6,}",
        r"\g<before><token>",
        "ookie:",
        flags=re.IGNORECASE,
    ),
    _rule("credential in an address", r"(?<=://)[^\s/@:\"'<>]{1,200}(?::[^\s/@\"'<>]{0,200})?@", "<user>@", "://"),
    _rule(
        "signed address",
        r"(?P<before>[?&;](?:amp;)?(?:sig|signature|token|access_token|auth|key|api_key|code|X-Amz-[\w-]+|X-Goog-[\w-]+)=)[^\s&\"'<>]{8,}",
        r"\g<before><token>",
        "=",
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret value",
        rf"(?P<before>(?<![\w-])(?P<key>{SECRET_KEY})(?:[\"'\]]*\s*(?:=>|:=|=|:)\s*|[\"']\s*,\s*)(?:\\?[\"'])?)(?P<value>[^\s\"'<>,;&(){{}}\\\[\]]+)",
        _assigned,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret option",
        rf"(?P<before>(?<![\w-])--(?=[\w-]{{2,60}}\s)(?P<key>{SECRET_KEY})\s+)(?P<value>[^\s\"'<>-][^\s\"'<>]+)",
        _assigned,
        "--",
        flags=re.IGNORECASE,
    ),
    _rule(
        "netrc password",
        r"(?P<before>\blogin\s+)[^\s<]\S*(\s+password\s+)[^\s<]\S*",
        r"\g<before><user>\2<token>",
        "password",
    ),
    _rule(
        "e-mail address",
        rf"(?<![\w.%+-])[A-Za-z0-9_][\w.%+-]{{0,63}}?{_AT}[A-Za-z0-9](?:[A-Za-z0-9-]{{0,62}}{_DOT}){{1,6}}[A-Za-z]{{2,24}}(?![\w@-]|\.\w)",
        _mail,
        "@",
        "%40",
        "64;",
        "x40;",
        "u0040",
        "at)",
        "at]",
    ),
    _rule(
        "home folder",
        r"(?<![\w.])(?:file:/{2,3})?[A-Za-z]:(?:\\{1,4}|/)(?:Users|Documents and Settings)(?:\\{1,4}|/)"
        r"[^\\/:*?\"'<>|\r\n]+",
        "<home>",
        ":",
    ),
    _rule(
        "home folder", _NEW + r"(?<![\w.-])(?:/(?:mnt|cygdrive))?/[a-z]/Users/[^\\/:*?\"'<>|\s]+", "<home>", "/Users/"
    ),
    _rule(
        "path",
        r"(?<![\w.])(?:[A-Z]:(?!\\[nrt](?![\w.]))\\{1,4}|[a-z]:\\{1,4}(?=[^\\\s\"'<>]+\\))(?:[^\\/:*?\"'<>|\r\n\s]+\\{1,4})*(?P<last>[^\\/:*?\"'<>|\r\n\s]+)",
        r"<path>/\g<last>",
        ":\\",
    ),
    _rule(
        "network path",
        r"(?<![\w\\])(?:\\\\|\\\\\\\\)[A-Za-z][\w.-]+\\{1,2}[\w$.-]+(?:\\{1,2}[\w$. -]+)*",
        "<path>",
        "\\\\",
    ),
    _rule("file address", r"\bfile:/{1,3}(?=[^\s\"'<>/])[^\s\"'<>]+", "file://<path>", "file:/", first=True),
    _rule(
        "server address",
        r"(?P<before>\b(?:smb|cifs|nfs|afp|ssh|sftp|rsync|hdfs|mongodb(?:\+srv)?|postgres(?:ql)?|mysql|redis|amqp|ldap)://)(?:<user>@)?[^\s/\"'<>]+",
        r"\g<before><host>",
        "://",
    ),
    _rule(
        "home folder",
        _NEW + r"(?<![\w.-])/(?:home|Users)/[\w.-]+(?: [A-Z][\w.-]*){1,3}(?=/)",
        "<home>",
        "/home/",
        "/Users/",
        first=True,
    ),
    _rule(
        "home folder",
        _NEW + r"(?<![\w./-])/(?:(?:var|usr|export|data|mnt|u\d?)/)?(?:home\d*|nethome|homes|Users)/[\w.-]+(?![\w-])",
        "<home>",
        "home",
        "/Users/",
    ),
    _rule(
        "home folder",
        r"(?:%2F|\\/|&#x2F;|&#47;)(?:home|Users)(?:%2F|\\/|&#x2F;|&#47;)[\w.-]+",
        "<home>",
        "%2",
        "\\/",
        "&#",
        flags=re.IGNORECASE,
    ),
    _rule(
        "temporary folder",
        _NEW + r"(?<![\w.-])(?:/private)?/var/folders/\w+/\w+(?:/[A-Z])?|(?<![\w.-])/run/(?:user|media)/[\w.-]+",
        "<tmp>",
        "/var/folders",
        "/run/",
    ),
    _rule(
        "path", _NEW + rf"(?<![\w.</-])/(?:{TOPS})\d*(?P<inner>(?:/{_SEGMENT})*)/(?P<last>{_SEGMENT})", short_path, "/"
    ),
    _rule("hardware address", r"(?<![\w:-])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:-])", "<mac>", ":"),
    _rule("hardware address", r"(?<![\w-])(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}(?![\w-])", "<mac>", "-"),
    _rule(
        "hardware address",
        r"(?<![\w.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w.])",
        lambda m: "<mac>" if re.search("[A-Fa-f]", m.group()) else m.group(),
        ".",
    ),
    _rule("network address", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d|\.(?:post|dev|so|whl)|-py)", _address4, "."),
    _rule("network address", r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:{1,2}){1,7}[0-9A-Fa-f]{0,4}(?![\w:])", _address6, ":"),
    _rule("device id", r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>", "GPU-", "MIG-"),
    _rule(
        "machine id",
        r"(?P<before>\b(?:machine[-_ ]?id|boot[-_ ]?id|serial[-_ ]?(?:number|no)|product[-_]?uuid)\b\W{1,4})"
        r"(?=[\w-]*\d)[\w-]{6,}",
        r"\g<before><id>",
        "id",
        "serial",
        "ID",
        "Serial",
        flags=re.IGNORECASE,
    ),
    _rule(
        "host name",
        r"(?P<before>\b(?:host_?name|computer_?name|node_?name)\b[\"']?\s*[:=]\s*[\"']?)(?P<host>[A-Za-z0-9][\w.-]+)",
        _named("host", "<host>"),
        "name",
        "NAME",
        "Name",
        flags=re.IGNORECASE,
    ),
    _rule(
        "host name",
        r"\b(?:DESKTOP|LAPTOP|WIN)-[A-Z0-9]{6,12}\b|\bip-\d{1,3}(?:-\d{1,3}){3}(?:\.[\w.-]*\w)?",
        "<host>",
        "-",
    ),
    _rule(
        "host name",
        r"(?<![\w.@/-])(?=[\w.-]*[\d-])[A-Za-z][\w-]+(?:\.[\w-]+)*\.(?:local|lan|internal|intranet|corp|home|localdomain)(?![\w(.=-])",
        "<host>",
        ".",
    ),
    _rule("host name", r"(?<=\bLinux )(?!version|kernel)[A-Za-z][\w.-]*(?= \d+\.\d+\.\d+\S* #\d)", "<host>", "Linux "),
    _rule(
        "host name",
        r"(?<=https://)(?!localhost\b)[A-Za-z][\w-]*(?=[:/\"'\s]|$)|(?<=http://)(?!localhost\b)[A-Za-z][\w-]*(?=[:/\"'\s]|$)",
        "<host>",
        "://",
    ),
    _rule("user name", r"(?<![\w.@<-])[A-Za-z_][\w.-]*@(?:<host>|[A-Za-z][\w.-]*)(?=:[~/])", "<user>@<host>", "@"),
    _rule("user name", r"(?<![\w.@<+-])[\w.+-]+@(?=<host>)", "<user>@", "@<host>"),
    _rule(
        "user name",
        r"(?P<before>\b(?:ssh|scp|rsync)\s(?:-\S+\s)*)[A-Za-z_][\w.-]*@[\w.-]+",
        r"\g<before><user>@<host>",
        "@",
    ),
    _rule(
        "user name",
        r"(?P<before>\buid=\d+\(|\bgid=\d+\(|\bgroups=\d+\()(?P<user>[\w.-]+)(?=\))",
        r"\g<before><user>",
        "id=",
    ),
    _rule(
        "user name",
        r"(?P<before>(?<![\w.])(?:user_?name|user|logname|sudo_user|login|whoami)[\"']?\s*[:=]\s*[\"']?)(?P<user>[A-Za-z][\w.-]{2,31})(?![\w.]|\s*[(\[])",
        _named("user", "<user>"),
        "user",
        "USER",
        "User",
        "log",
        "LOG",
        "whoami",
        flags=re.IGNORECASE,
    ),
)
