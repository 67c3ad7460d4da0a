"""Predictions as lines for people, as one JSON list, or as CSV, an image at a time."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from backbones.files import json_text

COLUMNS = ("image", "rank", "class", "index", "probability")
"""Heading of the CSV; there is a line for each class of each image."""


class Guess(NamedTuple):
    """One of the most probable classes of an image."""

    number: int
    """Number of the output."""
    name: str
    """Name of the class; its number where the network names no classes."""
    probability: float
    description: str = ""
    """The class in words, where it is one of ImageNet's."""


class Prediction(NamedTuple):
    """An image with its most probable classes, the most probable one first."""

    path: str
    guesses: list[Guess]


def as_lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield the path of each image, and a line for each class."""
    for path, guesses in predictions:
        yield printable(path) + "\n"
        for guess in guesses:
            yield f"  {100 * guess.probability:6.2f} %  {printable(guess.name)}  {guess.description}".rstrip() + "\n"


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield the parts of a list with ``{"image": path, "predictions": [...]}`` for each image."""
    before = "[\n"
    for path, guesses in predictions:
        found = [_describe(guess) for guess in guesses]
        yield before + json_text({"image": readable(path), "predictions": found})
        before = ",\n"
    yield "\n]\n" if before.startswith(",") else "[]\n"


def as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield a heading, and a line for each class of each image."""
    yield _write_row(COLUMNS)
    for path, guesses in predictions:
        for rank, guess in enumerate(guesses, 1):
            yield _write_row((readable(path), rank, guess.name, guess.number, guess.probability))


FORMATS: dict[str, Callable[[Iterable[Prediction]], Iterator[str]]] = {"text": as_lines, "json": as_json, "csv": as_csv}


def readable(path: str) -> str:
    r"""Return a path as valid Unicode: a byte that is not UTF-8 becomes \xNN."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def printable(path: str) -> str:
    r"""Return a path on one line: control characters become escapes such as \n."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in readable(path)
    )


def _describe(guess: Guess) -> dict[str, Any]:
    words = {"description": guess.description} if guess.description else {}
    return {"class": guess.name, "index": guess.number, "probability": guess.probability, **words}


def _write_row(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)  # with its own \r\n, for whose sake it quotes both
    return line.getvalue().removesuffix("\r\n") + "\n"
