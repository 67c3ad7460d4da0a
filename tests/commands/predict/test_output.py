"""Every format is valid for every name of a file."""

import csv
import io
import json
import os

import pytest

from backbones.commands.predict.output import Guess, Prediction, as_csv, as_json, as_lines, printable, readable

NAMES = [
    "a.jpg",
    'quote"d.jpg',
    "comma, new\nline.jpg",
    "tab\tcr\r.jpg",
    "ünï.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "\x1b[31m",
]
PREDICTIONS = [Prediction(name, [Guess(3, "cat", 0.75), Guess(0, 'a "dog", or\nso', 0.25)]) for name in NAMES]


def test_json_is_one_list_that_any_parser_reads():
    text = "".join(as_json(PREDICTIONS))
    text.encode("ascii")
    assert "\\ud" not in text  # lone surrogates are no Unicode
    found = json.loads(text)
    assert [each["image"] for each in found] == [readable(name) for name in NAMES]
    assert found[0]["predictions"] == [
        {"class": "cat", "index": 3, "probability": 0.75},
        {"class": 'a "dog", or\nso', "index": 0, "probability": 0.25},
    ]


def test_csv_comes_back_as_it_was():
    text = "".join(as_csv(PREDICTIONS)).encode("utf-8").decode()
    heading, *rows = csv.reader(io.StringIO(text, newline=""))
    assert heading == ["image", "rank", "class", "index", "probability"]
    assert [row[0] for row in rows[::2]] == [readable(name) for name in NAMES]
    assert rows[1][1:] == ["2", 'a "dog", or\nso', "0", "0.25"]


def test_lines_for_people_stay_lines():
    lines = "".join(as_lines(PREDICTIONS[:5])).splitlines()
    assert lines[:2] == ["a.jpg", "   75.00 %  cat"]
    assert lines[6] == r"comma, new\nline.jpg"


@pytest.mark.parametrize(
    ("name", "readable_name", "printable_name"),
    [
        ("ünï.jpg", "ünï.jpg", "ünï.jpg"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9", r"caf\xe9"),
        ("a\nb\x1b", "a\nb\x1b", r"a\nb\x1b"),
    ],
)
def test_a_path_is_shown_as_text(name, readable_name, printable_name):
    assert (readable(name), printable(name)) == (readable_name, printable_name)


def test_no_predictions_are_an_empty_list():
    assert json.loads("".join(as_json([]))) == []
    assert "".join(as_csv([])).count("\n") == 1


def test_imagenets_classes_are_told_in_words():
    one = [Prediction("a.jpg", [Guess(207, "n02099601", 1.0, "golden retriever")])]
    assert "".join(as_lines(one)).endswith("100.00 %  n02099601  golden retriever\n")
    assert json.loads("".join(as_json(one)))[0]["predictions"][0]["description"] == "golden retriever"
