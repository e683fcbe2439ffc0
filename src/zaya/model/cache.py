"""What a layer may know of the tokens before it: the context protocol, and two implementations.

A layer never sees keys and values of the past. It hands its new ones to the context and gets back what the
convolutions and the attention need, so that pages, int8 or other devices can stand behind the same three calls:

    begin(segments)                        new tokens are coming, in these segments
    left_context(layer, u, v_delayed)      the columns before each segment
    attend(layer, q, k, v, window)         attention over past and new tokens
    end()                                  all layers are through: the new tokens now belong to the past

`NoCache` starts every segment from nothing. `DenseCache` continues sequences whose state it keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zaya.errors import UsageError
from zaya.model.config import ModelConfig
from zaya.ops.attention import causal_attention
from zaya.ops.segments import Segments


class Context(Protocol):
    """The past of a forward pass. The four calls come in the order of the module's docstring."""

    def begin(self, segments: Segments) -> Int[Tensor, " segments"] | Tensor:
        """Announce new tokens. Returns the position of the first token of each segment."""
        ...

    def left_context(
        self, layer: int, u: Float[Tensor, "tokens channels"], v_delayed: Float[Tensor, "tokens half"]
    ) -> tuple[Float[Tensor, "segments context channels"], Float[Tensor, "segments half"]]:
        """Columns of u and the row of v_delayed that precede each segment; takes the new ones for later."""
        ...

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "tokens heads head_dim"],
        k: Float[Tensor, "tokens kv_heads head_dim"],
        v: Float[Tensor, "tokens kv_heads head_dim"],
        window: int | None,
    ) -> Float[Tensor, "tokens heads head_dim"]:
        """Causal attention of each segment over its own past and itself; takes k and v for later."""
        ...

    def end(self) -> None:
        """Every layer has run: what they handed in now counts."""
        ...


class Cache(Context, Protocol):
    """A context that keeps sequences between forward passes. `seq` is an index into them."""

    def fork(self, seq: int) -> int:
        """A second sequence with the same past; returns its index."""
        ...

    def rollback(self, seq: int, n: int) -> None:
        """Forget the last n tokens."""
        ...

    def snapshot(self, seq: int) -> Snapshot:
        """The recurrent state as it is now: what a prefix needs besides its keys and values to be continued."""
        ...

    def restore(self, seq: int, snap: Snapshot) -> None:
        """Go back to where a snapshot of this sequence, or of the one it was forked from, was taken."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CCA state at one position: 107,520 numbers for ZAYA1-8B (spec checkpoint-and-model 6.1)."""

    length: int
    """Tokens that came before."""
    columns: Float[Tensor, "layers context channels"]
    delayed: Float[Tensor, "layers half"]


class NoCache:
    """Every segment starts from nothing: convolutions, value shift, positions and attention."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._segments: Segments | None = None

    def begin(self, segments: Segments) -> Tensor:
        self._segments = segments
        return torch.zeros(segments.count, dtype=torch.long, device=segments.device)

    def left_context(self, layer: int, u: Tensor, v_delayed: Tensor) -> tuple[Tensor, Tensor]:
        assert self._segments is not None
        count = self._segments.count
        return u.new_zeros(count, self.config.conv_context, u.shape[1]), v_delayed.new_zeros(count, v_delayed.shape[1])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        segments = self._segments
        assert segments is not None
        if segments.is_uniform:
            batched = (x.unflatten(0, (segments.count, -1)) for x in (q, k, v))
            return causal_attention(*batched, window=window).flatten(0, 1)
        parts = zip(*(x.split(segments.lengths) for x in (q, k, v)), strict=True)
        return torch.cat([causal_attention(*(x[None] for x in part), window=window)[0] for part in parts])

    def end(self) -> None:
        self._segments = None


@dataclass(slots=True)
class _KeyValues:
    """Keys and values of one layer of one sequence. Rows `first` to `first + held` of the text are held."""

    keys: Tensor | None = None
    values: Tensor | None = None
    first: int = 0
    """Position in the text of row 0; above 0 once a sliding layer has let go of old tokens."""


@dataclass(slots=True)
class _Sequence:
    """State of one sequence: `length` tokens are in, the newest columns are kept for rollback."""

    layers: list[_KeyValues]
    columns: list[Tensor]
    """Per layer (context + recent, channels): columns of u, the newest last."""
    delayed: list[Tensor]
    """Per layer (1 + recent, half): rows of delayed values, the newest last."""
    length: int = 0
    recent: int = 0
    """Tokens that can still be taken back."""
    pending_columns: dict[int, Tensor] = field(default_factory=dict)
    pending_delayed: dict[int, Tensor] = field(default_factory=dict)


class DenseCache:
    """Keys, values and CCA state of a few sequences, in plain tensors: the readable reference.

    Segment i of a forward pass continues sequence i. `select` gives a cache of some of the sequences, sharing their
    state, so that one pass can continue any of them in any order. Works under autograd: a text fed in chunks has the
    gradients of the whole text. Keys and values keep the model's dtype, the CCA state is float32 (report IV-D).
    """

    def __init__(
        self,
        config: ModelConfig,
        sequences: int = 1,
        *,
        device: torch.device | str = "cpu",
        max_rollback: int = 32,
    ) -> None:
        """`max_rollback` bounds how many tokens `rollback` can take back; their columns are kept for it."""
        self.config = config
        self.device = torch.device(device)
        self.max_rollback = max_rollback
        self._sequences = [self._fresh() for _ in range(sequences)]
        self._segments: Segments | None = None

    def _fresh(self) -> _Sequence:
        c = self.config
        return _Sequence(
            layers=[_KeyValues() for _ in range(c.num_layers)],
            columns=[torch.zeros(c.conv_context, c.conv_channels, device=self.device) for _ in range(c.num_layers)],
            delayed=[torch.zeros(1, c.key_size // 2, device=self.device) for _ in range(c.num_layers)],
        )

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens in each sequence."""
        return tuple(s.length for s in self._sequences)

    def select(self, seqs: Sequence[int]) -> DenseCache:
        """A cache of these sequences in this order. The state is shared, not copied; a fork made in it is its own.

        Raises UsageError for an index that is not there, and for one that comes twice.
        """
        if len(set(seqs)) < len(seqs) or not all(0 <= s < len(self._sequences) for s in seqs):
            raise UsageError(
                f"select takes distinct indices below {len(self._sequences)}: {list(seqs)}",
                hint="fork a sequence to continue it twice",
            )
        chosen = DenseCache(self.config, 0, device=self.device, max_rollback=self.max_rollback)
        chosen._sequences = [self._sequences[s] for s in seqs]
        return chosen

    # ----- the forward pass

    def begin(self, segments: Segments) -> Tensor:
        if segments.count != len(self._sequences):
            raise UsageError(
                f"the cache holds {len(self._sequences)} sequences; the input has {segments.count} segments",
                hint="cache.select(...) picks the sequences that are to continue",
            )
        self._segments = segments
        return torch.tensor(self.lengths, device=segments.device)

    def left_context(self, layer: int, u: Tensor, v_delayed: Tensor) -> tuple[Tensor, Tensor]:
        segments, context = self._segments, self.config.conv_context
        assert segments is not None
        columns, delayed = [], []
        parts = zip(self._sequences, u.split(segments.lengths), v_delayed.split(segments.lengths), strict=True)
        for seq, new_u, new_delayed in parts:
            before = seq.columns[layer]
            columns.append(before[before.shape[0] - context :])
            delayed.append(seq.delayed[layer][-1])
            keep = min(self.max_rollback, new_u.shape[0])
            all_u = torch.cat([columns[-1], new_u.float()])
            seq.pending_columns[layer] = all_u[all_u.shape[0] - context - keep :]
            seq.pending_delayed[layer] = torch.cat([delayed[-1][None], new_delayed.float()])[-1 - keep :]
        return torch.stack(columns), torch.stack(delayed)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        segments = self._segments
        assert segments is not None
        out = []
        parts = zip(self._sequences, *(x.split(segments.lengths) for x in (q, k, v)), strict=True)
        for seq, new_q, new_k, new_v in parts:
            keys, values = _append(seq.layers[layer], new_k, new_v, seq, window)
            out.append(causal_attention(new_q[None], keys[None], values[None], window=window)[0])
        return torch.cat(out)

    def end(self) -> None:
        assert self._segments is not None
        for seq, new in zip(self._sequences, self._segments.lengths, strict=True):
            for layer in range(self.config.num_layers):
                # a copy, so that the columns of a long prompt are not kept alive by a view of its end
                seq.columns[layer] = seq.pending_columns.pop(layer).clone()
                seq.delayed[layer] = seq.pending_delayed.pop(layer).clone()
            seq.length += new
            seq.recent = min(self.max_rollback, new)
        self._segments = None

    # ----- between passes

    def fork(self, seq: int) -> int:
        """A copy of a sequence; later tokens of one do not reach the other."""
        source = self._sequences[seq]
        copy = _Sequence(
            layers=[
                _KeyValues(
                    _clone(kv.keys, source.length - kv.first),
                    _clone(kv.values, source.length - kv.first),
                    kv.first,
                )
                for kv in source.layers
            ],
            columns=list(source.columns),
            delayed=list(source.delayed),
            length=source.length,
            recent=source.recent,
        )
        self._sequences.append(copy)
        return len(self._sequences) - 1

    def rollback(self, seq: int, n: int) -> None:
        """Forget the last n tokens. Only tokens of the last pass can be taken back, and at most `max_rollback`."""
        state = self._sequences[seq]
        if not 0 <= n <= state.recent:
            raise UsageError(
                f"cannot take back {n} tokens; the last pass left {state.recent} that can be",
                hint="take a snapshot to go further back, or raise max_rollback",
            )
        if n:
            state.columns = [c[: c.shape[0] - n] for c in state.columns]
            state.delayed = [d[: d.shape[0] - n] for d in state.delayed]
            state.length -= n
            state.recent -= n

    def snapshot(self, seq: int) -> Snapshot:
        state, context = self._sequences[seq], self.config.conv_context
        columns = torch.stack([c[c.shape[0] - context :] for c in state.columns])
        return Snapshot(state.length, columns, torch.stack([d[-1] for d in state.delayed]))

    def restore(self, seq: int, snap: Snapshot) -> None:
        """Go back to a snapshot. Sliding layers must still hold the window before it."""
        state = self._sequences[seq]
        if snap.length > state.length:
            raise UsageError(f"the snapshot was taken at {snap.length} tokens, the sequence has only {state.length}")
        for layer, kv in enumerate(state.layers):
            window = self.config.window(layer)
            if window is not None and kv.first > max(0, snap.length - window + 1):
                raise UsageError(f"layer {layer} no longer holds the {window} tokens before {snap.length}")
        state.columns = list(snap.columns)
        state.delayed = [d[None] for d in snap.delayed]
        state.length, state.recent = snap.length, 0

    def keys_values(self, seq: int, layer: int) -> tuple[Tensor, Tensor]:
        """What is held of a layer, oldest first, (held, kv_heads, head_dim) each: for tests and figures."""
        state = self._sequences[seq]
        kv = state.layers[layer]
        if kv.keys is None or kv.values is None:
            empty = torch.zeros(0, self.config.num_kv_heads, self.config.head_dim, device=self.device)
            return empty, empty
        held = state.length - kv.first
        return kv.keys[:held], kv.values[:held]


def _clone(x: Tensor | None, rows: int) -> Tensor | None:
    return None if x is None else x[:rows].clone()


def _append(kv: _KeyValues, k: Tensor, v: Tensor, seq: _Sequence, window: int | None) -> tuple[Tensor, Tensor]:
    """Put new rows behind those of a sequence and return all that are held.

    Rows past its length are leftovers of a rollback or of a pass that failed, and are written over.
    """
    length = seq.length
    if kv.keys is None or kv.values is None:
        kv.keys, kv.values = k.new_empty(0, *k.shape[1:]), v.new_empty(0, *v.shape[1:])
    held, needed = length - kv.first, length - kv.first + k.shape[0]
    if torch.is_grad_enabled() and (k.requires_grad or kv.keys.requires_grad):
        # autograd keeps what attention has read: a buffer that is written again would spoil it
        kv.keys, kv.values = torch.cat([kv.keys[:held], k]), torch.cat([kv.values[:held], v])
        return kv.keys, kv.values
    # what autograd has read and what inference mode has made may not be written here
    is_foreign = kv.keys.requires_grad or (kv.keys.is_inference() and not torch.is_inference_mode_enabled())
    if needed > kv.keys.shape[0] or is_foreign:
        # A sliding layer lets go here, where it would have to grow. It keeps what the next token can see, also after
        # a rollback of the pass before, should this one fail.
        drop = 0 if window is None else max(0, held - seq.recent - (window - 1))
        kv.first += drop
        held, needed = held - drop, needed - drop
        kv.keys = _grown(kv.keys.detach()[drop : drop + held], needed)
        kv.values = _grown(kv.values.detach()[drop : drop + held], needed)
    kv.keys[held:needed], kv.values[held:needed] = k.detach(), v.detach()
    return kv.keys[:needed], kv.values[:needed]


def _grown(rows: Tensor, needed: int) -> Tensor:
    capacity = max(64, needed + needed // 2)
    grown = rows.new_empty(capacity, *rows.shape[1:])
    grown[: rows.shape[0]] = rows
    return grown
