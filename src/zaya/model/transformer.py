"""The model: embedding, layers, final norm and the tied head. Everything that runs ZAYA1 runs this.

A forward pass, from the outside in:

    1. ids (batch, seq) or packed (tokens,) become one row of tokens and its segments; padding is left out
    2. the context says at which position each segment starts: 0 without a cache, its length with one
    3. embedding, shifted and scaled, is the first residual stream, float32
    4. each layer takes the stream and the router state of the layer before, and returns both
    5. final norm, then the head for the tokens whose logits are wanted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zaya.errors import UsageError
from zaya.model.block import Block
from zaya.model.cache import Context, NoCache
from zaya.model.config import AttentionSpan, ModelConfig, Precision
from zaya.model.init import initialize
from zaya.model.norm import RMSNorm
from zaya.ops.linear import embedding, linear
from zaya.ops.packed import Weight
from zaya.ops.rope import rotary_angles
from zaya.ops.segments import Segments

DTYPES: dict[Precision, torch.dtype] = {"report": torch.bfloat16, "float32": torch.float32}
"""Dtype of weights and activations under each precision policy."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a forward pass is to return. What is not asked for is not computed or kept."""

    logits: Literal["all", "last"] | None = "all"
    """Of every token, of the last token of each segment, or none."""
    hidden: bool = False
    """What the head would multiply: the input of a chunked loss."""
    routes: bool = False
    """The classes chosen for every token in every layer: what router replay records."""
    router: bool = False
    """Counts and probabilities per layer: what balancing and its metrics read."""


@dataclass(frozen=True, slots=True)
class RouterStats:
    """Router behaviour of each layer, over the tokens of one pass (padding does not count)."""

    counts: Int[Tensor, "layers classes"]
    """How often each class was chosen."""
    probs: Float[Tensor, "layers classes"]
    """Mean probability of each class, before the bias."""
    entropy: Float[Tensor, " layers"]
    """Mean entropy of one token's probabilities, in nats."""


@dataclass(frozen=True, slots=True)
class Output:
    """What was wanted; the rest is None. Token axes are shaped as the ids were: (batch, seq) or (tokens,)."""

    logits: Float[Tensor, "*tokens_or_segments vocab"] | None = None
    """Float32. With logits="last" the token axes are one axis of segments."""
    hidden: Float[Tensor, "*tokens dim"] | None = None
    routes: Int[Tensor, "*tokens layers k"] | None = None
    router: RouterStats | None = None


class ZayaModel(nn.Module):
    """A ZAYA1 language model.

    `precision` is a policy: "report" keeps weights and activations in bfloat16 and computes in float32 what the
    report lists (norms, q-k mean and norm, router softmax and choice, residual stream, logits; section IV-D);
    "float32" keeps everything in float32. Balancing biases are float32 in both.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        precision: Precision = "report",
        seed: int | None = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """A new model with the initial values of model/init.py; with seed None its tensors are left unset, which is
        what a loader wants, on device "meta" most of all."""
        super().__init__()
        if precision not in DTYPES:
            raise UsageError(f"no precision policy is called {precision!r}", hint=f"there are {', '.join(DTYPES)}")
        self.config = config
        with torch.device(device):
            self.embed = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
            self.input_scale = nn.Parameter(torch.empty(config.hidden_size))
            self.input_bias = nn.Parameter(torch.empty(config.hidden_size))
            self.blocks = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
            self.final_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.set_precision(precision)
        if seed is not None:
            initialize(self, config, seed)

    def set_precision(self, precision: Precision) -> None:
        """Convert the weights to the dtype of a policy. Balancing biases and packed codes stay as they are."""
        self.to(DTYPES[precision])
        self.precision: Precision = precision

    @property
    def device(self) -> torch.device:
        return self.embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations; the residual stream and the logits are float32 in any case."""
        return DTYPES[self.precision]

    @overload
    def forward(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cu_seqlens: Sequence[int] | Tensor | None = None,
        cache: Context | None = None,
        routes: Tensor | None = None,
        want: None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cu_seqlens: Sequence[int] | Tensor | None = None,
        cache: Context | None = None,
        routes: Tensor | None = None,
        want: Want,
    ) -> Output: ...

    def forward(
        self,
        ids: Int[Tensor, "*tokens"],
        *,
        mask: Bool[Tensor, "batch seq"] | None = None,
        positions: Int[Tensor, "*tokens"] | None = None,
        cu_seqlens: Sequence[int] | Int[Tensor, " bounds"] | None = None,
        cache: Context | None = None,
        routes: Int[Tensor, "*tokens layers k"] | None = None,
        want: Want | None = None,
    ) -> Tensor | Output:
        """Logits (batch, seq, vocab) of ids (batch, seq), float32; or what `want` asks for.

        mask: False where ids are padding, on either side. Padding is not computed; what is returned there is 0.
        cu_seqlens: ids are (tokens,), and these are the bounds of the sequences packed in them.
        cache: each sequence continues from its own state there, and adds to it.
        positions: of the tokens, for the rotary embedding alone; by default they count on from the context's start.
        routes: classes to use instead of the router's choice; their weights are still this router's.
        Raises UsageError for shapes that do not fit.
        """
        wanted = want or Want()
        layout = _Layout.of(ids, mask, cu_seqlens)
        segments = layout.segments
        context = cache if cache is not None else NoCache(self.config)
        starts = context.begin(segments)
        if positions is None:
            packed_positions = segments.offsets + starts[segments.index]
        else:
            if positions.shape != ids.shape:
                raise UsageError(f"positions must be shaped as ids {tuple(ids.shape)}: {tuple(positions.shape)}")
            packed_positions = layout.pack(positions)
        forced = self._packed_routes(layout, ids, routes)

        spans: set[AttentionSpan] = {self.config.span(i) for i in range(self.config.num_layers)}
        rope = {
            span: rotary_angles(packed_positions, self.config.rotary_size(span), self.config.rotary_theta(span))
            for span in spans
        }
        embedded = embedding(layout.pack(ids), cast(Weight, self.embed), self.dtype)
        x = (embedded.float() + self.input_bias.float()) * self.input_scale.float()
        state: Tensor | None = None
        choices, stats = [], []
        for i, block in enumerate(self.blocks):
            x, routing = block(
                x,
                state,
                segments,
                context,
                rope[self.config.span(i)],
                None if forced is None else forced[:, i],
            )
            state = routing.state
            if wanted.routes:
                choices.append(routing.choice)
            if wanted.router:
                stats.append(_layer_stats(routing.choice, routing.probs))
        context.end()

        hidden = self.final_norm(x)
        logits = self._logits(hidden, layout, wanted.logits)
        if want is None:
            assert logits is not None
            return logits
        return Output(
            logits=logits,
            hidden=layout.unpack(hidden) if want.hidden else None,
            routes=layout.unpack(torch.stack(choices, dim=1)) if want.routes else None,
            router=RouterStats(*(torch.stack(s) for s in zip(*stats, strict=True))) if want.router else None,
        )

    def save(self, directory: str | Path, layout: str = "native", **options: Any) -> None:
        """Write a checkpoint: "native" opens in transformers, "legacy" is the layout of the first releases.

        Options and errors as of `zaya.model.layouts.save`.
        """
        from zaya.model.layouts import save  # layouts build on the model

        save(self, directory, layout, **options)

    def head(self, hidden: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens vocab"]:
        """Logits, accumulated in float32 without a float32 copy of the tied embedding."""
        return linear(hidden, cast(Weight, self.embed), out_dtype=torch.float32)

    def _logits(self, hidden: Tensor, layout: _Layout, which: Literal["all", "last"] | None) -> Tensor | None:
        if which is None:
            return None
        if which == "last":
            return self.head(hidden[torch.tensor(layout.segments.bounds[1:], device=hidden.device) - 1])
        return layout.unpack(self.head(hidden))

    def _packed_routes(self, layout: _Layout, ids: Tensor, routes: Tensor | None) -> Tensor | None:
        if routes is None:
            return None
        expected = (*ids.shape, self.config.num_layers, self.config.experts_per_token)
        if tuple(routes.shape) != expected:
            raise UsageError(f"routes must be (*ids, layers, k) = {expected}: {tuple(routes.shape)}")
        packed = layout.pack(routes).long()
        low, high = int(packed.min()), int(packed.max())
        if low < 0 or high >= self.config.num_classes:
            raise UsageError(f"routes must be classes below {self.config.num_classes}: {low} to {high}")
        return packed


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the caller's token axes map to the packed row, and back."""

    segments: Segments
    shape: torch.Size
    kept: Tensor | None
    """Indices of the tokens that are not padding in the flattened input; None for all."""

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor | None, cu_seqlens: Sequence[int] | Tensor | None) -> _Layout:
        if cu_seqlens is not None:
            if mask is not None or ids.dim() != 1:
                raise UsageError(f"with cu_seqlens, ids are (tokens,) and there is no mask: {tuple(ids.shape)}")
            bounds = cu_seqlens.tolist() if isinstance(cu_seqlens, Tensor) else list(cu_seqlens)
            segments = Segments(bounds, ids.device)
            if segments.total != ids.shape[0]:
                raise UsageError(f"cu_seqlens ends at {segments.total}; there are {ids.shape[0]} tokens")
            return cls(segments, ids.shape, None)
        if ids.dim() != 2 or 0 in ids.shape:
            raise UsageError(
                f"ids must be (batch, seq), neither empty: {tuple(ids.shape)}",
                hint="a packed row of several sequences needs cu_seqlens",
            )
        batch, seq = ids.shape
        if mask is None:
            return cls(Segments.from_lengths([seq] * batch, ids.device), ids.shape, None)
        if mask.shape != ids.shape or mask.dtype != torch.bool:
            raise UsageError(
                f"mask must be bool and shaped as ids {tuple(ids.shape)}: {mask.dtype} {tuple(mask.shape)}"
            )
        lengths = mask.sum(1).tolist()
        if 0 in lengths:
            raise UsageError(f"row {lengths.index(0)} of the mask is padding and nothing else", hint="leave it out")
        return cls(Segments.from_lengths(lengths, ids.device), ids.shape, mask.flatten().nonzero().squeeze(1))

    def pack(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, len(self.shape) - 1)
        return flat if self.kept is None else flat[self.kept]

    def unpack(self, x: Tensor) -> Tensor:
        if self.kept is not None:
            x = x.new_zeros(self.shape.numel(), *x.shape[1:]).index_copy(0, self.kept, x)
        return x.unflatten(0, self.shape)


def _layer_stats(choice: Tensor, probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    probs = probs.detach()
    counts = torch.bincount(choice.flatten(), minlength=probs.shape[-1])
    return counts, probs.mean(0), torch.special.entr(probs).sum(-1).mean()
