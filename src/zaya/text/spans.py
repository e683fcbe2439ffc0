"""Which tokens of a rendered conversation are what, read off the frame tokens.

Text from outside cannot contain frame tokens (see `text.control`), so the frames in the ids are the template's. The
spans of a conversation partition its ids:

- `frame`: bos, turn headers with the thinking opener of an assistant's turn, `<|im_end|>` and the newline after it
- `system`, `user`: bodies of those turns; other roles without a meaning of their own count as `user`
- `thinking`, `answer`, `tool_call`: the body of an assistant's turn
- `tool_response`: one tool's result, tags included

White space after a closing tag belongs to the segment it closes. Source: spec checkpoint-and-model 8, post-training
2.2. Used by `text.chat`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zaya.errors import CheckpointError
from zaya.text.tokenizer import Tokenizer

Kind = Literal["frame", "system", "user", "thinking", "answer", "tool_call", "tool_response"]


_KINDS: dict[str, Kind] = {"system": "system", "tool": "tool_response"}


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, stop) of one kind."""

    kind: Kind
    start: int
    stop: int
    message: int | None
    """Index of the message they come from; None for what the template adds by itself."""


def scan(tokenizer: Tokenizer, ids: list[int], roles: list[str]) -> tuple[list[bool], tuple[Span, ...]]:
    """For each id whether an assistant's turn is to be learned there, and the spans. `roles` are the messages' roles.

    Learned are the bodies of assistant turns behind the opener that the generation prompt provides, and the
    `<|im_end|>` that closes them. Raises CheckpointError where the ids hold no frames.
    """
    scanner = _Scanner(tokenizer, ids, roles)
    starts = [i for i, id in enumerate(ids) if id == tokenizer.tags.turn_open]
    if not starts:
        raise CheckpointError(
            "the chat template writes no turns that begin with the token <|im_start|>",
            hint="tokenizer and template must be those of a ZAYA1 chat model",
        )
    scanner.add("frame", 0, starts[0], None)
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        scanner.turn(start, stop)
    return scanner.trainable, tuple(scanner.spans)


class _Scanner:
    def __init__(self, tokenizer: Tokenizer, ids: list[int], roles: list[str]) -> None:
        self.tokenizer = tokenizer
        self.tags = tokenizer.tags
        self.ids = ids
        self.roles = roles
        self.message = 0
        self.trainable = [False] * len(ids)
        self.spans: list[Span] = []

    def add(self, kind: Kind, start: int, stop: int, message: int | None) -> None:
        if start < stop:
            self.spans.append(Span(kind, start, stop, message))

    def turn(self, start: int, stop: int) -> None:
        """One turn: its header, its body, and what closes it, up to the next turn."""
        body = start + 1
        while body < stop and self.ids[body] != self.tags.turn_close:
            body += 1
            if b"\n" in self.text(body - 1):
                break
        end = self.find(self.tags.turn_close, body, stop)
        role = self.tokenizer.decode(self.ids[start + 1 : body]).strip()
        if role == "assistant":
            message = self.take(role)
            opened, thinks = self.opener(body, end)
            self.add("frame", start, opened, message)
            self.assistant(opened, end, thinks, message)
            for i in range(opened, min(end + 1, stop)):
                self.trainable[i] = True
        elif role == "user" and self.roles[self.message : self.message + 1] == ["tool"]:
            self.add("frame", start, body, self.message)
            message = self.tool_results(body, end)
        else:
            message = self.take(role)
            self.add("frame", start, body, message)
            self.add(_KINDS.get(role, "user"), body, end, message)
        self.add("frame", end, stop, message)

    def take(self, role: str) -> int | None:
        """The next message, if this turn is its turn."""
        if self.message < len(self.roles) and self.roles[self.message] == role:
            self.message += 1
            return self.message - 1
        return None

    def opener(self, at: int, stop: int) -> tuple[int, bool]:
        """The end of what the generation prompt provides, and whether that leaves thinking open.

        It provides `<think>\n`, or the closed pair with its blank line. A token that reaches from it into the text
        counts as provided.
        """
        if at == stop or self.ids[at] != self.tags.think_open:
            return at, False
        at += 1
        if at < stop and self.text(at).startswith(b"\n"):
            at += 1
        if at == stop or self.ids[at] != self.tags.think_close:
            return at, True
        at += 1
        newlines = 0
        while at < stop and newlines < 2 and self.text(at).startswith(b"\n"):
            newlines += len(self.text(at))
            at += 1
        return at, False

    def assistant(self, at: int, stop: int, thinks: bool, message: int | None) -> None:
        tags = self.tags
        close = self.find(tags.think_close, at, stop)
        # an assistant whose text brings its own tags may leave the opening one to the prompt
        if thinks or close < min(self.find(tags.call_open, at, stop), self.find(tags.think_open, at, stop)):
            end = self.skip_space(min(close + 1, stop), stop)
            self.add("thinking", at, end, message)
            at = end
        while at < stop:
            call = self.find(tags.call_open, at, stop)
            self.add("answer", at, call, message)
            at = self.skip_space(min(self.find(tags.call_close, call, stop) + 1, stop), stop)
            self.add("tool_call", call, at, message)

    def tool_results(self, at: int, stop: int) -> int | None:
        tags = self.tags
        message = None
        while at < stop:
            result = self.find(tags.response_open, at, stop)
            self.add("user", at, result, message)
            at = self.skip_space(min(self.find(tags.response_close, result, stop) + 1, stop), stop)
            if result < stop:
                message = self.take("tool")
                self.add("tool_response", result, at, message)
        return message

    def skip_space(self, at: int, stop: int) -> int:
        while at < stop and self.text(at).isspace():
            at += 1
        return at

    def find(self, id: int | None, start: int, stop: int) -> int:
        """The first place of an id in a range, or the end of the range."""
        return next((i for i in range(start, stop) if self.ids[i] == id), stop)

    def text(self, at: int) -> bytes:
        return self.tokenizer.token_bytes(self.ids[at])
