"""Next-token cross-entropy without ever holding the logits of all tokens.

At a vocabulary of 262,272 the float32 logits of 16,384 tokens take 17 GB. Here a chunk of tokens at a time goes through
the head, and its share of both gradients, of the hidden states and of the tied embedding, is computed at once. Logits
and sums are float32, whatever the weights are (report section IV-D). Source: spec pretraining 7.6.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_ROWS = 8192  # of the embedding, widened at once where it is narrower than the logits


def next_token_loss(
    hidden: Float[Tensor, "*tokens dim"],
    embed: Float[Tensor, "vocab dim"],
    targets: Int[Tensor, "*tokens"],
    mask: Bool[Tensor, "*tokens"],
    *,
    count: int,
    chunk_tokens: int = 1024,
) -> tuple[Float[Tensor, ""], Float[Tensor, "*tokens"]]:
    """The cross-entropy of the tokens in `mask`, summed and divided by `count`; and that of each token.

    hidden: what the head multiplies, `Want(hidden=True)` of a forward pass.
    targets: the token that follows each; looked at only where `mask` is True.
    count: tokens in the masks of the whole step, over all micro-batches and ranks: their losses, and gradients, add up.
    The second result is in nats, 0 outside the mask, and carries no gradient. Tokens outside the mask cost nothing.
    """
    flat = mask.reshape(-1)
    kept = flat.nonzero().squeeze(1)
    loss, losses = cast(
        tuple[Tensor, Tensor],
        _ChunkedLoss.apply(
            hidden.reshape(-1, hidden.shape[-1]).index_select(0, kept),
            embed,
            targets.reshape(-1).index_select(0, kept),
            count,
            chunk_tokens,
            torch.is_grad_enabled(),
        ),
    )
    return loss, losses.new_zeros(flat.shape).index_copy(0, kept, losses).view(mask.shape)


class _ChunkedLoss(torch.autograd.Function):
    """Loss and, in the same pass, its gradients: what a chunk's logits are good for is done while they are there."""

    @staticmethod
    def forward(
        ctx, hidden: Tensor, embed: Tensor, targets: Tensor, count: int, chunk_tokens: int, with_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        losses = hidden.new_empty(hidden.shape[0], dtype=wide)
        to_hidden = torch.empty_like(hidden, dtype=wide) if with_gradients and ctx.needs_input_grad[0] else None
        to_embed = torch.zeros_like(embed, dtype=wide) if with_gradients and ctx.needs_input_grad[1] else None
        blocks = [slice(start, start + _ROWS) for start in range(0, embed.shape[0], _ROWS)]
        for start in range(0, hidden.shape[0], chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            x, target = hidden[chunk].to(wide), targets[chunk].unsqueeze(1)
            logits = torch.cat([x @ embed[rows].to(wide).T for rows in blocks], dim=1)
            log_norm = logits.logsumexp(1, keepdim=True)
            losses[chunk] = (log_norm - logits.gather(1, target)).squeeze(1)
            if to_hidden is None and to_embed is None:
                continue
            # by the logits: softmax - one-hot
            grad = logits.sub_(log_norm).exp_().scatter_add_(1, target, logits.new_full(target.shape, -1.0)).div_(count)
            if to_hidden is not None:
                parts = (grad[:, rows] @ embed[rows].to(wide) for rows in blocks)
                to_hidden[chunk] = sum(parts, start=torch.zeros_like(x))
            if to_embed is not None:
                to_embed.addmm_(grad.T, x)
        ctx.save_for_backward(to_hidden, to_embed)
        ctx.dtypes = hidden.dtype, embed.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum() / count, losses

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale, _ = grad_outputs
        by_inputs = [
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *by_inputs, None, None, None, None
