"""Text from ids as they are drawn: what of it is decided, and where a stop string ends it.

    text = TextStream(tokenizer, in_thinking=True, stop=("END",))
    for id in ids:
        if (stop := text.push(id)) is not None: ...     # the text ends before this stop string
    text.finish()
    text.reasoning, text.answer

1. Without stop strings the texts of all ids are those of `engine.split.split`: the first closing tag parts reasoning
   from answer, control tokens are no text, newlines around the reasoning and before the answer belong to the form.
2. Stop strings are looked for in bytes, in reasoning and answer alike, so it does not matter how tokens cut the text.
   The first to be complete ends it, and of those that end together the longest. One that has begun in the reasoning
   does not go on in the answer. Newlines that belong to the form of a beginning are no stop string by themselves.
3. Text is given out once it cannot change any more: what may become a stop string, a character that is not complete,
   and newlines that may turn out to be the last of the reasoning wait.

A stream and a whole text are one thing here, so they agree. Held by engine.state. Imports no torch.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from zaya.engine.split import call_tags
from zaya.errors import UsageError
from zaya.text import Tokenizer


class TextStream:
    """Reasoning and answer of one completion, as far as they are decided."""

    def __init__(self, tokenizer: Tokenizer, *, in_thinking: bool, stop: Sequence[str] = ()) -> None:
        """`in_thinking`: the prompt ended inside `<think>`. Raises UsageError for a stop string that is not Unicode."""
        self._tokenizer = tokenizer
        self._calls = call_tags(tokenizer)
        self._reasoning = Part(stop, trim_end=True)
        self._answer = Part(stop, trim_end=False)
        self._part = self._reasoning if in_thinking else self._answer

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning.texts)

    @property
    def answer(self) -> str:
        return "".join(self._answer.texts)

    def push(self, id: int, *, may_stop: bool = True) -> str | None:
        """Add a token. Returns the stop string that it makes complete; nothing may be pushed after that.

        With `may_stop` False such a stop string is text like any other.
        """
        if id == self._tokenizer.tags.think_close and self._part is self._reasoning:
            self._part.finish()
            self._part = self._answer
        elif id in self._calls or id not in self._tokenizer.control_ids:
            return self._part.push(self._tokenizer.token_bytes(id), may_stop)
        return None

    def push_all(self, ids: Sequence[int]) -> None:
        """Add tokens of a text without stop strings."""
        close, control, data = self._tokenizer.tags.think_close, self._tokenizer.control_ids, []
        for id in ids:
            if id == close and self._part is self._reasoning:
                self._part.push(b"".join(data))
                data = []
                self._part.finish()
                self._part = self._answer
            elif id not in control or id in self._calls:
                data.append(self._tokenizer.token_bytes(id))
        self._part.push(b"".join(data))

    def finish(self) -> None:
        """Nothing comes any more, so what was waiting is decided. Does nothing the second time."""
        self._part.finish()

    def take(self) -> tuple[str, str]:
        """Reasoning and answer that were decided since the last call."""
        return self._reasoning.take(), self._answer.take()


class Part:
    """The reasoning, or the answer: from bytes to text that is decided. `trim_end`: it is the reasoning."""

    def __init__(self, stop: Sequence[str], *, trim_end: bool) -> None:
        self.texts: list[str] = []
        self._taken = 0
        self._matchers = [_Matcher(text) for text in stop]
        self._pending = bytearray()
        """Bytes at the end that may become a stop string."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._trim_end = trim_end
        self._newlines = 0
        """Newlines that wait for what follows them."""
        self._has_begun = False
        """Whether there was a byte that is not a newline."""

    def push(self, data: bytes, may_stop: bool = True) -> str | None:
        if not self._matchers:
            self._say(self._utf8.decode(data))
            return None
        for byte in data:
            self._pending.append(byte)
            self._has_begun |= byte != 0x0A
            complete = [matcher for matcher in self._matchers if matcher.step(byte)]
            if complete and may_stop and self._has_begun:
                longest = max(complete, key=lambda matcher: len(matcher.data))
                del self._pending[-len(longest.data) :]
                self.finish()
                return longest.text
        decided = len(self._pending) - max(matcher.length for matcher in self._matchers)
        self._say(self._utf8.decode(bytes(self._pending[:decided])))
        del self._pending[:decided]
        return None

    def finish(self) -> None:
        self._say(self._utf8.decode(bytes(self._pending), final=True))
        self._pending.clear()

    def take(self) -> str:
        new = "".join(self.texts[self._taken :])
        self._taken = len(self.texts)
        return new

    def _say(self, text: str) -> None:
        if not self.texts:
            text = text.lstrip("\n")
        if self._trim_end:
            text = "\n" * self._newlines + text
            body = text.rstrip("\n")
            self._newlines = len(text) - len(body)
            text = body
        if text:
            self.texts.append(text)


class _Matcher:
    """How much of a string the bytes so far end in (Knuth, Morris and Pratt), in constant time a byte."""

    def __init__(self, text: str) -> None:
        try:
            self.data = text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"a stop string must not hold lone surrogates: {text!r}") from error
        self.text = text
        self.length = 0
        """Bytes of a match under way; a complete one counts as the longest that may still go on from it."""
        self._shorter = [0]  # behind a match of i + 1 bytes, the next shorter one that the same bytes end in
        for byte in self.data[1:]:
            self._shorter.append(self._after(self._shorter[-1], byte))

    def step(self, byte: int) -> bool:
        """Take a byte; whether it completes the string."""
        self.length = self._after(self.length, byte)
        if self.length < len(self.data):
            return False
        self.length = self._shorter[-1]
        return True

    def _after(self, length: int, byte: int) -> int:
        while length and self.data[length] != byte:
            length = self._shorter[length - 1]
        return length + (self.data[length] == byte)
