"""From the text of a tool call's parameter to the value the tool's schema asks for.

The XML form of a call carries every value as text. What a parameter is declared as decides how its text is read:
a string stays as it is; integer, number, boolean, object and array are read as JSON, or as a Python literal, which
models write as well; `null` is None; an undeclared parameter is a string. References inside the tool's own schema are
followed. Source: spec checkpoint-and-model 8.5. Used by `text.parser`, and by `engine.tool_grammar` for what may be
written.
"""

from __future__ import annotations

import ast
import json
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from zaya.errors import UsageError
from zaya.text.messages import normalize_tools

Types = frozenset[str]
"""JSON schema types that a parameter may have."""

STRING: Types = frozenset({"string"})
_FAILURES = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)
_WARNINGS = threading.Lock()


class Unconvertible(Exception):
    """A parameter's text is no value of its declared types."""


def parameter_types(tools: Sequence[Mapping[str, Any]] | None) -> dict[tuple[str, str], Types]:
    """Declared types by (function, parameter). A parameter without a type that can be told is a string.

    Raises UsageError for tools of an unknown shape or nested too deeply.
    """
    found = {}
    for tool in normalize_tools(tools) or []:
        function = tool["function"]
        schema = function.get("parameters") or {}
        for name, parameter in (schema.get("properties") or {}).items():
            try:
                found[function["name"], name] = _types(parameter, schema) or STRING
            except RecursionError as error:
                raise UsageError(f"the schema of {name} in {function['name']} is nested too deeply") from error
    return found


def convert(text: str, types: Types) -> Any:
    """The value of a parameter's text, as plain JSON data. Raises Unconvertible."""
    if types == STRING:
        return text
    if text.strip() in ("null", "None") and ("null" in types or "string" not in types):
        return None
    for read in (json.loads, _literal):
        try:
            value = canonical(read(text.strip()))
        except _FAILURES:
            continue
        if any(_is(name, value) for name in types - STRING):
            return int(value) if isinstance(value, float) and "number" not in types else value
    if "string" in types:
        return text
    raise Unconvertible(text)


def canonical(value: object) -> Any:
    """The value as JSON would give it back: tuples are lists, keys are strings. Raises ValueError or TypeError for
    what JSON in UTF-8 cannot hold: infinities, lone surrogates, sets."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    return json.loads(text)


def _literal(text: str) -> object:
    # Python warns of `\d` in a string. That is no matter of the caller's, and the filters belong to all threads.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def resolved(schema: object, root: Mapping[str, Any]) -> object:
    """The schema, with what its reference into the root stands for beside what it says itself."""
    seen = set()
    while isinstance(schema, Mapping) and isinstance(ref := schema.get("$ref"), str) and ref not in seen:
        target = _target(ref, root)
        if not isinstance(target, Mapping):
            break
        seen.add(ref)
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _target(ref: str, root: Mapping[str, Any]) -> object:
    """What a JSON pointer in a fragment, as `#/$defs/Place`, points to; None for nothing and for other references."""
    start, *parts = ref.split("/")
    found: object = root if start == "#" else None
    for part in parts:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _types(schema: object, root: Mapping[str, Any]) -> Types:
    match resolved(schema, root):
        case {"type": str() as name}:
            names = [name]
        case {"type": [*names]}:
            pass
        case {"anyOf": [*choices]} | {"oneOf": [*choices]}:
            names = [name for choice in choices for name in _types(choice, root)]
        case {"enum": [*values]}:
            names = [name for name in _NAMES if any(_is(name, value) for value in values)]
        case {"const": value}:
            names = [name for name in _NAMES if _is(name, value)]
        case _:
            names = []
    return frozenset(name for name in _NAMES if name in names)


_NAMES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})


def _is(name: str, value: object) -> bool:
    match name:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
    return value is None
