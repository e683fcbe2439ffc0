"""Next-token cross-entropy, and log-probabilities, without ever holding the logits of all tokens.

At a vocabulary of 262,272 the float32 logits of 16,384 tokens take 17 GB. Here a chunk of tokens at a time goes through
the head. The cross-entropy computes the chunk's share of both gradients, of the hidden states and of the tied
embedding, at once. What a policy loss makes of a log-probability is not known by then, so there the logits are computed
a second time, backward. Logits and sums are float32, whatever the weights are (report section IV-D). Source: spec
pretraining 7.6.
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


def chosen_logprobs(
    hidden: Float[Tensor, "tokens dim"],
    embed: Float[Tensor, "vocab dim"],
    targets: Int[Tensor, " tokens"],
    *,
    never: Int[Tensor, " ids"] | None = None,
    chunk_tokens: int = 1024,
) -> Float[Tensor, " tokens"]:
    """The log-probability of each target, float32, differentiable by `hidden` and `embed`.

    never: ids that have probability 0, such as rows of the model that have no token. They are left out when tokens are
    drawn (ops/sampling.py), and the two distributions of a policy loss must be over the same ids. No target is one.
    """
    assert never is None or not torch.isin(targets, never).any(), "a target that cannot have been drawn"
    return cast(Tensor, _ChosenLogprobs.apply(hidden, embed, targets, never, chunk_tokens))


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
        for chunk in _slices(hidden.shape[0], chunk_tokens):
            x, target = hidden[chunk].to(wide), targets[chunk].unsqueeze(1)
            logits = _logits(x, embed)
            log_norm = logits.logsumexp(1, keepdim=True)
            losses[chunk] = (log_norm - logits.gather(1, target)).squeeze(1)
            if to_hidden is None and to_embed is None:
                continue
            # by the logits: softmax - one-hot
            grad = logits.sub_(log_norm).exp_().scatter_add_(1, target, logits.new_full(target.shape, -1.0)).div_(count)
            if to_hidden is not None:
                to_hidden[chunk] = _through_head(grad, embed)
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


class _ChosenLogprobs(torch.autograd.Function):
    """Keeps one number per token besides its inputs, and makes the logits of a chunk once in each direction."""

    @staticmethod
    def forward(ctx, hidden: Tensor, embed: Tensor, targets: Tensor, never: Tensor | None, chunk_tokens: int) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        chosen, log_norms = (hidden.new_empty(hidden.shape[0], dtype=wide) for _ in range(2))
        for chunk in _slices(hidden.shape[0], chunk_tokens):
            logits = _logits(hidden[chunk].to(wide), embed, never)
            log_norms[chunk] = logits.logsumexp(1)
            chosen[chunk] = logits.gather(1, targets[chunk].unsqueeze(1)).squeeze(1) - log_norms[chunk]
        ctx.save_for_backward(hidden, embed, targets, never, log_norms)
        ctx.chunk_tokens = chunk_tokens
        return chosen

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, embed, targets, never, log_norms = ctx.saved_tensors
        by_chosen = grad_outputs[0].unsqueeze(1)
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_embed = torch.zeros_like(embed, dtype=log_norms.dtype) if ctx.needs_input_grad[1] else None
        for chunk in _slices(hidden.shape[0], ctx.chunk_tokens):
            x, scale = hidden[chunk].to(log_norms.dtype), by_chosen[chunk]
            probs = _logits(x, embed, never).sub_(log_norms[chunk].unsqueeze(1)).exp_()
            # by the logits: one-hot - softmax
            grad = probs.mul_(-scale).scatter_add_(1, targets[chunk].unsqueeze(1), scale)
            if to_hidden is not None:
                to_hidden[chunk] = _through_head(grad, embed).to(hidden.dtype)
            if to_embed is not None:
                to_embed.addmm_(grad.T, x)
        return to_hidden, None if to_embed is None else to_embed.to(embed.dtype), None, None, None


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _logits(x: Tensor, embed: Tensor, never: Tensor | None = None) -> Tensor:
    """In the type of `x`; the embedding is widened block by block."""
    logits = torch.cat([x @ embed[rows].to(x.dtype).T for rows in _slices(embed.shape[0], _ROWS)], dim=1)
    return logits if never is None else logits.index_fill_(1, never, -torch.inf)


def _through_head(grad: Tensor, embed: Tensor) -> Tensor:
    """The gradient of what the head multiplied, from that of its logits."""
    parts = (grad[:, rows] @ embed[rows].to(grad.dtype) for rows in _slices(embed.shape[0], _ROWS))
    return sum(parts, start=grad.new_zeros(grad.shape[0], embed.shape[1]))
