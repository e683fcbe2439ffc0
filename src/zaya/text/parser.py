"""What a model wrote, taken apart: thinking, answer, tool calls. One parser, for streams and for whole texts.

Promises, which the tests repeat:

1. However a text is cut, the events, with neighbours of one kind joined, are the same.
2. No part of a tag is given out as text before it is certain that it is none.
3. No thinking or call tag reaches the answer: one that opens or closes nothing is dropped and flagged. Where the
   answer stops at the beginning of a tag and goes on behind something dropped, a blank keeps the two apart.
4. The fragments of one call's arguments, joined, are JSON, and equal to the arguments in the message.
5. The cost of a character does not depend on how many came before.

Text before the first `</think>` is thinking, everything in it included; what follows is the answer. Calls are read in
the XML form (`<function=NAME>` with `<parameter=KEY>` inside), and as one JSON object with name and arguments
(also called parameters) and nothing else.
Values are typed by the tools' schemas (`text.arguments`). A value may hold the tags `</parameter>` and `</function>`:
they close it only where something comes next that may stand behind them. A program that writes files must not find
half of one in its hands. Fed with text from `text.decode.Decoder`, in which tags keep their spelling. Source: spec
checkpoint-and-model 8.5.
Not covered: a value that holds `</zyphra_tool_call>`, or a closing tag and what may come next, ends there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from zaya.text import tags
from zaya.text.arguments import STRING, Types, Unconvertible, canonical, convert, parameter_types


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A fragment of the arguments of a call, in JSON."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A tool call is over. Not `complete` where the text ended inside it."""

    index: int
    complete: bool


Event = Reasoning | Content | CallStart | CallArguments | CallEnd


class Flag(Enum):
    """What was not in order in a model's text."""

    UNFINISHED_THINKING = auto()
    """The text ended inside the thinking."""
    STRAY_TAG = auto()
    """A tag stood where it opens or closes nothing, such as a second `</think>`. It was dropped."""
    UNCLOSED_CALL = auto()
    """A tool call lacks closing tags, at the end of the text or before something else. Its arguments may be cut."""
    MALFORMED_CALL = auto()
    """Tool-call tags around something that is no call (given out as content), or strange text inside a call."""
    UNCONVERTED_ARGUMENT = auto()
    """A parameter's text is no value of its declared type; it was kept as a string."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call a model made."""

    name: str
    arguments: dict[str, Any]
    complete: bool = True
    """Whether the model finished it. One that is not must not be carried out."""


@dataclass(frozen=True, slots=True)
class Message:
    """An assistant's turn."""

    reasoning: str = ""
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    flags: frozenset[Flag] = frozenset()

    def as_chat(self) -> dict[str, Any]:
        """As a message for `zaya.text.render`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


def parse(text: str, *, in_thinking: bool = False, tools: Sequence[Mapping[str, Any]] | None = None) -> Message:
    """A whole text taken apart. `in_thinking` and `tools` as for `Parser`."""
    parser = Parser(in_thinking=in_thinking, tools=tools)
    parser.feed(text)
    parser.finish()
    return parser.message()


class _State(Enum):
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()
    """Inside call tags; the form is not known yet."""
    OTHER = auto()
    """Inside call tags, and not in the XML form: JSON, or no call at all."""
    NAME = auto()
    FUNCTION = auto()
    KEY = auto()
    VALUE = auto()
    CLOSING = auto()
    """Behind a tag that closes the value, or is text in it: what comes next tells."""
    CALLED = auto()
    """Behind `</function>`: what comes next tells whether the call is closed."""


_CONTENT_TAGS = (tags.THINK_OPEN, tags.THINK_CLOSE, tags.CALL_OPEN, tags.CALL_CLOSE)
_WANTED = {
    _State.THINKING: (tags.THINK_OPEN, tags.THINK_CLOSE),
    _State.CONTENT: _CONTENT_TAGS,
    _State.CALL: (tags.FUNCTION_OPEN, tags.CALL_OPEN, tags.CALL_CLOSE),
    _State.OTHER: (tags.CALL_OPEN, tags.CALL_CLOSE),
    _State.NAME: (">", tags.CALL_OPEN, tags.CALL_CLOSE),
    _State.FUNCTION: (tags.PARAMETER_OPEN, tags.FUNCTION_CLOSE, tags.CALL_OPEN, tags.CALL_CLOSE),
    _State.KEY: (">",),
    _State.VALUE: (tags.PARAMETER_CLOSE, tags.FUNCTION_CLOSE, tags.CALL_CLOSE),
    _State.CLOSING: (
        tags.PARAMETER_OPEN, tags.PARAMETER_CLOSE, tags.FUNCTION_OPEN, tags.FUNCTION_CLOSE, tags.CALL_OPEN,
        tags.CALL_CLOSE,
    ),
    _State.CALLED: (*_CONTENT_TAGS, tags.FUNCTION_OPEN),
}  # fmt: skip
"""The tags that mean something in a state; all else is its text. Each begins with `<` and holds no other, or is `>`."""
_PATTERNS = {state: re.compile("|".join(map(re.escape, wanted))) for state, wanted in _WANTED.items()}
_BEHIND = {
    tags.PARAMETER_CLOSE: (
        tags.PARAMETER_OPEN, tags.FUNCTION_OPEN, tags.FUNCTION_CLOSE, tags.CALL_OPEN, tags.CALL_CLOSE,
    ),
    tags.FUNCTION_CLOSE: (tags.FUNCTION_OPEN, tags.CALL_OPEN, tags.CALL_CLOSE),
}  # fmt: skip
"""What comes next where a tag closes a value, white space aside."""
_NAME = re.compile(r"\s*([^\s<>]+)\s*")


def _unfinished(text: str, start: int, wanted: tuple[str, ...]) -> int:
    """Where the beginning of a tag stands at the end of the text, behind `start`; the length of the text if nowhere."""
    at = text.rfind("<", start)
    return at if at >= 0 and any(tag.startswith(text[at:]) for tag in wanted) else len(text)


@dataclass(slots=True)
class _Prose:
    """A running text that gives back what of it is certain: newlines wait for what follows them.

    Those before a tag, and behind one at the beginning, belong to the form and are dropped.
    """

    trim: bool
    """Whether newlines at the beginning are dropped."""
    parts: list[str] = field(default_factory=list)
    newlines: int = 0
    """Newlines that wait."""
    followed: bool = False
    """A tag came after the last of the text."""

    def take(self, text: str) -> str:
        if self.trim and not self.parts:
            text = text.lstrip("\n")
        body = text.rstrip("\n")
        trailing = len(text) - len(body)
        if not body:
            self.newlines += trailing
            return ""
        body = self._gap(body) + body
        self.newlines, self.followed = trailing, False
        self.parts.append(body)
        return body

    def _gap(self, text: str) -> str:
        """What stands before the next text: newlines, or else a blank where the two sides of a tag could form another.

        No tag holds white space.
        """
        if self.followed and self.parts and not self.newlines and not text.startswith("\n"):
            last = self.parts[-1]
            return " " if _unfinished(last, 0, _CONTENT_TAGS) < len(last) else ""
        return "\n" * self.newlines

    def tag(self) -> None:
        self.trim = self.followed = True
        if not self.parts:
            self.newlines = 0

    def end(self) -> str:
        rest = "" if self.followed else "\n" * self.newlines
        self.newlines = 0
        self.parts.append(rest)
        return rest


@dataclass(slots=True)
class _Call:
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    complete: bool = False


class Parser:
    """Takes a model's text apart while it arrives."""

    def __init__(self, *, in_thinking: bool, tools: Sequence[Mapping[str, Any]] | None = None) -> None:
        """`in_thinking`: the prompt ended inside `<think>` (`zaya.text.opens_thinking` tells). `tools`: what the model
        was offered, for the types of arguments; without it every argument is a string. Raises UsageError for tools of
        an unknown shape.
        """
        self._types = parameter_types(tools)
        self._state = _State.THINKING if in_thinking else _State.CONTENT
        self._may_think = not in_thinking
        self._buffer = ""
        self._events: list[Event] = []
        self._flags: set[Flag] = set()
        self._reasoning = _Prose(trim=True)
        self._content = _Prose(trim=in_thinking)
        self._calls: list[_Call] = []
        # what is being collected: a call of unknown form, a name, a key, or a value
        self._parts: list[str] = []
        self._key = ""
        self._key_types: Types = STRING
        self._value_began = False
        self._value_newline = False  # it began with a newline that is no \r\n
        self._value_held = ""  # a newline, or the \r of one, that waits for what follows
        self._parts_behind: list[str] = []  # the closing tag and the white space that wait, while CLOSING

    def feed(self, text: str) -> list[Event]:
        """The events that this piece of text decides."""
        buffer, at = self._buffer + text, 0
        while match := _PATTERNS[self._state].search(buffer, at):
            self._text(buffer[at : match.start()])
            at = match.end()
            self._tag(match[0])
        hold = _unfinished(buffer, at, _WANTED[self._state])
        self._buffer = buffer[hold:]
        self._text(buffer[at:hold])
        return self._decided()

    def finish(self) -> list[Event]:
        """The events that the end of the text decides. Nothing may be fed after it."""
        if self._state is _State.CLOSING:
            self._close_value()
        elif self._state is not _State.VALUE:  # there, the beginning of a closing tag is one that was cut off
            self._text(self._buffer)
        self._buffer = ""
        match self._state:
            case _State.THINKING:
                self._flags.add(Flag.UNFINISHED_THINKING)
                self._say(Reasoning, self._reasoning.end())
            case _State.CONTENT:
                self._say(Content, self._content.end())
            case _State.CALL | _State.OTHER:
                self._flags.add(Flag.UNCLOSED_CALL)
                self._json_call()
            case _State.NAME | _State.CALLED:
                self._flags.add(Flag.UNCLOSED_CALL)
            case _State.FUNCTION | _State.KEY:
                self._end_call(complete=False)
            case _State.VALUE:
                self._end_value()
                self._end_call(complete=False)
        return self._decided()

    def message(self) -> Message:
        """Everything decided so far; the whole turn after `finish`."""
        return Message(
            reasoning="".join(self._reasoning.parts),
            content="".join(self._content.parts),
            tool_calls=tuple(ToolCall(call.name, dict(call.arguments), call.complete) for call in self._calls),
            flags=frozenset(self._flags),
        )

    def _decided(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _text(self, text: str) -> None:
        """Text of the present state, free of its tags."""
        match self._state:
            case _ if not text:
                pass
            case _State.THINKING:
                self._say(Reasoning, self._reasoning.take(text))
            case _State.CONTENT:
                self._say(Content, self._content.take(text))
            case _State.CALL:
                if self._parts or (text := text.lstrip()):
                    if not self._parts and text.startswith("{"):
                        self._state = _State.OTHER
                    self._parts.append(text)
            case _State.OTHER | _State.NAME | _State.KEY:
                self._parts.append(text)
            case _State.FUNCTION:
                if text.strip():
                    self._flags.add(Flag.MALFORMED_CALL)
            case _State.VALUE:
                self._value(text)
            case _State.CLOSING:
                self._parts_behind.append(text)
                if not text.isspace():
                    self._go_on_with_value()
            case _State.CALLED:
                if text := text.lstrip():
                    self._flags.add(Flag.UNCLOSED_CALL)
                    self._state = _State.CONTENT
                    self._text(text)

    def _tag(self, tag: str) -> None:
        if tag not in _WANTED[self._state]:  # found for a state that the text before it has ended
            self._text(tag)
            return
        match self._state:
            case _State.THINKING:
                self._thinking_tag(tag)
            case _State.CONTENT:
                self._content_tag(tag)
            case _State.CALL | _State.OTHER:
                self._call_tag(tag)
            case _State.NAME:
                self._name_tag(tag)
            case _State.FUNCTION:
                self._function_tag(tag)
            case _State.KEY:
                self._start_value("".join(self._parts).strip())
            case _State.VALUE:
                self._parts_behind = [tag]
                if tag == tags.CALL_CLOSE:
                    self._close_value()
                else:
                    self._state = _State.CLOSING
            case _State.CLOSING:
                first = self._parts_behind[0]
                if tag == first == tags.PARAMETER_CLOSE:  # one too many, or both are text
                    self._parts_behind.append(tag)
                    return
                if tag in _BEHIND[first]:
                    self._close_value()
                else:
                    self._go_on_with_value()
                self._tag(tag)
            case _State.CALLED:
                self._called_tag(tag)

    def _thinking_tag(self, tag: str) -> None:
        if tag == tags.THINK_CLOSE:
            self._content.tag()
            self._state = _State.CONTENT
        elif self._reasoning.parts:  # a tag the thinking talks about; at its beginning, a repetition
            self._text(tag)

    def _content_tag(self, tag: str) -> None:
        began = bool(self._content.parts)
        self._content.tag()
        if tag == tags.CALL_OPEN:
            self._collect(_State.CALL)
        elif tag == tags.THINK_OPEN and self._may_think and not began:
            self._may_think = False
            self._state = _State.THINKING
        else:
            self._flags.add(Flag.STRAY_TAG)

    def _call_tag(self, tag: str) -> None:
        if tag == tags.FUNCTION_OPEN:
            if self._state is _State.OTHER:  # inside a string of the JSON form
                self._parts.append(tag)
                return
            if self._parts:
                self._flags.add(Flag.MALFORMED_CALL)
            self._collect(_State.NAME)
            return
        if not self._json_call():
            self._flags.add(Flag.MALFORMED_CALL)
            for text in _PATTERNS[_State.CONTENT].split("".join(self._parts).strip()):
                self._say(Content, self._content.take(text))
                self._content.tag()
        if tag == tags.CALL_OPEN:
            self._flags.add(Flag.UNCLOSED_CALL)
            self._collect(_State.CALL)
        else:
            self._state = _State.CONTENT

    def _name_tag(self, tag: str) -> None:
        if tag == ">" and (name := _NAME.fullmatch("".join(self._parts))):
            self._start_call(name[1])
            self._state = _State.FUNCTION
            return
        self._flags.add(Flag.MALFORMED_CALL)
        self._parts.insert(0, tags.FUNCTION_OPEN)
        self._state = _State.OTHER
        if tag == ">":
            self._parts.append(tag)
        else:
            self._call_tag(tag)

    def _function_tag(self, tag: str) -> None:
        match tag:
            case tags.PARAMETER_OPEN:
                self._collect(_State.KEY)
            case tags.FUNCTION_CLOSE:
                self._end_call(complete=True)
                self._state = _State.CALLED
            case tags.CALL_CLOSE | tags.CALL_OPEN:
                self._flags.add(Flag.UNCLOSED_CALL)
                self._end_call(complete=True)
                self._state = _State.CONTENT
                if tag == tags.CALL_OPEN:
                    self._content_tag(tag)

    def _called_tag(self, tag: str) -> None:
        if tag == tags.FUNCTION_OPEN:
            self._collect(_State.NAME)
            return
        self._state = _State.CONTENT
        if tag != tags.CALL_CLOSE:
            self._flags.add(Flag.UNCLOSED_CALL)
            self._content_tag(tag)

    def _collect(self, state: _State) -> None:
        self._state = state
        self._parts = []

    def _say(self, kind: type[Reasoning] | type[Content], text: str) -> None:
        if text:
            self._events.append(kind(text))

    def _start_call(self, name: str) -> None:
        self._events.append(CallStart(len(self._calls), name))
        self._calls.append(_Call(name))

    def _write(self, fragment: str) -> None:
        self._events.append(CallArguments(len(self._calls) - 1, fragment))

    def _end_call(self, *, complete: bool) -> None:
        call = self._calls[-1]
        call.complete = complete
        if not complete:
            self._flags.add(Flag.UNCLOSED_CALL)
        self._write("}" if call.arguments else "{}")
        self._events.append(CallEnd(len(self._calls) - 1, complete))

    def _start_value(self, key: str) -> None:
        call = self._calls[-1]
        self._key = key
        self._key_types = self._types.get((call.name, key), STRING)
        self._collect(_State.VALUE)
        self._value_began = self._value_newline = False
        self._value_held = ""
        opening = ("," if call.arguments else "{") + json.dumps(key, ensure_ascii=False) + ":"
        self._write(opening + ('"' if self._key_types == STRING else ""))

    def _value(self, text: str) -> None:
        text = self._value_held + text
        if not self._value_began and text != "\r":
            self._value_began = True
            self._value_newline = text.startswith("\n")
            text = text.removeprefix("\n" if self._value_newline else "\r\n")
        body = text.removesuffix("\n")  # the last newline belongs to the closing tag
        if not self._value_newline:  # where the first is a bare one, a \r before the last is the value's
            body = body.removesuffix("\r")
        self._value_held = text[len(body) :]
        self._value_part(body)

    def _value_part(self, text: str) -> None:
        if text:
            self._parts.append(text)
            if self._key_types == STRING:
                self._write(json.dumps(text, ensure_ascii=False)[1:-1])

    def _end_value(self) -> None:
        if self._value_held == "\r":  # no newline came after it
            self._value_part("\r")
        text = "".join(self._parts)
        try:
            value = convert(text, self._key_types)
        except Unconvertible:
            self._flags.add(Flag.UNCONVERTED_ARGUMENT)
            value = text
        self._calls[-1].arguments[self._key] = value
        self._write('"' if self._key_types == STRING else json.dumps(value, ensure_ascii=False))

    def _close_value(self) -> None:
        """The closing tag is one."""
        tag, *behind = self._parts_behind
        if tag in behind:
            self._flags.add(Flag.MALFORMED_CALL)
        self._end_value()
        self._state = _State.FUNCTION
        if tag != tags.PARAMETER_CLOSE:
            self._flags.add(Flag.UNCLOSED_CALL)
            self._function_tag(tag)

    def _go_on_with_value(self) -> None:
        """The closing tag was text."""
        self._state = _State.VALUE
        self._value("".join(self._parts_behind))

    def _json_call(self) -> bool:
        """A call from the collected text, if that is `{"name": ..., "arguments": {...}}`."""
        try:
            match canonical(json.loads("".join(self._parts))):
                case {"name": str() as written, "arguments": arguments, **others}:
                    pass
                case {"name": str() as written, "parameters": arguments, **others}:
                    pass
                case {"name": str() as written, **others}:
                    arguments = {}
                case _:
                    return False
            if isinstance(arguments, str):
                arguments = canonical(json.loads(arguments))
        except (ValueError, TypeError, RecursionError):
            return False
        name = _NAME.fullmatch(written)
        if name is None or not isinstance(arguments, dict) or others:
            return False
        self._start_call(name[1])
        self._calls[-1].arguments = arguments
        if arguments:
            self._write(json.dumps(arguments, ensure_ascii=False)[:-1])
        self._end_call(complete=True)
        return True
