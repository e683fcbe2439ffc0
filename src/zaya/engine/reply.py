"""A completion as it comes from an OpenAI-compatible server, piece by piece.

- **Texts.** Reasoning comes in fields of its own (`reasoning`, or `reasoning_content`), or inside the content of a
  server without a reasoning parser. There it ends at the first closing tag, once; until that is seen nothing is told.
- **Ids** are those that the server says (`token_ids`, as vLLM and SGLang do when asked); else those of the tokens in
  its log-probabilities, where a tokenizer knows each by its bytes; else the texts encoded again, and marked so.
- **Pieces** stand in for ids that nobody can read: the bytes of every token, or the text cut evenly.

Where ids are certain and there is a tokenizer, reasoning and answer are read from them as the engine does it. Used by
`engine.remote`; what is asked is written by `engine.wire`. Imports no torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from zaya.engine.split import split_ids, stop_ids
from zaya.engine.stops import Part, TextStream
from zaya.engine.transport import ServerError
from zaya.engine.types import Completion, FinishReason, Request, SamplingParams
from zaya.engine.wire import may_think
from zaya.errors import UsageError
from zaya.text import Tokenizer, opens_thinking, render, tags

CLOSING = f"\n{tags.THINK_CLOSE}\n\n"
"""What ends a reasoning by force, as the chat template writes it."""

_FINISHED: Mapping[str, FinishReason] = {
    "length": FinishReason.LENGTH,
    "repetition": FinishReason.LENGTH,  # vLLM cuts a text that repeats itself
}
"""Reasons that are not STOP. Servers have many names for that one."""


class Reply:
    """One completion as it comes from a server."""

    def __init__(
        self, request: Request, tokenizer: Tokenizer | None, *, thinks: bool | None = None, has_begun: bool = False
    ) -> None:
        """`thinks`: whether it may begin with reasoning; by default what the request says. `has_begun`: the request
        ends inside an answer, and this is more of it."""
        self.request = request
        self._tokenizer = tokenizer
        self._may_think = may_think(request, tokenizer) if thinks is None else thinks
        self._reasoning, self._answer = Part((), trim_end=True), Part((), trim_end=False)
        if has_begun:
            self._answer.texts.append("")  # so that newlines at its beginning are its own
        self._joints = {True: "", False: ""}
        """Half a character at the end of answer and reasoning: JSON writes some as two."""
        self._is_split = not self._may_think
        """Whether it is known where the answer begins: the server says it, or its closing tag was seen."""
        self._held: list[str] = []
        """Content of which that is not known yet."""
        self._edge = ""
        """Its last characters, which may be the beginning of a tag."""
        self._is_closed = not self._may_think
        self._spoken: list[str] = []
        """The texts of all events, tags included."""
        self._calls: dict[int, dict[str, str]] = {}
        self.ids: list[int] = []
        """As the server says them."""
        self.tokens: list[bytes] = []
        """The bytes of each, as its log-probabilities say."""
        self._prompt_ids: tuple[int, ...] | None = None
        self._usage: Mapping[str, Any] = {}
        self.finish: str | None = None
        """The server's word for why it ended; None while it has not."""
        self._stop_reason: int | str | None = None

    def feed(self, event: Mapping[str, Any]) -> None:
        """Take in an object of the stream, or the whole answer. Raises ServerError for one that makes no sense."""
        try:
            usage = event.get("usage")
            if isinstance(usage, Mapping):
                self._usage = usage
            choice = next(iter(event.get("choices") or ()), None)
            for holder in (event, choice or {}):
                if (ids := holder.get("prompt_token_ids")) is not None:
                    self._prompt_ids = tuple(map(int, ids))
            if choice is not None:
                self._take_choice(choice)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ServerError("garbled", f"an answer that is not OpenAI's: {type(error).__name__} {error}") from None

    def take(self) -> tuple[str, str]:
        """Answer and reasoning that were decided since the last call."""
        return self._answer.take(), self._reasoning.take()

    def completion(self, cancelled: bool = False) -> Completion:
        """All of it. Raises ServerError where the server withholds it or has not come to an end."""
        if not cancelled and self.finish in (None, "abort", "error"):
            raise ServerError("broken_off", f"the server ended without a reason to: {self.finish}")
        if self.finish == "content_filter":
            raise ServerError("withheld", "the server's filter withholds the answer")
        reason = FinishReason.CANCELLED if cancelled else _FINISHED.get(str(self.finish), FinishReason.STOP)
        self._end(reason)
        ids, is_exact = self._known_ids()
        reasoning, text = "".join(self._reasoning.texts), "".join(self._answer.texts)
        prompt_ids = self._prompt()
        reasoning_ids, stop_reason, is_closed = (), self._stop_reason, self._is_closed
        pieces = reasoning_pieces = None
        if is_exact and self._tokenizer is not None:
            _check_tokenizer(self._tokenizer, ids, reasoning + text)
            reasoning_ids, is_closed, _ = split_ids(self._tokenizer, prompt_ids, ids)
            reasoning, text = texts(self._tokenizer, prompt_ids, ids, self.request.params)
            if (
                reason is FinishReason.STOP
                and stop_reason is None
                and ids[-1:]
                and ids[-1] in stop_ids(self._tokenizer)
            ):
                stop_reason = ids[-1]
        else:
            pieces, reasoning_pieces = self._pieces(reasoning, text)
            if is_exact:
                reasoning_ids = ids[: len(reasoning_pieces)]
            elif self._tokenizer is not None:
                ids, reasoning_ids = self._encoded(reasoning, text, reason)
                if not self.tokens:
                    pieces = reasoning_pieces = None
        details = self._usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        return Completion(
            ids=ids,
            text=text,
            reasoning=reasoning,
            finish_reason=reason,
            prompt_ids=prompt_ids,
            stop_reason=stop_reason,
            reasoning_ids=reasoning_ids,
            is_closed=is_closed,
            cached_tokens=_count(cached) or 0,
            is_approximate=not is_exact,
            pieces=pieces,
            reasoning_pieces=reasoning_pieces or (),
            counted_tokens=None if is_exact else self._drawn(),
            counted_prompt_tokens=_count(self._usage.get("prompt_tokens")),
        )

    # ----- as it comes

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        message = choice.get("delta") or choice.get("message") or {}
        thought = message.get("reasoning") or message.get("reasoning_content") or ""
        content = message.get("content") or choice.get("text") or ""
        ids = choice.get("token_ids") or message.get("token_ids") or ()
        self.ids += map(int, ids)
        if isinstance(logprobs := choice.get("logprobs"), Mapping):
            for token in logprobs.get("content") or ():
                spelled = token.get("bytes")
                self.tokens.append(token["token"].encode() if spelled is None else bytes(spelled))
        if thought:
            self._is_split = True
            self._say(thought, is_answer=False)
        if content:
            self._say_content(content)
        if thought or content:
            self._spoken.append(thought + content)
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            known = self._calls.setdefault(int(call.get("index") or 0), {"name": "", "arguments": ""})
            known["name"] += function.get("name") or ""
            known["arguments"] += function.get("arguments") or ""
        if choice.get("finish_reason") is not None:
            self.finish = str(choice["finish_reason"])
            reason = choice.get("stop_reason", choice.get("matched_stop"))
            self._stop_reason = reason if isinstance(reason, int | str) else None

    def _say_content(self, content: str) -> None:
        if self._is_split:
            self._say(content, is_answer=True)
            return
        self._held.append(content)
        window = self._edge + content
        self._edge = window[1 - len(tags.THINK_CLOSE) :]
        if tags.THINK_CLOSE in window:
            thought, _, answer = "".join(self._held).partition(tags.THINK_CLOSE)
            self._is_split = True
            self._say(_without_opening(thought), is_answer=False)
            self._say(answer, is_answer=True)

    def _say(self, text: str, *, is_answer: bool) -> None:
        if is_answer:
            self._is_closed = True
        text = self._joints[is_answer] + text
        is_half = text[-1:] >= "\ud800" and text[-1:] <= "\udbff"
        self._joints[is_answer] = text[-1] if is_half else ""
        text = text[:-1] if is_half else text
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # halves become one
        (self._answer if is_answer else self._reasoning).push(whole.encode())

    def _end(self, reason: FinishReason) -> None:
        """Nothing comes any more: decide what was open."""
        held = "".join(self._held)
        if not self._is_split and held:
            # no closing tag: reasoning that was cut, unless the model has come to an end without any
            is_thought = reason is not FinishReason.STOP or held.lstrip().startswith(tags.THINK_OPEN)
            self._is_split = True
            self._say(_without_opening(held) if is_thought else held, is_answer=not is_thought)
        for index in sorted(self._calls):
            call = self._calls[index]
            self._say(f"\n{tags.CALL_OPEN}\n{_as_json(call)}\n{tags.CALL_CLOSE}", is_answer=True)
        self._is_closed |= reason is FinishReason.STOP and self._is_split
        self._reasoning.finish()
        self._answer.finish()

    # ----- ids and pieces

    def _prompt(self) -> tuple[int, ...]:
        request = self.request
        if request.prompt_ids is not None:
            return tuple(request.prompt_ids)
        if self._prompt_ids is None and self._tokenizer is not None and request.messages is not None:
            rendered = render(self._tokenizer, request.messages, tools=request.tools, enable_thinking=request.thinking)
            return tuple(rendered.ids)
        return self._prompt_ids or ()

    def _known_ids(self) -> tuple[tuple[int, ...], bool]:
        """The ids, and whether they are all that was drawn, as the server's own count has it."""
        counted = _count(self._usage.get("completion_tokens"))
        if self.ids and counted in (None, len(self.ids)):
            return tuple(self.ids), True
        if self.tokens and counted in (None, len(self.tokens)) and self._tokenizer is not None:
            known = _ids_of_bytes(self._tokenizer)
            ids = [known.get(token) for token in self.tokens]
            certain = [id for id in ids if id is not None]
            if len(certain) == len(ids):
                return tuple(certain), True
        return (), not counted and not (self.ids or self.tokens or self._spoken)

    def _drawn(self) -> int:
        """Tokens drawn: the server's count, else the most that speaks for itself."""
        counted = _count(self._usage.get("completion_tokens"))
        if counted is not None:
            return counted
        size = len("".join(self._spoken).encode("utf-8", "replace"))
        # an event is a token or more; where all is in one, four bytes are usual
        return len(self.ids) or len(self.tokens) or max(len(self._spoken), -(-size // 4))

    def _pieces(self, reasoning: str, text: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """What stands for the tokens drawn, and those of it that are reasoning."""
        if self.tokens:
            close = tags.THINK_CLOSE.encode()
            joined, size, at = b"".join(self.tokens), 0, len(self.tokens)
            end = joined.find(close) if self._may_think else -1
            for i, token in enumerate(self.tokens):
                size += len(token)
                if size > (end if end >= 0 else len(reasoning.encode())):
                    at = i
                    break
            return tuple(self.tokens), tuple(self.tokens[:at]) if self._may_think else ()
        total = self._drawn()
        thought = total if not text else round(total * len(reasoning) / len(reasoning + text))
        first = _cut(reasoning, thought if reasoning else 0)
        return (*first, *_cut(text, total - len(first))), first

    def _encoded(self, reasoning: str, text: str, reason: FinishReason) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert self._tokenizer is not None
        thought = self._tokenizer.encode_plain(reasoning)
        closing = self._tokenizer.encode(CLOSING, bos=False) if self._may_think and self._is_closed else []
        end = self._tokenizer.tags.turn_close
        last = [end] if end is not None and reason is FinishReason.STOP else []
        return (*thought, *closing, *self._tokenizer.encode_plain(text), *last), tuple(thought)


def texts(
    tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Sequence[int], params: SamplingParams
) -> tuple[str, str]:
    """Reasoning and answer of ids, up to a stop string."""
    stream = TextStream(tokenizer, in_thinking=opens_thinking(tokenizer, prompt_ids), stop=params.stop)
    for i, id in enumerate(ids):
        if stream.push(id, may_stop=i + 1 >= params.min_tokens) is not None:
            break
    stream.finish()
    return stream.reasoning, stream.answer


def _check_tokenizer(tokenizer: Tokenizer, ids: Sequence[int], said: str) -> None:
    """Ids of another vocabulary would become other words, and nobody would notice."""
    ours, theirs = _letters(tokenizer, tokenizer.decode(ids)), _letters(tokenizer, said)
    size = min(len(ours), len(theirs), 32)
    if ours[:size] != theirs[:size]:
        raise UsageError(
            f"the tokenizer is not that of the server's model: its ids begin with {ours[:size]!r} here, and the server "
            f"says {theirs[:size]!r}",
            hint="give the tokenizer of the model, or none",
        )


def _letters(tokenizer: Tokenizer, text: str) -> str:
    """What of a text all servers write alike: calls, which they take apart, are no part of it."""
    text = text.partition(tags.CALL_OPEN)[0]
    for spelling in tokenizer.control.spellings:
        text = text.replace(spelling, "")
    return "".join(c for c in text[:4096] if c.isascii() and c.isalnum())


@lru_cache(maxsize=4)
def _ids_of_bytes(tokenizer: Tokenizer) -> Mapping[bytes, int]:
    """Tokens by their bytes, as far as no two have the same."""
    known: dict[bytes, int] = {}
    twice: set[bytes] = set()
    for id in range(tokenizer.size):
        spelled = tokenizer.token_bytes(id)
        if spelled in known or not spelled:
            twice.add(spelled)
        known[spelled] = id
    return {spelled: id for spelled, id in known.items() if spelled not in twice}


def _cut(text: str, parts: int) -> tuple[bytes, ...]:
    """A text in as many parts, equally long but for rounding."""
    edges = [len(text) * i // parts for i in range(parts + 1)] if parts else [0]
    return tuple(text[start:stop].encode() for start, stop in itertools.pairwise(edges))


def _without_opening(thought: str) -> str:
    """Reasoning whose opening tag the model wrote itself."""
    stripped = thought.lstrip()
    return stripped.removeprefix(tags.THINK_OPEN) if stripped.startswith(tags.THINK_OPEN) else thought


def _as_json(call: Mapping[str, str]) -> str:
    """A call that the server has taken apart, in the form that `zaya.text.Parser` reads."""
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        arguments = call["arguments"]
    return json.dumps({"name": call["name"], "arguments": arguments}, ensure_ascii=False)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
