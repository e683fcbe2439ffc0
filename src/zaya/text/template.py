"""Runs chat templates: untrusted Jinja programs that come with a checkpoint and turn messages into text.

The environment offers what transformers offers (trimmed blocks, plain `tojson`, `raise_exception`, `strftime_now`,
loop controls, `generation` blocks). A template gives the same text in both, unless it looks closely at strings that
spell control tokens or parts of them: `text.control` lists what it then sees differently. It is sandboxed: a template
sees plain data and cannot reach Python's internals or change its input. A template that runs forever is not stopped.
Source: spec checkpoint-and-model 8. Used by `text.chat`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from zaya.errors import CheckpointError, UsageError
from zaya.text.control import RESERVED

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.runtime import Context

DEFAULT_TEMPLATE = files("zaya.text").joinpath("default.jinja").read_text(encoding="utf-8")
"""Our own template of the format in spec 8, for tokenizers that have none."""

_PLAIN = "plain text"
"""The variable with the way from stand-ins to text. No template can name it, for the blank in it."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A compiled template."""

    words: frozenset[str]
    """Every string and attribute the template's code names, tags aside: what it may look up or compare."""
    _compiled: Template

    def render(self, variables: Mapping[str, object], plain: Callable[[str], str] = str) -> str:
        """The text the template makes of its variables. Raises UsageError where it fails on them or refuses them.

        `plain` gives the text of a string with stand-ins, by which keys are sorted.
        """
        try:
            return self._compiled.render({**variables, _PLAIN: plain})
        except Refused as error:
            raise UsageError(f"the chat template refuses these messages: {error}") from error
        except RecursionError as error:
            message = "the chat template fails on these messages: it or what it is given is nested too deeply"
            raise UsageError(message) from error
        except Exception as error:  # a template is a program, it can fail in any way
            message = f"the chat template fails on these messages: {type(error).__name__}: {error}"
            raise UsageError(message) from error


class Refused(Exception):
    """A template called `raise_exception`."""


@lru_cache(maxsize=16)
def compile_template(source: str) -> ChatTemplate:
    """A chat template made ready to run.

    Raises CheckpointError where it is not valid Jinja, cannot be compiled, or holds a character kept for stand-ins.
    """
    from jinja2 import TemplateSyntaxError, nodes, pass_context
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a model wrote. We find that out from the tokens; here it is only a scope."""

        tags = {"generation"}  # noqa: RUF012 - the base class declares it so

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = pass_context(_tojson)
    env.filters["dictsort"] = pass_context(_dictsort)
    env.globals["raise_exception"] = _refuse
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        tree = env.parse(source)
        compiled = env.from_string(source)
        words = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        words |= {node.attr for node in tree.find_all(nodes.Getattr)}
    except TemplateSyntaxError as error:
        raise CheckpointError(f"the chat template is not valid Jinja, line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise CheckpointError("the chat template cannot be compiled: it is nested too deeply") from error
    except Exception as error:  # what Jinja lets through, Python's compiler may still refuse in any way
        message = f"the chat template cannot be compiled: {type(error).__name__}: {error}"
        raise CheckpointError(message) from error
    if found := RESERVED.search("".join([source, *words])):
        raise CheckpointError(
            f"the chat template cannot hold U+{ord(found[0]):X}",
            hint="U+20000 to U+2A3FF stand for control tokens in the messages while a template runs",
        )
    return ChatTemplate(frozenset(word for word in words if not word.startswith(("<", ">"))), compiled)


def _refuse(message: str) -> None:
    raise Refused(message)


def _tojson(
    context: Context,
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which no model was trained on.
    if sort_keys:
        value = _sorted(value, context[_PLAIN])
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)
    # Stand-ins must come out as themselves. Every escape is matched, so that none is found inside of another.
    return _ESCAPE.sub(lambda match: json.loads(f'"{match[0]}"') if match[1] else match[0], text)


_ESCAPE = re.compile(r"\\(?:(ud8(?:[45].|6[0-8])\\ud[c-f]..)|.)")
"""An escape in JSON; the group matches for characters that may be stand-ins."""


def _sorted(value: object, plain: Callable[[str], str]) -> object:
    match value:
        case dict():
            items = sorted(value.items(), key=lambda item: _sort_key(item[0], plain))
            return {key: _sorted(inner, plain) for key, inner in items}
        case list() | tuple():
            return [_sorted(inner, plain) for inner in value]
    return value


def _dictsort(
    context: Context,
    value: Mapping[object, object],
    case_sensitive: bool = False,
    by: str = "key",
    reverse: bool = False,
) -> list[tuple[object, object]]:
    # As Jinja's own, but by the text that stand-ins stand for.
    at = ("key", "value").index(by)

    def order(item: tuple[object, object]) -> Any:
        key = _sort_key(item[at], context[_PLAIN])
        return key.lower() if isinstance(key, str) and not case_sensitive else key

    return sorted(value.items(), key=order, reverse=reverse)


def _sort_key(value: object, plain: Callable[[str], str]) -> Any:
    return plain(value) if isinstance(value, str) else value
