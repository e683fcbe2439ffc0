"""Training batches: packed, blended, shuffled, and the same again whenever they are asked for.

1. Each component's documents are packed into bins of at most `context` tokens (`data.pack`), once, when the loader is
   made. Plain documents are first split into chunks of that length; conversations are never cut.
2. Sample n comes from one component (`data.mix.Blend`), and is one of its bins: the seeded permutation of this epoch
   says which. A component that has given all its bins begins its next epoch with another permutation.
3. Step k takes the samples [k·G, (k + 1)·G) where G is `bins_per_step`. Rank r of n takes the r-th of n equal parts,
   so the parts of all ranks, one after another, are the same whatever n is.

The batch of step k is a function of the key, the seed and k, and so the state is three values. Ranks that share a
sequence (context parallelism) use one loader rank and take their ranges of its batch.

Source: spec pretraining 6.3 to 6.5, post-training 2.3. Torch-free; what trains turns the arrays into tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from zaya import config as configuration
from zaya.core.rng import derive_seed
from zaya.data.dataset import Dataset
from zaya.data.masks import Segment, loss_of, segment_of
from zaya.data.mix import Blend, Permutation
from zaya.data.pack import pack, split
from zaya.errors import ConfigError, DataError

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How documents become batches."""

    context: int
    """Tokens a bin can hold: the longest sequence."""
    bins_per_step: int
    """Bins in a batch, over all ranks."""
    cross_document: bool = False
    """Let what stands behind another document in a bin see it, as in plain packing. Off, each document is alone."""

    def __post_init__(self) -> None:
        for name in ("context", "bins_per_step"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Component:
    """One dataset of a blend."""

    name: str
    dataset: Dataset
    weight: float = 1.0
    """Share of the bins, relative to the other components."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one rank trains on in one step: packed rows without padding.

    The room that a bin's documents leave is absent: bins follow one another directly, `cu_seqlens` ends at the number
    of ids, and that number, at most context times bins, differs a little from step to step. Who needs rows of one
    size appends the rest as a sequence of its own with the loss off.
    """

    ids: np.ndarray
    """int32 [tokens]."""
    targets: np.ndarray
    """int32 [tokens]: the next id of the same document. Where there is none, 0, and the loss is off."""
    loss_mask: np.ndarray
    """bool [tokens]: whether the target is learned."""
    segments: np.ndarray
    """uint8 [tokens]: the `Segment` of the target."""
    positions: np.ndarray
    """int32 [tokens]: place in its sequence, from 0."""
    cu_seqlens: np.ndarray
    """int32 [sequences + 1]: where sequences begin, and the end of the last. Sequences are documents and chunks of
    documents, or whole bins with `cross_document`."""
    components: np.ndarray
    """int32 [tokens]: number of the component."""
    documents: np.ndarray
    """int64 [tokens]: number of the document in its component."""
    step: int
    tokens_before: int
    """Tokens of all ranks in the steps before this one; schedules are functions of it."""
    tokens_global: int
    """Tokens of all ranks in this step."""

    @property
    def hash64(self) -> int:
        """A 64-bit hash of all arrays, to see that a replay is one."""
        digest = hashlib.blake2b(digest_size=8)
        arrays = (self.ids, self.targets, self.loss_mask, self.segments)
        for array in (*arrays, self.positions, self.cu_seqlens, self.components, self.documents):
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(array.tobytes())
        return int.from_bytes(digest.digest(), "little")


class Loader:
    """An endless iterator of batches, and a function from a step to its batch."""

    def __init__(
        self,
        components: Sequence[Component],
        config: LoaderConfig,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 0,
    ) -> None:
        """`prefetch` batches are made ahead by a thread; with 0 each is made when it is asked for.

        Raises ConfigError for a world size that does not divide the bins of a step, and for weights or names that
        cannot be blended; DataError for tokenizers that differ, and for a conversation longer than the context.
        """
        if not components:
            raise ConfigError("a loader needs at least one component")
        names = [component.name for component in components]
        if len(set(names)) < len(names):
            raise ConfigError(f"components must have different names: {', '.join(names)}")
        if len({component.dataset.manifest.tokenizer for component in components}) > 1:
            raise DataError(
                f"the components were prepared with different tokenizers: {', '.join(names)}",
                hint="prepare them again with one tokenizer",
            )
        if config.bins_per_step % world_size:
            raise ConfigError(
                f"bins_per_step must be a multiple of the number of ranks: {config.bins_per_step}, {world_size}"
            )
        assert 0 <= rank < world_size
        self.config = config
        self.seed = seed
        self.step = 0
        """The step whose batch comes next."""
        self.components = tuple(components)
        self.key = _key(components, config)
        """Hash of everything but the seed that decides the batches."""
        self._blend = Blend([component.weight for component in components])
        self._bins = [_Bins(component, config.context, seed) for component in components]
        self._share = range(rank * config.bins_per_step // world_size, (rank + 1) * config.bins_per_step // world_size)
        self._prefetch = prefetch
        self._pool = ThreadPoolExecutor(1, "batches") if prefetch else None
        self._ahead: deque[Future[Batch]] = deque()

    @property
    def fill(self) -> dict[str, float]:
        """For each component, the part of its bins' room that holds tokens."""
        return {bins.name: float(bins.tokens.mean()) / self.config.context for bins in self._bins}

    @property
    def bins(self) -> dict[str, int]:
        """For each component, how many bins one epoch of it has."""
        return {bins.name: len(bins) for bins in self._bins}

    def batch(self, step: int) -> Batch:
        """This rank's batch of any step. Changes nothing."""
        first = step * self.config.bins_per_step
        chosen = []
        for sample in range(first, first + self.config.bins_per_step):
            component = self._blend.component(sample)
            turn = int(self._blend.counts(sample)[component])
            chosen.append((component, self._bins[component].at(turn)))
        tokens = sum(int(self._bins[component].tokens[number]) for component, number in chosen)
        pieces = [
            self._bins[component].read(component, number)
            for component, number in chosen[self._share.start : self._share.stop]
        ]
        return _assemble(pieces, self.config.cross_document, step, self.tokens_before(step), tokens)

    def tokens_before(self, step: int) -> int:
        """Tokens of all ranks in the steps before this one."""
        counts = self._blend.counts(step * self.config.bins_per_step)
        return sum(bins.tokens_in(int(count)) for bins, count in zip(self._bins, counts, strict=True))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            batch = self.batch(self.step)
        else:
            while len(self._ahead) <= self._prefetch:
                self._ahead.append(self._pool.submit(self.batch, self.step + len(self._ahead)))
            batch = self._ahead[0].result()  # an error stays where it is, and comes again
            self._ahead.popleft()
        self.step += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Where the iteration stands, as plain values for JSON. Batches made ahead do not count."""
        return {"key": self.key, "seed": self.seed, "step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where a loader of the same data, settings and seed stood, at whatever world size.

        Raises ConfigError where they are not the same: from there on other batches would come than it had begun with.
        """
        for name in ("key", "seed"):
            if state[name] != getattr(self, name):
                raise ConfigError(
                    f"this state belongs to other data, weights or settings: its {name} is {state[name]}, "
                    f"here it is {getattr(self, name)}",
                    hint="resume with the configuration the run began with",
                )
        self.step = state["step"]
        self._forget()

    def close(self) -> None:
        """End the thread that makes batches ahead."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()


def _key(components: Sequence[Component], config: LoaderConfig) -> str:
    parts = {
        "format": _FORMAT,
        "config": configuration.to_mapping(config),
        "components": [[c.name, float(c.weight), c.dataset.manifest.key] for c in components],
    }
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class _Piece:
    """One document, or chunk of one, of a bin; the arrays are those of a Batch."""

    ids: np.ndarray
    targets: np.ndarray
    loss_mask: np.ndarray
    segments: np.ndarray
    component: int
    document: int


class _Bins:
    """A component's documents in bins, in an order for each epoch."""

    def __init__(self, component: Component, context: int, seed: int) -> None:
        self.name = component.name
        self.dataset = component.dataset
        self.seed = seed
        columns: list[list[np.ndarray]] = []
        first_document = first_item = 0
        for shard in component.dataset.shards:
            lengths = np.asarray(shard.lengths, dtype=np.int64)
            if component.dataset.manifest.conversations:
                chunks = np.arange(len(lengths)), np.zeros_like(lengths), lengths
            else:
                chunks = split(lengths, context)
            try:
                packing = pack(chunks[2], context)
            except DataError as error:
                raise DataError(f"{component.name}: {error.message}", hint=error.hint) from error
            items = packing.items
            columns.append(
                [
                    chunks[0][items] + first_document, chunks[1][items], chunks[2][items],
                    packing.offsets[:-1] + first_item, packing.tokens,
                ]
            )  # fmt: skip
            first_document += len(lengths)
            first_item += len(items)
        self._document, self._start, self._length, offsets, self.tokens = map(
            np.concatenate, zip(*columns, strict=True)
        )
        self._offsets = np.append(offsets, first_item)
        self._sums: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, turn: int) -> int:
        """The bin that is taken as the turn-th of this component, epochs counted through."""
        epoch, place = divmod(turn, len(self))
        return int(self._order(epoch).at([place])[0])

    def tokens_in(self, turns: int) -> int:
        """Tokens in the bins that are taken first."""
        epoch, rest = divmod(turns, len(self))
        if self._sums is None or self._sums[0] != epoch:
            order = self._order(epoch).at(np.arange(len(self)))
            self._sums = epoch, np.cumsum([0, *self.tokens[order]])
        return epoch * int(self.tokens.sum()) + int(self._sums[1][rest])

    def read(self, component: int, number: int) -> list[_Piece]:
        """The documents of one bin."""
        items = range(int(self._offsets[number]), int(self._offsets[number + 1]))
        return [self._read(component, item) for item in items]

    def _order(self, epoch: int) -> Permutation:
        return Permutation(len(self), derive_seed(self.seed, "bins", self.name, epoch))

    def _read(self, component: int, item: int) -> _Piece:
        document, start, length = int(self._document[item]), int(self._start[item]), int(self._length[item])
        # One more than the piece has: behind a chunk the document goes on, and that id is the last one's target.
        ids = self.dataset.tokens(document, start, start + length + 1)
        mask = self.dataset.mask(document, start, start + length + 1)
        known = len(ids) - 1
        targets = np.zeros(length, dtype=np.int32)
        loss_mask = np.zeros(length, dtype=bool)
        segments = np.full(length, Segment.OTHER, dtype=np.uint8)
        targets[:known] = ids[1:]
        loss_mask[:known] = True if mask is None else loss_of(mask[1:])
        if mask is not None:
            segments[:known] = segment_of(mask[1:])
        return _Piece(ids[:length], targets, loss_mask, segments, component, document)


def _assemble(
    bins: list[list[_Piece]], cross_document: bool, step: int, tokens_before: int, tokens_global: int
) -> Batch:
    pieces = [piece for members in bins for piece in members]
    lengths = [len(piece.ids) for piece in pieces]
    sequences = [sum(len(piece.ids) for piece in members) for members in bins] if cross_document else lengths
    return Batch(
        ids=np.concatenate([piece.ids for piece in pieces]).astype(np.int32),
        targets=np.concatenate([piece.targets for piece in pieces]),
        loss_mask=np.concatenate([piece.loss_mask for piece in pieces]),
        segments=np.concatenate([piece.segments for piece in pieces]),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in sequences]),
        cu_seqlens=np.cumsum([0, *sequences], dtype=np.int32),
        components=np.repeat(np.array([piece.component for piece in pieces], dtype=np.int32), lengths),
        documents=np.repeat(np.array([piece.document for piece in pieces], dtype=np.int64), lengths),
        step=step,
        tokens_before=tokens_before,
        tokens_global=tokens_global,
    )
