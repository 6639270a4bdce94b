"""Texts of one's own: any size, three forms, one sample for one seed, and clear words for what is no text."""

import json
import tracemalloc

import pytest

from icd_lib.command.texts import LONGEST, LONGEST_LINE, sample_texts
from icd_lib.errors import ConfigError


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_line_is_a_text_and_no_text_stands_twice(tmp_path):
    path = write(tmp_path, "a.txt", "\ufeffone  text\r\n\n  two\t\nÄ third\none text\n")
    assert sample_texts(path, 10) == ["one text", "two", "Ä third"]


def test_objects_and_rows_have_a_field(tmp_path):
    lines = [{"text": "a b", "n": 1}, {"text": "c"}, "a bare string"]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert sample_texts(path, 10) == ["a b", "c", "a bare string"]
    path = write(tmp_path, "a.csv", 'id,review\n1,"two\nlines, one text"\n2,other\n')
    assert sample_texts(path, 10, field="review") == ["two lines, one text", "other"]


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"fine\ncaf\xe9\n", "line 2 of a.txt is not UTF-8 .*0xe9.*iconv"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 of a.jsonl is no JSON"),
        ("a.jsonl", b'{"body_text": "a"}\n', "line 1 of a.jsonl has no text in text or .*body_text.*--field"),
        ("a.jsonl", b"[1, 2]\n", "line 1 of a.jsonl has no text.*a list"),
        ("a.csv", b"id,review\n1,x\n", "line 2 of a.csv has no text.*id, review.*--field"),
        ("a.csv", b"text\n" + b"x" * 200_000 + b"\n", "line 2 of a.csv cannot be read as CSV"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, name, data, message):
    with pytest.raises(ConfigError, match=message):
        sample_texts(write(tmp_path, name, data), 10)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.txt is no file"):
        sample_texts(tmp_path / "nowhere.txt", 10)


def test_the_sample_is_the_seed_s_and_all_of_the_file_has_its_chance(tmp_path):
    path = write(tmp_path, "a.txt", "".join(f"text {i}\n" for i in range(5000)))
    first = sample_texts(path, 100, seed=3)
    assert first == sample_texts(path, 100, seed=3) != sample_texts(path, 100, seed=4)
    assert len(set(first)) == 100
    places = sorted(int(text.split()[1]) for text in first)
    assert places[0] < 500 and places[-1] > 4500


def test_a_line_without_end_does_not_fill_the_memory(tmp_path):
    path = write(tmp_path, "a.txt", "ä" * 5_000_000 + "\nshort\n")
    tracemalloc.start()
    texts = sample_texts(path, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == ["ä" * LONGEST, "short"]
    assert peak < 2_000_000


@pytest.mark.parametrize("name, start", [("a.jsonl", '{"text": "fine"}\n{"text": "'), ("a.csv", "text\n")])
def test_an_object_or_row_without_end_is_refused_before_it_fills_the_memory(tmp_path, name, start):
    path = write(tmp_path, name, start + "x" * (4 * LONGEST_LINE))
    tracemalloc.start()
    with pytest.raises(ConfigError, match=f"line 2 of {name} is longer than 8 MiB"):
        sample_texts(path, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * LONGEST_LINE


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_of_many_lines_only_the_sample_is_held(tmp_path, name):
    line = {"a.txt": "{}", "a.jsonl": '{{"text": "{}"}}', "a.csv": "{}"}[name]
    texts = [f"text {number} {'of some length ' * 20}" for number in range(20_000)]
    path = write(tmp_path, name, "\n".join(["text", *map(line.format, texts)][name != "a.csv" :]) + "\n")
    size = path.stat().st_size
    del texts
    tracemalloc.start()
    found = sample_texts(path, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 10 and all(text.startswith("text ") for text in found)
    assert peak < 0.1 * size
