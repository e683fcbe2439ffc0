"""The engine: requests in, completions out, over a model in this process.

    engine = Engine(model, tokenizer)
    engine.generate(["Once upon", [{"role": "user", "content": "Why?"}]], SamplingParams(max_tokens=64))
    engine.complete([Request(messages=..., n=16, want_routes=True)])
    for delta in engine.stream("Once upon"): ...
    handle = engine.submit(Request(...)); async for delta in handle: ...; await handle.result()

Here requests are checked and become generations, and generations become completions. What happens between is a step:
the scheduler plans a pass, the runner makes it (docs/concepts/engine.md). Whoever waits in plain code steps the engine
itself; for what was submitted a thread does, as long as there is something to do. One step at a time: a lock is held.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import numpy as np
from torch import Tensor

from zaya.core.device import free_bytes
from zaya.core.rng import derive_seed
from zaya.engine.handle import RequestHandle
from zaya.engine.paged import KVDtype, PagedCache
from zaya.engine.pages import PageTable
from zaya.engine.prefix import PrefixCache
from zaya.engine.runner import Generation, Runner, propose
from zaya.engine.sampler import Drawn, Sampler
from zaya.engine.scheduler import Prompt, Scheduler
from zaya.engine.scoring import joined, score_chunks
from zaya.engine.split import split_ids
from zaya.engine.structured import GrammarConstraint, Grammars
from zaya.engine.types import (
    Completion,
    Delta,
    EngineStats,
    FinishReason,
    OnProgress,
    Request,
    SamplingParams,
    Scores,
    Structure,
)
from zaya.errors import UsageError
from zaya.model.config import ModelConfig
from zaya.model.transformer import ZayaModel
from zaya.text import Tokenizer, opens_thinking, render

AnyPrompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text to continue, ids to continue, or the messages of a chat."""

MEMORY_SHARE = 0.5
"""Part of a device's free memory that the pool takes at most, where nobody says how much."""

PAGES_PER_BLOCK = 8
"""The prefix cache keeps a state after as many pages: 256 tokens with the default page. A state of ZAYA1-8B is as large
as the keys and values of ten tokens, so that adds 4%."""

_AT_WORK: WeakSet[Engine] = WeakSet()
"""Engines that have a thread."""


@atexit.register
def _close_all() -> None:
    """A thread that is in the middle of a kernel when Python goes away takes the whole process down."""
    for engine in [*_AT_WORK]:
        engine.close()


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
        memory_bytes: int | None = None,
        pages: int | None = None,
        page_size: int = 32,
        kv_dtype: KVDtype = "model",
        prefix_cache: bool = True,
        deterministic: bool = False,
        speculate: int = 0,
    ) -> None:
        """`max_batch` sequences run at once, and a pass reads about `max_batch_tokens`.

        memory_bytes: of the pool; or `pages` of `page_size` tokens each. By default what `max_batch` full contexts
        could need, and at most half of what is free; on a CPU it is not taken before it is written.
        kv_dtype: "int8" keeps keys and values in a byte each, with a scale for every token and head.
        prefix_cache: keep what was read for texts that begin alike.
        deterministic: bit-equal results whatever else runs, in float32; without compiled kernels at the price of a pass
            for every token.
        speculate: drafts of up to so many tokens for each sequence, out of its own text; they change the speed alone.

        Without a tokenizer prompts are ids, and completions have no text. Raises CheckpointError for a tokenizer with
        more ids than the model has rows, UsageError where the memory is too small.
        """
        if max_batch < 1 or max_batch_tokens < 1:
            raise UsageError(f"max_batch and max_batch_tokens must be at least 1: {max_batch}, {max_batch_tokens}")
        if page_size < 1 or speculate < 0:
            raise UsageError(f"page_size must be at least 1, speculate must not be negative: {page_size}, {speculate}")
        if kv_dtype not in ("model", "int8"):
            raise UsageError(f"kv_dtype must be 'model' or 'int8': {kv_dtype!r}")
        if deterministic and speculate:
            raise UsageError(
                "deterministic may read every token in a pass of its own, so drafts save nothing",
                hint="leave one of deterministic and speculate out",
            )
        if pages is not None and memory_bytes is not None:
            raise UsageError("memory_bytes and pages both say how large the pool is", hint="leave one of them out")
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.max_batch_tokens = max_batch_tokens
        self.page_size = page_size
        stops = {model.config.eos_id, *model.config.more_eos_ids}
        if tokenizer is not None:
            # which of them a published config names as its end has changed; a turn's end is always one
            stops |= {id for id in (tokenizer.eos_id, tokenizer.tags.turn_close) if id is not None}
        self.stop_ids = frozenset(stops)
        """Ids that end a completion."""
        self.never = () if tokenizer is None else tuple(tokenizer.never_sampled(model.config.vocab_size))
        """Ids that have no token, and are never drawn."""
        self.after_step: Callable[[], None] | None = None
        """Called by whoever steps, when all that a step has brought was told."""
        self.pace: Callable[[], int] | None = None
        """Counts pulses, and is asked once a step. Between its first tokens and its end a completion is told of once in
        each: a delta for every token takes an engine a tenth of its time. None: at every step."""
        self._pulse = 0

        sizes = PoolSizes.of(model.config, page_size, 1 if kv_dtype == "int8" else model.dtype.itemsize, max_batch)
        if pages is None:
            most = max_batch * -(-model.config.max_positions // page_size)
            room = int(MEMORY_SHARE * free_bytes(model.device)) if memory_bytes is None else memory_bytes
            pages = min(most, sizes.pages_in(room))
            if pages < 1:
                raise UsageError(
                    f"the engine's pool has no room for a page: {max_batch} sequences have states of {sizes.state:,} "
                    f"bytes each, a page of {page_size} tokens takes {sizes.page:,}, and there are {room:,} bytes",
                    hint="give it more memory_bytes, lower max_batch, or use kv_dtype='int8'",
                )
        elif pages < 1:
            raise UsageError(f"pages must be at least 1: {pages}")
        self._pages, self._snapshots = pages, sizes.snapshots(pages)
        table, prefixes = self._empty_pool()
        self._current_sampler: tuple[tuple[tuple[int, ...], frozenset[int]], Sampler] | None = None
        """Made anew when somebody changes what it is made of."""
        self._memory = PagedCache(model.config, table, dtype=model.dtype, kv_dtype=kv_dtype, device=model.device)
        self._scheduler = Scheduler(
            table, prefixes, max_batch_tokens=max_batch_tokens, use_cache=prefix_cache,
            propose=propose if speculate else None, most_drafts=speculate,
        )  # fmt: skip
        self._runner = Runner(
            model, self._memory, self._scheduler, self._sampler(), weight_version=lambda: self._weight_version,
            deterministic=deterministic,
        )  # fmt: skip
        self._grammars: tuple[frozenset[int], Grammars] | None = None
        """Made when a structure is first asked for, for the stop ids of then."""
        self._prompts: WeakValueDictionary[tuple[str, tuple[int, ...], bool], Prompt] = WeakValueDictionary()
        self._live: dict[RequestHandle, list[Generation]] = {}
        """The completions of every request that is under way."""
        self._arrivals = 0
        self._weight_version = 0
        self._weight_marks = self._marks()
        self._is_closed = False
        self._inbox: deque[list[Generation]] = deque()
        self._unwanted: deque[RequestHandle] = deque()
        # Re-entrant: Ctrl-C may strike on the way out of a step, and whoever clears up after it steps once more.
        self._turn, self._lock = threading.Lock(), threading.RLock()
        self._is_stepping = False
        self._thread_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    # ----- asking

    @property
    def context(self) -> int:
        """Tokens that prompt and completion may have together: the model's positions, or what the pool has room for."""
        return min(self.model.config.max_positions, self._pages * self.page_size + 1)  # the last one is not read

    def generate(
        self, prompts: Sequence[AnyPrompt], params: SamplingParams | None = None, *, n: int = 1, seed: int = 0
    ) -> list[Completion]:
        """Continue each prompt n times: the completions of the first prompt, then those of the second, and so on.

        A text is continued as it is, behind the token that opens every text; a chat is rendered with thinking on.
        Prompt i draws from streams named by (seed, i). Errors as of `complete`.
        """
        if isinstance(prompts, str) or any(isinstance(prompt, int | Mapping) for prompt in prompts):
            raise UsageError("generate takes a list of prompts", hint="put the one prompt in a list: [prompt]")
        seeds = [derive_seed(seed, "prompt", i) for i in range(len(prompts))]
        requests = [self._request(prompt, params, n, own) for prompt, own in zip(prompts, seeds, strict=True)]
        return [completion for completions in self.complete(requests) for completion in completions]

    def stream(
        self, prompt: AnyPrompt, params: SamplingParams | None = None, *, n: int = 1, seed: int = 0
    ) -> Generator[Delta, None, None]:
        """Continue one prompt, and hand out what there is as it comes: what `generate([prompt], ...)` returns, in
        pieces. Whoever closes it, or stops listening, ends it. Errors as of `complete`."""
        request = self._request(prompt, params, n, derive_seed(seed, "prompt", 0))
        generations = self._generations(request, "the request", wants_deltas=True)
        self._inbox.append(generations)
        return self._stream(generations[0].handle)

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        """For each request its `n` completions, in order.

        Raises UsageError, before anything is computed, for a request that cannot be answered: an empty prompt, ids that
        the model has no row for, more tokens than its context or the pool of pages holds. What goes wrong later, such
        as logits that are no numbers, is raised then; a call that breaks off cancels what it has asked for.
        """
        asked = [
            self._generations(request, f"request {i}" if len(requests) > 1 else "the request")
            for i, request in enumerate(requests)
        ]
        handles = [generations[0].handle for generations in asked]
        told, total = 0, sum(handle.n for handle in handles)
        try:
            self._inbox.extend(asked)
            while not all(handle.is_done for handle in handles):
                self._step()
                for handle in handles:
                    if handle.error is not None:
                        raise handle.error
                done = sum(len(handle.completions) for handle in handles)
                while told < done:
                    told += 1
                    if on_progress is not None:
                        on_progress(told, total)
        except BaseException:
            self._withdraw(handles)
            raise
        return [handle.completed() for handle in handles]

    def submit(self, request: Request) -> RequestHandle:
        """Start on a request, in a thread of the engine's. May be called from anywhere. Errors as of `complete`."""
        generations = self._generations(request, "the request", wants_deltas=True)
        with self._thread_lock:
            self._inbox.append(generations)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="zaya-engine", daemon=True)
                self._thread.start()
                _AT_WORK.add(self)
        return generations[0].handle

    def score(self, ids: Sequence[int], top_logprobs: int = 0) -> Scores:
        """How likely the model finds these ids, each behind those before it. Others go on between its passes.

        Raises UsageError for ids that the model has no row for, and for more than its context holds.
        """
        self._check_ids(ids, "the text")
        if len(ids) > self.model.config.max_positions:
            raise UsageError(
                f"the text has {len(ids)} tokens; the model's context holds {self.model.config.max_positions}"
            )
        found, chunks = [], score_chunks(self.model, ids, self.never, top_logprobs)
        while True:
            with self._exclusive():
                if (scores := next(chunks, None)) is None:
                    return joined(found, top_logprobs)
                found.append(scores)

    def close(self) -> None:
        """Cancel what is under way, and take no more requests."""
        self._is_closed = True
        with self._exclusive():
            self._take_in()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----- weights

    @property
    def weight_version(self) -> int:
        """Written down beside every id that is drawn. Whoever changes the weights sets it to another number: between
        two steps, so what runs goes on over what it has read, and nobody new begins with it."""
        return self._weight_version

    @weight_version.setter
    def weight_version(self, version: int) -> None:
        with self._exclusive():
            if version != self._weight_version:
                self._weight_version = version
                self._forget()

    def update_weights(
        self, change: Callable[[ZayaModel], object] | Mapping[str, Tensor], version: int | None = None
    ) -> None:
        """Change the weights between two steps: by a function that gets the model, or to those of a state dict.

        `version` is the new `weight_version`, by default the next number.
        """
        with self._exclusive():
            try:
                if isinstance(change, Mapping):
                    self.model.load_state_dict(change)
                else:
                    change(self.model)
            finally:
                self._weight_version = self._weight_version + 1 if version is None else version
                self._forget()

    @property
    def stats(self) -> EngineStats:
        scheduler, runner, table = self._scheduler, self._runner, self._scheduler.pages
        return EngineStats(
            passes=runner.passes,
            tokens_read=runner.tokens_read,
            tokens_drawn=runner.tokens_drawn,
            prefix_hits=scheduler.prefix_hits,
            prefix_tokens=scheduler.prefix_tokens,
            preemptions=scheduler.preemptions,
            drafts_proposed=runner.drafts_proposed,
            drafts_accepted=runner.drafts_accepted,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages_used=table.pages - table.free,
            pages_free=table.free,
            pages_reclaimable=table.reclaimable,
            snapshots=len(scheduler.cache),
        )

    # ----- requests become generations

    def _request(self, prompt: AnyPrompt, params: SamplingParams | None, n: int, seed: int) -> Request:
        source: dict[str, Any] = {"prompt_ids": prompt}
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise UsageError("a text needs a tokenizer", hint="Engine(model, tokenizer), or give ids")
            source = {"prompt_ids": self.tokenizer.encode(prompt)}
        elif len(prompt) > 0 and isinstance(prompt[0], Mapping):
            source = {"messages": prompt}
        return Request(**source, params=params or SamplingParams(), n=n, seed=seed)

    def _generations(self, request: Request, name: str, *, wants_deltas: bool = False) -> list[Generation]:
        """The completions of a request in the making. Raises UsageError where it cannot be answered."""
        if self._is_closed:
            raise UsageError("the engine was closed", hint="make a new one")
        ids = self._checked_ids(request, name)
        key = (request.cache_salt, ids, request.want_routes)
        prompt = self._prompts.setdefault(key, Prompt(ids, request.cache_salt))
        sampler = self._sampler()
        handle = RequestHandle(request.n, self._unwanted.append, wants_deltas=wants_deltas)
        generations = []
        for index in range(request.n):
            constraint = self._constraint(request.params.structure, ids, name)
            state = sampler.start(ids, request.params, seed=request.seed, index=index, constraint=constraint)
            generation = Generation(
                prompt=prompt,
                order=0,
                priority=request.priority,
                drawn=state.ids,
                routes=[] if request.want_routes else None,
                state=state,
                index=index,
                handle=handle,
            )
            generations.append(generation)
        return generations

    def _checked_ids(self, request: Request, name: str) -> tuple[int, ...]:
        config, params = self.model.config, request.params
        if request.messages is None:
            assert request.prompt_ids is not None
            ids = tuple(int(id) for id in request.prompt_ids)
        elif self.tokenizer is None:
            raise UsageError(f"{name} has messages, which need a tokenizer", hint="Engine(model, tokenizer)")
        else:
            rendered = render(self.tokenizer, request.messages, tools=request.tools, enable_thinking=request.thinking)
            ids = tuple(rendered.ids)
        if not ids:
            raise UsageError(f"{name} has an empty prompt")
        self._check_ids(ids, name)
        tokens = len(ids) + params.max_tokens
        if tokens > config.max_positions:
            raise UsageError(
                f"{name} has {len(ids)} prompt tokens and wants up to {params.max_tokens} new ones, "
                f"{tokens} in all; the model's context holds {config.max_positions}",
                hint="shorten the prompt or lower max_tokens",
            )
        if tokens - 1 > self._pages * self.page_size:  # the last one is not read
            raise UsageError(
                f"{name} may have to keep {tokens - 1} tokens, {len(ids)} of its prompt and {params.max_tokens - 1} "
                f"new ones; the engine's pool holds {self._pages * self.page_size} in {self._pages} pages",
                hint="give the engine more memory_bytes, or lower max_tokens",
            )
        if request.want_routes and config.num_classes > 256:
            raise UsageError(f"routes are kept as bytes; the model has {config.num_classes} classes")
        return ids

    def _check_ids(self, ids: Sequence[int], name: str) -> None:
        size = self.model.config.vocab_size
        if ids and (min(ids) < 0 or max(ids) >= size):
            bad = next(id for id in ids if not 0 <= id < size)
            raise UsageError(f"{name} has ids that are not from 0 to {size - 1}: {bad}")

    def _constraint(
        self, structure: Structure | None, prompt_ids: Sequence[int], name: str
    ) -> GrammarConstraint | None:
        if structure is None:
            return None
        if self.tokenizer is None:
            raise UsageError(f"{name} has a structure, which needs a tokenizer", hint="Engine(model, tokenizer)")
        key = self.stop_ids
        if self._grammars is None or self._grammars[0] != key:
            self._grammars = key, Grammars(self.tokenizer, self.model.config.vocab_size, key)
        return self._grammars[1].constraint(structure, after_thinking=opens_thinking(self.tokenizer, prompt_ids))

    def _sampler(self) -> Sampler:
        key = self.never, self.stop_ids
        if self._current_sampler is None or self._current_sampler[0] != key:
            sampler = Sampler(self.model.config.vocab_size, *key, self.tokenizer, self.model.device)
            self._current_sampler = key, sampler
        return self._current_sampler[1]

    # ----- steps

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Nobody else steps. Who waits gets its turn, which a lock alone does not give: whoever steps again and again
        would take it back before the other has woken."""
        try:
            with self._turn:
                self._lock.acquire()
            yield
        finally:
            with suppress(RuntimeError):  # Ctrl-C may have come before it was ours
                self._lock.release()

    def _step(self) -> None:
        """One pass over whatever is there, and what comes of it."""
        with self._exclusive():
            self._take_in()
            self._pulse = self._pulse + 1 if self.pace is None else self.pace()
            try:
                self._is_stepping = True
                for generation in self._runner.step():
                    try:
                        self._report(generation)
                    except Exception as error:
                        self._fail(generation.handle, error)
            except Exception as error:  # of the pass, not of a row: nobody in it has an answer
                in_pass = {track.handle for track in self._scheduler.running if isinstance(track, Generation)}
                failed = in_pass or {*self._live}  # or nobody got as far, and nobody ever will
                for handle in failed:
                    del self._live[handle]
                self._recover()
                for handle in failed:
                    handle.fail(error)
            except BaseException:
                self._recover()
                raise
            finally:
                self._is_stepping = False
                if self.after_step is not None:
                    self.after_step()
            if self._scheduler.is_idle:
                self.check()

    def _take_in(self) -> None:
        """What has come since the last step: requests, and who wants no more."""
        if self._scheduler.is_idle and self._inbox:
            self._notice_weights()
        while self._inbox:
            generations = self._inbox.popleft()
            self._live[generations[0].handle] = generations
            for generation in generations:
                generation.order = self._arrivals
                self._arrivals += 1
            self._scheduler.add(generations)
        if self._is_closed:
            self._unwanted.extend(self._live)
        while self._unwanted:
            for generation in self._live.get(self._unwanted.popleft(), ()):
                if not generation.is_over:
                    generation.state.finish_reason = FinishReason.CANCELLED
                    self._scheduler.remove(generation)
                    self._report(generation)

    def _report(self, generation: Generation) -> None:
        """Tell whoever asked for it what a generation has got."""
        handle, state = generation.handle, generation.state
        if handle not in self._live:
            return  # another of its completions has failed in the same pass
        if generation.error is not None:
            self._fail(handle, generation.error)
            return
        is_over = generation.is_over
        if handle.wants_deltas and (is_over or generation.pulse != self._pulse):
            generation.pulse = self._pulse
            new = generation.tokens[generation.told :]
            generation.told = len(generation.tokens)
            reasoning, text = state.take()
            top_ids, top_logprobs = _tops(new, state.params.top_logprobs)
            ids, logprobs, *_ = zip(*new, strict=True) if new else ((), ())
            delta = Delta(
                index=generation.index,
                ids=ids,
                text=text,
                reasoning=reasoning,
                logprobs=np.array(logprobs, dtype=np.float32),
                top_ids=top_ids,
                top_logprobs=top_logprobs,
                finish_reason=state.finish_reason,
                stop_reason=state.stop_reason,
            )
            handle.tell(delta)
        if is_over:
            handle.complete(generation.index, self._completion(generation))
            if handle.is_done:
                del self._live[handle]

    def _fail(self, handle: RequestHandle, error: Exception) -> None:
        """A request has gone wrong, and its other completions are of no use."""
        for generation in self._live.pop(handle):
            self._scheduler.remove(generation)
        handle.fail(error)

    def _completion(self, generation: Generation) -> Completion:
        state, tokens = generation.state, generation.tokens
        ids, prompt_ids = tuple(state.ids), generation.prompt.ids
        top_ids, top_logprobs = _tops(tokens, state.params.top_logprobs)
        reasoning, text = state.texts()
        reasoning_ids, is_closed = (), True
        if self.tokenizer is not None:
            reasoning_ids, is_closed, _ = split_ids(self.tokenizer, prompt_ids, ids)
        assert state.finish_reason is not None
        _, logprobs, behavior_logprobs, *_ = zip(*tokens, strict=True) if tokens else ((), (), ())
        routes = None
        if generation.routes is not None:
            c = self.model.config
            nothing = np.zeros((0, c.num_layers, c.experts_per_token), dtype=np.uint8)
            routes = np.concatenate([nothing, *generation.routes])
        return Completion(
            ids=ids,
            text=text,
            reasoning=reasoning,
            finish_reason=state.finish_reason,
            stop_reason=state.stop_reason,
            prompt_ids=prompt_ids,
            reasoning_ids=reasoning_ids,
            is_closed=is_closed,
            logprobs=np.array(logprobs, dtype=np.float32),
            behavior_logprobs=np.array(behavior_logprobs, dtype=np.float32),
            top_ids=top_ids,
            top_logprobs=top_logprobs,
            weight_versions=tuple(generation.weight_versions),
            routes=routes,
            cached_tokens=generation.cached_tokens or 0,
        )

    def _stream(self, handle: RequestHandle) -> Generator[Delta, None, None]:
        try:
            while True:
                while (delta := handle.take()) is not None:
                    yield delta
                if handle.is_done:
                    break
                self._step()
        finally:
            self._withdraw([handle])
        handle.completed()

    def _withdraw(self, handles: Sequence[RequestHandle]) -> None:
        """Whoever asked for these has gone."""
        if all(handle.is_done for handle in handles):
            return
        with self._exclusive():
            self._unwanted.extend(handles)
            if not self._is_stepping:  # a stream that nobody holds is closed wherever memory is tidied up, here as well
                self._take_in()

    def _work(self) -> None:
        """What the engine's thread does: steps, as long as there is something to do."""
        while True:
            try:
                self._step()
            except BaseException as error:  # ours, or the interpreter goes down; nobody is to wait for ever
                with self._exclusive():
                    failed = [*self._live]
                    self._live.clear()
                    self._recover()
                for handle in failed:
                    handle.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            with self._thread_lock:
                if not self._live and not self._inbox:
                    self._thread = None
                    return

    def _recover(self) -> None:
        """A step has broken off anywhere inside: what is in the pages may be anything. What was drawn is known, and
        from that everything else is computed again."""
        table, prefixes = self._empty_pool()
        self._memory.pages = table
        unreported = []
        for generation in [g for generations in self._live.values() for g in generations]:
            del generation.tokens[len(generation.drawn) :], generation.weight_versions[len(generation.drawn) :]
            if generation.index not in generation.handle.completions:
                unreported.append(generation)
        self._scheduler.restart(table, prefixes, [g for g in unreported if not g.is_over])
        for generation in unreported:
            if generation.is_over:
                self._report(generation)

    def check(self) -> None:
        """Assert that pages, slots and snapshots are accounted for."""
        table = self._scheduler.pages
        table.check()
        self._scheduler.cache.check()
        assert table.free_slots + len(self._scheduler.running) == table.slots, "a slot is lost"

    def _empty_pool(self) -> tuple[PageTable, PrefixCache]:
        table = PageTable(self._pages + 1, page_size=self.page_size, slots=self.max_batch, snapshots=self._snapshots)
        return table, PrefixCache(table, PAGES_PER_BLOCK * self.page_size)

    def _forget(self) -> None:
        """The weights have changed."""
        self._scheduler.cache.clear()
        self._scheduler.forget_leaders()
        self._runner.notice_weights()
        self._weight_marks = self._marks()

    def _notice_weights(self) -> None:
        """A trainer that works on the engine's model and forgets to say so would get answers from a prefix of old
        weights. Nobody is under way, so it costs nothing to look."""
        if self._weight_marks != (marks := self._marks()):
            self._scheduler.cache.clear()
            self._runner.notice_weights()
            self._weight_marks = marks

    def _marks(self) -> list[tuple[int, int]]:
        """Where each weight is, and how often it was written."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors]


def _tops(tokens: Sequence[Drawn], wanted: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The likeliest ids of each token and their log-probabilities, where some were asked for."""
    if not wanted:
        return None, None
    ids = np.array([token.top_ids for token in tokens], dtype=np.int32).reshape(-1, wanted)
    logprobs = np.array([token.top_logprobs for token in tokens], dtype=np.float32).reshape(-1, wanted)
    return ids, logprobs


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """Bytes of what a pool is made of."""

    page: int
    """Keys and values of a page in all layers."""
    state: int
    """CCA state of one sequence, or one snapshot."""
    slots: int

    @classmethod
    def of(cls, config: ModelConfig, page_size: int, itemsize: int, slots: int) -> PoolSizes:
        """`itemsize`: bytes of a number in keys and values; 1 brings scales with it."""
        head = config.head_dim * itemsize + (4 if itemsize == 1 else 0)
        return cls(
            page=2 * config.num_layers * config.num_kv_heads * page_size * head,
            state=4 * config.num_layers * (config.conv_context * config.conv_channels + config.key_size // 2),
            slots=slots,
        )

    def snapshots(self, pages: int) -> int:
        """How many go with so many pages: one for each block, and a few where there are few pages."""
        return max(pages // PAGES_PER_BLOCK, min(pages, 16))

    def pages_in(self, room: int) -> int:
        """Pages that fit in so many bytes, with slots, snapshots, and the page of zeros."""
        room -= self.slots * self.state + self.page
        pages = max(0, int(room // (self.page + self.state / PAGES_PER_BLOCK)))
        while pages and pages * self.page + self.snapshots(pages) * self.state > room:
            pages -= 1
        return pages
