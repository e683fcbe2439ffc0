"""Calls of tools: the right function with the right arguments, or none where no function fits.

    {"question": ..., "function": [...], "ground_truth": [{"weather": {"city": ["Ulm", "Ulm, DE"], "unit": ["", "C"]}}]}

The form is that of BFCL: of every call that is wanted, for every argument the values that may be given; an empty text
among them says that it may be left out. `ground_truth` is an empty list where nothing must be called, and `"any"` where
something must, whatever it is. Functions are offered through the chat template, and calls are read by our own parser
(`text.parser`), so that a call that is not closed or not well formed is none.

Judged here, not by the package's checker, to the same rules: as many calls as are wanted, in any order; a function that
was offered, with every argument that it requires, none that it does not have, and each among the values that may be
given, which are of its type. Texts are equal without regard to case, spaces and the marks `,./-_*^`, both quotes being
one. A whole number is a value of a float; true and false are none. Stricter than there: where nothing is to be called,
an empty answer, as of a model that was cut off in its thoughts, and a call that breaks off are not right. More lenient:
text that is declared as such is compared with a value that is none as JSON spells it, and calls are matched as a whole.

Source: spec post-training 12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from zaya.envs.base import Problem, Score, Status
from zaya.envs.files import bfcl
from zaya.envs.files.base import Field, FileEnvironment, Item, LeftOut, Row, opened
from zaya.envs.files.bfcl import ANY
from zaya.errors import UsageError
from zaya.text import tags
from zaya.text.messages import normalize_messages, normalize_tools
from zaya.text.parser import Flag, ToolCall, parse

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
"""What BFCL calls a type -> what JSON schema does. Its checker takes `any` for a text."""
_MARKS = re.compile(r"[ ,./\-_*^]")
_BROKEN = {Flag.UNCLOSED_CALL, Flag.MALFORMED_CALL}

Possible = Mapping[str, Sequence[Any]]
"""Argument -> the values that it may have."""


class ToolFile(FileEnvironment):
    """Its meta: `tools` as they are offered, `calls` that are wanted, and `messages` where there is a conversation."""

    kind = "tools"
    fields: ClassVar = {"prompt": Field("question"), "tools": Field("function"), "calls": Field("ground_truth")}
    category = "tools"
    frame = "%s"

    def rows(self) -> Iterable[tuple[int, Mapping[str, Any]]]:
        return bfcl.rows(self.file) if self.file.suffix == ".whl" else super().rows()

    def item(self, row: Row) -> Item:
        messages = _messages(row)
        tools = _tools(row)
        calls = opened(row.get("calls"))
        _check(row, tools, calls)
        meta: dict[str, Any] = {"tools": tools, "calls": calls}
        if len(messages) > 1:
            meta["messages"] = messages
        return Item(messages[-1]["content"], meta)

    def score(self, problem: Problem, text: str) -> Score:
        message = parse(text, tools=problem.meta["tools"])
        answer = json.dumps([[call.name, call.arguments] for call in message.tool_calls], ensure_ascii=False)
        if message.flags & _BROKEN or not all(call.complete for call in message.tool_calls):
            return Score(0.0, False, Status.BAD_FORMAT, answer, "a call is not closed, or not well formed")
        if not message.tool_calls and not message.content.strip():
            return Score(0.0, False, Status.BAD_FORMAT, detail="there is no answer")
        wrong = what_is_wrong(message.tool_calls, problem.meta["calls"], problem.meta["tools"])
        return Score(float(not wrong), not wrong, answer=answer, detail=wrong)

    def reference(self, problem: Problem) -> str | None:
        calls = problem.meta["calls"]
        if calls == ANY:
            return None
        return "\n".join(written(call, problem.meta["tools"]) for call in calls) or "No function here does that."


def what_is_wrong(found: Sequence[ToolCall], wanted: object, tools: Sequence[Mapping[str, Any]]) -> str:
    """Why these calls are not those that are wanted; empty where they are."""
    if wanted == ANY:
        return "" if found else "nothing is called"
    assert isinstance(wanted, list)
    if len(found) != len(wanted):
        return f"{len(found)} calls, {len(wanted)} wanted"
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    fits = [
        [not _differs(call, name, possible, schemas[name]) for call in found]
        for one in wanted
        for name, possible in one.items()
    ]
    if _matches(fits):
        return ""
    unmet = next((i for i, row in enumerate(fits) if not any(row)), 0)
    [(name, possible)] = wanted[unmet].items()
    candidates = [call for call in found if call.name == name] or list(found)
    return _differs(candidates[0], name, possible, schemas[name]) or f"one call of {name} is there twice"


def _matches(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether every wanted call has a call of its own: a matching of all of them, found along augmenting paths."""
    owner: dict[int, int] = {}

    def place(one: int, tried: set[int]) -> bool:
        for other, fit in enumerate(fits[one]):
            if fit and other not in tried:
                tried.add(other)
                if other not in owner or place(owner[other], tried):
                    owner[other] = one
                    return True
        return False

    return all(place(one, set()) for one in range(len(fits)))


def _differs(call: ToolCall, name: str, possible: Possible, schema: Mapping[str, Any]) -> str:
    """Why a call is not one of a function with these values; empty where it is."""
    if call.name != name:
        return f"{call.name} is called, not {name}"
    properties = schema.get("properties") or {}
    for required in schema.get("required") or ():
        if required not in call.arguments:
            return f"{name} is called without {required}"
    for key, value in call.arguments.items():
        if key not in properties or key not in possible:
            return f"{name} is called with {key}"
        if not _may_be(value, possible[key], properties[key]):
            return f"{name}: {key} is {value!r:.80}"
    for key, values in possible.items():
        if key not in call.arguments and "" not in values:
            return f"{name} is called without {key}"
    return ""


def _may_be(value: Any, values: Sequence[Any], schema: Mapping[str, Any]) -> bool:
    """Whether a value is among those that may be given. The parser has made it of the declared type where it could, and
    some of the data name a variable, a text, where a number is declared: so what it equals decides."""
    given = [one for one in values if one != ""]
    if value in ("", []) and "" in values:  # as good as left out, where it is required
        return True
    if schema.get("type") == "string" and isinstance(value, str):
        # a call carries text: where the data want a number of what is declared as text, its digits are meant
        return any(_plain(value) == _plain(one if isinstance(one, str) else json.dumps(one)) for one in given)
    if isinstance(value, dict):
        return any(isinstance(one, Mapping) and _is_object(value, one) for one in given)
    if isinstance(value, list) and any(isinstance(x, dict) for x in value):
        return any(
            isinstance(one, list) and len(one) == len(value) and all(map(_is_object_or_same, value, one))
            for one in given
        )
    return any(_equal(value, one) for one in given)


def _is_object_or_same(value: Any, one: Any) -> bool:
    return _is_object(value, one) if isinstance(value, dict) and isinstance(one, Mapping) else _equal(value, one)


def _is_object(value: Mapping[str, Any], possible: Possible) -> bool:
    """Whether an object has, for each key, one of the values that may be given, and no key beside them."""
    return all(
        key in possible and any(_equal(item, one) for one in _listed(possible[key])) for key, item in value.items()
    ) and all(key in value or "" in _listed(values) for key, values in possible.items())


def _listed(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list) else [values]


def _equal(value: Any, one: Any) -> bool:
    """Whether two values are the same; texts without regard to how they are written."""
    if isinstance(value, str) and isinstance(one, str):
        return _plain(value) == _plain(one)
    if isinstance(value, bool) or isinstance(one, bool):
        return value is one
    if isinstance(value, list) and isinstance(one, list):
        return len(value) == len(one) and all(map(_equal, value, one))
    if isinstance(value, dict) and isinstance(one, dict):
        return value.keys() == one.keys() and all(_equal(value[key], one[key]) for key in value)
    return value == one


def _plain(text: str) -> str:
    return _MARKS.sub("", text).lower().replace("'", '"')


# ----- reading


def _messages(row: Row) -> list[dict[str, Any]]:
    """A conversation that ends with a question; BFCL wraps its one turn in a list."""
    asked = row.get("prompt")
    if isinstance(asked, str):
        asked = [{"role": "user", "content": row.text("prompt")}]
    if isinstance(asked, list) and len(asked) == 1 and isinstance(asked[0], list):
        asked = asked[0]
    if not isinstance(asked, list) or not asked:
        raise row.wrong("prompt", "a text, or one turn of messages", asked)
    try:
        messages = normalize_messages(asked)
    except UsageError as error:
        raise UsageError(f"{row.where}: {error}", hint=error.hint) from error
    if messages[-1]["role"] != "user" or not isinstance(messages[-1]["content"], str):
        raise row.wrong("prompt", "messages that end with a user's text", asked)
    return messages


def _tools(row: Row) -> list[dict[str, Any]]:
    functions = opened(row.get("tools"))
    try:
        tools = normalize_tools(functions)
    except UsageError as error:
        raise UsageError(f"{row.where}: {error}", hint=error.hint) from error
    # a few questions of BFCL offer nothing, and want nothing called
    return [{**tool, "function": _json_schema(tool["function"])} for tool in tools or ()]


def _json_schema(value: Any) -> Any:
    """A schema with the types of JSON schema in the place of Python's."""
    if isinstance(value, Mapping):
        changed = {key: _json_schema(item) for key, item in value.items()}
        if isinstance(value.get("type"), str):
            changed["type"] = _TYPES.get(value["type"], value["type"])
        return changed
    return [_json_schema(item) for item in value] if isinstance(value, list) else value


def _check(row: Row, tools: Sequence[Mapping[str, Any]], calls: object) -> None:
    """That the wanted calls are of functions that are offered."""
    if calls == ANY:
        return
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    if not isinstance(calls, list):
        raise row.wrong("calls", "a list of calls", calls)
    for call in calls:
        if not isinstance(call, Mapping) or len(call) != 1 or not isinstance(next(iter(call.values())), Mapping):
            raise row.wrong("calls", "objects with one function and its arguments", call)
        [(name, possible)] = call.items()
        if name not in schemas:
            raise UsageError(f"{row.where}: {name} is wanted, and not among the functions: {', '.join(schemas)}")
        known = schemas[name].get("properties") or {}
        if missing := [key for key, values in possible.items() if key not in known and "" not in values]:
            raise LeftOut(f"{name} has no {', '.join(missing)}, which is wanted")
        if not all(isinstance(values, list) for values in possible.values()):
            raise row.wrong("calls", "arguments with lists of values", call)
        if nothing := [key for key, values in possible.items() if not values]:
            raise LeftOut(f"{name} may have no value of {', '.join(nothing)}, which is wanted")


# ----- writing


def written(call: Mapping[str, Possible], tools: Sequence[Mapping[str, Any]]) -> str:
    """A wanted call as a model writes it, with the first of the values that each argument may have."""
    [(name, possible)] = call.items()
    schema = next(tool["function"].get("parameters") or {} for tool in tools if tool["function"]["name"] == name)
    required = schema.get("required") or ()
    arguments = {}
    for key, values in possible.items():
        given = [value for value in values if value != ""]
        if given and ("" not in values or key in required):
            arguments[key] = _first(given[0])
        elif key in required:
            arguments[key] = [] if schema["properties"][key].get("type") == "array" else ""
    return in_xml(name, arguments)


def _first(value: Any) -> Any:
    """A value in which objects list what each key may have, with the first of each."""
    if isinstance(value, Mapping):
        return {key: _listed(some)[0] for key, some in value.items() if _listed(some)[:1] != [""]}
    return [_first(item) for item in value] if isinstance(value, list) else value


def in_xml(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in the form that the chat template asks for."""
    values = [
        f"{tags.PARAMETER_OPEN}{key}>\n{value if isinstance(value, str) else json.dumps(value)}\n{tags.PARAMETER_CLOSE}"
        for key, value in arguments.items()
    ]
    inside = "\n".join([f"{tags.FUNCTION_OPEN}{name}>", *values, tags.FUNCTION_CLOSE])
    return f"{tags.CALL_OPEN}\n{inside}\n{tags.CALL_CLOSE}"
