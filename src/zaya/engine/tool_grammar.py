"""The grammar of an answer that may call tools, in ZAYA's XML form (spec checkpoint-and-model 8.3, 8.5).

    free text <zyphra_tool_call>
    <function=NAME>
    <parameter=P>
    VALUE
    </parameter>
    </function>
    </zyphra_tool_call>

The call tags are the tokens of that name; all else is text. The rules, which are those of what `zaya.text.parse` reads
back without a flag:

- The free text spells none of the tags that the parser reads. Calls follow each other, a newline between them, and
  nothing follows them but a newline.
- Where the answer has a schema of its own, JSON of that schema or calls take the place of free text and calls. The
  guard keeps the tags out of that JSON.
- NAME is that of a declared tool. Its parameters come in the order of their declaration, each at most once, the
  required ones always. A fixed order is what keeps the grammar small: any order would take a state for every subset.
- VALUE is what the parser, going by the parameter's declared types (`zaya.text.arguments`), reads as a value of its
  schema:
    a string, or a type that cannot be told     text as it is, of the declared pattern and length
    an enum, const, null or boolean with a      one of them: strings bare, the rest as JSON
      string among them
    any other union with a string in it         any text: what reads as JSON of another type becomes that
    all else                                    JSON of the schema
- No value contains a closing tag, in JSON neither: the parser may end the value there. In text the grammar sees to
  that; for JSON a second grammar does, the guard, which must allow every token as well.

`format` on a string that is written as text is left to the model. Used by engine.structured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zaya.engine import lark
from zaya.errors import UsageError
from zaya.text import tags
from zaya.text.arguments import STRING, Types, Unconvertible, convert, parameter_types, resolved
from zaya.text.messages import normalize_tools

_CLOSING = (tags.PARAMETER_CLOSE, tags.FUNCTION_CLOSE, tags.CALL_CLOSE)
"""What ends a value for the parser, wherever it stands."""

_UNHELD = frozenset({
    "$ref", "allOf", "anyOf", "oneOf", "not", "if", "enum", "const", "minProperties", "maxProperties", "dependencies",
    "dependentRequired", "dependentSchemas", "patternProperties", "propertyNames",
})  # fmt: skip
"""What a schema may say about all parameters together, and a row of parameters does not hold."""


def tool_grammar(
    tools: Sequence[Mapping[str, Any]],
    *,
    require_call: bool,
    parallel_calls: bool,
    answer_schema: Mapping[str, Any] | None = None,
    call_open: int,
    call_close: int,
) -> tuple[str, str]:
    """The rules of an answer that may call these tools, and those of its guard.

    `call_open` and `call_close` are the ids of the call tags, the rest is as in `zaya.engine.types.Structure`. Raises
    UsageError for tools that cannot be written in a call or held to their schemas, and says which.
    """
    functions = [tool["function"] for tool in normalize_tools(tools) or []]
    if not functions:
        raise UsageError("a structure of tools declares none", hint="give at least one tool, or no structure")
    lark.check_size("the tools", functions)
    names = [function["name"] for function in functions]
    types = parameter_types(tools)
    rules: list[str] = []
    for i, function in enumerate(functions):
        if names[i] in names[:i]:
            raise UsageError(f"tools[{i}] is declared before: {names[i]}", hint="give every tool a name of its own")
        rules += _function(i, function, types)
    called = " | ".join(f"f{i}" for i in range(len(functions)))
    opening, closing = f"<[{call_open}]>", f"<[{call_close}]>"
    begin, end = lark.literal(f"\n{tags.FUNCTION_OPEN}"), lark.literal(f"{tags.FUNCTION_CLOSE}\n")
    more = '("\\n" call)* "\\n"?' if parallel_calls else '"\\n"?'
    untagged = lark.without(tags.ASSISTANT_TAGS)
    if require_call:
        rules.append("answer: calls")
    elif answer_schema is None:
        rules += ["answer: TEXT calls?", f"TEXT: {untagged}"]
    else:
        lark.check_schema("the schema", answer_schema)
        rules += ["answer: json | calls", f"json: {lark.json_value(answer_schema)}"]
    rules += [
        f"calls: call {more}",
        f"call: {opening} {begin} ({called}) {end} {closing}",
    ]
    guard = [
        f"answer: ANY ({opening} CALL {closing} ANY)*",
        f"ANY: {'/(?s:.*)/' if answer_schema is None else untagged}",
        # the form's own closing tags begin a line, and inside a JSON string no line can begin
        f"CALL: /(?s:.*)/ & ~(/(?s:.*)[^\\n]/ ({' | '.join(map(lark.literal, _CLOSING))}) /(?s:.*)/)",
    ]
    return "\n".join(rules), "\n".join(guard)


def _function(i: int, function: Mapping[str, Any], types: Mapping[tuple[str, str], Types]) -> list[str]:
    """Rules for a call, from the tool's name to its last parameter; the last of them is named `f` and its number."""
    name, parameters = function["name"], function.get("parameters") or {}
    where = f"tools[{i}] {name}"
    _check_name(where, name)
    if unheld := sorted(_UNHELD & parameters.keys()):
        raise UsageError(f"{where}: this cannot be held for all parameters together: {', '.join(unheld)}")
    required = parameters.get("required") or []
    if not isinstance(required, list) or not all(isinstance(key, str) for key in required):
        raise UsageError(f"{where}: required must be a list of names: {required!r}")
    properties = parameters.get("properties") or {}
    shared = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    rules, row = [], [lark.literal(f"{name}>\n")]
    for j, key in enumerate(dict.fromkeys([*properties, *required])):
        whose = f"{where}, parameter {key}"
        _check_name(whose, key)
        schema = properties.get(key, True)
        schema = {} if schema is True else resolved(schema, parameters)
        if not isinstance(schema, Mapping):
            raise UsageError(f"{whose}: a schema must be a mapping: {schema!r}")
        rule = f"p{i}_{j}"
        opening = lark.literal(f"{tags.PARAMETER_OPEN}{key}>\n")
        rules.append(f"{rule}: {opening} {rule}_value")
        rules += _value(f"{rule}_value", whose, {**schema, **shared}, types.get((name, key), STRING))
        row.append(rule if key in required else f"{rule}?")
    return [*rules, f"f{i}: {' '.join(row)}"]


def _check_name(where: str, name: str) -> None:
    if any(c in "<>" or c.isspace() for c in name):
        raise UsageError(f"{where}: a call cannot hold a name with spaces, < or >: {name!r}")


def _value(rule: str, whose: str, schema: Mapping[str, Any], types: Types) -> list[str]:
    """Rules for the value of a parameter and the closing tag behind it."""
    end = lark.literal(f"\n{tags.PARAMETER_CLOSE}\n")
    if "string" not in types:
        # a branch whose type the parser cannot tell is one that it does not read
        held = {**schema, "type": sorted(types)}
        lark.check_schema(whose, held)
        return [f"{rule}: {lark.json_value(held)} {end}"]
    lark.check_schema(whose, {word: says for word, says in schema.items() if word != "format"})
    members = _members(schema, schema)
    if members is None:
        value = lark.without(_CLOSING)
    else:
        texts = [text for member in members if (text := _written(member, types)) is not None]
        if not texts:
            raise UsageError(f"{whose}: none of its values can be written in a call: {members}")
        value = " | ".join(map(lark.literal, texts))
    if types == STRING and "pattern" in schema:
        lark.check_regex(f"the pattern of {whose}", schema["pattern"])
        value = f"({value}) & ({lark.containing(schema['pattern'])})"
    if types == STRING and ("minLength" in schema or "maxLength" in schema):
        value = f"({value}) & {lark.length(schema.get('minLength', 0), schema.get('maxLength'))}"
    terminal = rule.upper()
    return [f"{rule}: {terminal}", f"{terminal}: ({value}) {end}"]


def _members(schema: Any, root: Mapping[str, Any]) -> list[Any] | None:
    """The values of a schema that has only so many; None where it has not, or they are not told one by one."""
    match resolved(schema, root):
        case {"enum": [*members]}:
            return members
        case {"const": member}:
            return [member]
        case {"anyOf": [*choices]} | {"oneOf": [*choices]}:
            found = [_members(choice, root) for choice in choices]
            return None if None in found else [member for members in found if members for member in members]
        case {"type": "null"}:
            return [None]
        case {"type": "boolean"}:
            return [True, False]
    return None


def _written(member: Any, types: Types) -> str | None:
    """The text of a value in a call; None where it would be read back as another."""
    text = member if isinstance(member, str) else json.dumps(member)
    if any(tag in text for tag in _CLOSING):
        return None
    try:
        read = convert(text, types)
    except Unconvertible:
        return None
    return text if type(read) is type(member) and read == member else None
