"""The mixture of experts: each token through the SwiGLU expert that was chosen for it.

`experts_reference` takes the tokens one by one. `experts` sorts them by expert; it then multiplies expert by expert,
or all at once with torch's grouped product where its rules allow. One test runs all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zaya.ops.linear import linear
from zaya.ops.packed import Weight
from zaya.ops.path import use_reference


class Dispatch(Protocol):
    """Moves rows to where their experts live and back: the seam for expert parallelism."""

    num_experts: int
    """Experts of the layer, over all processes."""

    def send(
        self, rows: Float[Tensor, "routed dim"], counts: Int[Tensor, " experts"]
    ) -> tuple[Float[Tensor, "received dim"], Int[Tensor, " local_experts"]]:
        """Rows sorted by expert go out; rows for the experts held here come in, sorted, with their counts."""
        ...

    def collect(self, rows: Float[Tensor, "received dim"]) -> Float[Tensor, "routed dim"]:
        """The way back, into the order that `send` was given."""
        ...


def experts(
    x: Float[Tensor, "tokens dim"],
    choice: Int[Tensor, "tokens k"],
    weight: Float[Tensor, "tokens k"],
    gate_up: Weight,
    down: Weight,
    *,
    dispatch: Dispatch | None = None,
) -> Float[Tensor, "tokens dim"]:
    """Sum over a token's choices of weight · down[e] (silu(gate[e] x) * (up[e] x)).

    `gate_up` is (experts, 2 * expert_size, dim), gate rows first; `down` is (experts, dim, expert_size). A choice
    outside the experts, such as the skip class, contributes nothing here. Weights multiply after `down`.
    """
    if use_reference() and dispatch is None:
        return experts_reference(x, choice, weight, gate_up, down)
    num_experts = gate_up.shape[0] if dispatch is None else dispatch.num_experts
    flat = choice.reshape(-1)
    order = flat.argsort(stable=True)
    token = order // choice.shape[1]
    counts = torch.bincount(flat, minlength=num_experts)[:num_experts]
    routed = int(counts.sum())
    order, token = order[:routed], token[:routed]
    rows = x[token]
    if dispatch is None:
        out = _expert_rows(rows, counts, gate_up, down)
    else:
        received, local_counts = dispatch.send(rows, counts)
        out = dispatch.collect(_expert_rows(received, local_counts, gate_up, down))
    scaled = (out.float() * weight.reshape(-1)[order].float().unsqueeze(-1)).to(x.dtype)
    return torch.zeros_like(x).index_add(0, token, scaled)


def _expert_rows(
    rows: Float[Tensor, "routed dim"], counts: Int[Tensor, " experts"], gate_up: Weight, down: Weight
) -> Float[Tensor, "routed dim"]:
    """Rows sorted by expert, each through its own."""
    if isinstance(gate_up, Tensor) and isinstance(down, Tensor) and _can_group(rows, gate_up, down):
        return _rows_grouped(rows, counts, gate_up, down)
    return _rows_by_expert(rows, counts, gate_up, down)


def _rows_by_expert(
    rows: Float[Tensor, "routed dim"], counts: Int[Tensor, " experts"], gate_up: Weight, down: Weight
) -> Float[Tensor, "routed dim"]:
    """Expert by expert; idle ones cost nothing."""
    out = []
    banks = zip(_each(gate_up), _each(down), rows.split(counts.tolist()), strict=True)
    for expert_gate_up, expert_down, part in banks:
        if part.shape[0]:
            gate, up = linear(part, expert_gate_up).chunk(2, dim=-1)
            out.append(linear(F.silu(gate) * up, expert_down))
    return torch.cat(out) if out else rows


def _rows_grouped(
    rows: Float[Tensor, "routed dim"],
    counts: Int[Tensor, " experts"],
    gate_up: Float[Tensor, "experts twice_size dim"],
    down: Float[Tensor, "experts dim size"],
) -> Float[Tensor, "routed dim"]:
    """All experts in one call of torch's grouped product."""
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(rows, gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    return F.grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=ends)


def _each(bank: Weight) -> Sequence[Weight]:
    # unbind and not bank[e]: its backward builds one gradient for the bank instead of one for each expert
    return bank.unbind(0) if isinstance(bank, Tensor) else [bank[e] for e in range(bank.shape[0])]


def _can_group(rows: Tensor, gate_up: Tensor, down: Tensor) -> bool:
    """Whether the grouped product is allowed and worth it: bfloat16 on an accelerator, rows of whole 16-byte units.

    On a CPU it runs too, at the speed of the loop over all experts (measured); our loop skips the idle ones.
    """
    if not rows.is_cuda or rows.shape[0] == 0 or {rows.dtype, gate_up.dtype, down.dtype} != {torch.bfloat16}:
        return False
    return all(size * rows.element_size() % 16 == 0 for size in (*gate_up.shape[1:], *down.shape[1:]))


def experts_reference(
    x: Float[Tensor, "tokens dim"],
    choice: Int[Tensor, "tokens k"],
    weight: Float[Tensor, "tokens k"],
    gate_up: Weight,
    down: Weight,
) -> Float[Tensor, "tokens dim"]:
    """As `experts`, a token at a time."""
    rows = []
    for token in range(x.shape[0]):
        row = torch.zeros_like(x[token])
        for e, scale in zip(choice[token].tolist(), weight[token], strict=True):
            if e < gate_up.shape[0]:
                gate, up = linear(x[token], gate_up[e]).chunk(2)
                out = linear(F.silu(gate) * up, down[e])
                row = row + (scale * out.float()).to(x.dtype)
        rows.append(row)
    return torch.stack(rows)
