"""Which replica gets a request: the one that has read the longest part of its prompt, unless it is busy.

    keys = blocks(prompt_ids, cache_salt)
    replica = choose(keys, loads, known, turns)      # a pure function of what is known
    known.note(replica, keys)

Prefixes are compared in the blocks in which an engine keeps them (docs/concepts/engine.md): what is shorter saves
nothing. Used by `serve.fleet`. Imports no torch.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence

BLOCK = 256
"""Tokens from one state that an engine's prefix cache keeps to the next, with its default page."""
SLACK = 8
"""Completions that a replica may have more than the least loaded one, and still get what begins as it knows. To read a
prefix again takes about as long as so many completions slow down a step, and less than a queue that only one has."""
MOST_BLOCKS = 16_384
"""Blocks that are remembered of a replica: four million tokens, in a few MB."""


def blocks(ids: Sequence[int], salt: str) -> list[int]:
    """A key for each whole block of a prompt, which stands for all up to its end. Another salt has other keys, as it
    has other prefixes in an engine."""
    keys, key = [], hash(salt)
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        key = hash((key, tuple(ids[end - BLOCK : end])))
        keys.append(key)
    return keys


class Known:
    """What each replica has read, as far as somebody remembers: the least recently read is forgotten first."""

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        self._most = most
        self._blocks: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)

    def depth(self, replica: int, keys: Sequence[int]) -> int:
        """How many blocks of a prompt it has read, from the first on."""
        known = self._blocks[replica]
        return next((depth for depth, key in enumerate(keys) if key not in known), len(keys))

    def note(self, replica: int, keys: Sequence[int]) -> None:
        """It reads this prompt."""
        known = self._blocks[replica]
        for key in reversed(keys):  # the beginning last, so that it is forgotten last: the rest is of no use without it
            known[key] = None
            known.move_to_end(key)
        while len(known) > self._most:
            known.popitem(last=False)

    def forget(self, replica: int) -> None:
        """What it has read is gone with it."""
        self._blocks.pop(replica, None)


def choose(keys: Sequence[int], loads: Mapping[int, int], known: Known, turns: Mapping[int, int]) -> int:
    """The replica for a prompt of these blocks, of those in `loads`, which says how many completions each has.

    `turns` has when each was chosen last: of those that are alike, the one that has waited longest gets it, so that
    prompts spread out also where they come one at a time.
    """
    least = min(loads.values())
    idle_enough = [replica for replica, load in loads.items() if load - least <= SLACK]
    depths = {replica: known.depth(replica, keys) for replica in idle_enough}
    deepest = max(depths.values())
    if deepest == 0:
        candidates = [replica for replica in idle_enough if loads[replica] == least]
    else:
        candidates = [replica for replica in idle_enough if depths[replica] == deepest]
    return min(candidates, key=lambda replica: (loads[replica], turns.get(replica, -1), replica))
