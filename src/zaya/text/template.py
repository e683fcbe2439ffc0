"""Runs chat templates: untrusted Jinja programs that come with a checkpoint and turn messages into text.

The environment offers what transformers offers (trimmed blocks, plain `tojson`, `raise_exception`, `strftime_now`,
loop controls, `generation` blocks), so a template gives the same text in both. It is sandboxed: a template sees plain
data and cannot reach Python's internals or change its input. A template that runs forever is not stopped.
Source: spec checkpoint-and-model 8. Used by `text.chat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from zaya.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from jinja2 import Template

DEFAULT_TEMPLATE = files("zaya.text").joinpath("default.jinja").read_text(encoding="utf-8")
"""Our own template of the format in spec 8, for tokenizers that have none."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A compiled template."""

    words: frozenset[str]
    """Every string and attribute the template's code names, tags aside: what it may look up or compare."""
    _compiled: Template

    def render(self, variables: Mapping[str, object]) -> str:
        """The text the template makes of its variables. Raises UsageError where it fails on them or refuses them."""
        try:
            return self._compiled.render(variables)
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
    """A chat template made ready to run. Raises CheckpointError where it is not valid Jinja or cannot be compiled."""
    from jinja2 import TemplateSyntaxError, nodes
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
    env.filters["tojson"] = _tojson
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
    return ChatTemplate(frozenset(word for word in words if not word.startswith(("<", ">"))), compiled)


def _refuse(message: str) -> None:
    raise Refused(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
