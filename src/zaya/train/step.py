"""One step of training: a packed batch forward and backward in micro-batches, then optimiser and balancer.

A micro-batch is a few whole sequences. Losses are divided by the loss tokens of the whole step, so that the gradients
of its micro-batches, which add up in float32, are those of one large batch. What is not finite changes nothing.
Source: spec pretraining 4 and 11, post-training 2.2. Called by `train.loop`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from zaya.data.loader import Batch
from zaya.model.transformer import Want, ZayaModel
from zaya.train.balance import Balancer, LoadStats, load_stats
from zaya.train.loss import next_token_loss
from zaya.train.optim import Optimizer


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step did, in plain numbers."""

    loss: float
    """Mean over the loss tokens of the step, in nats."""
    losses: dict[str, float]
    """The same by component, of those that have loss tokens."""
    tokens: int
    loss_tokens: int
    lr: float
    grad_norm: float | None
    """Before clipping; None where the loss was not finite."""
    is_clipped: bool
    skipped: Literal["no signal", "not finite"] | None
    """Why the weights stayed as they were, if they did."""
    load: LoadStats | None
    """None where the numbers were not finite: the routers chose by them."""


def train_step(
    model: ZayaModel,
    optimizer: Optimizer,
    balancer: Balancer,
    batch: Batch,
    *,
    lr: float,
    balance_fraction: float,
    micro_tokens: int,
    components: Sequence[str],
) -> StepRecord:
    """Move weights and balancing biases once by a batch.

    balance_fraction: where the schedule of the balancer's rate stands.
    components: names of the batch's components, in order.
    """
    if model.dtype != torch.float32:
        for parameter in model.parameters():
            parameter.grad_dtype = torch.float32
    count = int(batch.loss_mask.sum())
    losses = []
    counts = torch.zeros(model.config.num_layers, model.config.num_classes, dtype=torch.long, device=model.device)
    for loss, part, routed in _passes(model, batch, micro_tokens, max(count, 1)):
        loss.backward()
        losses.append(part)
        counts += routed
    by_component = _by_component(batch, torch.cat(losses), components)
    loss = sum(total for total, _ in by_component.values()) / max(count, 1)

    grad_norm, is_clipped, skipped = None, False, "not finite"
    if math.isfinite(loss):
        stats = optimizer.step(lr)
        grad_norm, is_clipped, skipped = stats.grad_norm, stats.is_clipped, stats.skipped
    optimizer.zero_grad()
    load = None
    if skipped != "not finite":
        balancer.step(counts, balance_fraction)
        load = load_stats(counts[:, : model.config.num_experts])
    return StepRecord(
        loss=loss,
        losses={name: total / tokens for name, (total, tokens) in by_component.items() if tokens},
        tokens=batch.tokens_global,
        loss_tokens=count,
        lr=lr,
        grad_norm=grad_norm,
        is_clipped=is_clipped,
        skipped=skipped,
        load=load,
    )


@torch.no_grad()
def evaluate(model: ZayaModel, batches: Mapping[str, Batch], micro_tokens: int) -> dict[str, float]:
    """Mean loss of each batch, by its name. Changes nothing."""
    losses = {}
    for name, batch in batches.items():
        count = max(1, int(batch.loss_mask.sum()))
        losses[name] = sum(float(loss) for loss, _, _ in _passes(model, batch, micro_tokens, count))
    return losses


def micro_batches(cu_seqlens: Sequence[int], micro_tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of sequences, first and behind the last, of at most `micro_tokens` tokens each. A sequence that is longer
    is one of its own."""
    first = 0
    for last in range(1, len(cu_seqlens)):
        if last - first > 1 and cu_seqlens[last] - cu_seqlens[first] > micro_tokens:
            yield first, last - 1
            first = last - 1
    yield first, len(cu_seqlens) - 1


def _passes(
    model: ZayaModel, batch: Batch, micro_tokens: int, count: int
) -> Iterator[tuple[Float[Tensor, ""], Float[Tensor, " tokens"], Int[Tensor, "layers classes"]]]:
    """Of each micro-batch: its share of the loss, the loss of each token, and how often each class was chosen."""
    bounds = batch.cu_seqlens.tolist()

    def tensor(array: np.ndarray, part: slice) -> Tensor:
        return torch.from_numpy(array[part]).to(model.device)

    for first, last in micro_batches(bounds, micro_tokens):
        part = slice(bounds[first], bounds[last])
        ends = [end - part.start for end in bounds[first : last + 1]]
        want = Want(logits=None, hidden=True, router=True)
        out = model(tensor(batch.ids, part).long(), cu_seqlens=ends, want=want)
        assert out.hidden is not None
        assert out.router is not None
        targets, mask = tensor(batch.targets, part).long(), tensor(batch.loss_mask, part)
        loss, losses = next_token_loss(out.hidden, model.embed, targets, mask, count=count)
        yield loss, losses, out.router.counts


def _by_component(batch: Batch, losses: Tensor, names: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Sum of losses, and loss tokens, of each component."""
    sums = np.bincount(batch.components, losses.double().cpu().numpy(), minlength=len(names)).tolist()
    tokens = np.bincount(batch.components[batch.loss_mask], minlength=len(names)).tolist()
    return dict(zip(names, zip(sums, tokens, strict=True), strict=True))
