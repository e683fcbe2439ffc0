"""Who reads what, without a model: a sequence draws the token 7 wherever one is due.

1. Decoding sequences get their token in every pass; prompts share what is left, each an equal part but at least a
   block, and what one does not need goes to the others in order.
2. A short prompt does not wait behind a long one, nor do decoding sequences.
3. Larger priority first, within one who came first; nobody of a priority waits for ever.
4. One reads a prompt for all that begin with it; they get the next slots, before who came later.
5. Where pages run out the prefix cache lets go first, then the lowest in rank loses its pages and comes back first of
   those who wait. The first in rank is never touched.
6. Who does not fit is not let in, and keeps nobody's pages; a slot is no use without them.
7. Drafts take what is left, and are the first to go.
8. States are kept at the end of each block and before a prompt's last token, in whatever pass these are reached.
9. Whoever is removed, at whatever moment, leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from zaya.engine.pages import PageTable
from zaya.engine.prefix import PrefixCache
from zaya.engine.scheduler import Chunk, Prompt, Scheduler, Track

BLOCK = 8


@dataclass
class World:
    """A scheduler and what happens to it."""

    pages: int = 100
    slots: int = 4
    tokens: int = 16
    use_cache: bool = False
    most: dict[Track, int] = field(default_factory=dict)
    log: list[list[tuple[str, int]]] = field(default_factory=list)
    """For each pass, who read how many tokens."""
    names: dict[Track, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        table = PageTable(self.pages + 1, page_size=2, slots=self.slots, snapshots=20)
        self.scheduler = Scheduler(
            table, PrefixCache(table, BLOCK), max_batch_tokens=self.tokens, use_cache=self.use_cache
        )
        self.prompts: dict[tuple[int, ...], Prompt] = {}

    def ask(self, name: str, prompt: list[int] | int, most: int, priority: int = 0) -> Track:
        """`most` tokens behind a prompt; one of its own where only a length is given."""
        ids = (ord(name[0]),) * prompt if isinstance(prompt, int) else tuple(prompt)
        track = Track(prompt=self.prompts.setdefault(ids, Prompt(ids)), order=len(self.names), priority=priority)
        self.names[track], self.most[track] = name, most
        self.scheduler.add([track])
        return track

    def step(self) -> list[Chunk]:
        chunks = self.scheduler.plan()
        self.log.append([(self.names[chunk.track], chunk.count) for chunk in chunks])
        for chunk in chunks:
            table = self.scheduler.pages
            assert chunk.track.slot is not None
            table.commit([chunk.track.slot], [chunk.count - len(chunk.drafts)])
            is_last = chunk.is_last
            followers = self.scheduler.done(chunk, chunk.count - len(chunk.drafts))
            for track in ([chunk.track] if is_last else []) + followers:
                track.drawn.append(7)
                if len(track.drawn) == self.most[track]:
                    self.scheduler.finish(track)
        self.check()
        return chunks

    def run(self) -> list[str]:
        """To the end; names in the order in which they ended."""
        ended: list[str] = []
        while not self.scheduler.is_idle:
            self.step()
            here = {*self.scheduler.running, *self.scheduler.waiting}
            ended += [name for track, name in self.names.items() if track not in here and name not in ended]
            assert len(self.log) < 1000
        return ended

    def check(self) -> None:
        self.scheduler.pages.check()
        self.scheduler.cache.check()


def test_prompts_share_a_pass() -> None:
    world = World(tokens=40)
    world.ask("a", 30, 2)
    world.ask("b", 5, 2)
    world.ask("c", 50, 1)
    world.run()
    # 40 // 3 each: b needs 5, what it leaves goes to a, who came first
    assert world.log[:3] == [
        [("a", 22), ("b", 5), ("c", 13)],
        [("b", 1), ("a", 8), ("c", 31)],
        [("a", 1), ("c", 6)],
    ]


def test_a_block_at_least() -> None:
    """Sixteen tokens for three long prompts are two blocks, so the third waits."""
    world = World(tokens=16)
    for name in "abc":
        world.ask(name, 16, 1)
    world.run()
    assert world.log == [[("a", 8), ("b", 8)], [("a", 8), ("b", 8)], [("c", 16)]]


def test_nobody_waits_behind_a_long_prompt() -> None:
    world = World(tokens=17)
    world.ask("a", 3, 7)
    world.step()
    world.ask("b", 100, 1)
    world.step()
    world.ask("c", 4, 1)
    assert world.run() == ["c", "a", "b"]
    assert world.log[1:4] == [[("a", 1), ("b", 16)], [("a", 1), ("b", 12), ("c", 4)], [("a", 1), ("b", 16)]]
    assert all(("a", 1) in pass_ for pass_ in world.log[1:7])


def test_prompts_get_on_beside_more_decodes_than_a_pass_has_tokens() -> None:
    world = World(tokens=2, slots=4)
    for name in "abc":
        world.ask(name, 1, 30)
    world.ask("d", 3, 1)
    assert world.run()[0] == "d"


def test_order_is_priority_then_arrival() -> None:
    world = World(slots=1)
    world.ask("a", 2, 3)
    for name, priority in (("b", 0), ("c", -1), ("d", 5), ("e", 0), ("f", 5)):
        world.ask(name, 2, 2, priority)
    assert world.run() == ["d", "f", "a", "b", "e", "c"]


def test_nobody_waits_for_ever() -> None:
    """A new one comes in every pass; everybody is served in the order of arrival."""
    world = World(slots=2, pages=12)
    for i in range(60):
        world.ask(f"{chr(97 + i % 26)}{i}", 1 + i % 9, 1 + i % 4)
        world.step()
    ended = world.run()
    assert len(ended) == 60
    assert all(abs(ended.index(name) - i) <= 3 for i, name in enumerate(world.names.values()))


def test_one_reads_for_all() -> None:
    world = World(slots=3, tokens=12)
    tracks = [world.ask(f"a{i}", [5] * 20, 2) for i in range(2)]
    world.ask("b", 2, 1)
    world.ask("c", 2, 1)
    world.run()
    # b finds a slot beside the two that are a's; c waits for one
    assert world.log[:3] == [[("a0", 12)], [("a0", 8), ("b", 2)], [("a0", 1), ("a1", 1), ("c", 2)]]
    assert [track.cached_tokens for track in tracks] == [0, 20]


def test_who_leads_may_go() -> None:
    world = World(tokens=6)
    first, second = (world.ask(f"a{i}", [5] * 10, 1) for i in range(2))
    world.step()
    world.scheduler.remove(first)
    world.check()
    world.run()
    assert world.log[1:] == [[("a1", 6)], [("a1", 4)]]
    assert second.cached_tokens == 0


def test_the_lowest_in_rank_makes_room() -> None:
    """Three sequences of 4 + 8 tokens take 18 pages; there are 10."""
    world = World(pages=10)
    tracks = {name: world.ask(name, 4, 9, priority) for name, priority in (("a", 0), ("b", 0), ("c", 1))}
    ended = world.run()
    assert ended == ["c", "a", "b"]
    assert world.scheduler.preemptions > 0
    assert [pass_.count(("c", 1)) for pass_ in world.log[1:9]] == [1] * 8
    assert all(len(track.drawn) == 9 for track in tracks.values())


def test_back_to_the_front() -> None:
    world = World(pages=8, slots=2)
    world.ask("a", 4, 9)
    world.ask("b", 4, 9)
    world.ask("c", 4, 9)
    assert world.run() == ["a", "b", "c"]
    assert world.scheduler.preemptions == 2, "b for a, and c for b"


def test_the_cache_lets_go_before_anybody_is_preempted() -> None:
    world = World(pages=10, use_cache=True)
    for name in "abcd":
        world.ask(name, 9, 3)
        world.run()
    assert world.scheduler.preemptions == 0
    assert len(world.scheduler.cache) > 0


def test_who_does_not_fit_waits_outside() -> None:
    """b would need 10 pages where a has 7."""
    world = World(pages=14)
    world.ask("a", 12, 3)
    world.step()
    world.ask("b", 20, 1)
    world.ask("c", 2, 1)
    world.step()
    assert world.log[1] == [("a", 1)]
    assert world.scheduler.pages.free == 7
    assert world.run() == ["a", "c", "b"]


def test_nobody_follows_into_new_weights() -> None:
    world = World(tokens=6, slots=2)
    tracks = [world.ask(f"a{i}", [5] * 10, 1) for i in range(2)]
    world.step()
    world.scheduler.forget_leaders()
    world.run()
    assert world.log == [[("a0", 6)], [("a0", 4), ("a1", 2)], [("a1", 6)], [("a1", 2)]]
    assert [track.cached_tokens for track in tracks] == [0, 0]


@pytest.mark.parametrize(("pages", "drafted"), [(20, True), (5, False)])
def test_drafts_are_the_first_to_go(pages: int, drafted: bool) -> None:
    world = World(pages=pages)
    world.scheduler.propose, world.scheduler.most_drafts = lambda track, count: [8] * count, 3
    world.ask("a", 8, 3)
    world.step()
    (chunk,) = world.step()
    assert list(chunk.drafts) == ([8] * 3 if drafted else [])
    assert chunk.ids() == [7, *chunk.drafts]


def test_drafts_leave_half_to_prompts() -> None:
    world = World(tokens=9)
    world.scheduler.propose, world.scheduler.most_drafts = lambda track, count: [8] * count, 3
    world.ask("a", 1, 9)
    world.ask("b", 1, 9)
    world.step()
    world.ask("c", 30, 1)
    world.step()
    assert world.log[1] == [("a", 4), ("b", 1), ("c", 4)]


@pytest.mark.parametrize("tokens", [3, 8, 16, 40])
def test_states_that_are_kept(tokens: int) -> None:
    world = World(tokens=tokens, use_cache=True, pages=60)
    track = world.ask("a", 20, 13)
    lengths: list[int] = []
    while not world.scheduler.is_idle:
        lengths += [length for chunk in world.step() for length, _ in chunk.snapshots]
    assert lengths == [8, 16, 19, 24, 32]
    # the last of them is where the text ended, which was kept already
    assert len(world.scheduler.cache) == 5
    text = track.text(33)
    hits = [world.scheduler.cache.match("", text[:n]) for n in (8, 9, 17, 20, 21, 33)]
    assert [0 if hit is None else hit.length for hit in hits] == [0, 8, 16, 19, 19, 32]


def test_what_two_versions_have_read_is_not_kept() -> None:
    world = World(tokens=6, use_cache=True)
    world.ask("a", 10, 3)
    world.step()
    world.scheduler.cache.clear()
    world.ask("b", 10, 3)
    world.run()
    text = world.ask("a", 10, 1).text(10)
    assert world.scheduler.cache.match("", text) is None
    assert world.scheduler.cache.match("", text + 1) is not None


@pytest.mark.parametrize("after", range(6))
def test_whoever_is_removed_leaves_nothing(after: int) -> None:
    world = World(tokens=7, slots=2)
    tracks = [world.ask(f"a{i}", [5] * 20, 9) for i in range(2)] + [world.ask("b", 9, 9), world.ask("c", 9, 9)]
    for _ in range(after):
        world.step()
    for track in tracks:
        world.scheduler.remove(track)
        world.check()
    assert world.scheduler.is_idle
    assert world.scheduler.plan() == []
    assert world.scheduler.pages.free == world.scheduler.pages.pages
