"""One assistant's turn as OpenAI's messages have it: reasoning, content, tool calls; in pieces, and as a whole.

A stream and a whole answer are one thing here: the message of an answer is its pieces put together. A call that was cut
keeps arguments that are no JSON, as far as they go, so that nobody carries out half a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zaya.engine.types import FinishReason
from zaya.serve.telling import new_id
from zaya.text import CallArguments, CallEnd, CallStart, Content, Event, Parser, Reasoning

Piece = dict[str, Any]
"""What a stream calls a delta: `reasoning`, `content`, `tool_calls`, each where there is something new of it."""


class Turn:
    """Reads one choice."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] | None, *, with_reasoning: bool = True) -> None:
        """Without tools text is text, whatever it looks like."""
        self._parser = Parser(in_thinking=False, tools=tools) if tools else None
        self._with_reasoning = with_reasoning
        self._completed = 0
        """Calls that may be carried out."""

    def feed(self, reasoning: str, text: str) -> Piece:
        """What more of the reasoning and of the answer there is, as a piece; empty where nothing is decided."""
        return self._piece(self._read(reasoning, text))

    def feed_each(self, reasoning: str, text: str) -> list[Piece]:
        """The same with a piece for each thing, in their order."""
        return [piece for event in self._read(reasoning, text) if (piece := self._piece([event]))]

    def _read(self, reasoning: str, text: str) -> list[Event]:
        events: list[Event] = [Reasoning(reasoning)] if reasoning else []
        if self._parser is None:
            return [*events, Content(text)] if text else events
        return [*events, *self._parser.feed(text)]

    def finish(self) -> Piece:
        """What the end decides."""
        if self._parser is None:
            return {}
        events = self._parser.finish()
        # the parser closes the arguments of a call that was cut, so that they can be read; here they must not be
        cut = {event.index for event in events if isinstance(event, CallEnd) and not event.complete}
        return self._piece(e for e in events if not (isinstance(e, CallArguments) and e.index in cut))

    def finish_reason(self, reason: FinishReason) -> str:
        """In OpenAI's words."""
        if reason is FinishReason.STOP and self._completed:
            return "tool_calls"
        return {FinishReason.LENGTH: "length", FinishReason.CANCELLED: "abort"}.get(reason, "stop")

    def _piece(self, events: Iterable[Event]) -> Piece:
        reasoning, content, calls = "", "", {}
        for event in events:
            match event:
                case Reasoning(text):
                    reasoning += text
                case Content(text):
                    content += text
                case CallStart(index, name):
                    function = {"name": name, "arguments": ""}
                    calls[index] = {"index": index, "id": new_id("call_"), "type": "function", "function": function}
                case CallArguments(index, text):
                    call = calls.setdefault(index, {"index": index, "function": {"arguments": ""}})
                    call["function"]["arguments"] += text
                case CallEnd(_, complete):
                    self._completed += complete
        piece: Piece = {}
        if reasoning and self._with_reasoning:
            piece |= {"reasoning": reasoning, "reasoning_content": reasoning}  # clients read the one or the other
        if content:
            piece["content"] = content
        if calls:
            piece["tool_calls"] = list(calls.values())
        return piece


def message(pieces: Iterable[Piece]) -> dict[str, Any]:
    """The whole turn."""
    reasoning, content, calls = "", "", {}
    for piece in pieces:
        reasoning += piece.get("reasoning", "")
        content += piece.get("content", "")
        for call in piece.get("tool_calls", ()):
            if call["index"] in calls:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            else:
                calls[call["index"]] = {**call, "function": dict(call["function"])}
    whole: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
    if reasoning:
        whole |= {"reasoning": reasoning, "reasoning_content": reasoning}
    if calls:
        whole["tool_calls"] = [{key: value for key, value in call.items() if key != "index"} for call in calls.values()]
    return whole
