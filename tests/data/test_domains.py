"""Domains: text out, mark-up away, labels beside it; the same from the files, from the kept copy and every time."""

import bz2
import dataclasses
import functools
import json
import re

import numpy as np
import pytest

from icd_lib.data.domains import DOMAINS, DomainText, load_domain, readers, registry
from icd_lib.data.domains.domain import MAX_CHARACTERS, MIN_CHARACTERS, distinct, from_json, to_json
from icd_lib.data.fetch import has_file
from icd_lib.data.sources import SOURCES
from icd_lib.data.splits import normalise
from icd_lib.errors import ResourceError
from tests.tiny_domains import toy_domain


def test_a_part_keeps_what_belongs_to_its_texts():
    domain = toy_domain(documents=3, per_document=3)
    part = domain.take(np.array([0, 1, 4, 5, 8]))
    assert part.texts == [domain.texts[i] for i in (0, 1, 4, 5, 8)] and len(part) == 5
    assert part.documents.tolist() == [0, 0, 1, 1, 2] and part.labels["class"].tolist() == [0, 0, 1, 1, 2]
    assert domain.pairs.tolist() == [[0, 1], [1, 2], [3, 4], [4, 5], [6, 7], [7, 8]]
    assert part.pairs.tolist() == [[0, 1], [2, 3]], "a pair stays where both of its texts do, at their new places"
    assert (part.name, part.same_document, part.provenance) == (domain.name, True, domain.provenance)
    nothing = domain.take(np.empty(0, np.int64))
    assert len(nothing) == 0 and nothing.pairs.shape == (0, 2) and len(nothing.labels["class"]) == 0


def test_texts_that_others_have_leave_in_any_spelling():
    domain = toy_domain(documents=2, per_document=3)
    left = domain.without({normalise(domain.texts[1].upper() + "!"), "something else"})
    assert left.texts == [text for i, text in enumerate(domain.texts) if i != 1]
    assert left.pairs.tolist() == [[2, 3], [3, 4]], "the pairs of a text that left are gone"
    assert domain.without(set()).sha256 == domain.sha256


def test_the_hash_sees_texts_labels_documents_and_pairs():
    domain = toy_domain(documents=3)
    others = [
        dataclasses.replace(domain, texts=[domain.texts[0] + "x", *domain.texts[1:]]),
        dataclasses.replace(domain, labels={"class": 1 - domain.labels["class"]}),
        dataclasses.replace(domain, labels={"other": domain.labels["class"]}),
        dataclasses.replace(domain, documents=domain.documents + 1),
        dataclasses.replace(domain, pairs=domain.pairs[::-1]),
        dataclasses.replace(domain, pairs=None),
    ]
    assert len({each.sha256 for each in [domain, *others]}) == 7
    assert dataclasses.replace(domain, documents=domain.documents.astype(np.int32)).sha256 == domain.sha256
    assert toy_domain(documents=3).sha256 == domain.sha256


@pytest.mark.parametrize("changes", [{}, {"pairs": None}, {"labels": {}, "same_document": False, "head_classes": 2}])
def test_a_domain_survives_json(changes):
    domain = toy_domain(documents=3, **changes)
    again = from_json(json.loads(json.dumps(to_json(domain))))
    assert again.sha256 == domain.sha256
    same = ("name", "texts", "same_document", "provenance", "head_classes")
    assert all(getattr(again, name) == getattr(domain, name) for name in same)
    assert again.documents.dtype == np.int64 and (again.pairs is None) == (domain.pairs is None)
    none_left = domain.take(np.array([0]))
    assert from_json(json.loads(json.dumps(to_json(none_left)))).sha256 == none_left.sha256


def test_of_equal_texts_the_first_stays_and_very_short_and_long_ones_go():
    rows = [
        ("A sentence\n of  some words.", 7, {"y": 1}),
        ("too short", 7, {"y": 1}),
        ("a SENTENCE of some: words", 8, {"y": 0}),
        ("x" * MIN_CHARACTERS, 8, {"y": 0}),
        ("y" * MAX_CHARACTERS, 9, {"y": 2}),
        ("z" * (MAX_CHARACTERS + 1), 9, {"y": 2}),
    ]
    found = distinct("d", rows, tasks=("y",), provenance={"package": "p"})
    assert found.texts == ["A sentence of some words.", "x" * MIN_CHARACTERS, "y" * MAX_CHARACTERS]
    assert found.documents.tolist() == [7, 8, 9] and found.labels["y"].tolist() == [1, 0, 2]
    assert found.pairs is None and not found.same_document and not found.head_classes
    assert len(distinct("d", [])) == 0


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ('He said: "Go!" Then she left. "Why?"', 3),
        ("Dr. A. Smith of St. Ives met J. R. Brown.", 1),
        ("It cost 3.50 in all. Nothing more", 2),
        ("see e.g. the first part. (Then the second.)", 2),
        ("no capital. after this", 1),
        ("   ", 0),
    ],
)
def test_sentences_end_where_one_does(paragraph, expected):
    found = list(readers.sentences(paragraph))
    assert len(found) == expected and all(part == part.strip() and part for part in found)


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("a [[b|c]] d [[e]]", "a c d e"),
        ("a{{b|{{c|{{d}}}}}} e", "a e"),
        ("a<ref name=x/> b<ref>see\n[[c]]</ref> d", "a  b  d"),
        ("a {| class=x\n| cell\n|} b", "a   b"),
        ("[[File:x.jpg|thumb|a [[link]] in it]]rest", "rest"),
        ("[[Category:Things]][[de:Ding]]rest", "rest"),
        ("see [http://x.org the site] and [https://y.org]", "see the site and"),
        ("<!-- hidden\ntext -->a<br/>b <small>c</small> <math>x^2</math>", "ab c"),
        ("'''''both''''' it''s &amp; that", "both its & that"),
    ],
)
def test_markup_is_taken_away_and_its_text_kept(markup, expected):
    assert readers.plain_text(markup) == expected.strip()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """`source_file` over files that a test writes: name → content."""

    def write(**contents):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    monkeypatch.setattr(readers, "source_file", lambda name: tmp_path / name.replace(".", "_").replace("/", "_"))
    return write


def test_an_article_is_a_document_and_only_its_running_text_is_read(files):
    page = "<page><revision><text>{}</text></revision></page>"
    first = (
        "'''Ada''' was the first of [[all]] of them. She wrote many notes on it.\n== Life ==\n* a list of five words.\n"
    )
    first += "A line with a |left over bar in it.\nIt has caf\u00e9 in it and is not plain.\n"
    first += "Too short one.\nThere is no end of it at all"
    second = "Bees live in hives that they build."
    pages = [first, "#REDIRECT [[Elsewhere]] is not a text here.", second]
    xml = "<m xmlns='http://x.org/'>" + "".join(page.format(text) for text in pages) + "</m>"
    files(enwiki_xml_bz2=bz2.compress(xml.encode()))
    found = readers.read_encyclopaedia()
    expected = ["Ada was the first of all of them.", "She wrote many notes on it.", second]
    assert found.texts == expected and found.documents.tolist() == [0, 0, 1]
    assert found.same_document and found.labels == {}


def test_a_news_report_is_a_line(files):
    files(lee_background_cor="One thing happened. Another one did.\nThe third report of the day.\n")
    found = readers.read_news()
    assert found.texts == ["One thing happened.", "Another one did.", "The third report of the day."]
    assert found.documents.tolist() == [0, 0, 1] and found.same_document


@pytest.mark.parametrize(("name", "grouped"), [("films", False), ("products", True)])
def test_ratings_become_four_labels(files, name, grouped):
    rows = [
        "\ufeff1_1\t-1.0\tas bad as it can be &amp; worse",
        "1_2\t-0.2\ta little bit annoying",
        "2_1\t1.0\trather good stuff",
    ]
    rows += ["2_2\t1.26\treally good\tthing", "3_1\t0.0\tneither good nor bad"]
    files(**{f"{name}_txt": "\n".join(rows)})
    found = readers.read_rated(name)
    assert found.texts[0] == "as bad as it can be & worse" and found.texts[3] == "really good thing"
    assert found.documents.tolist() == [1, 1, 2, 2, 3] and found.same_document == grouped
    assert {task: labels.tolist() for task, labels in found.labels.items()} == {
        "sentiment": [0, 0, 1, 1, 0],
        "clearly bad": [1, 0, 0, 0, 0],
        "clearly good": [0, 0, 0, 1, 0],
        "strong": [0, 0, 0, 1, 0],
    }


def test_a_reply_answers_the_line_before_it(files, monkeypatch):
    monkeypatch.setattr(readers, "DIALOGUES", ("one", "two"))
    files(
        dialogues_one_yml="conversations:\n- - what is an apple then?\n  - a fruit of a tree\n  - Is it really so?\n",
        dialogues_two_yml=(
            "conversations:\n- - What is an Apple, then?\n  - something else entirely\n"
            "- - who are you really?\n  - short\n"
        ),
    )
    found = readers.read_dialogues()
    assert found.texts == [
        "what is an apple then?",
        "a fruit of a tree",
        "Is it really so?",
        "something else entirely",
        "who are you really?",
    ]
    assert found.labels["subject"].tolist() == [0, 0, 0, 1, 1]
    assert found.pairs.tolist() == [[0, 1], [1, 2]], (
        "a question that is spelled otherwise or lost its reply asks nothing"
    )
    assert found.documents.tolist() == [0, 1, 2, 3, 4]


def test_a_synset_gives_its_definition_and_its_examples(files):
    lines = {
        "noun": (
            "  1 licence text\n"
            '00001 05 n 01 cat 0 000 | a small animal that purrs; "the cat sat down"; "two cats again"\n'
        ),
        "verb": "00002 30 v 01 run 0 000 | move fast on one's feet  \n",
        "adj": '00003 00 a 01 odd 0 000 | not quite usual; "an odd thing to say"\n',
        "adv": "  2 licence text\n",
    }
    files(**{f"wordnet_{part}": text for part, text in lines.items()})
    glosses, examples = readers.read_glosses(), readers.read_examples()
    assert glosses.texts == ["a small animal that purrs", "move fast on one's feet", "not quite usual"]
    assert glosses.labels["subject"].tolist() == [5, 30, 0] and glosses.documents.tolist() == [0, 1, 2]
    assert examples.texts == ["the cat sat down", "two cats again", "an odd thing to say"]
    assert examples.labels["subject"].tolist() == [5, 5, 0] and examples.documents.tolist() == [0, 0, 2]


def missing_file(domain) -> str | None:
    """A file of the domain's package that has not been fetched."""
    names = (file.name for source in SOURCES if source.package == domain.package for file in source.files)
    return next((name for name in names if not has_file(name)), None)


@functools.cache
def fresh(name: str) -> DomainText:
    if absent := missing_file(DOMAINS[name]):
        pytest.skip(f"{absent} is not here; run: python -m icd_lib.data.fetch")
    return DOMAINS[name].read()


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_is_whole(name):
    found = fresh(name)
    assert found.name == name and len(found) > 1000
    forms = [normalise(text) for text in found.texts]
    if name == "verses":  # some are the same in both translations: then they are one document
        document = dict(zip(forms, found.documents.tolist(), strict=True))
        assert [document[form] for form in forms] == found.documents.tolist()
    else:
        assert len(set(forms)) == len(forms)
    assert all(form for form in forms) and not any("\n" in text or text != text.strip() for text in found.texts)
    assert found.documents.shape == (len(found),) and found.documents.dtype == np.int64
    for task, labels in found.labels.items():
        assert labels.shape == (len(found),) and labels.dtype == np.int64 and labels.min() == 0, task
        assert len(np.unique(labels)) > 1, "a task that asks something"
    assert found.labels or found.same_document or found.pairs is not None, "there is something to ask"
    if found.pairs is not None:
        assert found.pairs.min() >= 0 and found.pairs.max() < len(found)
        assert (found.pairs[:, 0] != found.pairs[:, 1]).all()
        assert len(np.unique(found.pairs[:, 0])) == len(found.pairs), "each text asks once"
    if found.same_document:
        assert 1 < len(np.unique(found.documents)) < len(found)
    assert found.provenance["licence"]


# What docstrings depend on has a test of its own, in test_data_docstrings.
@pytest.mark.parametrize("name", [name for name in DOMAINS if name != "docstrings"])
def test_reading_again_gives_the_same_texts_as_the_kept_copy(name):
    """The kept copy may be another process's, and of another day."""
    found, kept = fresh(name), load_domain(name)
    assert kept.sha256 == found.sha256
    assert kept.provenance == found.provenance and kept.same_document == found.same_document


def test_no_markup_is_left_in_the_encyclopaedia():
    left = re.compile(r"[\[\]{}|<>=]|'''|''|&[a-z]+;|&#|https?:|\bthumb\||\bISBN\b")
    texts = fresh("encyclopaedia").texts
    assert [text for text in texts if left.search(text)] == []
    assert all(text.rstrip("\"')]")[-1] in ".!?" and len(text.split()) >= 5 and text.isascii() for text in texts)
    assert any(text.endswith('."') for text in texts), "a closing quote belongs to its sentence"
    assert (
        "Anarchism is a political philosophy that advocates self-governed societies based on voluntary institutions."
        in texts
    )


def test_known_texts_have_their_labels():
    dialogues, verses = fresh("dialogues"), fresh("verses")
    place = dialogues.texts.index("What language are you written in?")
    (reply,) = (b for a, b in dialogues.pairs if a == place)
    assert dialogues.texts[reply] == "I am written in Python."
    assert readers.DIALOGUES[dialogues.labels["subject"][place]] == "ai"
    asked, answer = verses.pairs[0]
    assert verses.texts[asked] == "In the beginning God created the heavens and the earth."
    assert verses.texts[answer] == "In the beginning God created the heaven and the earth."
    assert verses.documents[asked] == verses.documents[answer] and verses.labels["book"][answer] == 0
    glosses, films = fresh("glosses"), fresh("films")
    dog = next(i for i, text in enumerate(glosses.texts) if text.startswith("a member of the genus Canis"))
    assert glosses.labels["subject"][dog] == 5, "noun.animal"
    place = films.texts.index("Effective but too tepid biopic")
    assert {task: int(labels[place]) for task, labels in films.labels.items()} == dict.fromkeys(films.labels, 0)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache of kept copies, and counted readings of one domain that needs no file."""
    calls = []

    def read():
        calls.append(1)
        return toy_domain("manual")

    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(DOMAINS, "manual", dataclasses.replace(DOMAINS["manual"], read=read))
    load_domain.cache_clear()
    yield tmp_path / "cache", calls
    load_domain.cache_clear()


def again(name="manual"):
    load_domain.cache_clear()  # another process
    return load_domain(name)


def test_what_was_read_is_kept_and_read_from_there(own_cache):
    folder, calls = own_cache
    first = again()
    assert len(calls) == 1 and [file.name.partition("-")[0] for file in folder.iterdir()] == ["domain"]
    kept = again()
    assert len(calls) == 1 and kept.sha256 == first.sha256 == toy_domain("manual").sha256
    assert (kept.same_document, kept.provenance) == (True, {"package": "toy"})


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"null", b"{}", b"\xff", b'{"labels": {}, "documents": [], "pairs": null}']
)
def test_a_damaged_copy_is_read_anew_and_replaced(own_cache, damage):
    folder, calls = own_cache
    again()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert again().sha256 == toy_domain("manual").sha256 and len(calls) == 2
    assert file.read_bytes() == whole


def test_a_copy_of_another_reader_or_other_files_is_not_taken(own_cache, monkeypatch):
    _, calls = own_cache
    again()
    monkeypatch.setattr(registry, "READER", registry.READER + 1)
    again()
    monkeypatch.setitem(DOMAINS, "manual", dataclasses.replace(DOMAINS["manual"], identity=lambda: "of other files"))
    again()
    assert len(calls) == 3
    again()
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_costs_time_only(own_cache):
    folder, calls = own_cache
    folder.write_text("no folder")
    assert again().sha256 == again().sha256 and len(calls) == 2


def test_a_domain_whose_files_are_missing_names_the_cure(own_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "nothing"))
    for name, domain in DOMAINS.items():
        if domain.package is not None:
            with pytest.raises(ResourceError, match=f"package {domain.package} .*make fetch_data"):
                again(name)


def test_every_row_says_what_it_is():
    packages = {source.package for source in SOURCES if not source.on_demand}
    for name, domain in DOMAINS.items():
        assert domain.name == name and domain.words and domain.labelled
        assert domain.package is None or domain.package in packages
    assert len({json.dumps(domain.identity()) for domain in DOMAINS.values()}) >= 5
    assert {domain.package for domain in DOMAINS.values()} - {None} == packages, "every package is of use"
