"""The instructions that are offered: how each is drawn, worded and checked.

The checkers of the package say what IFEval and IFBench count. Many can be passed without doing what they ask: ten
palindromes `aaaaa`, nested brackets that are never closed, five sections in one line, no sentence at all where each has
to be longer than the one before. `more` is then what a text has to hold besides; the wording says so. Where the
package's own wording is not what its checker checks (`repeat:repeat_span` speaks of characters and counts words), the
wording is ours.

All 83 are offered. Eight of them IFBench has for one prompt each, which has one answer, or checks with data that is not
here; `envs.instruct.drawn` asks for the same with other contents. The package's checkers do not know those, so they are
judged by us alone, but for `custom:date_format_list`, where `more` asks for the right dates, and the package for dates.

Source: spec post-training 11 and appendix D.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from zaya.envs.instruct import drawn
from zaya.envs.instruct.checkers import sentences
from zaya.envs.instruct.demand import words
from zaya.envs.instruct.words import ENDINGS, FOREIGN, NAMES, PALINDROMES, SINGLE, TOPICS

Arguments = Mapping[str, Any]
"""What the package's class takes, and under names with a leading underscore what only we need."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One kind of instruction."""

    id: str
    """As the benchmarks name it."""
    draw: Callable[[random.Random, int, str], dict[str, Any]] = lambda rng, level, request: {}
    """Its arguments, from a level and the request it is attached to. `_request` replaces that request."""
    wording: str | None = None
    """What the prompt says, with places for arguments; None takes the package's wording."""
    more: Callable[[str, Arguments], bool] | None = None
    """What a text has to hold besides what the package checks."""
    usable: Callable[[str], bool] = lambda word: True
    """Whether a word can stand in an answer at all: only such are asked for."""
    most: int = 1000
    """Words of its own that an answer is asked for at most, where there is no room for more."""
    demands: bool = True
    """Whether it wants a real answer to a request; else its own arguments leave only one answer."""
    names: bool = False
    """Whether the answer has to mention names, not words."""
    alone: bool = False
    """Whether `more` is all there is to check: the package knows the one prompt of its benchmark only."""

    @property
    def name(self) -> str:
        return self.id.replace(":", ".")


ANCHORS, KEYWORDS = SINGLE[::2], SINGLE[1::2]
"""Words that a request wants mentioned, and words that an instruction is about: never the same."""


# ----- drawing


def _keywords(rng: random.Random, count: int) -> list[str]:
    return rng.sample(KEYWORDS, count)


def _keyword(rng: random.Random) -> str:
    return _keywords(rng, 1)[0]


def _frequency(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    return {"keyword": _keyword(rng), "frequency": 2 + level, "relation": "at least"}


def _sentences(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"num_sentences": 5 + 2 * level, "relation": "at least"}
    return {"num_sentences": max(2, 5 - level), "relation": "less than"}


def _word_number(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"num_words": 40 + 25 * level + rng.randrange(10), "relation": "at least"}
    # the demand is 20 + 10 a level: the room between the two shrinks
    return {"num_words": 20 + 10 * level + max(8, 30 - 4 * level) + rng.randrange(4), "relation": "less than"}


def _word_range(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    least = 30 + 20 * level + rng.randrange(20)
    return {"min_words": least, "max_words": least + max(6, 20 - 3 * level)}


def _nth_paragraph(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    count = 2 + level
    return {"num_paragraphs": count, "nth_paragraph": rng.randint(1, count), "first_word": _keyword(rng)}


_FORBIDDEN = (
    "about", "also", "because", "been", "could", "every", "from", "have", "many", "might", "more", "most", "much",
    "other", "over", "people", "some", "than", "that", "there", "they", "this", "very", "were", "what", "when",
    "where", "which", "would",
)  # fmt: skip
_MORE = ("taller", "older", "faster", "richer")


def _yes_no_maybe(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    """Whether one of two people is ahead, of whom one was said to be, or the other, or nothing."""
    than = rng.choice(_MORE)
    people = rng.sample(NAMES, 3 + level)
    answer = rng.choice(["yes", "no", "maybe"])
    if answer == "maybe":  # all are behind the first, and nothing is said of the others
        facts = [f"{people[0]} is {than} than {other}." for other in people[1:]]
        one, other = rng.sample(people[1:], 2)
    else:
        facts = [f"{a} is {than} than {b}." for a, b in pairwise(people)]
        one, other = (people[0], people[-1]) if answer == "yes" else (people[-1], people[0])
    rng.shuffle(facts)
    question = f"{' '.join(facts)} Is {one} {than} than {other}? Answer, and tell a little about the one who asks."
    return {"_request": question, "_answer": f"My answer is {answer}."}


_CHOICES: tuple[tuple[str, Callable[[Sequence[str]], str]], ...] = (
    ("comes second in the alphabet", lambda options: sorted(options)[1]),
    ("comes second to last in the alphabet", lambda options: sorted(options)[-2]),
    ("has the most letters", lambda options: max(options, key=len)),
    ("has the fewest letters", lambda options: min(options, key=len)),
)


def _options(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    question, right = rng.choice(_CHOICES)
    while True:  # until one answer alone is right
        options = rng.sample(SINGLE, 3 + level)
        answer = right(options)
        if "letters" not in question or sum(len(option) == len(answer) for option in options) == 1:
            break
    return {"options": "/".join(options), "_request": f"Which of these words {question}?", "_answer": answer}


def _span(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    count = len(request.split())
    length = min(3 + level, count - 2)
    start = rng.randint(1, count - length - 1)
    return {"prompt_to_repeat": request, "n_start": start, "n_end": start + length, "_first": start + 1}


def _position(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    return {"keyword": _keyword(rng), "n": 2 + level, "m": rng.randint(2, 4 + level)}


_PASSAGES = (
    "The keeper of the old mill rises before the sun and walks down to the river to see how high the water stands.",
    "When the first snow falls on the pass the shepherds bring their flocks home and the inn fills with tired voices.",
    "A clock without hands hangs above the station door and nobody in the town can say who took them or why.",
    "The ferry crosses the bay twice a day and carries letters and crates of fruit and once a year a brass band.",
)


def _overlap(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    return {"reference_text": rng.choice(_PASSAGES), "percentage": rng.randrange(25, 41, 5)}


def _data(rng: random.Random, level: int, request: str) -> dict[str, Any]:
    return {"_request": f"Invent some data that has to do with {rng.choice(TOPICS)}."}


# ----- what a text has to hold besides


def _whole(word: str, text: str) -> int:
    """How often a word stands in a text as a word."""
    return len(re.findall(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def _real_sentences(text: str) -> list[list[str]]:
    return [found for sentence in sentences(text) if (found := words(sentence))]


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def _number_of_sentences(text: str, a: Arguments) -> bool:
    if a["relation"] == "less than":
        return True
    return sum(len(sentence) >= 3 for sentence in _real_sentences(text)) >= a["num_sentences"]


def _number_of_paragraphs(text: str, a: Arguments) -> bool:
    return all(len(words(part)) >= 3 for part in text.split("***") if part.strip())


def _has_postscript(text: str, a: Arguments) -> bool:
    """The last line is one, with something in it."""
    last = text.strip().rsplit("\n", 1)[-1].strip().strip('"')
    return last.startswith(a["postscript_marker"]) and len(words(last)) >= 5


def _has_sections(text: str, a: Arguments) -> bool:
    """Headings in order, on lines of their own, and words below each."""
    parts = re.split(rf"^[ \t\"]*{a['section_spliter']} (\d+)[ \t]*$", text, flags=re.MULTILINE)
    numbers, contents = parts[1::2], parts[2::2]
    wanted = [str(i + 1) for i in range(a["num_sections"])]
    return numbers == wanted and all(len(words(content)) >= 3 for content in contents)


def _highlights(text: str, a: Arguments) -> bool:
    found = {m.strip("* ").lower() for m in re.findall(r"\*{1,2}[^\n*]*\w[^\n*]*\*{1,2}", text)}
    return len(found) >= a["num_highlights"]


def _is_json_container(text: str, a: Arguments) -> bool:
    """A bare number or a text in quotes is JSON as well."""
    inner = re.sub(r"^```(?:json|Json|JSON)?|```$", "", text.strip()).strip()
    return isinstance(json.loads(inner), dict | list)


def _two_answers(text: str, a: Arguments) -> bool:
    parts = [set(words(part)) for part in text.split("******") if part.strip()]
    return len(parts) == 2 and all(len(part) >= 8 for part in parts) and len(parts[0] ^ parts[1]) >= 8


def _says_only(text: str, a: Arguments) -> bool:
    said = [option for option in ("yes", "no", "maybe") if f"my answer is {option}" in text.lower()]
    return text.strip().startswith(a["_answer"]) and len(said) == 1


def _capital_words(text: str, a: Arguments) -> bool:
    return len({word for word in re.findall(r"\w{2,}", text) if word.isupper()}) >= a["capital_frequency"]


def _has_kinds(*marks: str) -> Callable[[str, Arguments], bool]:
    """A sentence of each kind at least: none of any is balanced too."""

    def check(text: str, a: Arguments) -> bool:
        return all(
            any(s.rstrip("\"')”’").endswith(mark) and len(words(s)) >= 3 for s in sentences(text)) for mark in marks
        )

    return check


def _person_names(text: str, a: Arguments) -> bool:
    """As words: Leo is not mentioned by Leonardo."""
    from zaya.envs.instruct.checkers import describe

    listed = describe("count:person_names", {"N": 1}).rpartition(":")[2].strip(" .").split(", ")
    return sum(bool(re.search(rf"\b{name}\b", text)) for name in listed) >= a["N"]


_CONJUNCTIONS = {"and", "but", "for", "nor", "or", "so", "yet"}
"""The package takes `and` and `and,` for two."""


def _longest_run(sentence: list[str]) -> int:
    best = run = 1
    for one, other in pairwise(sentence):
        run = run + 1 if one[0] == other[0] else 1
        best = max(best, run)
    return best


def _alliteration(text: str, a: Arguments) -> bool:
    runs = [_longest_run(sentence) for sentence in _real_sentences(text)]
    return len(runs) >= 3 and all(one < other for one, other in pairwise(runs))


def _brackets(text: str, a: Arguments) -> bool:
    """Five kinds deep, every one closed, and words in the innermost."""
    closes = {")": "(", "]": "[", "}": "{"}
    open_ones: list[str] = []
    has_word_at = 0
    for char in text:
        if char in "([{":
            open_ones.append(char)
        elif char in closes:
            if not open_ones or open_ones.pop() != closes[char]:
                return False
        elif char.isalpha():
            has_word_at = max(has_word_at, len(open_ones))
    return not open_ones and has_word_at >= 5


_ALTERNATING = [
    re.compile(rf"{a}[^'\"\w]*\w[^'\"]*{b}[^'\"\w]*\w[^'\"]*{a}[^'\"\w]*\w[^'\"]*{a}[^'\"]*{b}[^'\"]*{a}")
    for a, b in (('"', "'"), ("'", '"'))
]


def _nested_quotes(text: str, a: Arguments) -> bool:
    return any(pattern.search(text) for pattern in _ALTERNATING)


def _is_the_answer(text: str, a: Arguments) -> bool:
    return text.strip().strip(".").lower() == a["_answer"]


def _one_a_line(text: str, a: Arguments) -> bool:
    return all(len(line.split()) == 1 for line in _lines(text))


def _no_word_twice(text: str, a: Arguments) -> bool:
    found = words(text)
    return len(found) == len(set(found)) and all(len(sentence) >= 4 for sentence in _real_sentences(text))


def _every_nth_japanese(text: str, a: Arguments) -> bool:
    nth = text.split()[a["N"] - 1 :: a["N"]]
    rest = [word for i, word in enumerate(text.split()) if (i + 1) % a["N"]]
    japanese = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
    return bool(nth) and all(japanese.search(w) for w in nth) and not any(japanese.search(w) for w in rest)


def _three_sentences(text: str, a: Arguments) -> bool:
    return sum(len(sentence) >= 2 for sentence in _real_sentences(text)) >= 3


def _framed_paragraphs(text: str, a: Arguments) -> bool:
    lines = _lines(text)
    return len(lines) >= 2 and all(len(words(line)) >= 4 for line in lines)


def _stairs(text: str, a: Arguments) -> bool:
    lines = _lines(text)
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return len(lines) >= 4 and all(one < other for one, other in pairwise(indents)) and all(map(words, lines))


def _explained(text: str, a: Arguments) -> bool:
    """Quoted phrases, each with a few words before the next."""
    parts = text.replace("“", '"').replace("”", '"').split('"')
    quoted, between = parts[1::2], parts[2::2]
    return (
        len(parts) % 2 == 1
        and len(quoted) >= 2
        and all(map(words, quoted))
        and all(len(words(b)) >= 3 for b in between)
    )


def _marked_items(text: str, a: Arguments) -> bool:
    items = [line.strip()[len(a["sep"]) :] for line in _lines(text) if line.strip().startswith(a["sep"])]
    others = [line for line in _lines(text) if re.match(r"\s*([-*•]|\d+[.)])\s", line)]
    return len(items) >= 3 and all(map(words, items)) and not others


def _theses(text: str, a: Arguments) -> bool:
    parts = _paragraphs(text)
    thesis = re.compile(r"\s*<(i|em)>[^<]*\w[^<]*</\1>[^<]*\w")
    return len(parts) >= a["_sections"] and all(thesis.match(part) for part in parts)


def _sub_bullets(text: str, a: Arguments) -> bool:
    kinds = [match[1] for line in _lines(text) if (match := re.match(r"\s*([*-])\s+\w", line))]
    return kinds.count("*") >= 2 and kinds[0] == "*" and "**" not in "".join(kinds) and kinds[-1] == "-"


def _bullets(text: str, a: Arguments) -> bool:
    items = re.findall(r"^[ \t]*[*-][ \t]*(.*)$", text, re.MULTILINE)
    return all(map(words, items))


def _late_bullets(text: str, a: Arguments) -> bool:
    before = text.partition("\n*")[0]
    full = [s for s in sentences(before) if s.endswith(".") and len(words(s)) >= 3]
    return len(full) >= 2 and all(
        map(words, (line.strip("* ") for line in _lines(text) if line.strip().startswith("*")))
    )


def _questions(text: str, a: Arguments) -> bool:
    for question in re.split(r"^Question \d+", text, flags=re.MULTILINE)[1:]:
        options = re.findall(r"^\s*([A-Ea-e])[.)]\s*(\w.*)$", question, re.MULTILINE)
        if [letter.upper() for letter, _ in options] != list("ABCDE") or len({said for _, said in options}) != 5:
            return False
    return True


def _full_rows(delimiter: str) -> Callable[[str, Arguments], bool]:
    def check(text: str, a: Arguments) -> bool:
        rows = list(csv.reader(io.StringIO(text.strip()), delimiter=delimiter))
        return len({tuple(row) for row in rows}) == len(rows) and all(field.strip() for row in rows for field in row)

    return check


def _letters_in_order(text: str, a: Arguments) -> bool:
    return all(len(sentence) >= 3 for sentence in _real_sentences(text))


def _counts(text: str, a: Arguments) -> bool:
    return all(_whole(a[f"keyword{i + 1}"], text) == count for i, count in enumerate((1, 2, 3, 5, 7)))


def _second_words(text: str, a: Arguments) -> bool:
    found = text.split()
    return len(found) > 3 and found[1] == found[-2] == a["keyword"]


def _first_word_changed(text: str, a: Arguments) -> bool:
    first, old = text.split()[0], a["prompt_to_repeat"].split()[0]
    return first.isalpha() and first.lower() != old.lower()


def _titled(text: str, a: Arguments) -> bool:
    return all(word[0].isupper() for word in re.findall(r"[^\W\d_][\w'’]*", text))


def _template(text: str, a: Arguments) -> bool:
    parts = re.split(r"My Answer:|My Conclusion:|Future Outlook:", text.strip())
    marks = re.findall(r"My Answer:|My Conclusion:|Future Outlook:", text)
    return marks == ["My Answer:", "My Conclusion:", "Future Outlook:"] and not parts[0] and all(map(words, parts[1:]))


# ----- words that can be asked for

_PRIMES = (2, 3, 5, 7, 11, 13)


def has_cluster(word: str) -> bool:
    return bool(re.search(r"[bcdfghjklmnpqrstvwxyz]{2}", word))


def has_prime_length(word: str) -> bool:
    return len(word) in _PRIMES


def has_three_vowels(word: str) -> bool:
    """Always the same three, so that any of these words go together."""
    return not set(word) & set("iu")


OFFERED: tuple[Instruction, ...] = (
    # IFEval
    Instruction(
        "keywords:existence",
        lambda rng, level, request: {"keywords": sorted(_keywords(rng, 2 + level))},
        more=lambda text, a: all(_whole(word, text) for word in a["keywords"]),
    ),
    Instruction("keywords:frequency", _frequency, more=lambda text, a: _whole(a["keyword"], text) >= a["frequency"]),
    Instruction(
        "keywords:forbidden_words",
        lambda rng, level, request: {"forbidden_words": sorted(rng.sample(_FORBIDDEN, 3 + 2 * level))},
    ),
    Instruction(
        "keywords:letter_frequency",
        lambda rng, level, request: {
            "letter": rng.choice("jkqvxz"),
            "let_frequency": 4 + 3 * level,
            "let_relation": "at least",
        },
        wording="In your response, the letter {letter} should appear in at least {let_frequency} words.",
        more=lambda text, a: sum(a["letter"] in word for word in words(text)) >= a["let_frequency"],
    ),
    Instruction(
        "language:response_language", lambda rng, level, request: {"language": rng.choice(sorted(FOREIGN))}, names=True
    ),
    Instruction(
        "length_constraints:number_sentences",
        _sentences,
        wording="Your response should contain {relation} {num_sentences} sentences, of three words or more each.",
        more=_number_of_sentences,
    ),
    Instruction(
        "length_constraints:number_paragraphs",
        lambda rng, level, request: {"num_paragraphs": 2 + level},
        more=_number_of_paragraphs,
    ),
    Instruction("length_constraints:number_words", _word_number),
    Instruction("length_constraints:nth_paragraph_first_word", _nth_paragraph),
    Instruction(
        "detectable_content:number_placeholders",
        lambda rng, level, request: {"num_placeholders": 2 + level},
        wording=(
            "The response must contain at least {num_placeholders} different placeholders in square brackets, such "
            "as [address]."
        ),
        more=lambda text, a: len(set(re.findall(r"\[[^\[\]\n]*\w[^\[\]\n]*\]", text))) >= a["num_placeholders"],
    ),
    Instruction(
        "detectable_content:postscript",
        lambda rng, level, request: {"postscript_marker": rng.choice(["P.S.", "P.P.S"])},
        wording=(
            "The last line of your response must be a postscript of a few words that starts with {postscript_marker}"
        ),
        more=_has_postscript,
    ),
    Instruction(
        "detectable_format:number_bullet_lists", lambda rng, level, request: {"num_bullets": 3 + level}, more=_bullets
    ),
    Instruction(
        "detectable_format:constrained_response",
        _yes_no_maybe,
        wording=(
            "Start with one of these sentences, and use none of the others: My answer is yes. My answer is no. My "
            "answer is maybe."
        ),
        more=_says_only,
    ),
    Instruction(
        "detectable_format:number_highlighted_sections",
        lambda rng, level, request: {"num_highlights": 2 + level},
        wording=(
            "Highlight at least {num_highlights} different phrases in your answer with markdown, i.e. *highlighted "
            "phrase*."
        ),
        more=_highlights,
    ),
    Instruction(
        "detectable_format:multiple_sections",
        lambda rng, level, request: {"section_spliter": rng.choice(["Section", "SECTION"]), "num_sections": 2 + level},
        wording=(
            "Your response must have {num_sections} sections. Begin each with a line that holds its number and "
            "nothing else: {section_spliter} 1, then {section_spliter} 2 and so on."
        ),
        more=_has_sections,
    ),
    Instruction(
        "detectable_format:json_format",
        wording="Your entire output must be one JSON object or array. You can use markdown ticks such as ```.",
        more=_is_json_container,
    ),
    Instruction("detectable_format:title", more=lambda text, a: bool(re.search(r"<<[^\n<>]*\w[^\n<>]*>>", text))),
    Instruction(
        "combination:two_responses",
        wording=(
            "Give two different responses of eight different words or more each. Separate them, and nothing else, "
            "by six asterisks: ******."
        ),
        more=_two_answers,
    ),
    Instruction(
        "combination:repeat_prompt",
        lambda rng, level, request: {"prompt_to_repeat": request},
        wording=(
            "First repeat the request above word for word, from its first word to the full stop at its end, then "
            "answer it. Write nothing before the repeated request, and repeat nothing of what follows it."
        ),
    ),
    Instruction("startend:end_checker", lambda rng, level, request: {"end_phrase": rng.choice(ENDINGS)}),
    Instruction(
        "change_case:capital_word_frequency",
        lambda rng, level, request: {"capital_frequency": 3 + 2 * level, "capital_relation": "at least"},
        wording=(
            "In your response, at least {capital_frequency} different words must stand in capital letters only, "
            "such as SUN."
        ),
        more=_capital_words,
    ),
    Instruction("change_case:english_capital"),
    Instruction("change_case:english_lowercase"),
    Instruction("punctuation:no_comma"),
    Instruction("startend:quotation"),
    # IFBench
    Instruction("count:word_count_range", _word_range),
    Instruction(
        "count:unique_word_count",
        lambda rng, level, request: {"N": 30 + 15 * level},
        more=lambda text, a: len(set(words(text))) >= a["N"],
    ),
    Instruction(
        "ratio:stop_words",
        lambda rng, level, request: {"percentage": max(5, 40 - 7 * level)},
        wording=(
            "No more than {percentage}% of the words of your response may be stop words: articles, pronouns, "
            "prepositions, conjunctions and auxiliary verbs."
        ),
    ),
    Instruction(
        "ratio:sentence_type",
        wording=(
            "Write exactly twice as many sentences that end in a full stop as questions that end in a question mark."
        ),
        more=_has_kinds(".", "?"),
    ),
    Instruction(
        "ratio:sentence_balance",
        wording=(
            "Write as many sentences that end in a full stop as ones that end in a question mark, and as many of "
            "each as ones that end in an exclamation mark."
        ),
        more=_has_kinds(".", "?", "!"),
    ),
    Instruction(
        "count:conjunctions",
        lambda rng, level, request: {"small_n": min(7, 3 + level)},
        wording=(
            "Use at least {small_n} different ones of the coordinating conjunctions and, but, for, nor, or, so, yet."
        ),
        more=lambda text, a: len(set(words(text)) & _CONJUNCTIONS) >= a["small_n"],
    ),
    Instruction("count:person_names", lambda rng, level, request: {"N": 3 + 3 * level}, more=_person_names),
    Instruction(
        "ratio:overlap",
        _overlap,
        wording=(
            "Of all different sequences of three characters in your response, spaces included, {percentage}% (plus "
            "or minus 2) must also stand in this text: {reference_text}"
        ),
        most=20,
    ),
    Instruction(
        "count:numbers",
        lambda rng, level, request: {"N": 2 + 2 * level},
        wording="Include exactly {N} numbers in the response, written in digits and apart from each other.",
    ),
    Instruction("words:alphabet"),
    Instruction(
        "words:vowel",
        wording="Write a single paragraph in which no more than three of the five vowels a, e, i, o, u occur.",
        usable=has_three_vowels,
    ),
    Instruction("words:consonants", usable=has_cluster),
    Instruction(
        "sentence:alliteration_increment",
        wording=(
            "Write at least three sentences. Each must have a longer run of consecutive words with the same first "
            "letter than the one before, and more such words in all."
        ),
        more=_alliteration,
    ),
    Instruction(
        "words:palindrome",
        wording="Include at least 10 different English palindromes of one word, each at least 5 characters long.",
        more=lambda text, a: len(set(words(text)) & set(PALINDROMES)) >= 10,
    ),
    Instruction("count:punctuation"),
    Instruction(
        "format:parentheses",
        wording=(
            "Nest parentheses (and [brackets {{and braces}}]) at least 5 levels deep, with words in the innermost, "
            "and close every one that you open."
        ),
        more=_brackets,
    ),
    Instruction(
        "format:quotes",
        wording=(
            'Include a quote within a quote within a quote, in turns between double and single quotation marks (" '
            "and '), with words in front of each inner quote. Use these marks for nothing else."
        ),
        more=_nested_quotes,
    ),
    Instruction("words:prime_lengths", usable=has_prime_length),
    Instruction("format:options", _options, more=_is_the_answer, demands=False),
    Instruction("format:newline", more=_one_a_line),
    Instruction("format:emoji"),
    Instruction(
        "ratio:sentence_words",
        wording=(
            "Respond with three sentences, all of the same number of characters. Use no word twice in the whole "
            "response."
        ),
        more=_no_word_twice,
    ),
    Instruction(
        "count:words_japanese",
        lambda rng, level, request: {"N": max(2, 8 - level)},
        wording=(
            "Of your response, word number {N}, and every {N} words from there on, must be in Japanese, and no other."
        ),
        more=_every_nth_japanese,
    ),
    Instruction(
        "words:start_verb",
        drawn.verb,
        wording="The response must start with a verb: the only one among the words {_words}.",
        more=drawn.starts_with_verb,
        alone=True,
    ),
    Instruction(
        "words:repeats",
        lambda rng, level, request: {"small_n": max(1, 4 - level)},
        wording="Use no word more often than {small_n} times in the response.",
    ),
    Instruction(
        "sentence:keyword",
        lambda rng, level, request: {"word": _keyword(rng), "N": 2 + level},
        more=lambda text, a: bool(_whole(a["word"], text)),
    ),
    Instruction("count:pronouns", lambda rng, level, request: {"N": 4 + 3 * level}),
    Instruction("words:odd_even_syllables"),
    Instruction(
        "words:last_first",
        wording="Write at least three sentences. The last word of each must be the first word of the next.",
        more=_three_sentences,
    ),
    Instruction(
        "words:paragraph_last_first",
        wording=(
            "Write at least two paragraphs of four words or more, each in a line of its own. Each must end with "
            "the same word it started with."
        ),
        more=_framed_paragraphs,
    ),
    Instruction(
        "sentence:increment",
        lambda rng, level, request: {"small_n": 1 + level % 3},
        wording="Write at least three sentences. Each must contain exactly {small_n} more words than the one before.",
        more=_three_sentences,
    ),
    Instruction("words:no_consecutive"),
    Instruction(
        "format:line_indent",
        wording=(
            "Write at least four lines, without empty ones between them, each indented by more spaces than the one "
            "before."
        ),
        more=_stairs,
    ),
    Instruction(
        "format:quote_unquote",
        wording=(
            "Quote at least two phrases in double quotation marks. Each must be followed by an explanation of "
            "three words or more that is not quoted."
        ),
        more=_explained,
    ),
    Instruction(
        "format:list",
        lambda rng, level, request: {"sep": rng.choice(["...", "SEPARATOR", "!?!?", "=>", "++"])},
        wording=(
            "Answer with a list of three items or more, each in a line of its own that begins with {sep} instead "
            "of a bullet point."
        ),
        more=_marked_items,
    ),
    Instruction(
        "format:thesis",
        lambda rng, level, request: {"_sections": 2 + level},
        wording=(
            "Write at least {_sections} sections with an empty line between them. Each must begin with a thesis "
            "statement in italics, in HTML (<i> or <em>), and go on in plain text."
        ),
        more=_theses,
    ),
    Instruction(
        "format:sub-bullets",
        wording=(
            "Your response must include two or more bullet points denoted by *, and below each at least one "
            "sub-bullet point denoted by -. Use * for nothing else."
        ),
        more=_sub_bullets,
    ),
    Instruction("format:no_bullets_bullets", more=_late_bullets),
    Instruction(
        "custom:multiples",
        drawn.multiples,
        wording="Only print the multiples of {_factor}, separated by commas.",
        more=drawn.is_list,
        demands=False,
        alone=True,
    ),
    Instruction(
        "custom:mcq_count_length",
        lambda rng, level, request: {"_request": f"Make a quiz about {rng.choice(TOPICS)}."},
        wording=(
            "Write 4 multiple choice questions with 5 options each, in lines from A) to E). The questions start "
            "with the labels Question 1 to Question 4 and get progressively longer. Write nothing before, between "
            "or after them."
        ),
        more=_questions,
    ),
    Instruction(
        "custom:reverse_newline",
        drawn.reverse_lines,
        wording="List them in reverse alphabetical order, each on a new line. Write nothing else.",
        more=drawn.is_lines,
        demands=False,
        alone=True,
    ),
    Instruction(
        "custom:word_reverse",
        drawn.sentence,
        wording="Write it in reverse order, per word: its last word first. Write nothing else.",
        more=drawn.has_words_reversed,
        demands=False,
        alone=True,
    ),
    Instruction(
        "custom:character_reverse",
        drawn.sentence,
        wording="Write it in reverse order, per letter, spaces included: its last letter first. Write nothing else.",
        more=drawn.has_letters_reversed,
        demands=False,
        alone=True,
    ),
    Instruction(
        "custom:sentence_alphabet",
        wording=(
            "Write exactly 26 sentences of three words or more. The first word of each starts with the letters of "
            "the alphabet, in order."
        ),
        more=_letters_in_order,
    ),
    Instruction(
        "custom:european_capitals_sort",
        drawn.capitals,
        wording=(
            "Give the names of those whose latitude is higher than {_latitude} degrees, separated by commas, sorted by "
            "latitude, from highest to lowest. Write nothing else."
        ),
        more=drawn.is_list,
        demands=False,
        alone=True,
    ),
    Instruction("custom:csv_city", _data, more=_full_rows(","), most=12),
    Instruction("custom:csv_special_character", _data, most=20),
    Instruction("custom:csv_quotes", _data, more=_full_rows("\t"), most=6),
    Instruction(
        "custom:date_format_list",
        drawn.dates,
        wording=(
            "List these days separated by commas, from the earliest to the latest, use the following date format: "
            "YYYY-MM-DD. Do not provide an explanation."
        ),
        more=drawn.is_list,
        demands=False,
    ),
    Instruction(
        "count:keywords_multiple",
        lambda rng, level, request: {f"keyword{i + 1}": word for i, word in enumerate(_keywords(rng, 5))},
        more=_counts,
    ),
    Instruction("words:keywords_specific_position", _position),
    Instruction(
        "words:words_position",
        lambda rng, level, request: {"keyword": _keyword(rng)},
        wording=(
            "The second word of your response, and the second to last one, must be the word {keyword}. Put no "
            "punctuation mark after the first two words or the last two."
        ),
        more=_second_words,
    ),
    Instruction(
        "repeat:repeat_change",
        lambda rng, level, request: {"prompt_to_repeat": request},
        wording=(
            "Do not answer the request above. Repeat it, and put another word in place of its first one. Write "
            "nothing else."
        ),
        more=_first_word_changed,
        demands=False,
    ),
    Instruction(
        "repeat:repeat_simple", drawn.itself, wording="{_answer}", more=drawn.is_itself, demands=False, alone=True
    ),
    Instruction(
        "repeat:repeat_span",
        _span,
        wording=(
            "Do not answer the request above. Copy its words from number {_first} to number {n_end}, where the "
            "first word is number 1, with the punctuation marks that are attached to them. Write nothing else."
        ),
        demands=False,
    ),
    Instruction(
        "format:title_case",
        wording="Capitalize the first letter of every word of your response, and only that.",
        more=_titled,
    ),
    Instruction(
        "format:output_template",
        wording=(
            "Use this exact template for your response, in one line or several: My Answer: [answer] My Conclusion: "
            "[conclusion] Future Outlook: [outlook]"
        ),
        more=_template,
    ),
    Instruction(
        "format:no_whitespace",
        wording="The output must not contain any whitespace: join its words by hyphens.",
    ),
)
"""In the order of the benchmarks' registries."""

assert len({instruction.id for instruction in OFFERED}) == len(OFFERED)
BY_NAME = {instruction.name: instruction for instruction in OFFERED}
