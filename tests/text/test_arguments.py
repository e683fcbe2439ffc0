"""How the text of a parameter becomes a value."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from zaya.errors import UsageError
from zaya.text.arguments import Unconvertible, convert, parameter_types

DEFS = {
    "Place": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Place"}}},
    "Same": {"$ref": "#/$defs/Place"},
    "a/b~c": {"enum": ["x", 1]},
    "Loop": {"$ref": "#/$defs/Loop"},
}


def types(schema):
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"p": schema}, "$defs": DEFS}}
    return parameter_types([tool])["f", "p"]


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"type": "integer"}, {"integer"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"integer", "null"}),
        ({"oneOf": [{"type": ["array", "object"]}, {"$ref": "#/x"}]}, {"array", "object"}),
        ({"enum": ["a", "b"]}, {"string"}),
        ({"enum": [1, 2.5, None]}, {"integer", "number", "null"}),
        ({"const": True}, {"boolean"}),
        ({}, {"string"}),
        ({"type": "any"}, {"string"}),
        ({"type": [{"x": 1}]}, {"string"}),
        ({"type": [{"x": 1}, "integer"]}, {"integer"}),
        ({"$ref": "#/x"}, {"string"}),
        ({"$ref": "#/$defs/Place"}, {"object"}),
        ({"$ref": "#/$defs/Same", "description": "Where"}, {"object"}),
        ({"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}]}, {"object", "null"}),
        ({"$ref": "#/$defs/a~1b~0c"}, {"string", "integer", "number"}),
        ({"$ref": "#/$defs/Loop"}, {"string"}),
        ({"$ref": "https://example.com/x"}, {"string"}),
        (True, {"string"}),
    ],
)
def test_declared_types(schema, names):
    assert types(schema) == names


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, " 1 ", " 1 "),
        ({"type": "string"}, "null", "null"),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, '"a"', '"a"'),
        ({"type": ["string", "integer"]}, "12", 12),
        ({"type": ["string", "integer"]}, "null", "null"),
        ({"type": ["string", "integer"]}, "12a", "12a"),
        ({"type": "integer"}, " 12\n", 12),
        ({"type": "integer"}, "12.0", 12),
        ({"type": "integer"}, "1_000", 1000),
        ({"type": "integer"}, "null", None),
        ({"type": "number"}, "12", 12),
        ({"type": "number"}, "-1.5e3", -1500.0),
        ({"type": "number"}, "None", None),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "False", False),
        ({"type": "object"}, '{"a": [1, null]}', {"a": [1, None]}),
        ({"type": "object"}, "{'a': (1, None), 2: True}", {"a": [1, None], "2": True}),
        ({"type": "array"}, '["a", {"b": "é"}]', ["a", {"b": "é"}]),
        ({"type": "array"}, "('a',)", ["a"]),
        ({"type": "null"}, "null", None),
    ],
)
def test_converted(schema, text, value):
    found = convert(text, types(schema))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer"}, "1.5"),
        ({"type": "integer"}, "true"),
        ({"type": "integer"}, "twelve"),
        ({"type": "integer"}, ""),
        ({"type": "integer"}, "9" * 5000),
        ({"type": "number"}, "NaN"),
        ({"type": "number"}, "1e999"),
        ({"type": "boolean"}, "1"),
        ({"type": "boolean"}, "yes"),
        ({"type": "object"}, "[1]"),
        ({"type": "object"}, '{"a": 1'),
        ({"type": "object"}, '{"a": NaN}'),
        ({"type": "array"}, "{1, 2}"),
        ({"type": "array"}, '["\\ud800"]'),
        ({"type": "array"}, "[" * 100_000),
        ({"type": "object"}, "__import__('os').environ"),
    ],
)
def test_not_converted(schema, text):
    with pytest.raises(Unconvertible):
        convert(text, types(schema))


def test_python_literals_are_read_without_warnings():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert convert(r"['\d', '\n']", types({"type": "array"})) == ["\\d", "\n"]
        warnings.simplefilter("error")
        assert convert(r"['\d']", types({"type": "array"})) == ["\\d"]
    assert heard == []


def test_tools_are_checked():
    assert parameter_types(None) == {}
    assert parameter_types([{"name": "f"}, {"type": "function", "function": {"name": "g", "parameters": {}}}]) == {}
    with pytest.raises(UsageError, match=r"tools\[0\]"):
        parameter_types([{"type": "function"}])
    tools: Any = 5
    with pytest.raises(UsageError, match="tools must be a list of tools: int"):
        parameter_types(tools)
    schema: dict[str, Any] = {}
    schema["anyOf"] = [schema]
    with pytest.raises(UsageError, match="the schema of p in f is nested too deeply"):
        types(schema)
