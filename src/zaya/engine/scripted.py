"""A completer without a model: a function writes the answers. Imports no torch.

    ScriptedCompleter(byte_tokenizer(), lambda prompt, seed, index: "let me see\n</think>\n\n42")

With it everything that is driven by a `Completer` can be tried and tested: what a model would draw is written as text,
encoded, cut at the budget and split as the text of a model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaya.engine.handle import RequestHandle
from zaya.engine.split import split, split_ids
from zaya.engine.types import Completion, Delta, FinishReason, OnProgress, Request
from zaya.text import Tokenizer, opens_thinking, render, tags

Prompt = Sequence[Mapping[str, Any]] | str
"""What a script is asked: the messages of a request, or the text of its prompt ids, control tokens spelled out."""

Script = Callable[[Prompt, int, int], str | None]
"""(prompt, seed, index of the completion) -> what is drawn, without the token that ends the turn. After a chat prompt
it begins inside the reasoning: "reasoning\\n</think>\\n\\nanswer". Where reasoning is closed by force, it is asked
once more, with all text up to there, for the answer. None is a completion that fails."""


class ScriptedCompleter:
    """A `Completer` that says what a script says."""

    def __init__(self, tokenizer: Tokenizer, script: Script, context: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.script = script
        self.context = context
        self.requests: list[Request] = []
        """Everything that was asked, in order."""

    def submit(self, request: Request) -> RequestHandle:
        """Answered at once: what the handle hands out is all there."""
        [completions] = self.complete([request])
        handle = RequestHandle(len(completions), lambda _: None, wants_deltas=True)
        for index, completion in enumerate(completions):
            handle.tell(
                Delta(
                    index=index,
                    ids=completion.ids,
                    text=completion.text,
                    reasoning=completion.reasoning,
                    finish_reason=completion.finish_reason,
                    stop_reason=completion.stop_reason,
                )
            )
            handle.complete(index, completion)
        return handle

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        total = sum(request.n for request in requests)
        done, answers = 0, []
        for request in requests:
            self.requests.append(request)
            completions = [self._complete(request, index) for index in range(request.n)]
            answers.append([completion for completion in completions if completion is not None])
            done += request.n
            if on_progress is not None:
                on_progress(done, total)
        return answers

    def _complete(self, request: Request, index: int) -> Completion | None:
        if request.messages is not None:
            rendered = render(self.tokenizer, request.messages, tools=request.tools, enable_thinking=request.thinking)
            prompt_ids, prompt = rendered.ids, request.messages
        else:
            assert request.prompt_ids is not None
            prompt_ids = request.prompt_ids
            prompt = self.tokenizer.decode(prompt_ids)
        text = self.script(prompt, request.seed, index)
        if text is None:
            return None
        end = self.tokenizer.tags.turn_close
        ids = (*self.tokenizer.encode(text, bos=False), *(() if end is None else (end,)))
        ids = self._closed(request, index, prompt_ids, ids)
        is_cut = len(ids) > request.params.max_tokens
        ids = ids[: request.params.max_tokens]
        reasoning_ids, is_closed, reasoning, answer = split(self.tokenizer, prompt_ids, ids)
        return Completion(
            ids=ids,
            text=answer,
            reasoning=reasoning,
            finish_reason=FinishReason.LENGTH if is_cut else FinishReason.STOP,
            prompt_ids=tuple(prompt_ids),
            reasoning_ids=reasoning_ids,
            is_closed=is_closed,
        )

    def _closed(self, request: Request, index: int, prompt_ids: Sequence[int], ids: tuple[int, ...]) -> tuple[int, ...]:
        """The ids, their reasoning closed where it exceeds the budget: then the script is asked for what follows."""
        budget = request.params.think_budget
        reasoning_ids, *_ = split_ids(self.tokenizer, prompt_ids, ids)
        if budget is None or len(reasoning_ids) < budget or not opens_thinking(self.tokenizer, prompt_ids):
            return ids
        closing = self.tokenizer.encode(f"\n{tags.THINK_CLOSE}\n\n", bos=False)
        ids = (*ids[:budget], *closing)
        text = self.script(self.tokenizer.decode((*prompt_ids, *ids)), request.seed, index) or ""
        end = self.tokenizer.tags.turn_close
        return (*ids, *self.tokenizer.encode(text, bos=False), *(() if end is None else (end,)))
