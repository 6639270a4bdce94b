"""The scrubber against planted leaks and harmless text, in every kind of file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scrub_corpus import HARMLESS, HF, LEAKS

from icd_lib.scrub.text import find_leaks, scrub_html, scrub_strings, scrub_text


@pytest.mark.parametrize(("text", "gone"), LEAKS, ids=range(len(LEAKS)))
@pytest.mark.parametrize("around", ["{}", '"{}"', "<p>{}</p>", "line\n({}),\nline"])
def test_a_planted_leak_is_found_and_gone(text, gone, around):
    text = around.format(text)
    assert gone in text and find_leaks(text)
    once = scrub_text(text)
    assert gone not in once
    assert not find_leaks(once) and scrub_text(once) == once


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_harmless_text_stays(text):
    assert (scrub_text(text), find_leaks(text)) == (text, [])


def test_the_corpora_are_large():
    assert len(LEAKS) >= 60 and len(HARMLESS) >= 25


def test_keys_say_what_a_value_is_and_packages_have_versions_of_four_parts():
    given_ = {
        "hf_token": "abcdefgh1",
        "cls_token": "[CLS]",
        "packages": {"nvidia-cudnn": "9.10.2.21", "x": "jane@acme.org"},
        "list": ("10.1.2.3", 1.5, None, True),
    }
    assert scrub_strings(given_) == {
        "hf_token": "<token>",
        "cls_token": "[CLS]",
        "packages": {"nvidia-cudnn": "9.10.2.21", "x": "<email>"},
        "list": ["<ip>", 1.5, None, True],
    }


def test_placeholders_stay_visible_in_a_page():
    page = '<p>/home/jdoe/x by jane@acme.org</p><svg><path d="M0 0"/></svg><data value="1">'
    assert scrub_html(page) == '<p>&lt;home&gt;/x by &lt;email&gt;</p><svg><path d="M0 0"/></svg><data value="1">'
    assert scrub_html(scrub_html(page)) == scrub_html(page)


def test_positions_are_those_of_the_text():
    image = "data:image/png;base64,AAAA"
    text = f"<img src='{image}'> jane@acme.org"
    assert find_leaks(text) == [("e-mail address", text.index("jane"))]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab/\\:.@<>=-_ \"'%&#;0123456789CUsershomedattokn\n"), max_size=120))
def test_any_text_is_clean_after_one_pass_and_stays_json(text):
    once = scrub_text(text)
    assert not find_leaks(once), once
    assert scrub_text(once) == once
    json.dumps(scrub_strings({text: [text]}))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from([HF, "jane.doe@acme.org", "/home/jdoe/x"]))
def test_a_leak_between_any_words_is_gone(before, after, leak):
    assert leak not in scrub_text(f"{before} {leak} {after}")
