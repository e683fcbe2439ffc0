"""The only place where messages become token ids, and token ids become messages. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zaya.text.chat import Rendered, opens_thinking, render, render_next
    from zaya.text.decode import Decoder
    from zaya.text.micro import byte_tokenizer, train_tokenizer
    from zaya.text.parser import (
        CallArguments,
        CallEnd,
        CallStart,
        Content,
        Event,
        Flag,
        Message,
        Parser,
        Reasoning,
        ToolCall,
        parse,
    )
    from zaya.text.spans import Span
    from zaya.text.tokenizer import Tokenizer, load_tokenizer

_HOMES = {
    "CallArguments": "parser",
    "CallEnd": "parser",
    "CallStart": "parser",
    "Content": "parser",
    "Decoder": "decode",
    "Event": "parser",
    "Flag": "parser",
    "Message": "parser",
    "Parser": "parser",
    "Reasoning": "parser",
    "Rendered": "chat",
    "Span": "spans",
    "ToolCall": "parser",
    "Tokenizer": "tokenizer",
    "byte_tokenizer": "micro",
    "load_tokenizer": "tokenizer",
    "opens_thinking": "chat",
    "parse": "parser",
    "render": "chat",
    "render_next": "chat",
    "train_tokenizer": "micro",
}

__all__ = [
    "CallArguments",
    "CallEnd",
    "CallStart",
    "Content",
    "Decoder",
    "Event",
    "Flag",
    "Message",
    "Parser",
    "Reasoning",
    "Rendered",
    "Span",
    "Tokenizer",
    "ToolCall",
    "byte_tokenizer",
    "load_tokenizer",
    "opens_thinking",
    "parse",
    "render",
    "render_next",
    "train_tokenizer",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"zaya.text.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'zaya.text' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
