"""One pass of the model over what the scheduler has planned, and what comes of it.

    1. plan; the pages it takes are reserved
    2. read the tokens of all chunks in one forward pass
    3. logits where something is drawn: behind a prompt, behind every token of a decoding sequence, behind its drafts
    4. draw; where a draft is what was drawn the place behind it counts too, the rest is taken back
    5. whoever has ended leaves, and what it read is kept

A draw is a function of logits, seed and position (engine.sampler), so drafts change how many passes a text takes and
not the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from zaya.engine.handle import RequestHandle
from zaya.engine.paged import PagedCache, PagedPass
from zaya.engine.sampler import Drawn, Sampler
from zaya.engine.scheduler import Chunk, Scheduler, Track
from zaya.engine.speculate import PromptLookup
from zaya.engine.state import SequenceState
from zaya.errors import ZayaError
from zaya.model.native import NativeModel
from zaya.model.transformer import Output, Want, ZayaModel


@dataclass(slots=True, eq=False, kw_only=True)
class Generation(Track):
    """A completion in the making: `drawn` are the ids of its state."""

    state: SequenceState
    index: int
    """Which of its request's completions it is."""
    handle: RequestHandle
    """Whoever asked for it."""
    tokens: list[Drawn] = field(default_factory=list)
    weight_versions: list[int] = field(default_factory=list)
    lookup: PromptLookup = field(default_factory=PromptLookup)
    """Where its drafts come from."""
    told: int = 0
    """Tokens that went out in deltas."""
    pulse: int = -1
    """In which they did last (`Engine.pace`)."""
    error: ZayaError | None = None
    """Why nothing more could be drawn."""

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.state.finish_reason is not None


class _Row(NamedTuple):
    """A draw. A named tuple, because every pass makes one for each sequence."""

    generation: Generation
    at: int
    """Which row of the logits."""
    drafts: Sequence[int] = ()
    """What it takes for drawn before."""


class Runner:
    """Runs the scheduler's plans on a model."""

    def __init__(
        self,
        model: ZayaModel,
        cache: PagedCache,
        scheduler: Scheduler,
        sampler: Sampler,
        *,
        weight_version: Callable[[], int],
        deterministic: bool = False,
    ) -> None:
        self.model = model
        self.cache = cache
        self.scheduler = scheduler
        self.sampler = sampler
        self.weight_version = weight_version
        self.deterministic = deterministic
        self.native = NativeModel.of(model)
        """The compiled way through the model, where there is one."""
        self.passes = 0
        self.tokens_read = 0
        self.tokens_drawn = 0
        self.drafts_proposed = 0
        self.drafts_accepted = 0

    def notice_weights(self) -> None:
        """The weights have changed, or are others."""
        self.native = NativeModel.of(self.model)

    @torch.inference_mode()
    def step(self) -> list[Generation]:
        """One pass. Returns who got tokens, or an error; who is over has left."""
        chunks = self.scheduler.plan()
        if not chunks:
            return []
        wants_routes = any(chunk.track.routes is not None for chunk in chunks)
        is_alone = self.deterministic and self.native is None
        read = self._read_token_by_token if is_alone else self._read
        logits, routes, context = read(chunks, wants_routes)
        self.passes += 1
        self.tokens_read += sum(chunk.count for chunk in chunks)

        rows: list[_Row] = []
        followers: list[_Row] = []
        tentative: list[tuple[Chunk, np.ndarray | None, int]] = []
        for chunk, its_routes in zip(chunks, routes, strict=True):
            at, generation = len(rows), cast(Generation, chunk.track)
            if chunk.is_last:
                rows.append(_Row(generation, at))
                rows += [_Row(generation, at + i, chunk.drafts[:i]) for i in range(1, 1 + len(chunk.drafts))]
            if chunk.drafts:
                tentative.append((chunk, its_routes, len(generation.drawn)))
            else:
                joined = self._done(chunk, chunk.count, its_routes)
                followers += [_Row(cast(Generation, track), at) for track in joined]
        got = self._draw(logits, rows + followers)
        if tentative:
            assert context is not None
            # whoever could not draw leaves anyway
            accepted = [max(1, len(chunk.track.drawn) - before) for chunk, _, before in tentative]
            context.accept(accepted)
            for (chunk, its_routes, _), count in zip(tentative, accepted, strict=True):
                self._done(chunk, count, its_routes)
                self.drafts_proposed += len(chunk.drafts)
                self.drafts_accepted += count - 1

        for generation in got:
            if generation.error is not None:
                self.scheduler.remove(generation)
            elif generation.is_over:
                self.scheduler.finish(generation)
        return got

    def _read(
        self, chunks: Sequence[Chunk], wants_routes: bool
    ) -> tuple[Tensor, Sequence[np.ndarray | None], PagedPass]:
        """Logits of the rows that are drawn from, routes of each chunk, and the pass."""
        counts = [chunk.count for chunk in chunks]
        ends = np.cumsum(counts)
        context = self.cache.begin_pass(
            [(_slot(chunk), chunk.count) for chunk in chunks],
            snapshots=[
                (i, length - chunk.start, row) for i, chunk in enumerate(chunks) for length, row in chunk.snapshots
            ],
            tentative=[i for i, chunk in enumerate(chunks) if chunk.drafts],
        )
        ids = torch.tensor([id for chunk in chunks for id in chunk.ids()], device=self.model.device)
        index: list[int] = []
        for chunk, end in zip(chunks, ends.tolist(), strict=True):
            if chunk.is_last:
                index += range(end - 1 - len(chunk.drafts), end)
        if self.native is not None and (self.deterministic or self.native.is_faster(len(ids))):
            got = context.run(self.native, ids, index, want_routes=wants_routes, may_round=not self.deterministic)
            logits, routes = got.logits, None if got.routes is None else got.routes.unsqueeze(-1).numpy()
        else:
            want = Want(logits=None, hidden=True, routes=wants_routes)
            out: Output = self.model(ids, cu_seqlens=[0, *ends.tolist()], cache=context, want=want)
            assert out.hidden is not None
            at = torch.tensor(index, dtype=torch.long, device=ids.device)
            logits = self.model.head(out.hidden if len(index) == len(ids) else out.hidden[at])
            routes = _as_bytes(out) if wants_routes else None
        return logits, [None] * len(chunks) if routes is None else np.split(routes, ends[:-1]), context

    def _read_token_by_token(
        self, chunks: Sequence[Chunk], wants_routes: bool
    ) -> tuple[Tensor, Sequence[np.ndarray | None], None]:
        """As `_read`, each token in a pass of its own, so that the shapes it goes through are a function of its
        position and of nothing else."""
        logits, routes = [], []
        for chunk in chunks:
            seen = []
            for i, id in enumerate(chunk.ids()):
                kept = [(0, 1, row) for length, row in chunk.snapshots if length == chunk.start + i + 1]
                context = self.cache.begin_pass([(_slot(chunk), 1)], snapshots=kept)
                is_drawn = chunk.is_last and i == chunk.count - 1
                want = Want(logits="last" if is_drawn else None, routes=wants_routes)
                ids = torch.tensor([[id]], device=self.model.device)
                out: Output = self.model(ids, cache=context, want=want)
                if is_drawn:
                    logits.append(out.logits)
                if wants_routes:
                    seen.append(_as_bytes(out))
            routes.append(np.concatenate(seen) if wants_routes else None)
        empty = torch.empty(0, self.model.config.vocab_size, device=self.model.device)
        return torch.cat([empty, *logits]), routes, None

    def _done(self, chunk: Chunk, accepted: int, routes: np.ndarray | None) -> list[Track]:
        if chunk.track.routes is not None:
            assert routes is not None
            chunk.track.note_routes(chunk.start, routes[:accepted])
        return self.scheduler.done(chunk, accepted)

    def _draw(self, logits: Tensor, rows: Sequence[_Row]) -> list[Generation]:
        """Draw for every row and push what counts. Returns the generations that the rows are of."""
        if not rows:
            return []
        states, drafts = [row.generation.state for row in rows], [row.drafts for row in rows]
        if len(rows) > len(logits):
            logits = logits[torch.tensor([row.at for row in rows], device=logits.device)]
        if self.deterministic:  # a row's sums depend on its neighbours where kernels split the work
            found = [self.sampler.sample(logits[i : i + 1].clone(), [state])[0] for i, state in enumerate(states)]
        else:
            found = self.sampler.sample(logits, states, drafts if any(drafts) else None, in_place=True)
        version, before = self.weight_version(), {row.generation: len(row.generation.drawn) for row in rows}
        for row, drawn in zip(rows, found, strict=True):
            generation = row.generation
            if generation.is_over or generation.drawn[before[generation] :] != list(row.drafts):
                continue  # what this row takes for drawn is not what was drawn
            if drawn.error is not None:
                generation.error = drawn.error
                continue
            generation.tokens.append(drawn)
            generation.weight_versions.append(version)
            generation.state.push(drawn.id)
            self.tokens_drawn += 1
        return list(before)


def propose(track: Track, count: int) -> Sequence[int]:
    """Drafts for the scheduler: up to `count` tokens that may follow a generation's text. None where a structure has to
    see every token before the next."""
    generation = cast(Generation, track)
    lookup = generation.lookup
    if generation.state.params.structure is not None:
        return []
    lookup.extend(generation.ids(len(lookup), generation.length))
    # behind the last draft one more token is drawn
    return lookup.propose(min(count, generation.state.params.max_tokens - len(generation.drawn) - 1))


def _slot(chunk: Chunk) -> int:
    assert chunk.track.slot is not None
    return chunk.track.slot


def _as_bytes(out: Output) -> np.ndarray:
    """Routes (tokens, layers, k) as uint8."""
    assert out.routes is not None
    return out.routes.flatten(0, -3).to(torch.uint8).cpu().numpy()
