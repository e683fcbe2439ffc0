"""The engine: requests in, completions out, over a model in this process.

    engine = Engine(model, tokenizer)
    engine.generate(["Once upon", [{"role": "user", "content": "Why?"}]], SamplingParams(max_tokens=64))
    engine.complete([Request(messages=..., n=16, want_routes=True)])

Here requests are checked and become prompts, and drafts become completions; the work between is engine.batch. Nothing
that depends on the weights outlives a call, so a trainer may change them between two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zaya.core.rng import derive_seed
from zaya.engine.batch import Batch, Draft, Prompt
from zaya.engine.sampler import Sampler
from zaya.engine.split import split
from zaya.engine.types import Completion, OnProgress, Request, SamplingParams
from zaya.errors import UsageError
from zaya.model.transformer import ZayaModel
from zaya.text import Tokenizer, render

AnyPrompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text to continue, ids to continue, or the messages of a chat."""


class Engine:
    """Text from a model, many sequences at a time (`zaya.engine.types.Completer`).

    `logprobs` of its completions are of the softmax over all ids but `never`: those are rows of the model without a
    token, which nobody can draw and a trainer leaves out as well.
    """

    def __init__(
        self,
        model: ZayaModel,
        tokenizer: Tokenizer | None = None,
        *,
        max_batch: int = 256,
        max_batch_tokens: int = 4096,
    ) -> None:
        """`max_batch` sequences are decoded at once; `max_batch_tokens` of prompts are read in one pass.

        Without a tokenizer prompts are ids, and completions have no text. Raises CheckpointError for a tokenizer with
        more ids than the model has rows.
        """
        if max_batch < 1 or max_batch_tokens < 1:
            raise UsageError(f"max_batch and max_batch_tokens must be at least 1: {max_batch}, {max_batch_tokens}")
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.max_batch_tokens = max_batch_tokens
        self.weight_version = 0
        """Written down beside every id that is drawn; whoever changes the weights counts it up."""
        stops = {model.config.eos_id, *model.config.more_eos_ids}
        if tokenizer is not None:
            # which of them a published config names as its end has changed; a turn's end is always one
            stops |= {id for id in (tokenizer.eos_id, tokenizer.tags.turn_close) if id is not None}
        self.stop_ids = frozenset(stops)
        """Ids that end a completion."""
        self.never = () if tokenizer is None else tuple(tokenizer.never_sampled(model.config.vocab_size))
        """Ids that have no token, and are never drawn."""

    def generate(
        self, prompts: Sequence[AnyPrompt], params: SamplingParams | None = None, *, n: int = 1, seed: int = 0
    ) -> list[Completion]:
        """Continue each prompt n times: the completions of the first prompt, then those of the second, and so on.

        A text is continued as it is, behind the token that opens every text; a chat is rendered with thinking on.
        Prompt i draws from streams named by (seed, i). Errors as of `complete`.
        """
        if isinstance(prompts, str) or any(isinstance(prompt, int | Mapping) for prompt in prompts):
            raise UsageError("generate takes a list of prompts", hint="put the one prompt in a list: [prompt]")
        requests = []
        for i, prompt in enumerate(prompts):
            is_chat = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Mapping)
            source: dict[str, Any] = {"messages": prompt} if is_chat else {"prompt_ids": self._ids(prompt)}
            request_seed = derive_seed(seed, "prompt", i)
            requests.append(Request(**source, params=params or SamplingParams(), n=n, seed=request_seed))
        return [completion for completions in self.complete(requests) for completion in completions]

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        """For each request its `n` completions, in order.

        Raises UsageError, before anything is computed, for a request that cannot be answered: an empty prompt, ids that
        the model has no row for, more tokens than its context holds.
        """
        config = self.model.config
        sampler = Sampler(config.vocab_size, self.never, self.stop_ids, self.tokenizer, self.model.device)
        prompts: dict[tuple[int, ...], Prompt] = {}
        places: dict[Draft, tuple[int, Prompt]] = {}
        for i, request in enumerate(requests):
            ids = self._checked_ids(request, f"request {i}" if len(requests) > 1 else "the request")
            prompt = prompts.setdefault(ids, Prompt(ids))
            for index in range(request.n):
                routes = [] if request.want_routes else None
                state = sampler.start(ids, request.params, seed=request.seed, index=index)
                draft = Draft(state, index, routes=routes)
                prompt.waiting.append(draft)
                places[draft] = (i, prompt)
        completions: list[dict[int, Completion]] = [{} for _ in requests]
        done = 0

        def on_done(draft: Draft) -> None:
            nonlocal done
            done += 1
            request, prompt = places[draft]
            completions[request][draft.index] = self._completion(draft, prompt.ids)
            if on_progress is not None:
                on_progress(done, len(places))

        batch = Batch(
            self.model,
            list(prompts.values()),
            max_batch=self.max_batch,
            max_batch_tokens=self.max_batch_tokens,
            sampler=sampler,
            weight_version=lambda: self.weight_version,
        )
        batch.run(on_done)
        return [[found[index] for index in range(len(found))] for found in completions]

    def _ids(self, prompt: Any) -> Sequence[int]:
        if not isinstance(prompt, str):
            return prompt
        if self.tokenizer is None:
            raise UsageError("a text needs a tokenizer", hint="Engine(model, tokenizer), or give ids")
        return self.tokenizer.encode(prompt)

    def _checked_ids(self, request: Request, name: str) -> tuple[int, ...]:
        config, params = self.model.config, request.params
        if request.messages is None:
            assert request.prompt_ids is not None
            ids = tuple(int(id) for id in request.prompt_ids)
        elif self.tokenizer is None:
            raise UsageError(f"{name} has messages, which need a tokenizer", hint="Engine(model, tokenizer)")
        else:
            ids = tuple(render(self.tokenizer, request.messages).ids)
        if not ids:
            raise UsageError(f"{name} has an empty prompt")
        if min(ids) < 0 or max(ids) >= config.vocab_size:
            bad = next(id for id in ids if not 0 <= id < config.vocab_size)
            raise UsageError(f"{name} has ids that are not from 0 to {config.vocab_size - 1}: {bad}")
        if len(ids) + params.max_tokens > config.max_positions:
            raise UsageError(
                f"{name} has {len(ids)} prompt tokens and wants up to {params.max_tokens} new ones, "
                f"{len(ids) + params.max_tokens} in all; the model's context holds {config.max_positions}",
                hint="shorten the prompt or lower max_tokens",
            )
        if request.want_routes and config.num_classes > 256:
            raise UsageError(f"routes are kept as bytes; the model has {config.num_classes} classes")
        return ids

    def _completion(self, draft: Draft, prompt_ids: tuple[int, ...]) -> Completion:
        state, drawn = draft.state, draft.drawn
        ids, top_logprobs = tuple(state.ids), state.params.top_logprobs
        reasoning, text = state.texts()
        reasoning_ids, is_closed = (), True
        if self.tokenizer is not None:
            reasoning_ids, is_closed, _, _ = split(self.tokenizer, prompt_ids, ids)
        assert state.finish_reason is not None
        routes = None
        if draft.routes is not None:
            prompt, *rest = draft.routes
            routes = np.concatenate([prompt, np.stack(rest)]) if rest else prompt.copy()
        return Completion(
            ids=ids,
            text=text,
            reasoning=reasoning,
            finish_reason=state.finish_reason,
            stop_reason=state.stop_reason,
            prompt_ids=prompt_ids,
            reasoning_ids=reasoning_ids,
            is_closed=is_closed,
            logprobs=np.array([token.logprob for token in drawn], dtype=np.float32),
            behavior_logprobs=np.array([token.behavior_logprob for token in drawn], dtype=np.float32),
            top_ids=np.array([token.top_ids for token in drawn], dtype=np.int32) if top_logprobs else None,
            top_logprobs=np.array([token.top_logprobs for token in drawn], dtype=np.float32) if top_logprobs else None,
            weight_versions=tuple(draft.weight_versions),
            routes=routes,
            cached_tokens=draft.cached_tokens,
        )
