"""One update of the policy by rollouts that carry their credit.

Rollouts are packed into micro-batches; each token is computed through the experts that worked on it when it was sampled
(router replay): the choice is theirs, the weight of the expert is this router's. A rollout is read without its last id,
as it was when it was sampled. Rollouts that are the same, id for id and expert for expert, are read once and count as
often as they were drawn. The same model object samples and learns, so that on a CPU in float32 both see the same
probabilities. Source: spec post-training 3.6 to 3.8, 5. Called by `rl.trainer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from zaya.model.transformer import Want, ZayaModel
from zaya.rl.loss import LossConfig, LossStats, policy_loss
from zaya.rl.types import Sample
from zaya.train.loss import chosen_logprobs
from zaya.train.optim import Optimizer, StepStats


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """What an update did."""

    loss: float
    stats: LossStats
    step: StepStats | None
    """None where nothing was left to learn from, and the weights stayed as they are."""


def update(
    model: ZayaModel,
    optimizer: Optimizer,
    samples: Sequence[Sample],
    config: LossConfig,
    *,
    lr: float,
    micro_tokens: int,
    never: Sequence[int] = (),
) -> UpdateRecord:
    """Move the weights once. `never` are ids that cannot be drawn, and had no share in the probabilities.

    Momentum-free Muon makes a step of full size whatever the gradient, so a batch without signal must not make one.
    """
    barred = torch.tensor(list(never), dtype=torch.long, device=model.device) if len(never) else None
    loss, stats = 0.0, LossStats()
    for part in _micro_batches(samples, micro_tokens):
        value, seen = _loss(model, part, config, len(samples), barred)
        value.backward()
        loss, stats = loss + value.item(), stats + seen
    step = optimizer.step(lr) if stats.surviving else None
    optimizer.zero_grad()
    return UpdateRecord(loss, stats, step)


def _loss(
    model: ZayaModel, part: Sequence[Sequence[Sample]], config: LossConfig, num_sequences: int, never: Tensor | None
) -> tuple[Tensor, LossStats]:
    bounds, places, ids, targets, copies = [0], [], [], [], []
    for alike in part:
        prompt, response = alike[0].group.prompt_ids, alike[0].rollout.ids
        ids += [*prompt, *response[:-1]]
        places += range(bounds[-1] + len(prompt) - 1, bounds[-1] + len(prompt) - 1 + len(response))
        copies += [*range(len(targets), len(targets) + len(response))] * len(alike)
        targets += response
        bounds.append(len(ids))

    def tensor(values: Sequence[int] | np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=model.device)

    rows = _routes([alike[0] for alike in part], bounds)
    routes = None if rows is None else tensor(rows).long()
    out = model(tensor(ids), cu_seqlens=bounds, routes=routes, want=Want(logits=None, hidden=True))
    assert out.hidden is not None
    logprobs = chosen_logprobs(out.hidden[tensor(places)], model.embed, tensor(targets), never=never)
    samples = [sample for alike in part for sample in alike]
    behavior = np.concatenate([sample.rollout.behavior_logprobs for sample in samples])
    advantages = [sample.advantage for sample in samples]
    lengths = [len(sample.rollout.ids) for sample in samples]
    return policy_loss(
        logprobs[tensor(copies)],
        tensor(behavior),
        tensor(np.repeat(np.array(advantages, dtype=np.float32), lengths)),
        config,
        num_sequences=num_sequences,
    )


def _routes(samples: Sequence[Sample], bounds: Sequence[int]) -> np.ndarray | None:
    routes = [sample.rollout.routes for sample in samples]
    recorded = [rows for rows in routes if rows is not None]
    if not recorded:
        return None
    # a row short or long here and every later token would go through a stranger's experts
    assert len(recorded) == len(samples)
    assert [len(rows) for rows in recorded] == [b - a for a, b in pairwise(bounds)]
    return np.concatenate(recorded)


def _micro_batches(samples: Sequence[Sample], micro_tokens: int) -> Iterator[list[list[Sample]]]:
    """Lists of rollouts that are the same, the longest first, so that those of a micro-batch need about as much; each
    micro-batch holds one at least."""
    same: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        rollout = sample.rollout
        routes = None if rollout.routes is None else rollout.routes.tobytes()
        same.setdefault((sample.group.prompt_ids, rollout.ids, routes), []).append(sample)
    part: list[list[Sample]] = []
    tokens = 0
    for alike in sorted(same.values(), key=lambda alike: _tokens(alike[0]), reverse=True):
        if part and tokens + _tokens(alike[0]) > micro_tokens:
            yield part
            part, tokens = [], 0
        part.append(alike)
        tokens += _tokens(alike[0])
    if part:
        yield part


def _tokens(sample: Sample) -> int:
    return len(sample.group.prompt_ids) + len(sample.rollout.ids) - 1
