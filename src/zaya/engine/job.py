"""One completion that a server is asked for: what has come, what was told of it, what it goes on from.

It takes one request to the server or, where reasoning is closed from here, two. Kept by `engine.remote`. Imports no
torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zaya.engine.handle import RequestHandle
from zaya.engine.reply import Reply, texts
from zaya.engine.types import Completion, Delta, FinishReason, Request
from zaya.text import Tokenizer


@dataclass(slots=True, eq=False)
class Job:
    """One completion under way."""

    request: Request
    index: int
    handle: RequestHandle
    reply: Reply | None = None
    """What has come of the request under way; None while nothing has."""
    told: int = 0
    """Ids of it that were handed out."""
    has_told: bool = False
    """Whether anything of it was."""
    before: Completion | None = None
    """What the request under way goes on from."""
    closing: str = ""
    closing_ids: tuple[int, ...] = ()
    """What was put between the two."""

    def begin(self, request: Request, tokenizer: Tokenizer | None) -> Reply:
        """Listen to the answer to a request."""
        before = self.before
        self.reply = Reply(
            request,
            tokenizer,
            thinks=None if before is None else False,
            has_begun=before is not None and not self.closing,
        )
        return self.reply

    def begin_anew(self) -> bool:
        """Whether the request under way may be made again: not once somebody has seen some of what came."""
        if self.has_told and (self.before is not None or not self.handle.take_back(self.index)):
            return False
        self.reply, self.told, self.has_told = None, 0, False
        return True

    def tell(self, finish_reason: FinishReason | None = None) -> None:
        """Hand out what is new."""
        if not self.handle.wants_deltas:
            return
        (text, reasoning), ids = ("", ""), ()
        if self.reply is not None:
            (text, reasoning), ids = self.reply.take(), tuple(self.reply.ids[self.told :])
        self.told += len(ids)
        if ids or text or reasoning or finish_reason is not None:
            self._tell(ids, text, reasoning, finish_reason)

    def go_on(self, first: Completion, closing: str, closing_ids: tuple[int, ...]) -> None:
        """A second request follows, behind what came of the first and what closes its reasoning."""
        self.tell()
        if closing_ids and self.handle.wants_deltas:
            self._tell(closing_ids)
        self.before, self.closing, self.closing_ids = first, closing, closing_ids
        self.reply, self.told, self.has_told = None, 0, False

    def so_far(self, tokenizer: Tokenizer | None) -> Completion:
        """What there is of it when it is cancelled."""
        if self.before is not None and self.reply is None:
            return replace(self.before, finish_reason=FinishReason.CANCELLED)
        reply = self.reply or Reply(self.request, tokenizer)
        completion = reply.completion(cancelled=True)
        return completion if self.before is None else self.joined(completion, tokenizer)

    def joined(self, last: Completion, tokenizer: Tokenizer | None) -> Completion:
        """What was said in two requests, as one."""
        first = self.before
        assert first is not None
        ids = (*first.ids, *self.closing_ids, *last.ids)
        is_approximate = first.is_approximate or last.is_approximate
        reasoning, text = first.reasoning, first.text + last.text
        if tokenizer is not None and not is_approximate:
            reasoning, text = texts(tokenizer, first.prompt_ids, ids, self.request.params)
        pieces = None
        if first.pieces is not None and last.pieces is not None:
            pieces = (*first.pieces, *([self.closing.encode()] if self.closing else []), *last.pieces)
        return replace(
            last,
            ids=ids,
            text=text,
            reasoning=reasoning,
            prompt_ids=first.prompt_ids,
            reasoning_ids=first.reasoning_ids,
            is_closed=first.is_closed or bool(self.closing),
            cached_tokens=first.cached_tokens,
            is_approximate=is_approximate,
            pieces=pieces,
            reasoning_pieces=first.reasoning_pieces,
            counted_tokens=first.generated_tokens + last.generated_tokens if is_approximate else None,
            counted_prompt_tokens=first.counted_prompt_tokens,
        )

    def _tell(
        self, ids: tuple[int, ...], text: str = "", reasoning: str = "", finish_reason: FinishReason | None = None
    ) -> None:
        self.has_told = True
        self.handle.tell(Delta(index=self.index, ids=ids, text=text, reasoning=reasoning, finish_reason=finish_reason))
