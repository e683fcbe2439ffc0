"""The grammar language of llguidance, a dialect of Lark: whole grammars, literals, regular expressions, JSON schemas.

Most functions return text that stands in a grammar; the checks tell whether llguidance can hold a schema or an
expression, by itself, so that an error names it. Imports llguidance when it is first needed. Used by engine.structured
and engine.tool_grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from zaya.errors import UsageError

BLANK = r"[ ]|\n[ ]{0,40}"
"""White space between the parts of JSON: a blank, or a newline and the indentation of a line. Where all that JSON
allows may follow, a model that has nothing to say writes blanks until its budget is spent."""

MOST_VALUES, MOST_KEYS = 10_000, 1000
"""In a schema, and in one object of it. llguidance takes seconds for these, and for keys the square of their number: 10
for 8,000 of them."""

_ANY = "/(?s:.*)/"


def llguidance() -> ModuleType:
    """The library. Raises UsageError where it is not installed."""
    try:
        import llguidance
    except ImportError as error:
        raise UsageError(
            f"structured output needs llguidance, which cannot be imported: {error}", hint="pip install llguidance"
        ) from error
    return llguidance


def grammar(rules: str, *, newlines_first: bool = False) -> str:
    """A whole grammar from rules of which `answer` is the first; up to two newlines may come before it if wanted.

    Any split of the text into tokens will do, not only the one that a tokenizer would choose: so what is drawn is the
    model's own distribution without the tokens that lead elsewhere.
    """
    start = "start: NEWLINES? answer\nNEWLINES: /\\n{1,2}/" if newlines_first else "start: answer"
    return f'%llguidance {{"no_forcing": true}}\n{start}\n{rules}\n'


def literal(text: str) -> str:
    """Exactly this text."""
    return json.dumps(text)


def regex(pattern: str) -> str:
    """A terminal that matches the whole of a checked pattern. `\\d` is 0 to 9, other classes are those of Unicode."""
    return f"/{llguidance().regex_to_lark(pattern, 'd')}/"


def containing(pattern: str) -> str:
    """A terminal for texts in which a pattern of a JSON schema is found.

    `^` and `$` are known at its ends, and tie all its branches: of the texts that `^a|b$` allows these are some.
    """
    begins, ends = pattern.startswith("^"), re.search(r"(?<!\\)(\\\\)*\$\Z", pattern) is not None
    core = pattern[begins : len(pattern) - ends]
    return f"{'' if begins else _ANY} {regex(f'(?:{core})')} {'' if ends else _ANY}"


def without(texts: Iterable[str]) -> str:
    """A terminal for any text in which none of these occurs."""
    found = " | ".join(map(literal, texts))
    return f"{_ANY} & ~({_ANY} ({found}) {_ANY})"


def length(least: int, most: int | None) -> str:
    """A terminal for any text of so many characters."""
    return f"/(?s:.{{{least},{'' if most is None else most}}})/"


def json_value(schema: Mapping[str, Any]) -> str:
    """A JSON value of a checked schema."""
    return f"%json {_schema(schema)}"


def check_size(name: str, value: Any) -> None:
    """Raises UsageError for a value that would take very long to compile."""
    left, count = [value], 0
    while left:
        item = left.pop()
        count += 1
        if isinstance(item, Mapping):
            if len(item) > MOST_KEYS:
                raise UsageError(f"{name} is too large: an object has {len(item):,} keys; {MOST_KEYS:,} can be held")
            left += item.values()
        elif isinstance(item, list | tuple):
            left += item
        if count + len(left) > MOST_VALUES:
            raise UsageError(f"{name} is too large: it has more than {MOST_VALUES:,} values")


def check_schema(name: str, schema: Mapping[str, Any]) -> None:
    """Raises UsageError for a schema that says what cannot be held, or that nothing satisfies."""
    _check(name, llguidance().LLMatcher.grammar_from_json_schema(_schema(schema)))


def check_regex(name: str, pattern: str) -> None:
    """Raises UsageError for a pattern that is not one, or that looks around or back."""
    if re.search(r"(?<!\\)(\\\\)*\\\Z", pattern):  # it would take the end of the terminal away
        raise UsageError(f"{name} cannot be held: it ends in a backslash")
    _check(name, llguidance().LLMatcher.grammar_from_regex(pattern))


def reason(message: str) -> str:
    """What is wrong, of an error of llguidance that may show the place over several lines."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or ["no reason is given"])[0]


def _schema(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": BLANK}})


def _check(name: str, grammar: str) -> None:
    is_error, messages = llguidance().LLMatcher.validate_grammar_with_warnings(grammar)
    if is_error:
        raise UsageError(f"{name} cannot be held: {reason(messages[0])}")
