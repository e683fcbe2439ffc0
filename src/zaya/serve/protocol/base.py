"""Bodies of requests: declared fields and no others, of exactly the declared types.

A field that nobody declared is refused by name, with the nearest one there is: dropping it would answer another
question than the one asked. Fields that clients send as a habit and that change nothing here are declared as such, in
`NoOps`, and appear in the OpenAPI document with the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zaya.errors import did_you_mean
from zaya.serve.errors import ApiError

Name = Annotated[str, Field(max_length=256)]

OneError = Field(fail_fast=True)
"""For lists of any length: one item that is wrong tells enough, and a million of them would take memory for a million
explanations."""

MOST_INT = (1 << 31) - 1
"""Of a count. Larger ones would leave what numpy and PyTorch calculate with."""


class Body(BaseModel):
    """The body of a request, or an object in it."""

    instead: ClassVar[Mapping[str, str]] = {}
    """For fields of other ways of asking: what to do about them."""

    # "model_..." are names of fields here, not of pydantic's
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )


T = TypeVar("T", bound=Body)


def parse_body(kind: type[T], value: Any) -> T:
    """The body as a record. Raises ApiError with the path of the field at fault, and never with its value."""
    if not isinstance(value, Mapping):
        raise ApiError(400, f"the body must be a JSON object: {type(value).__name__}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _explained(kind, value, error) from None


def _explained(kind: type[Body], value: Mapping[str, Any], error: ValidationError) -> ApiError:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    unknown = next((e for e in errors if e["type"] == "extra_forbidden"), None)
    if unknown is not None:
        path = _path(unknown["loc"], value)
        known = _fields_at(kind, unknown["loc"][:-1])
        # cut: how alike two names are takes the longer the longer they are
        near = did_you_mean(str(unknown["loc"][-1])[:64], [name for name in known if name not in NoOps.model_fields])
        hint = f"; {near}" if near.startswith("did you") else ""
        if path in kind.instead:
            hint = f"; {kind.instead[path]}"
        return ApiError(400, f"unknown field: {path}{hint}", code="unknown_field", param=path)
    first = errors[0]
    if first["type"] == "missing":
        path = _path(first["loc"], value, names_absent=True)
        return ApiError(400, f"{path} is missing", code="missing_field", param=path)
    # what may be of several types has an error for each of them: the one that got furthest is meant
    same = [(_path(e["loc"], value), e["msg"]) for e in errors if e["loc"][:1] == first["loc"][:1]]
    path = max((path for path, _ in same), key=len)
    said = " or ".join(dict.fromkeys(message.removeprefix("Value error, ") for at, message in same if at == path))
    return ApiError(400, f"{path}: {said[:1].lower()}{said[1:]}", code="invalid_value", param=path)


def _fields_at(kind: type[Body], location: tuple[int | str, ...]) -> Iterable[str]:
    """The names that an object in the body may have. None where it is in a list: there pydantic numbers it."""
    for key in location:
        if key not in kind.model_fields:  # the name of a type of pydantic's, between two keys
            continue
        found = kind.model_fields[str(key)].annotation
        inside = [each for each in (found, *get_args(found)) if isinstance(each, type) and issubclass(each, Body)]
        if not inside:
            return ()
        kind = inside[0]
    return kind.model_fields


def _path(location: tuple[int | str, ...], value: Any, *, names_absent: bool = False) -> str:
    """As a client would write it. pydantic puts names of its own types between the keys; they are no part of it.

    `names_absent`: the last key is one that the value lacks.
    """
    path = ""
    for i, key in enumerate(location):
        is_absent = names_absent and i == len(location) - 1
        if isinstance(value, Mapping) and isinstance(key, str) and (key in value or is_absent):
            path += f".{key}" if path else key
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            path += f"[{key}]"
            value = value[key]
    return path or str(location[0] if location else "the body")


def no_op() -> Any:
    """A field that is accepted whatever it holds."""
    return Field(default=None, description="Accepted, and changes nothing.")


class NoOps(Body):
    """Fields that agents and client libraries send, and that mean nothing to this server."""

    user: Any = no_op()
    store: Any = no_op()
    metadata: Any = no_op()
    service_tier: Any = no_op()
    prompt_cache_key: Any = no_op()
    prompt_cache_retention: Any = no_op()
    safety_identifier: Any = no_op()
    verbosity: Any = no_op()
    request_id: Any = no_op()
    session_id: Any = no_op()
    client_metadata: Any = no_op()
    prediction: Any = no_op()
    spaces_between_special_tokens: Any = no_op()
