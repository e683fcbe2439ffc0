"""Continuous batching: many sequences take a token each per forward pass, and whoever ends makes room for the next.

    1. prompts wait in order; a prompt that is wanted several times is read once
    2. where enough slots are free, the next prompts are read in one pass, and each becomes as many sequences as wanted
    3. every sequence draws a token from the logits it got; those that end leave, the last ones move into their slots
    4. the rest read the token they drew, in one pass of one token each; back to 2

Running sequences always fill the first slots of the cache, so a pass reads it in place. One slot more is set aside for
a prompt that has been read while some of its sequences still wait for room. Fed and emptied by engine.engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from zaya.engine.sampler import Drawn, Sampler
from zaya.engine.slots import SlotCache
from zaya.engine.state import SequenceState
from zaya.model.transformer import Want, ZayaModel

REFILL = 16
"""Prompts are read when one slot in this many is free: a pass for each single slot costs more than the wait (17% of
the tokens a second where texts of 8 to 120 tokens end at different times, micro preset, 128 slots)."""


@dataclass(slots=True, eq=False)
class Draft:
    """A completion in the making."""

    state: SequenceState
    index: int
    """Which of the request's completions it is."""
    drawn: list[Drawn] = field(default_factory=list)
    weight_versions: list[int] = field(default_factory=list)
    routes: list[np.ndarray] | None = None
    """Of the prompt, then of each token that was read; None where they are not wanted."""
    cached_tokens: int = 0


@dataclass(slots=True, eq=False)
class Prompt:
    """A prompt and the completions that begin with it."""

    ids: tuple[int, ...]
    waiting: deque[Draft] = field(default_factory=deque)
    """Those that have no slot yet."""
    logits: Tensor | None = None
    """Of its last token, once it has been read: (1, vocab)."""
    routes: np.ndarray | None = None


class Batch:
    """One run over a list of prompts. Its cache lives and ends with it, so a run that breaks off leaves nothing."""

    def __init__(
        self,
        model: ZayaModel,
        prompts: Sequence[Prompt],
        *,
        max_batch: int,
        max_batch_tokens: int,
        sampler: Sampler,
        weight_version: Callable[[], int],
    ) -> None:
        self.model = model
        self.max_batch_tokens = max_batch_tokens
        self.sampler = sampler
        self.weight_version = weight_version
        self.waiting = deque(prompts)
        self.running: list[Draft] = []
        drafts = [draft for prompt in prompts for draft in prompt.waiting]
        self.slots = min(max_batch, len(drafts))
        states = [draft.state for draft in drafts]
        longest = max((len(state.prompt_ids) + state.params.max_tokens - 1 for state in states), default=0)
        self.cache = SlotCache(model.config, self.slots + 1, limit=longest, dtype=model.dtype, device=model.device)

    @torch.inference_mode()
    def run(self, on_done: Callable[[Draft], None]) -> None:
        """Finish every draft, and tell of each as it is finished."""
        while self.waiting or self.running:
            free = self.slots - len(self.running)
            if self.waiting and free >= max(1, self.slots // REFILL):
                logits = self._start()
                first = len(self.running) - logits.shape[0]
            else:
                logits, first = self._continue(), 0
            self._draw(logits, self.running[first:])
            self._retire(on_done)

    def _start(self) -> Tensor:
        """Give free slots to what waits. Returns the logits of each sequence that starts, the last of the running."""
        if self.waiting[0].logits is None:
            return self._read(self._next_prompts())
        prompt = self.waiting[0]
        slots = self._admit(prompt)
        self.cache.fork([self.slots] * len(slots), slots)
        assert prompt.logits is not None
        return prompt.logits.expand(len(slots), -1)

    def _next_prompts(self) -> list[Prompt]:
        """As many as one pass takes, with a free slot for each."""
        chosen: list[Prompt] = []
        free, tokens = self.slots - len(self.running), 0
        for prompt in self.waiting:
            tokens += len(prompt.ids)
            if chosen and (free < 1 or tokens > self.max_batch_tokens):
                break
            chosen.append(prompt)
            free -= len(prompt.waiting)
        return chosen

    def _read(self, prompts: list[Prompt]) -> Tensor:
        """Prefill: read prompts, and fork each into the slots of the sequences that start from it."""
        wants_routes = any(draft.routes is not None for prompt in prompts for draft in prompt.waiting)
        slots, seen = [], 0
        for prompt in prompts:  # each is read in the first slot its sequences will have
            slots.append(len(self.running) + seen)
            seen += len(prompt.waiting)
        self.cache.clear(slots)
        logits, routes = self._prefill([prompt.ids for prompt in prompts], slots, wants_routes)
        started, sources, targets = [], [], []
        for prompt, slot, row, route in zip(prompts, slots, logits.split(1), routes, strict=True):
            prompt.routes = route
            taken = self._admit(prompt)
            if prompt.waiting:  # the last: all slots are taken
                prompt.logits = row.clone()
                taken.append(self.slots)
            sources += [slot] * (len(taken) - 1)
            targets += taken[1:]
            started += [row] * (len(taken) - bool(prompt.waiting))
        self.cache.fork(sources, targets)
        return torch.cat(started)

    def _admit(self, prompt: Prompt) -> list[int]:
        """Let sequences of the prompt run as far as there are slots for them; the slots they get."""
        first = len(self.running)
        is_first = prompt.logits is None
        while prompt.waiting and len(self.running) < self.slots:
            draft = prompt.waiting.popleft()
            draft.cached_tokens = 0 if is_first else len(draft.state.prompt_ids)
            is_first = False
            if draft.routes is not None:
                assert prompt.routes is not None
                draft.routes.append(prompt.routes)
            self.running.append(draft)
        if not prompt.waiting:
            self.waiting.remove(prompt)
        return list(range(first, len(self.running)))

    def _prefill(
        self, prompts: list[tuple[int, ...]], slots: list[int], wants_routes: bool
    ) -> tuple[Tensor, Sequence[np.ndarray | None]]:
        """Logits of the last token of each prompt, and its routes. A prompt too long for one pass comes alone."""
        ids = torch.tensor([id for prompt in prompts for id in prompt], device=self.model.device)
        ends = np.cumsum([len(prompt) for prompt in prompts])
        *before, last = ids.split(self.max_batch_tokens) if len(prompts) == 1 else (ids,)
        cache, found = self.cache.select(slots), []
        for chunk in before:
            want = Want(logits=None, routes=wants_routes)
            found.append(self.model(chunk, cu_seqlens=[0, len(chunk)], cache=cache, want=want).routes)
        bounds = [0, len(last)] if before else [0, *ends.tolist()]
        want = Want(logits="last", routes=wants_routes)
        out = self.model(last, cu_seqlens=bounds, cache=cache, want=want)
        assert out.logits is not None
        if not wants_routes:
            return out.logits, [None] * len(prompts)
        return out.logits, np.split(_as_bytes(torch.cat([*found, out.routes])), ends[:-1])

    def _continue(self) -> Tensor:
        """Every running sequence reads the token it drew last. Returns the logits of each."""
        wants_routes = any(draft.routes is not None for draft in self.running)
        ids = torch.tensor([draft.state.ids[-1] for draft in self.running], device=self.model.device)
        cache = self.cache.select(range(len(self.running)))
        out = self.model(ids[:, None], cache=cache, want=Want(routes=wants_routes))
        if wants_routes:
            for draft, routes in zip(self.running, _as_bytes(out.routes), strict=True):
                if draft.routes is not None:
                    draft.routes.append(routes)
        assert out.logits is not None
        return out.logits.squeeze(1)

    def _draw(self, logits: Tensor, drafts: Sequence[Draft]) -> None:
        """A token for each draft, and whether it was the last."""
        drawn = self.sampler.sample(logits, [draft.state for draft in drafts])
        version = self.weight_version()
        for draft, token in zip(drafts, drawn, strict=True):
            if token.error is not None:
                raise token.error
            draft.drawn.append(token)
            draft.weight_versions.append(version)
            draft.state.push(token.id)

    def _retire(self, on_done: Callable[[Draft], None]) -> None:
        """Let go of what is finished, and close the gaps with the sequences in the last slots."""
        done = [draft for draft in self.running if draft.state.finish_reason is not None]
        if not done:
            return
        left = len(self.running) - len(done)
        gaps = [slot for slot in range(left) if self.running[slot].state.finish_reason is not None]
        movers = [slot for slot in range(left, len(self.running)) if self.running[slot].state.finish_reason is None]
        self.cache.fork(movers, gaps)
        for source, target in zip(movers, gaps, strict=True):
            self.running[target] = self.running[source]
        del self.running[left:]
        for draft in done:
            on_done(draft)


def _as_bytes(routes: Tensor | None) -> np.ndarray:
    """(tokens, layers, k) as uint8, from (tokens, layers, k) or (tokens, 1, layers, k)."""
    assert routes is not None
    return routes.flatten(0, -3).to(torch.uint8).cpu().numpy()
