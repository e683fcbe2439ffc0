"""Who reads how many tokens in the next pass. Pure bookkeeping: no model, no torch.

    1. every sequence that decodes gets its token, and drafts where some are proposed and there is room
    2. who waits is let in, in order, as far as there are slots and pages
    3. prompts under way share what is left of the pass's tokens: each gets an equal part, and at least a block

Order is rank: larger priority first, within one priority who came first. Where pages run out, the prefix cache lets go
of entries; then the sequence of the lowest rank loses its pages and waits, at the front of its class by its rank, to
read its text again. Its draws go on at the same positions, so its text is the same. The first in rank can lose its
pages to nobody and fits alone (engine.engine refuses others), so somebody always moves on.

A prompt that several sequences begin with is read by one of them, the leader. The others wait for it with slots kept
free for them, and are forked from it where it has been read.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from zaya.engine.pages import PageTable
from zaya.engine.prefix import PrefixCache


@dataclass(slots=True, eq=False, weakref_slot=True)
class Prompt:
    """A prompt, shared by all sequences under way that begin with it."""

    ids: tuple[int, ...]
    salt: str = ""
    leader: Track | None = None
    """Who reads it now."""


@dataclass(slots=True, eq=False, kw_only=True)
class Track:
    """A sequence under way: what the scheduler knows of it."""

    prompt: Prompt
    order: int
    """Place in the order of arrival."""
    priority: int = 0
    drawn: list[int] = field(default_factory=list)
    slot: int | None = None
    """Where it runs; None while it waits."""
    read: int = 0
    """Tokens of prompt and text that are in its pages."""
    epoch: int = 0
    """Of the prefix cache, when it was let in: what other weights have computed stays out of the cache."""
    cached_tokens: int | None = None
    """Prompt tokens that were in the prefix cache, or that a leader read for it; None before it has begun."""
    routes: list[np.ndarray] | None = None
    """uint8 (tokens, layers, k) each: experts of the tokens in order, each token once; None where nobody asks."""
    routed: int = 0
    """Tokens of which they are known."""

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller comes first."""
        return -self.priority, self.order

    @property
    def length(self) -> int:
        """Tokens of prompt and text so far."""
        return len(self.prompt.ids) + len(self.drawn)

    @property
    def left(self) -> int:
        """Tokens that have to be read before the next is drawn."""
        return self.length - self.read

    @property
    def is_new(self) -> bool:
        """Nothing has been drawn."""
        return not self.drawn

    def ids(self, start: int, stop: int) -> Sequence[int]:
        """Tokens of prompt and text from start to stop."""
        prompt = len(self.prompt.ids)
        if start >= prompt:
            return self.drawn[start - prompt : stop - prompt]
        return [*self.prompt.ids[start:stop], *self.drawn[: max(0, stop - prompt)]]

    def text(self, length: int) -> np.ndarray:
        """The first tokens, int32: what the prefix cache is asked for."""
        return np.array(self.ids(0, length), dtype=np.int32)

    def note_routes(self, start: int, routes: np.ndarray) -> None:
        """Experts of the tokens from `start` on. Those of tokens that are read again are known already."""
        assert self.routes is not None
        assert start <= self.routed, "routes come in order"
        if start + len(routes) > self.routed:
            self.routes.append(routes[self.routed - start :])
            self.routed = start + len(routes)


@dataclass(slots=True, eq=False)
class Chunk:
    """Tokens of one sequence in a pass."""

    track: Track
    count: int
    """Tokens to read, drafts included."""
    drafts: Sequence[int] = ()
    """Guesses of what follows its text, read behind it."""
    snapshots: list[tuple[int, int]] = field(default_factory=list)
    """(tokens of prompt and text, row): states to be kept where they are reached."""

    @property
    def start(self) -> int:
        return self.track.read

    @property
    def is_last(self) -> bool:
        """Whether what follows is to be drawn after it."""
        return self.count - len(self.drafts) == self.track.left

    def ids(self) -> Sequence[int]:
        return [*self.track.ids(self.start, self.start + self.count - len(self.drafts)), *self.drafts]


Propose = Callable[[Track, int], Sequence[int]]
"""Drafts for a sequence that decodes, at most so many."""


class Scheduler:
    """The queue, the running sequences, and the plan of the next pass."""

    def __init__(
        self,
        pages: PageTable,
        cache: PrefixCache,
        *,
        max_batch_tokens: int,
        use_cache: bool = True,
        propose: Propose | None = None,
        most_drafts: int = 0,
    ) -> None:
        self.pages = pages
        self.cache = cache
        self.max_batch_tokens = max_batch_tokens
        self.use_cache = use_cache
        self.propose = propose
        self.most_drafts = most_drafts
        self.waiting: list[Track] = []
        """In order of rank."""
        self.running: list[Track] = []
        self.preemptions = 0
        self.prefix_hits = 0
        self.prefix_tokens = 0
        self._plan: dict[Track, Chunk] = {}

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, tracks: Iterable[Track]) -> None:
        for track in tracks:
            insort(self.waiting, track, key=lambda t: t.rank)

    def remove(self, track: Track) -> None:
        """It has ended, or is no longer wanted."""
        if track.slot is None:
            if track in self.waiting:
                self.waiting.remove(track)
        else:
            self._stop(track)

    def plan(self) -> list[Chunk]:
        """The next pass; empty only where nobody is there. All pages it takes are reserved."""
        self._plan = {}
        self._plan_decodes()
        # a token at least, so that prompts get on also beside more decoding sequences than a pass has tokens
        rest = max(1, self.max_batch_tokens - sum(chunk.count for chunk in self._plan.values()))
        self._admit(rest)
        self._plan_prompts(rest)
        assert self._plan or self.is_idle, "the first in rank always moves on"
        for chunk in self._plan.values():
            self._choose_snapshots(chunk)
        return list(self._plan.values())

    def done(self, chunk: Chunk, accepted: int) -> list[Track]:
        """So many of a chunk's tokens are in the pages now. Returns who waited for this prompt to be read, and goes on
        from here in a slot of its own."""
        track = chunk.track
        track.read += accepted
        for length, row in chunk.snapshots:
            if length <= track.read and track.epoch == self.cache.epoch:
                self._keep(track, length, row)
            else:
                self.pages.drop_snapshot(row)
        if track.prompt.leader is not track or track.left:
            return []
        track.prompt.leader = None
        return self._join(track)

    def finish(self, track: Track) -> None:
        """A completion has ended: what it read is kept for a text that goes on from it."""
        if self.use_cache and track.epoch == self.cache.epoch and track.read and track.slot is not None:
            row = self._take_snapshot()
            if row is not None:
                self.pages.copy_state(track.slot, row)
                self._keep(track, track.read, row)
        self.remove(track)

    def preempt(self, track: Track) -> None:
        """Take back its pages; it waits, and reads its text again."""
        self._stop(track)
        self.add([track])
        self.preemptions += 1

    def restart(self, pages: PageTable, cache: PrefixCache, tracks: Iterable[Track]) -> None:
        """What was in the pages is lost: these, whatever they did, wait and read their texts again."""
        self.forget_leaders()  # also of those that do not come back: their prompts may be asked for again
        self.pages, self.cache = pages, cache
        self.waiting, self.running, self._plan = [], [], {}
        for track in tracks:
            track.slot, track.read = None, 0
            self.add([track])

    def forget_leaders(self) -> None:
        """The weights have changed: nobody new goes on from what was read before."""
        for track in self.running:
            track.prompt.leader = None

    # ----- the plan

    def _plan_decodes(self) -> None:
        tracks = [track for track in self.running if track.left == 1]
        drafts = self._draft(tracks)
        while tracks:
            slots, counts = _slots(tracks), [1 + len(drafts.get(track, ())) for track in tracks]
            if self.pages.needed(slots, counts) <= self.pages.free:
                self.pages.reserve(slots, counts)
                break
            if drafts:
                drafts = {}
            elif not self.cache.evict():
                lowest = self._lowest()
                self.preempt(lowest)
                tracks = [track for track in tracks if track is not lowest]
        for track in tracks:
            self._plan[track] = Chunk(track, 1 + len(drafts.get(track, ())), drafts.get(track, ()))

    def _draft(self, tracks: Sequence[Track]) -> dict[Track, Sequence[int]]:
        """Drafts take up to half of what single tokens leave of the pass."""
        if self.propose is None:
            return {}
        spare, drafts = (self.max_batch_tokens - len(tracks)) // 2, {}
        for track in tracks:
            found = () if track.is_new else self.propose(track, min(self.most_drafts, spare))
            if found:
                drafts[track] = found
                spare -= len(found)
        return drafts

    def _admit(self, rest: int) -> None:
        """Let in who waits. Who is next and does not fit holds up those behind: they would keep it out for ever."""
        reading = [track for track in self.running if track not in self._plan]
        tokens, count = sum(track.left for track in reading), len(reading)
        promised = sum(map(self._to_come, self.running))
        kept = 0  # slots for those who wait for a leader
        for track in list(self.waiting):
            if self.pages.free_slots <= kept or (tokens >= rest and count >= max(1, rest // self.cache.block)):
                break
            if track.is_new and track.prompt.leader is not None:
                kept += 1
                continue
            if not self._start(track, promised):
                break
            promised += self._to_come(track)
            tokens += track.left
            count += 1

    def _start(self, track: Track, promised: int) -> bool:
        """Give it a slot and what is known of its text, if there will be pages for the rest of it."""
        hit = None
        if self.use_cache:
            # routes that were noted before it had to make room are not asked for again
            with_routes = track.routes is not None
            hit = self.cache.match(track.prompt.salt, track.text(track.length), with_routes=with_routes)
        track.slot = self.pages.open() if hit is None else self.pages.adopt(hit.pages, hit.length, hit.snapshot)
        track.read = 0 if hit is None else hit.length
        wanted = self.pages.needed([track.slot], [track.left]) + promised
        if self.running and wanted > self.pages.free:
            if wanted > self.pages.reclaimable:
                self.pages.close(track.slot)
                track.slot, track.read = None, 0
                return False
            while wanted > self.pages.free and self.cache.evict():
                pass
        self.waiting.remove(track)
        self.running.append(track)
        track.epoch = self.cache.epoch
        if track.cached_tokens is None:
            track.cached_tokens = track.read
        if hit is not None:
            self.prefix_hits += 1
            self.prefix_tokens += hit.length
            if hit.routes is not None:
                track.note_routes(0, hit.routes)
        if track.is_new:
            track.prompt.leader = track
        return True

    def _to_come(self, track: Track) -> int:
        """Pages that a running sequence will take soon: for the rest of its text, and one to go on."""
        assert track.slot is not None
        return 1 + max(0, self.pages.pages_for(track.length) - int(self.pages.held[track.slot]))

    def _plan_prompts(self, rest: int) -> None:
        reading = sorted((track for track in self.running if track not in self._plan), key=lambda track: track.rank)
        if not reading:
            return
        share, given = max(rest // len(reading), min(self.cache.block, rest)), dict.fromkeys(reading, 0)
        for most in (share, rest):  # an equal part each, then what is left over, in order
            for track in reading:
                more = min(track.left - given[track], most, rest)
                given[track] += more
                rest -= more
        for track in reading:
            # whoever comes earlier may have taken its pages
            count = self._afford(track, given[track]) if track.slot is not None else 0
            if count:
                assert track.slot is not None
                self.pages.reserve([track.slot], [count])
                self._plan[track] = Chunk(track, count)

    def _afford(self, track: Track, count: int) -> int:
        """How many of these tokens find pages, if those of lower rank make room."""
        slots = _slots([track])
        while count and self.pages.needed(slots, [count]) > self.pages.free:
            if self.cache.evict():
                continue
            lowest = self._lowest()
            if lowest is track:
                count = max(0, count - self.pages.page_size)
            else:
                self.preempt(lowest)
        return count

    def _join(self, leader: Track) -> list[Track]:
        followers = [t for t in self.waiting if t.prompt is leader.prompt and t.is_new][: self.pages.free_slots]
        assert leader.slot is not None
        for track, slot in zip(followers, self.pages.fork(leader.slot, len(followers)), strict=True):
            self.waiting.remove(track)
            self.running.append(track)
            track.slot, track.read, track.epoch = slot, leader.read, leader.epoch
            if track.cached_tokens is None:
                track.cached_tokens = leader.read
            if track.routes is not None:
                assert leader.routes is not None
                track.routes, track.routed = list(leader.routes), leader.routed
        return followers

    def _choose_snapshots(self, chunk: Chunk) -> None:
        """States in a chunk that are worth keeping: at the end of each block, and before a prompt's last token."""
        track, block = chunk.track, self.cache.block
        if not self.use_cache or track.epoch != self.cache.epoch:
            return
        start, stop = chunk.start, chunk.start + chunk.count
        lengths = set(range((start // block + 1) * block, stop + 1, block))
        if start < len(track.prompt.ids) - 1 <= stop:
            lengths.add(len(track.prompt.ids) - 1)
        for length in sorted(lengths):
            row = self._take_snapshot()
            if row is None:
                break
            chunk.snapshots.append((length, row))

    def _take_snapshot(self) -> int | None:
        row = self.pages.take_snapshot()
        while row is None and self.cache.evict():
            row = self.pages.take_snapshot()
        return row

    def _keep(self, track: Track, length: int, row: int) -> None:
        assert track.slot is not None
        routes = None
        if track.routes is not None:
            track.routes = [routes := np.concatenate(track.routes)]
        self.cache.insert(track.prompt.salt, track.text(length), self.pages.pages_of(track.slot), row, routes)

    def _lowest(self) -> Track:
        return max(self.running, key=lambda track: track.rank)

    def _stop(self, track: Track) -> None:
        assert track.slot is not None
        self.pages.close(track.slot)
        track.slot, track.read = None, 0
        self.running.remove(track)
        self._plan.pop(track, None)
        if track.prompt.leader is track:
            track.prompt.leader = None


def _slots(tracks: Sequence[Track]) -> list[int]:
    return [track.slot for track in tracks if track.slot is not None]
