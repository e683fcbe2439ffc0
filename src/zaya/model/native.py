"""The forward pass of `model.transformer` in one call of the compiled kernels, for passes of few tokens on a CPU.

Decoding one token of ZAYA1-8B reads a gigabyte and multiplies little; forty layers of some fifty small operations
each would take as long as the reading. So the layers are written once more, in C++ (`ops/cpu/native/forward.cpp`),
phase by phase and for all the weight formats. The definition stays `ZayaModel`: one test runs both on the same tokens.
Between the matrices everything is float32, also where the model's own activations are bfloat16. Driven by the engine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor, nn

from zaya.model.block import Block, ResidualScaling
from zaya.model.transformer import ZayaModel
from zaya.ops.cpu import kernels
from zaya.ops.cpu.matrix import matrix_of
from zaya.ops.packed import PackedWeight, Weight
from zaya.ops.rope import rotary_angles

if TYPE_CHECKING:
    from ctypes import CDLL

FEW_NUMBERS = 1 << 17
"""Activations of a layer, tokens times width, up to which a dense model is faster here than by torch's products where
there are no tile registers: 64 tokens of ZAYA1-8B, 1,024 of the micro model (docs/log.md)."""

WIDE_NUMBERS = 1 << 16
"""Numbers of a matrix of an expert, from which several threads share a pass. In a smaller model what they hand each
other at the end of every phase takes longer than the phase: the micro model is as fast on one thread, for 1 sequence
and for 256, and on a busy machine far faster (docs/log.md)."""

SCRATCH_KEPT = 32 << 20
"""Bytes of scratch that stay from one pass to the next. A long prompt takes more, and whoever answers it does not need
it again for a thousand passes."""

KV_KINDS = {torch.float32: kernels.F32, torch.bfloat16: kernels.BF16, torch.int8: kernels.INT8}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """Where the past of all sequences lies: keys and values in pages, the CCA state in slots."""

    page_size: int
    keys: Sequence[Tensor]
    """Per layer (pages, kv_heads, page_size, head_dim): float32, bfloat16, or int8."""
    values: Sequence[Tensor]
    key_scales: Sequence[Tensor] | None = None
    """Per layer (pages, kv_heads, page_size), float32: of int8 keys."""
    value_scales: Sequence[Tensor] | None = None
    columns: Float[Tensor, "layers slots context channels"]
    delayed: Float[Tensor, "layers slots half"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NativeOutput:
    logits: Float[Tensor, "rows vocab"]
    """Of the rows that were asked for."""
    routes: UInt8[Tensor, "tokens layers"] | None
    columns: Float[Tensor, "layers tokens channels"] | None
    """The u of every token, where they were asked for."""
    delayed: Float[Tensor, "layers tokens half"] | None


class NativeModel:
    """A `ZayaModel` laid out for the kernels. Its matrices are used where they are; vectors are copied to float32."""

    def __init__(self, model: ZayaModel, library: CDLL) -> None:
        self.model = model
        self._library = library
        self._kept: list[object] = []
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._is_wide = model.config.hidden_size * model.config.expert_size >= WIDE_NUMBERS
        self._is_dense = not any(isinstance(module, PackedWeight) for module in model.modules())
        self._has_tiles = bool(library.zaya_has_tiles()) and model.dtype == torch.bfloat16
        self._scratch = torch.empty(1 << 16, dtype=torch.uint8)
        self._past: tuple[Past, tuple[object, ...]] | None = None
        c = model.config
        about = kernels.Model(
            layers=c.num_layers, dim=c.hidden_size, heads=c.num_heads, kv_heads=c.num_kv_heads, head_dim=c.head_dim,
            time0=c.conv_time0, time1=c.conv_time1, experts=c.num_experts, classes=c.num_classes,
            expert_size=c.expert_size, router_size=c.router_size, vocab=c.vocab_size,
            skip_passes_input=c.skip_class and c.skip_output == "identity", eps=c.norm_eps,
            embed=self._matrix(model.embed), input_scale=self._vector(model.input_scale),
            input_bias=self._vector(model.input_bias), final_norm=self._vector(model.final_norm.weight),
        )  # fmt: skip
        about.half_rotary[:] = [c.rotary_size("full") // 2, c.rotary_size("sliding") // 2]
        layers = (kernels.Layer * c.num_layers)(*(self._layer(cast(Block, block)) for block in model.blocks))
        about.layer = layers
        self._kept += [layers]
        self._about = about
        self.refresh()

    @classmethod
    def of(cls, model: ZayaModel) -> NativeModel | None:
        """None where the kernels cannot run it: they are not built, the model is not on the CPU, several experts work
        on a token, or a size is no multiple of what they read at once."""
        library = kernels.library()
        if library is None or model.device.type != "cpu" or not _is_possible(model, library.zaya_vector_width()):
            return None
        return cls(model, library)

    def refresh(self) -> None:
        """Take over weights that were changed in place. Matrices need no copy, so this is quick."""
        for copy, source in self._copies:
            copy.copy_(source)

    def is_faster(self, tokens: int) -> bool:
        """Whether a pass of so many tokens is better made here than by the model itself."""
        is_few = tokens * self.model.config.hidden_size <= FEW_NUMBERS
        return is_few or self._has_tiles or not self._is_dense

    # ----- layout

    def _matrix(self, weight: Weight | nn.Module) -> kernels.Matrix:
        assert isinstance(weight, Tensor | PackedWeight)
        matrix, kept = matrix_of(weight)
        self._kept.append(kept)
        return matrix

    def _vector(self, source: Tensor) -> int:
        source = source.detach()
        if source.dtype != torch.float32 or not source.is_contiguous():
            copy = torch.empty(source.shape)
            self._copies.append((copy, source))
            source = copy
        self._kept.append(source)
        return source.data_ptr()

    def _merge(self, merge: ResidualScaling) -> kernels.Merge:
        parts = (merge.branch_scale, merge.branch_bias, merge.residual_scale, merge.residual_bias)
        return kernels.Merge(*map(self._vector, parts))

    def _bank(self, bank: Weight) -> object:
        matrices = (kernels.Matrix * bank.shape[0])(*(self._matrix(bank[e]) for e in range(bank.shape[0])))
        self._kept.append(matrices)
        return matrices

    def _layer(self, block: Block) -> kernels.Layer:
        attention, router, config = block.attention, block.moe.router, self.model.config
        span = config.span(attention.layer)
        experts = block.moe.experts
        return kernels.Layer(
            q=self._matrix(attention.q_proj), k=self._matrix(attention.k_proj),
            v_current=self._matrix(attention.v_proj_current), v_delayed=self._matrix(attention.v_proj_delayed),
            grouped=self._matrix(attention.grouped_weight.flatten(1)), o=self._matrix(attention.o_proj),
            router_down=self._matrix(router.down_proj), fc1=self._matrix(router.fc1), fc2=self._matrix(router.fc2),
            classes=self._matrix(router.out_proj),
            gate_up=self._bank(cast(Weight, experts.gate_up)), down=self._bank(cast(Weight, experts.down)),
            attention_norm=self._vector(block.attention_norm.weight), moe_norm=self._vector(block.moe_norm.weight),
            router_norm=self._vector(router.norm.weight),
            depthwise=self._vector(attention.depthwise_weight.squeeze(1).T),
            depthwise_bias=self._vector(attention.depthwise_bias), grouped_bias=self._vector(attention.grouped_bias),
            key_temperature=self._vector(attention.key_temperature),
            router_down_bias=self._vector(router.down_bias),
            state_scale=None if router.state_scale is None else self._vector(router.state_scale),
            fc1_bias=self._vector(router.fc1_bias), fc2_bias=self._vector(router.fc2_bias),
            balancing_bias=self._vector(router.balancing_bias),
            attention_merge=self._merge(block.attention_merge), moe_merge=self._merge(block.moe_merge),
            window=config.window(attention.layer) or 0, span=int(span == "sliding"),
        )  # fmt: skip

    # ----- a pass

    def forward(
        self,
        ids: Int[Tensor, " tokens"],
        bounds: Int32[Tensor, " bounds"],
        starts: Int32[Tensor, " segments"],
        slots: Int32[Tensor, " segments"],
        table: Int32[Tensor, "segments width"],
        past: Past,
        *,
        rows: Int32[Tensor, " rows"],
        commit: bool = True,
        may_round: bool = True,
        routes: UInt8[Tensor, "tokens layers"] | None = None,
        want_routes: bool = False,
        want_columns: bool = False,
    ) -> NativeOutput:
        """Read tokens in segments, each of which continues the sequence whose state is in its slot.

        `starts` counts the tokens before each segment, `table` names the page of every `page_size` tokens of it, those
        of the new tokens included. Keys and values of the new tokens are put into their pages; with `commit` the CCA
        state after the last of each segment is put into its slot. `may_round` lets a bfloat16 model have many tokens
        meet its matrices in bfloat16, where the processor has a faster way for that; otherwise results do not depend
        on what else is in the pass. `routes` are classes to use instead of the router's choice; their weights are
        still this router's.
        """
        config, tokens = self.model.config, ids.shape[0]
        segments = starts.shape[0]
        lengths = (bounds[1:] - bounds[:-1]).long()
        index = torch.repeat_interleave(torch.arange(segments), lengths, output_size=tokens)
        positions = torch.arange(tokens) + (starts - bounds[:-1])[index]
        logits = torch.empty(rows.shape[0], config.vocab_size)
        chosen = torch.empty(tokens, config.num_layers, dtype=torch.uint8) if want_routes else None
        columns = delayed = None
        if want_columns:
            columns = torch.empty(config.num_layers, tokens, config.conv_channels)
            delayed = torch.empty(config.num_layers, tokens, config.key_size // 2)
        keys, values, key_scales, value_scales = self._pools(past)
        about = kernels.Pass(
            tokens=tokens, segments=segments, ids=ids.data_ptr(), bounds=bounds.data_ptr(), starts=starts.data_ptr(),
            slots=slots.data_ptr(), table=table.data_ptr(), table_width=table.shape[1], page_size=past.page_size,
            keys=keys, values=values, key_scales=key_scales, value_scales=value_scales,
            kv_kind=KV_KINDS[past.keys[0].dtype], num_slots=past.columns.shape[1], columns=past.columns.data_ptr(),
            delayed=past.delayed.data_ptr(), commit=commit,
            may_round=may_round and self.model.dtype == torch.bfloat16, num_rows=rows.shape[0],
            new_columns=None if columns is None else columns.data_ptr(),
            new_delayed=None if delayed is None else delayed.data_ptr(),
            routes=None if chosen is None else chosen.data_ptr(),
            forced=None if routes is None else routes.data_ptr(), rows=rows.data_ptr(), logits=logits.data_ptr(),
        )  # fmt: skip
        angles = []
        for place, span in enumerate(("full", "sliding")):
            if place == 0 or config.sliding_layers:
                angles.append(rotary_angles(positions, config.rotary_size(span), config.rotary_theta(span)))
                about.cos[place], about.sin[place] = (x.data_ptr() for x in angles[-1])
        while True:
            about.scratch, about.scratch_bytes = self._scratch.data_ptr(), self._scratch.nbytes
            missing = self._library.zaya_forward(self._about, about, torch.get_num_threads() if self._is_wide else 1)
            if not missing:
                if self._scratch.nbytes > SCRATCH_KEPT:
                    self._scratch = torch.empty(1 << 16, dtype=torch.uint8)
                return NativeOutput(logits=logits, routes=chosen, columns=columns, delayed=delayed)
            self._scratch = torch.empty(self._scratch.nbytes + missing, dtype=torch.uint8)

    def _pools(self, past: Past) -> tuple[object, ...]:
        if self._past is None or self._past[0] is not past:
            pools = (past.keys, past.values, past.key_scales, past.value_scales)
            self._past = past, tuple(None if pool is None else _pointers(pool) for pool in pools)
        return self._past[1]


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _is_possible(model: ZayaModel, width: int) -> bool:
    c = model.config
    # packed matrices are read in groups; what they are multiplied with is prepared in whole ones
    is_packed = any(isinstance(module, PackedWeight) for module in model.modules())
    step = width if model.dtype == torch.float32 else 2 * width
    wide = max(step, kernels.GROUP) if is_packed else step
    return (
        c.experts_per_token == 1
        and c.num_classes <= 256
        and c.key_size // 2 % step == 0
        and c.head_dim * c.conv_time1 % step == 0
        and all(size % step == 0 for size in (c.head_dim, c.router_size, c.conv_channels))
        and all(size % wide == 0 for size in (c.hidden_size, c.query_size, c.expert_size))
        and model.dtype in (torch.float32, torch.bfloat16)
    )
