"""BFCL v4 from the wheel of the package bfcl-eval, read as an archive: its pins would collide with ours.

    pip download --no-deps bfcl-eval          and then          tools:bfcl_eval-2026.3.23-py3-none-any.whl

Covered are the categories of one turn in Python and JSON. Of their 3,491 questions six are there twice and four want
what their functions do not take, so 3,481 are asked. Not covered, and so no part of any number here:

    multi_turn_*, memory, web_search    hold state in simulated systems over many turns, or need the network
    simple_java, simple_javascript      ask for values in the syntax of those languages, written as texts
    format_sensitivity                  asks the same questions again under other instructions for the form of a call

A line's number in this file runs through all categories. Source: spec post-training 12.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zaya.errors import DataError

ANY = "any"
"""In the place of the calls that are wanted: something has to be called, whatever it is."""
CATEGORIES = (
    "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance", "live_simple", "live_multiple",
    "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance",
)  # fmt: skip
_NOTHING = ("irrelevance", "live_irrelevance")
_SOMETHING = ("live_relevance",)
_QUESTIONS = "bfcl_eval/data/BFCL_v4_{}.json"
_ANSWERS = "bfcl_eval/data/possible_answer/BFCL_v4_{}.json"


def rows(wheel: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of every question, with the calls that are wanted. Raises DataError."""
    number = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            for category in CATEGORIES:
                answers = {} if category in (*_NOTHING, *_SOMETHING) else {
                    answer["id"]: answer["ground_truth"] for answer in _lines(archive, _ANSWERS.format(category))
                }  # fmt: skip
                for question in _lines(archive, _QUESTIONS.format(category)):
                    number += 1
                    calls = [] if category in _NOTHING else ANY if category in _SOMETHING else answers[question["id"]]
                    yield number, {**question, "ground_truth": calls, "category": category}
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(
            f"{wheel} is not a wheel of bfcl-eval as it is known here: {error}",
            hint="pip download --no-deps bfcl-eval==2026.3.23",
        ) from error


def _lines(archive: zipfile.ZipFile, name: str) -> Iterator[dict[str, Any]]:
    for line in archive.read(name).decode().split("\n"):
        if line.strip():
            yield json.loads(line)
