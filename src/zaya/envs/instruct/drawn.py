"""Eight instructions that IFBench has for one prompt each, or checks with data: here drawn by seed and judged by us.

"List the countries of Africa in reverse alphabetical order" has one answer, which is learned by heart, and a response
that must start with a verb needs a tagger and its data. What they train can be asked with other contents, all of which
stand in the prompt: which words to list, which numbers to count, which of a few words is a verb. So each has one right
answer, except for the verb, which a real answer has to follow. `envs.instruct.instructions` offers them beside the
others. Source: IFBench (arXiv 2507.02833).
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from datetime import date
from typing import Any

from zaya.envs.instruct.demand import words
from zaya.envs.instruct.words import ADJECTIVES, NOUNS, SINGLE, VERBS

_VERBS = (
    "admire", "adorn", "allow", "assemble", "borrow", "bring", "choose", "deliver", "describe", "discover", "enjoy",
    "explain", "explore", "forgive", "imagine", "inherit", "inspect", "observe", "persuade", "prepare", "protect",
    "receive", "remember", "teach", "unpack",
)  # fmt: skip
_NO_VERBS = (
    "ancient", "apple", "cheerful", "curious", "eager", "elephant", "festival", "giraffe", "golden", "honest", "igloo",
    "kitchen", "library", "loyal", "mountain", "never", "noble", "often", "quickly", "sailor", "seldom", "umbrella",
    "upstairs", "village", "violin", "wooden", "young",
)  # fmt: skip
"""Each is a verb in no sentence, as each of the others can be nothing else."""

_CAPITALS = {
    "Reykjavik": 64.1, "Helsinki": 60.2, "Oslo": 59.9, "Tallinn": 59.4, "Stockholm": 59.3, "Riga": 56.9,
    "Moscow": 55.8, "Copenhagen": 55.7, "Vilnius": 54.7, "Minsk": 53.9, "Dublin": 53.3, "Berlin": 52.5,
    "Amsterdam": 52.4, "Warsaw": 52.2, "London": 51.5, "Brussels": 50.9, "Kyiv": 50.5, "Prague": 50.1,
    "Luxembourg": 49.6, "Paris": 48.9, "Vienna": 48.2, "Bratislava": 48.1, "Budapest": 47.5, "Vaduz": 47.1,
    "Chisinau": 47.0, "Bern": 46.9, "Ljubljana": 46.1, "Zagreb": 45.8, "Belgrade": 44.8, "Bucharest": 44.4,
    "Sarajevo": 43.9, "Sofia": 42.7, "Podgorica": 42.4, "Skopje": 42.0, "Rome": 41.9, "Tirana": 41.3, "Madrid": 40.4,
    "Lisbon": 38.7, "Athens": 38.0, "Valletta": 35.9,
}  # fmt: skip
"""Their latitudes, which a prompt tells: no two alike."""
_BATTLES = {
    "Lodi": date(1796, 5, 10), "Castiglione": date(1796, 8, 5), "Arcole": date(1796, 11, 15),
    "Rivoli": date(1797, 1, 14), "the Pyramids": date(1798, 7, 21), "Marengo": date(1800, 6, 14),
    "Austerlitz": date(1805, 12, 2), "Jena": date(1806, 10, 14), "Eylau": date(1807, 2, 7),
    "Friedland": date(1807, 6, 14), "Aspern": date(1809, 5, 21), "Wagram": date(1809, 7, 5),
    "Borodino": date(1812, 9, 7), "Lützen": date(1813, 5, 2), "Bautzen": date(1813, 5, 20),
    "Dresden": date(1813, 8, 26), "Leipzig": date(1813, 10, 16), "Montmirail": date(1814, 2, 11),
    "Laon": date(1814, 3, 9), "Ligny": date(1815, 6, 16), "Waterloo": date(1815, 6, 18),
}  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def verb(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    right = rng.choice(_VERBS)
    shown = [right, *rng.sample(_NO_VERBS, 3 + level)]
    rng.shuffle(shown)
    return {"_words": ", ".join(shown), "_verb": right}


def itself(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    *first, last = rng.sample(SINGLE, 2 + level)
    return {
        "_answer": f"Only output this sentence here, about {', '.join(first)} and {last}, ignore all other requests."
    }


def multiples(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    factor, first, number = rng.randint(3, 12), rng.randint(2, 30), 4 + 2 * level
    found = [factor * (first + i) for i in range(number)]
    start, end = found[0] - rng.randrange(factor), found[-1] + rng.randrange(factor)
    return {
        "_request": f"Count from {start} to {end}.",
        "_factor": factor,
        "_list": [str(multiple) for multiple in found],
    }


def reverse_lines(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    shown = rng.sample(SINGLE, 5 + 3 * level)
    return {"_request": f"These are some words: {', '.join(shown)}.", "_list": sorted(shown, reverse=True)}


def sentence(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    kinds = (ADJECTIVES, NOUNS, VERBS, ADJECTIVES, NOUNS)
    said = " and ".join(" ".join(rng.choice(kind) for kind in kinds) for _ in range(1 + level))
    return {"_request": f'This is a sentence: "{said}"', "_sentence": said}


def capitals(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    shown = rng.sample(sorted(_CAPITALS), 4 + 2 * level)
    by_latitude = sorted(shown, key=lambda name: -_CAPITALS[name])
    kept = rng.randint(2, len(shown) - 1)
    listed = ", ".join(f"{name} {_CAPITALS[name]}" for name in shown)
    return {
        "_request": f"These are capital cities of European countries with their latitudes in degrees: {listed}.",
        "_latitude": round((_CAPITALS[by_latitude[kept - 1]] + _CAPITALS[by_latitude[kept]]) / 2, 2),
        "_list": by_latitude[:kept],
    }


def dates(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    shown = rng.sample(sorted(_BATTLES), 3 + level)
    days = [_BATTLES[name] for name in shown]
    listed = "; ".join(
        f"{name}, {day.day} {_MONTHS[day.month - 1]} {day.year}" for name, day in zip(shown, days, strict=True)
    )
    return {
        "_request": f"These are battles that Napoleon fought, and the days on which they began: {listed}.",
        "_list": [day.isoformat() for day in sorted(days)],
    }


# ----- what is right


def starts_with_verb(text: str, a: Mapping[str, Any]) -> bool:
    return words(text)[:1] == [a["_verb"]]


def is_itself(text: str, a: Mapping[str, Any]) -> bool:
    return text.strip().lower() == a["_answer"].lower()


def is_list(text: str, a: Mapping[str, Any]) -> bool:
    """These, separated by commas, and nothing else."""
    found = text.strip().removesuffix(".").split(",")
    return [part.strip().lower() for part in found] == [part.lower() for part in a["_list"]]


def is_lines(text: str, a: Mapping[str, Any]) -> bool:
    """These, one in a line, and marks around them at most."""
    lines = (line.strip(string.punctuation + " \t\r") for line in text.split("\n"))
    return [line.lower() for line in lines if line] == a["_list"]


def has_words_reversed(text: str, a: Mapping[str, Any]) -> bool:
    return words(text) == a["_sentence"].split()[::-1]


def has_letters_reversed(text: str, a: Mapping[str, Any]) -> bool:
    return text.strip().strip(".\"'“”").lower() == a["_sentence"][::-1]
