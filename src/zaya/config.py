"""Typed configuration: TOML files and dotted overrides, read strictly into frozen dataclasses.

Each part of the system keeps the dataclass of its own settings beside the code that uses it; this module turns text
into those dataclasses and back, and knows none of them. The string under a field is its help text. Unknown keys stop
the run. Uses the standard library alone, so that a configuration is checked before anything heavy is imported.

TOML has no null: the word "none" stands for None in a field that may be None.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from zaya.errors import ConfigError, did_you_mean

T = TypeVar("T")

_NONE = "none"


@dataclass(frozen=True, slots=True)
class FieldHelp:
    """One leaf of a configuration tree, as `describe` lists it."""

    key: str
    """Dotted path from the root."""
    type: str
    default: str | None
    """As TOML would spell it; None where a value must be given."""
    help: str


@dataclass(frozen=True, slots=True)
class _Override:
    """A value from the command line: what was typed, and what TOML makes of it."""

    text: str
    value: object


def load(cls: type[T], path: Path | str | None = None, overrides: Iterable[str] = (), *, base: T | None = None) -> T:
    """The configuration of a TOML file, with `a.b=value` overrides on top.

    What neither gives comes from `base`, else from the defaults of `cls`. An override replaces the whole value at its
    key, a table included. Its text is read as TOML; text that is not TOML is a string, and a field that holds a string
    takes the text as typed. Raises ConfigError.
    """
    tree = {} if path is None else _read(Path(path))
    _apply(tree, overrides)
    return from_mapping(cls, tree, base=base)


def from_mapping(cls: type[T], mapping: Mapping[str, object], *, base: T | None = None) -> T:
    """The dataclass `cls` filled from nested mappings, as `tomllib` returns them; the rest from `base`, else from the
    defaults. Raises ConfigError."""
    return _build(cls, mapping, "", base)


def to_mapping(config: object) -> dict[str, Any]:
    """The inverse of `from_mapping`: nested plain values, everything spelled out, defaults too."""
    assert is_dataclass(config)
    return {f.name: _plain(getattr(config, f.name)) for f in _settable(type(config))}


def to_toml(config: object) -> str:
    """The whole configuration as a TOML document that `load` reads back to an equal one."""
    return "\n".join(_document(to_mapping(config), ())) + "\n"


def toml_value(value: object) -> str:
    """One value, as TOML spells it on the right of `=`."""
    match _plain(value):
        case bool(flag):
            return "true" if flag else "false"
        case str(text):
            # JSON's escapes are TOML's, except that TOML also wants DEL escaped.
            return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list(items):
            return f"[{', '.join(map(toml_value, items))}]"
        case dict(table):
            return "{" + ", ".join(f"{_toml_key(k)} = {toml_value(v)}" for k, v in table.items()) + "}"
        case number:
            return repr(number)


def differences(one: object, other: object) -> list[str]:
    """Dotted keys whose values differ in two configurations of one kind, sorted."""
    a, b = (dict(_leaves(to_mapping(config), "")) for config in (one, other))
    return [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def describe(cls: type) -> list[FieldHelp]:
    """Every setting below `cls`, nested ones under their dotted keys, in the order they are written."""
    return list(_describe(cls, "", None))


# reading


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError, and bytes that are not UTF-8
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _apply(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    seen: list[str] = []
    for item in overrides:
        key, equals, text = item.partition("=")
        key, text = key.strip(), text.strip()
        parts = key.split(".")
        if not equals or not all(parts):
            raise ConfigError(
                f"an override reads key=value with a dotted key: {item!r}", hint="for example optim.lr=1e-3"
            )
        for other in seen:
            if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                raise ConfigError(f"{key} is overridden twice", hint=f"the other override is {other}=...")
        seen.append(key)
        table = tree
        for depth, part in enumerate(parts[:-1], 1):
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{key} cannot be set: {'.'.join(parts[:depth])} is {_a(table)}, not a table")
        table[parts[-1]] = _Override(text, _parse_override(text))


def _parse_override(text: str) -> object:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


# mapping -> dataclass


def _build(cls: type[T], mapping: Mapping[str, object], path: str, base: T | None = None) -> T:
    settings = {f.name: f for f in _settable(cls)}
    for key in mapping:
        if key not in settings:
            raise ConfigError(f"unknown key '{path}{key}'", hint=did_you_mean(key, settings, path))
    defaults = {name: _default(f, base) for name, f in settings.items()}
    missing = [path + name for name, value in defaults.items() if value is MISSING and name not in mapping]
    if missing:
        raise ConfigError(f"required and not given: {', '.join(missing)}")
    values = dict(defaults)
    for key, value in mapping.items():
        kind = _hints(cls)[key]
        value = _unwrap(value, kind)
        if _is_settings(kind) and isinstance(value, Mapping) and defaults[key] is not MISSING:
            # A table that sets one of several values leaves the others as this very field has them by default.
            values[key] = _build(kind, value, f"{path}{key}.", defaults[key])
        else:
            values[key] = _convert(value, kind, path + key)
    return cls(**values)


def _unwrap(value: object, kind: Any) -> object:
    if not isinstance(value, _Override):
        return value
    return value.text if _is_text(kind) and not isinstance(value.value, str) else value.value


def _convert(value: object, kind: Any, path: str) -> Any:
    value = _unwrap(value, kind)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(value, kind, path)
    if origin is Literal:
        return _choose(value, {choice: choice for choice in get_args(kind)}, path)
    if origin is tuple:
        return _convert_tuple(value, kind, path)
    if origin is dict:
        return _convert_table(value, kind, path)
    if not isinstance(kind, type):
        raise TypeError(f"{path}: a configuration field cannot be of type {kind}")
    if type(value) is kind:  # exactly: to Python a bool is an int, to a reader it is not
        return value
    if issubclass(kind, Enum):
        return _choose(value, {member.value: member for member in kind}, path)
    if _is_settings(kind) and isinstance(value, Mapping):
        return _build(kind, value, path + ".")
    if kind is float and type(value) is int:
        return _widen(value, path)
    raise _mismatch(value, kind, path)


def _convert_union(value: object, kind: Any, path: str) -> object:
    members = [member for member in get_args(kind) if member is not types.NoneType]
    if len(members) < len(get_args(kind)) and value in (None, _NONE):
        return None
    if len(members) == 1:
        return _convert(value, members[0], path)
    # The member of the value's own type goes first, so that 1 stays an int in `float | int`.
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return _convert(value, member, path)
        except ConfigError:
            continue
    raise _mismatch(value, kind, path)


def _convert_tuple(value: object, kind: Any, path: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise _mismatch(value, kind, path)
    members = get_args(kind)
    if members[-1] is Ellipsis:
        members = members[:1] * len(value)
    if len(value) != len(members):
        raise ConfigError(f"{path} holds {len(members)} values; {len(value)} given: {toml_value(value)}")
    return tuple(
        _convert(item, member, f"{path}[{i}]") for i, (item, member) in enumerate(zip(value, members, strict=True))
    )


def _convert_table(value: object, kind: Any, path: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise _mismatch(value, kind, path)
    if not all(value):
        raise ConfigError(f"{path} has an empty key")
    return {key: _convert(item, get_args(kind)[1], f"{path}.{key}") for key, item in value.items()}


def _choose(value: object, choices: Mapping[Any, T], path: str) -> T:
    for choice, result in choices.items():
        if type(value) is type(choice) and value == choice:
            return result
    raise ConfigError(f"{path} = {value!r} is not allowed; expected {' | '.join(map(repr, choices))}")


def _widen(value: int, path: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{path} is too large for a float: {len(str(value))} digits") from error


def _mismatch(value: object, kind: Any, path: str) -> ConfigError:
    hint = None
    if isinstance(value, str) and not _is_text(kind):
        parsed = _parse_override(value)
        if isinstance(parsed, int | float) and not isinstance(parsed, bool):
            hint = "TOML numbers have no quotes"
        elif value.lower() in ("true", "false"):
            hint = f"TOML writes {value.lower()}, in small letters and without quotes"
    return ConfigError(f"{path} = {value!r} is {_a(value)}; expected {_type_name(kind)}", hint=hint)


def _a(value: object) -> str:
    name = "table" if isinstance(value, Mapping) else type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _is_text(kind: Any) -> bool:
    """Whether a field holds strings and nothing else, None aside."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return all(_is_text(member) for member in get_args(kind) if member is not types.NoneType)
    if origin is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return all(isinstance(member.value, str) for member in kind)
    return kind is str


# dataclass -> text


def _plain(value: Any) -> Any:
    if value is None:
        return _NONE
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _leaves(table: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def _document(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    # Plain values first: whatever follows a table's header belongs to that table.
    for key, value in table.items():
        if key not in tables:
            yield f"{_toml_key(key)} = {toml_value(value)}"
    for key, value in tables.items():
        yield f"\n[{'.'.join(map(_toml_key, (*path, key)))}]"
        yield from _document(value, (*path, key))


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


# what a dataclass says of itself


def _is_settings(kind: Any) -> TypeGuard[type[Any]]:
    return isinstance(kind, type) and is_dataclass(kind)


def _settable(cls: Any) -> list[Field[Any]]:
    return [f for f in fields(cls) if f.init]


def _default(field: Field[Any], base: object | None = None) -> Any:
    """What a field holds when nobody sets it; MISSING where somebody must."""
    if base is not None:
        return getattr(base, field.name)
    return field.default if field.default_factory is MISSING else field.default_factory()


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


@cache
def _help_texts(cls: type) -> dict[str, str]:
    """Field name -> the string that stands under it in the source, on one line. Empty where there is no source."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made at run time
            continue
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _describe(cls: type, path: str, base: object | None) -> Iterator[FieldHelp]:
    for f in _settable(cls):
        kind, default = _hints(cls)[f.name], _default(f, base)
        if _is_settings(kind):
            yield from _describe(kind, f"{path}{f.name}.", None if default is MISSING else default)
        else:
            spelled = None if default is MISSING else toml_value(default)
            yield FieldHelp(path + f.name, _type_name(kind), spelled, _help_texts(cls).get(f.name, ""))


def _type_name(kind: Any) -> str:
    if kind is types.NoneType:
        return _NONE
    if kind is Ellipsis:
        return "..."
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_name, get_args(kind)))
    if origin is Literal:
        return " | ".join(map(repr, get_args(kind)))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, get_args(kind)))}]"
    if issubclass(kind, Enum):
        return " | ".join(repr(member.value) for member in kind)
    return "table" if _is_settings(kind) else kind.__name__
