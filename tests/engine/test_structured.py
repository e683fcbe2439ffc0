"""Which ids may come next in an answer that must have a structure.

1. Whatever is drawn through the masks, up to an id that ends it, has the structure: as json and a plain validator, `re`
   and `zaya.text.parse` read it. Calls come back complete, valued by their schemas, in order, and without a flag.
   Where an answer has a schema beside tools, there is one of the two.
2. What has the structure is let in, however it is split into tokens; what has not is barred where it departs.
3. Text lets no control token in, spelled like one or not; a row without a token is never let in.
4. An id that ends the answer may come where the structure may end, and nowhere else; the constraint is complete where
   nothing else may come.
5. Constraints of one structure know nothing of each other, and the structure is compiled once.
6. After reasoning two newlines may come first.
7. A structure that cannot be held is refused before anything is drawn, with the part that is wrong; a dead end and an
   id that is barred are errors, too.
8. llguidance is loaded when the first structure is used, and no sooner.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.text.conversations import TOOLS
from tests.text.gemma import gemma_like
from zaya.engine import lark
from zaya.engine.structured import GrammarConstraint, Grammars
from zaya.engine.types import Structure
from zaya.errors import UsageError
from zaya.model.embedded import embedded_directory
from zaya.text import Tokenizer, ToolCall, byte_tokenizer, load_tokenizer, parse, render, tags

PADDING = 21

# tokens that reach over the edges of a grammar's parts: a value and the line after it, a quote and a brace
MERGES = [(">", "Ċ"), ("Ċ", "<"), ("Ċ<", "/"), ('"', "}"), ('"', ","), ("1", "Ċ"), ("}", "Ċ"), ("Ċ", "Ċ"), ("<", "p"),
          ("<p", "a"), ("a", "b"), ("Ġ", '"'), (":", 'Ġ"'), ("<", "/"), ("t", "Ċ"), ("]", "Ċ")]  # fmt: skip


def micro() -> Tokenizer:
    tokenizer = load_tokenizer(embedded_directory())
    assert tokenizer is not None
    return tokenizer


TOKENIZERS = {"byte": byte_tokenizer(), "merged": byte_tokenizer(MERGES), "micro": micro(), "gemma": gemma_like()}
STOPS = [106, 1]


def rows(tokenizer: Tokenizer) -> int:
    return max(tokenizer.control_ids | {tokenizer.size}) + 1 + PADDING


GRAMMARS = {name: Grammars(tokenizer, rows(tokenizer), STOPS) for name, tokenizer in TOKENIZERS.items()}
names = pytest.mark.parametrize("name", list(TOKENIZERS))


def fresh(name: str, kind: str, value: Any, **options: Any) -> GrammarConstraint:
    after_thinking = options.pop("after_thinking", False)
    structure = Structure(kind=kind, value=value, **options)
    return GRAMMARS[name].constraint(structure, after_thinking=after_thinking)


# drawing through the masks


URGES = [
    b"\n</parameter>\n", b"\n</parameter>\n", b'"', b'"', b"]", b"}", b"</parameter>", b"</function>\n",
    b"</think>", b"<|im_end|>", b"<zyphra_tool_call>", b"</zyphra_tool_call>", b"\n<parameter=city>\n",
]  # fmt: skip
"""What is begun now and then, and gone on with as far as the masks allow: what ends strings, or nothing would ever end,
and what must not get in."""


def ids_by_bytes(tokenizer: Tokenizer) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for id in range(rows(tokenizer)):
        if id not in tokenizer.control_ids and tokenizer.token_bytes(id):
            found.setdefault(tokenizer.token_bytes(id), []).append(id)
    return found


BYTES = {name: ids_by_bytes(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def draw(name: str, constraint: GrammarConstraint, seed: int, limit: int = 500) -> list[int] | None:
    """Random ids through the masks, the stop id left out; None where they have not ended.

    Checks of every mask that it lets in nothing that none may.
    """
    rng, tokenizer, ids, urge = np.random.default_rng(seed), TOKENIZERS[name], [], b""
    barred = sorted(tokenizer.control_ids - {*STOPS, 101, 102}) + tokenizer.never_sampled(rows(tokenizer))
    while len(ids) < limit:
        mask = constraint.mask()
        assert mask.shape == (rows(tokenizer),)
        assert not mask[barred].any()
        assert mask[STOPS[0]] == mask[STOPS[1]]
        if not urge and rng.random() < 0.2:
            urge = URGES[rng.integers(len(URGES))]
        wanted = [id for n in range(1, len(urge) + 1) for id in BYTES[name].get(urge[:n], []) if mask[id]]
        if not wanted:
            urge, wanted = b"", [id for id in (*STOPS, 101, 102) if mask[id] and rng.random() < 0.2]
        id = int(rng.choice(wanted or np.flatnonzero(mask)))
        if id in STOPS:
            return ids
        urge = urge[len(tokenizer.token_bytes(id)) :]
        constraint.push(id)
        ids.append(id)
    return None


def drawn(name: str, kind: str, value: Any, count: int, **options: Any) -> list[list[int]]:
    every = [draw(name, fresh(name, kind, value, **options), seed) for seed in range(count)]
    ended = [ids for ids in every if ids is not None]
    assert len(ended) > count / 4, "too few have ended to say anything"
    return ended


def drawn_texts(name: str, kind: str, value: Any, count: int) -> list[str]:
    # whole characters, or it raises
    return [TOKENIZERS[name].to_bytes(ids).decode() for ids in drawn(name, kind, value, count)]


def is_valid(value: Any, schema: Any, root: Any = None) -> bool:
    """What the schemas of these tests say, in the plainest way."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return is_valid(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema and not any(is_valid(value, choice, root) for choice in schema["anyOf"]):
        return False
    kinds = schema.get("type", [])
    if kinds and not any(is_kind(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if "enum" in schema and not any(type(value) is type(one) and value == one for one in schema["enum"]):
        return False
    match value:
        case str():
            right = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
            return right and re.search(schema.get("pattern", ""), value) is not None
        case bool() | None:
            return True
        case int() | float():
            return schema.get("minimum", value) <= value <= schema.get("maximum", value)
        case list():
            right = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            return right and all(is_valid(item, schema.get("items", True), root) for item in value)
        case dict():
            properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
            return all(key in value for key in schema.get("required", [])) and all(
                is_valid(item, properties.get(key, others), root) for key, item in value.items()
            )
    raise TypeError(value)


def is_kind(value: Any, kind: str) -> bool:
    types: dict[str, Any] = {"string": str, "boolean": bool, "object": dict, "array": list, "null": type(None)}
    if kind in types:
        return isinstance(value, types[kind])
    return type(value) is int or (type(value) is float and (kind == "number" or value.is_integer()))


PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["a", 1, None, 'quote" and é\n']},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,3}$"}, "maxItems": 3},
        "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "friend": {"$ref": "#/$defs/friend"},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
    "$defs": {
        "friend": {"type": "object", "properties": {"of": {"$ref": "#/$defs/friend"}, "on": {"type": "boolean"}}}
    },
}
SCHEMAS = [
    PERSON,
    {},
    {"type": "object"},
    {"type": ["string", "null"]},
    {"type": "array", "items": {"type": "integer"}},
]


@names
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_drawn_json_is_of_its_schema(name: str, schema: dict[str, Any]) -> None:
    for text in drawn_texts(name, "json", schema, 8):
        assert is_valid(json.loads(text), schema), text


def test_the_validator_can_say_no() -> None:
    wrong = [{"name": ""}, {"name": "x"}, {"name": "x", "kind": True}, {"name": "x", "kind": 1, "extra": 1},
             {"name": "x", "kind": 1, "age": 131}, {"name": "x", "kind": 1, "tags": ["A"]},
             {"name": "x", "kind": 1, "score": "1"}, {"name": "x", "kind": 1, "friend": {"on": 1}}]  # fmt: skip
    assert [value for value in wrong if is_valid(value, PERSON)] == []
    assert is_valid({"name": "x", "kind": 1, "friend": {"of": {"on": True}}, "score": None}, PERSON)


EXPRESSIONS = [
    r"[a-z]+@[a-z]+\.(com|org)",
    r"\d{3}-\d{4}",
    "a+",
    "(yes|no)\n?",
    "日本?[語x]{0,3}",
    "^x/y$",
    r"[a-zé]+\s!",
]


@names
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_drawn_text_matches_its_expression(name: str, expression: str) -> None:
    for text in drawn_texts(name, "regex", expression, 12):
        assert re.fullmatch(expression, text), text


CHOICES = ["yes", "no", "yes, but", "né\n\"'\\", "<think>", "日本", "//", "👍"]


@names
def test_drawn_choices_are_all_of_them(name: str) -> None:
    assert set(drawn_texts(name, "choice", CHOICES, 200)) == set(CHOICES)


# tools

CITY: dict[str, Any] = {
    "name": "book",
    "parameters": {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}", "maxLength": 4, "format": "of our own"},
            "class": {"type": "string", "enum": ["first", 'se"cond', "</parameter>"]},
            "seat": {"anyOf": [{"$ref": "#/$defs/Seat"}, {"type": "null"}]},
            "places": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"$ref": "#/$defs/Place"}]},
            "half_told": {"anyOf": [{"type": "integer"}, {"description": "of a type that cannot be told"}]},
            "maybe": {"type": ["string", "null"]},
            "any": {"type": ["string", "integer"]},
            "what": {},
            "path": {"type": "array", "items": {"$ref": "#/$defs/Place"}},
            "on": {"type": "boolean"},
            "none": {"type": "null"},
        },
        "required": ["note", "seat", "extra"],
        "$defs": {
            "Seat": {"enum": ["window", "aisle"], "type": "string"},
            "Place": {"type": "object", "properties": {"x": {"type": "number"}, "label": {"type": "string"}}},
        },
    },
}
OFFERED = [*TOOLS, CITY]
SCHEMA_OF = {tool["name"]: tool.get("parameters", {}) for tool in (tool.get("function", tool) for tool in OFFERED)}


def read(name: str, ids: list[int]) -> tuple[ToolCall, ...]:
    """The calls that the parser reads, which must be in order."""
    text = TOKENIZERS[name].to_bytes(ids).decode()
    message = parse(text, tools=OFFERED)
    if not re.search(r"\d[eE]\+?\d{3}", text):  # a number too large for floating point is left as it is
        assert message.flags == frozenset(), text
    assert len(message.tool_calls) == ids.count(101) == ids.count(102)
    before = ids[: ids.index(101)] if message.tool_calls else ids
    assert message.content.strip("\n") == TOKENIZERS[name].decode(before).strip("\n")
    for call in message.tool_calls:
        schema = SCHEMA_OF[call.name]
        declared = dict.fromkeys([*schema.get("properties", {}), *schema.get("required", [])])
        assert call.complete
        assert list(call.arguments) == [key for key in declared if key in call.arguments]
        if not message.flags:
            assert is_valid(call.arguments, schema), call
    return message.tool_calls


@names
@pytest.mark.parametrize(("options", "least", "most"), [
    ({}, 0, 99), ({"require_call": True}, 1, 99), ({"parallel_calls": False}, 0, 1),
    ({"require_call": True, "parallel_calls": False}, 1, 1),
])  # fmt: skip
def test_drawn_calls_are_what_the_parser_reads(name: str, options: dict[str, bool], least: int, most: int) -> None:
    found = [read(name, ids) for ids in drawn(name, "tools", OFFERED, 40, **options)]
    assert all(least <= len(calls) <= most for calls in found)
    assert {call.name for calls in found for call in calls} == set(SCHEMA_OF)
    assert any(len(calls) == 0 for calls in found) == (least == 0)
    assert any(len(calls) > 1 for calls in found) == (most > 1)


ANSWER = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "words": {"type": "array", "items": {"type": "string"}}},
    "required": ["sum", "words"], "additionalProperties": False,
}  # fmt: skip


@names
def test_an_answer_of_a_schema_or_calls(name: str) -> None:
    found = drawn(name, "tools", OFFERED, 60, answer_schema=ANSWER)
    answers = [ids for ids in found if not read(name, ids)]
    assert 0 < len(answers) < len(found)
    for ids in found:
        text = TOKENIZERS[name].to_bytes(ids).decode()
        if 101 in ids:
            assert text.startswith("<zyphra_tool_call>")
        else:
            assert is_valid(json.loads(text), ANSWER)
    barred = fresh(name, "tools", OFFERED, answer_schema=ANSWER)
    assert departs(barred, encoded(name, "tools", '{"sum": 1, "words": ["')) is not None  # it cannot end here
    spelled = TOKENIZERS[name].encode_plain('{"sum": 1, "words": ["<zyphra_tool_call>"]}')
    assert departs(fresh(name, "tools", OFFERED, answer_schema=ANSWER), spelled) is not None


def test_a_demanded_call_is_no_answer() -> None:
    constraint = fresh("byte", "tools", OFFERED, answer_schema=ANSWER, require_call=True)
    assert departs(constraint, TOKENIZERS["byte"].encode_plain('{"sum": 1, "words": []}')) == 0


# texts that are right, texts that are wrong


def encoded(name: str, kind: str, text: str) -> list[int]:
    """The ids of a text; those of control tokens in calls, and nowhere else."""
    tokenizer = TOKENIZERS[name]
    return tokenizer.encode(text, bos=False) if kind == "tools" else tokenizer.encode_plain(text)


def departs(constraint: GrammarConstraint, ids: list[int]) -> int | None:
    """The place of the first id that is barred, or of the end, where it may not end there; None for a right text."""
    for at, id in enumerate(ids):
        if not constraint.mask()[id]:
            return at
        constraint.push(id)
    return None if constraint.mask()[STOPS].all() else len(ids)


def any_split(name: str, kind: str, text: str, seed: int) -> list[int]:
    """The text in tokens, cut at random. Control tokens stay what they are, and are not cut."""
    tokenizer, rng, ids = TOKENIZERS[name], np.random.default_rng(seed), []
    for id in encoded(name, kind, text):
        if id in tokenizer.control_ids:
            ids.append(id)
            continue
        rest = tokenizer.token_bytes(id)
        if ids and ids[-1] not in tokenizer.control_ids and rng.random() < 0.7:
            rest = tokenizer.token_bytes(ids.pop()) + rest  # so that tokens get across what encoding cuts apart
        while rest:
            fitting = [len(rest[:n]) for n in range(1, 9) if rest[:n] in BYTES[name]]
            n = int(rng.choice(fitting))
            ids.append(int(rng.choice(BYTES[name][rest[:n]])))
            rest = rest[n:]
    assert tokenizer.decode(ids) == text
    return ids


NOW = "<zyphra_tool_call>\n<function=now>\n</function>\n</zyphra_tool_call>"


def call(**parameters: str) -> str:
    function = "book" if "note" in parameters else "get_weather"
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters.items())
    return f"<zyphra_tool_call>\n<function={function}>\n{inside}</function>\n</zyphra_tool_call>"


WEATHER = call(
    city='São "Paulo"\n\n日本 <b>👍</b> \\n</par', days="7", place='{"lat": -1.5e3, "x": [null, {"y": "é\\n"}]}'
)
BOOK = call(
    note="", code="ABc", seat="null", places='{"label": "<b>"}', what='{"x": 1', path="[]", on="true", extra="\n"
)
RIGHT: list[tuple[str, Any, str]] = [
    (
        "json",
        PERSON,
        '{"name": "Zoë 👍", "age": 0, "kind": "quote\\" and é\\n", "tags": ["a", "abc"], "score": -1.5e-3}',
    ),
    ("json", PERSON, '{"name":"\\\\\\"","kind":null,"friend":{"of":{"of":{"on":true}},"more":[[],{}]}}'),
    ("json", PERSON, '{\n  "name": "日",\n  "kind": 1,\n  "tags": [\n    "b"\n  ]\n}'),
    ("json", {}, '[1, "two", {"three": [null, true, -0.5], "": ""}]'),
    ("json", {"type": "object"}, json.dumps({"b": 1, "a": {"c": [{}]}}, indent=4)),
    ("regex", r"\d{3}-\d{4}", "555-0199"),
    ("regex", "(日本?)*/.", "日日本//"),
    *(("choice", CHOICES, choice) for choice in CHOICES),
    ("tools", OFFERED, ""),
    ("tools", OFFERED, "No <tool> is needed, nor <function=now>.\n"),
    ("tools", OFFERED, f"I'll look.\n\n{WEATHER}"),
    ("tools", OFFERED, f"{WEATHER}\n{NOW}\n{BOOK}\n"),
]


@names
@pytest.mark.parametrize(("kind", "value", "text"), RIGHT, ids=range(len(RIGHT)))
def test_right_texts_are_let_in_however_they_are_split(name: str, kind: str, value: Any, text: str) -> None:
    assert departs(fresh(name, kind, value), encoded(name, kind, text)) is None
    for seed in range(3):
        assert departs(fresh(name, kind, value), any_split(name, kind, text, seed)) is None


@names
def test_what_the_template_writes_is_let_in(name: str) -> None:
    arguments = {"city": "Oslo\n", "days": 3, "place": {"lat": 1}, "tags": ["a\n"]}
    calls = [{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": arguments}]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "So.", "tool_calls": calls}]
    ids = list(render(TOKENIZERS[name], messages, tools=TOOLS).ids)
    ids = ids[len(ids) - ids[::-1].index(TOKENIZERS[name].tags.think_close) : len(ids) - ids[::-1].index(106) - 1]
    assert departs(fresh(name, "tools", TOOLS, after_thinking=True), ids) is None
    assert TOKENIZERS[name].decode(ids).count("parameter=") == 4


def until(text: str, place: str, then: str = "") -> str:
    """The text up to a place in it, and what comes there instead."""
    before, found, _ = text.partition(place)
    assert found
    return before + then


WRONG: list[tuple[str, Any, str, str]] = [
    # kind, value, what is right so far, the token that cannot follow
    ("json", PERSON, "", "["),
    ("json", PERSON, "", " "),
    ("json", PERSON, "{", "}"),
    ("json", PERSON, '{"', "a"),  # a name is required, and comes first
    ("json", PERSON, '{"name": "', '"'),
    ("json", PERSON, '{"name": "12345678', "9"),
    ("json", PERSON, '{"name": "a', "\n"),
    ("json", PERSON, '{"name": "a', "<|im_end|>"),
    ("json", PERSON, '{"name": "a', "<think>"),
    ("json", PERSON, '{"name": "a', "<zyphra_tool_call>"),
    ("json", PERSON, '{"name": "a", "age": 13', "1"),
    ("json", PERSON, '{"name": "a", "age": ', "-"),
    ("json", PERSON, '{"name": "a", "kind": 1', "2"),
    ("json", PERSON, '{"name": "a", "kind": 1, "tags": ["', "A"),
    ("json", PERSON, '{"name": "a", "kind": 1}', "\n"),
    ("json", PERSON, '{"name": ', " "),
    ("json", PERSON, "{\n", "\n"),
    ("json", {}, '"\\', "x"),
    ("json", {}, "0", "1"),
    ("regex", "a+b", "aa", "c"),
    ("regex", "a+b", "aa", "<|im_end|>"),
    ("regex", r"[٠-٩]\d", "٣", "\u0663"),
    ("regex", "(?s).*", "", "</think>"),
    ("choice", CHOICES, "yes", " "),
    ("choice", CHOICES, "yes, but", "!"),
    ("choice", CHOICES, "", "<think>"),
    ("tools", OFFERED, "a</think", ">"),
    ("tools", OFFERED, "a<zyphra_tool_call", ">"),
    ("tools", OFFERED, "a", "</think>"),
    ("tools", OFFERED, "a", "<zyphra_tool_response>"),
    ("tools", OFFERED, "a", "</zyphra_tool_call>"),
    ("tools", OFFERED, NOW, "<zyphra_tool_call>"),
    ("tools", OFFERED, NOW, "x"),
    ("tools", OFFERED, NOW + "\n", "\n"),
    ("tools", OFFERED, until(NOW, "\n<function"), "<"),
    ("tools", OFFERED, until(NOW, "w>"), "x"),
    ("tools", OFFERED, until(NOW, "</function>", "<"), "p"),
    ("tools", OFFERED, until(NOW, "</zyphra"), "<"),  # the closing tag spelled out
    ("tools", OFFERED, until(NOW, "</zyphra"), "<|im_end|>"),
    ("tools", OFFERED, until(WEATHER, "city>"), "d"),
    ("tools", OFFERED, until(WEATHER, "\n</function>", "\n<parameter="), "c"),
    ("tools", OFFERED, until(WEATHER, "7\n"), "8"),
    ("tools", OFFERED, until(WEATHER, "7\n", "7"), "."),
    ("tools", OFFERED, until(WEATHER, "</par\n", "\n</function"), ">"),
    ("tools", OFFERED, until(WEATHER, "</par\n", "</parameter"), ">"),
    ("tools", OFFERED, until(WEATHER, "</par\n", "</zyphra_tool_call"), ">"),
    ("tools", OFFERED, until(WEATHER, "</par\n"), "</zyphra_tool_call>"),
    ("tools", OFFERED, until(BOOK, "<b>", "</parameter"), ">"),
    ("tools", OFFERED, until(BOOK, "<b>", "</function"), ">"),
    ("tools", OFFERED, until(BOOK, "<b>", "</zyphra_tool_call"), ">"),
    ("tools", OFFERED, until(BOOK, "Bc"), "b"),
    ("tools", OFFERED, until(BOOK, "ABc\n", "ABcd"), "e"),
    ("tools", OFFERED, until(BOOK, "null"), '"'),  # a bare word is wanted
    ("tools", OFFERED, until(BOOK, "true"), "1"),
]


@pytest.mark.parametrize(("kind", "value", "before", "barred"), WRONG, ids=range(len(WRONG)))
def test_wrong_texts_are_barred_where_they_depart(kind: str, value: Any, before: str, barred: str) -> None:
    tokenizer = TOKENIZERS["byte"]
    constraint, right = fresh("byte", kind, value), tokenizer.encode(before, bos=False)
    assert departs(constraint, right) in (None, len(right))
    wrong = tokenizer.encode(barred, bos=False)[0]
    assert not constraint.mask()[wrong]
    with pytest.raises(UsageError, match=f"does not allow this id here: {wrong}"):
        constraint.push(wrong)


# ends


@names
@pytest.mark.parametrize(("kind", "value", "text", "ends"), [
    # of every character: whether the structure goes on behind it (.), may end (+), must end ($)
    ("json", {"type": "object"}, '{"a": []}', "........$"),
    ("json", {"type": "integer"}, "10", "++"),
    ("regex", "a+", "aa", "++"),
    ("regex", "ab?c?", "abc", "++$"),
    ("choice", ["yes", "yes, but"], "yes, but", "..+....$"),
    ("tools", OFFERED, "a>", "++"),
])  # fmt: skip
def test_ends_come_where_the_structure_may_end(name: str, kind: str, value: Any, text: str, ends: str) -> None:
    constraint, found = fresh(name, kind, value), ""
    for character in text:
        constraint.push(BYTES[name][character.encode()][0])
        may_end, is_complete = constraint.mask()[STOPS].all(), constraint.is_complete()
        assert is_complete == (set(np.flatnonzero(constraint.mask())) <= set(STOPS))
        found += "$" if is_complete else "+" if may_end else "."
    assert found == ends
    if constraint.mask()[106]:
        constraint.push(106)
        assert constraint.is_complete()


@pytest.mark.parametrize("parallel", [True, False])
def test_after_a_call(parallel: bool) -> None:
    constraint = fresh("byte", "tools", OFFERED, parallel_calls=parallel, require_call=True)
    newline = BYTES["byte"][b"\n"][0]
    assert np.flatnonzero(constraint.mask()).tolist() == [101]
    assert departs(constraint, TOKENIZERS["byte"].encode(NOW, bos=False)) is None
    assert set(np.flatnonzero(constraint.mask())) == {*STOPS, newline}
    constraint.push(newline)
    assert set(np.flatnonzero(constraint.mask())) == {*STOPS, *([101] if parallel else [])}
    assert constraint.is_complete() == (not parallel)


def test_stop_ids_without_a_token() -> None:
    tokenizer = TOKENIZERS["byte"]
    constraint = Grammars(tokenizer, 300, [106, 290]).constraint(Structure(kind="choice", value=["a"]))
    constraint.push(BYTES["byte"][b"a"][0])
    assert np.flatnonzero(constraint.mask()).tolist() == [106]
    with pytest.raises(UsageError, match=r"none of the stop ids has a token: \[290\]"):
        Grammars(tokenizer, 300, [290])


# together


def test_constraints_are_independent_and_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    grammar = lark.grammar
    monkeypatch.setattr(lark, "grammar", lambda *args, **kwargs: compiled.append("") or grammar(*args, **kwargs))
    grammars = Grammars(TOKENIZERS["byte"], rows(TOKENIZERS["byte"]), STOPS)
    alone = [draw("byte", grammars.constraint(Structure(kind="json", value=PERSON)), seed) for seed in range(6)]
    assert len(compiled) == 1
    one, *others = (grammars.constraint(Structure(kind="json", value=dict(PERSON))) for _ in range(6))
    assert len(compiled) == 1
    before = one.mask().copy()
    assert [draw("byte", other, seed + 1) for seed, other in enumerate(others)] == alone[1:]
    assert (one.mask() == before).all()
    assert draw("byte", one, 0) == alone[0]
    grammars.constraint(Structure(kind="json", value={"properties": {"b": {}, "a": {}}}))
    grammars.constraint(Structure(kind="json", value={"properties": {"a": {}, "b": {}}}))  # another order, another text
    assert len(compiled) == 3


def test_constraints_take_turns() -> None:
    texts = [text.encode() for _, value, text in RIGHT if value is PERSON]
    constraints = [fresh("byte", "json", PERSON) for _ in texts]
    for at in range(max(map(len, texts))):
        for text, constraint in zip(texts, constraints, strict=True):
            if at < len(text):
                id = BYTES["byte"][text[at : at + 1]][0]
                assert constraint.mask()[id]
                constraint.push(id)
    assert all(constraint.is_complete() for constraint in constraints)


def test_a_mask_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        fresh("byte", "json", {}).mask()[0] = True


@names
@pytest.mark.parametrize(("kind", "value", "text"), RIGHT, ids=range(len(RIGHT)))
def test_newlines_after_reasoning(name: str, kind: str, value: Any, text: str) -> None:
    for newlines in ("", "\n", "\n\n"):
        ids = any_split(name, kind, newlines + text, 0)
        assert departs(fresh(name, kind, value, after_thinking=True), ids) is None
    if kind != "tools":
        for newlines, options in (("\n\n\n", {"after_thinking": True}), ("\n", {})):
            ids = any_split(name, kind, newlines + text, 0)
            assert departs(fresh(name, kind, value, **options), ids) is not None


# what is refused


def tool(parameter: Any, **others: Any) -> list[dict[str, Any]]:
    return [{"name": "f", "parameters": {"type": "object", "properties": {"p": parameter}, **others}}]


@pytest.mark.parametrize(("kind", "value", "message"), [
    ("json", {"type": "array", "uniqueItems": True}, r"the schema cannot be held: .*uniqueItems"),
    ("json", {"type": "integer", "minimum": 3, "maximum": 2}, r"the schema cannot be held: .*minimum \(3\)"),
    ("json", {"type": "text"}, r"the schema cannot be held: Invalid type: text"),
    ("json", {"$ref": "https://example.com/schema"}, r"the schema cannot be held: .*example.com"),
    ("json", {"$ref": "#"}, r"the structure \(json\) allows no text"),
    ("json", {"const": float("inf")}, r"the value of a structure must be JSON"),
    ("json", {"const": "\ud800"}, r"the value of a structure must be JSON"),
    ("json", {"const": b""}, r"the value of a structure must be JSON"),
    ("json", {"properties": {f"p{i}": {} for i in range(1001)}}, r"\(json\) is too large: an object has 1,001 keys"),
    ("json", {"enum": [[0]] * 5000}, r"\(json\) is too large: it has more than 10,000 values"),
    ("tools", [{"name": f"f{i}", "parameters": {"enum": [0] * 100}} for i in range(100)], r"more than 10,000 values"),
    ("json", "{}", r"the value of a structure \(json\) is a schema as a mapping: '{}'"),
    ("regex", "(", r"the expression cannot be held: unclosed group"),
    ("regex", "(?=a)b", r"the expression cannot be held: look-around"),
    ("regex", r"(a)\1", r"the expression cannot be held: backreferences"),
    ("regex", "a\\", r"the expression cannot be held: it ends in a backslash"),
    ("regex", "[a&&b]", r"the structure \(regex\) allows no text"),
    ("regex", "", r"the value of a structure \(regex\) is an expression as a string that is not empty: ''"),
    ("choice", [], r"the value of a structure \(choice\) is a list of strings that is not empty"),
    ("choice", "yes", r"the value of a structure \(choice\) is a list of strings"),
    ("choice", ["a", 1], r"the value of a structure \(choice\) is a list of strings"),
    ("tools", [], r"a structure of tools declares none"),
    ("tools", {}, r"the value of a structure \(tools\) is a list of tools"),
    ("tools", [{"type": "function"}], r"tools\[0\] has no function name"),
    ("tools", [*OFFERED, {"name": "now"}], r"tools\[3\] is declared before: now"),
    ("tools", [{"name": "a b"}], r"tools\[0\] a b: a call cannot hold a name with spaces"),
    ("tools", tool({}, required=["a>b"]), r"tools\[0\] f, parameter a>b: a call cannot hold a name"),
    ("tools", tool({}, required="p"), r"tools\[0\] f: required must be a list of names: 'p'"),
    ("tools", tool({}, anyOf=[]), r"tools\[0\] f: this cannot be held for all parameters together: anyOf"),
    ("tools", tool(False), r"tools\[0\] f, parameter p: a schema must be a mapping: False"),
    ("tools", tool({"type": "array", "uniqueItems": True}), r"tools\[0\] f, parameter p cannot be held: .*uniqueItems"),
    ("tools", tool({"type": "string", "not": {}}), r"tools\[0\] f, parameter p cannot be held: .*not"),
    ("tools", tool({"pattern": "(?=a)"}), r"tools\[0\] f, parameter p cannot be held: look-around"),
    ("tools", tool({"pattern": "\\"}), r"the pattern of tools\[0\] f, parameter p cannot be held: it ends in"),
    ("tools", tool({"type": "string", "minLength": 3, "maxLength": 2}), r"f, parameter p cannot be held: .*Unsat"),
    ("tools", tool({"enum": ["</parameter>"]}), r"tools\[0\] f, parameter p: none of its values can be written"),
])  # fmt: skip
def test_what_cannot_be_held_is_refused(kind: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fresh("byte", kind, value)


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="a structure is one of json, regex, choice, tools: 'xml'"):
        fresh("byte", "xml", {})


def test_a_vocabulary_without_call_tags() -> None:
    source = json.loads(TOKENIZERS["byte"].source.replace(tags.CALL_OPEN, "<call>"))
    tokenizer = Tokenizer(json.dumps(source))
    grammars = Grammars(tokenizer, 300, STOPS)
    with pytest.raises(UsageError, match="lacks the control tokens between which a tool call stands"):
        grammars.constraint(Structure(kind="tools", value=OFFERED))
    assert not grammars.constraint(Structure(kind="json", value={})).is_complete()


def test_a_dead_end_is_an_error() -> None:
    pattern = {"type": "string", "pattern": "^x</parameter>$"}  # a value that no call can hold
    constraint = fresh("byte", "tools", tool(pattern, required=["p"]), require_call=True)
    with pytest.raises(UsageError, match="the structure leads nowhere from here"):
        departs(constraint, TOKENIZERS["byte"].encode("<zyphra_tool_call>\n<function=f>\n<parameter=p>\nx", bos=False))


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match=r"needs llguidance(.|\n)*hint: pip install"):
        Grammars(TOKENIZERS["byte"], 300, STOPS).constraint(Structure(kind="json", value={}))


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = "import sys, zaya.engine.structured; print(*{'llguidance', 'torch', 'tokenizers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
