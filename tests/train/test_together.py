"""All pieces at once: a small model learns a pattern, and a run that was interrupted is the run that was not.

1. Thirty steps bring the loss of a repeated pattern far below where it started.
2. Fifteen, a checkpoint on disk, a new process's worth of new objects, and fifteen more give the same parameters,
   biases, optimiser state and log, to the bit.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zaya.core.checkpoint import latest_checkpoint, save_checkpoint
from zaya.core.metrics import MetricsLog, read_metrics
from zaya.model.config import Precision, preset
from zaya.model.transformer import Want, ZayaModel
from zaya.train.balance import BalanceConfig, Balancer, load_stats
from zaya.train.loss import next_token_loss
from zaya.train.optim import OptimConfig, Optimizer
from zaya.train.schedule import BatchConfig, ScheduleConfig, batch_sequences, decay_fraction, lr_fraction

SHAPE = preset("micro", num_layers=2, vocab_size=48, hidden_size=64, num_experts=4, expert_size=48, router_size=16)
LENGTH = 24
BATCH = BatchConfig(sequences=6, ramp_from=4, ramp_tokens=20 * 4 * LENGTH, multiple=2)
SCHEDULE = ScheduleConfig(total_tokens=3600, warmup_tokens=400, decay_tokens=1200)
OPTIM = OptimConfig(lr=8e-3)


class Run:
    """What a training loop will do, in as few lines: every piece, two micro-batches a step, packed rows."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self.folder = folder
        self.model = ZayaModel(SHAPE, precision=precision, seed=1)
        self.optimizer = Optimizer(self.model, OPTIM)
        self.balancer = Balancer(self.model, BalanceConfig())
        self.step, self.tokens = 0, 0
        found = latest_checkpoint(folder / "ckpt", notice=pytest.fail)
        if found is not None:
            own = self.model.state_dict()
            for name, tensor in self.part(found.tensors, "model").items():
                own[name].copy_(tensor)
            self.optimizer.load_state_dict(self.part(found.tensors, "optim"))
            self.balancer.load_state_dict(self.part(found.tensors, "balance"))
            self.step, self.tokens = found.step, found.state["tokens"]

    @staticmethod
    def part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
        return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}

    def state(self) -> dict[str, Tensor]:
        parts = {"model": self.model, "optim": self.optimizer, "balance": self.balancer}
        return {f"{kind}/{name}": t for kind, part in parts.items() for name, t in part.state_dict().items()}

    def train(self, until: int) -> list[float]:
        losses = []
        with MetricsLog(self.folder / "metrics.jsonl", resume_at=self.step, clock=lambda: 0.0) as log:
            while self.step < until:
                losses.append(self.train_step(log))
        return losses

    def train_step(self, log: MetricsLog) -> float:
        sequences = batch_sequences(BATCH, self.tokens)
        rows = torch.stack([(torch.arange(LENGTH + 1) * (1 + i % 2) + i + self.step) % 7 for i in range(sequences)])
        mask = torch.ones(sequences, LENGTH, dtype=torch.bool)
        mask[:, :2] = False  # nobody can know yet how this row goes on
        count = int(mask.sum())
        loss, counts = 0.0, torch.zeros(SHAPE.num_layers, SHAPE.num_classes, dtype=torch.long)
        for part, kept in zip(rows.chunk(2), mask.chunk(2), strict=True):
            bounds = list(range(0, part.shape[0] * LENGTH + 1, LENGTH))
            wanted = Want(logits=None, hidden=True, router=True)
            out = self.model(part[:, :-1].flatten(), cu_seqlens=bounds, want=wanted)
            assert out.hidden is not None
            assert out.router is not None
            targets = part[:, 1:].flatten()
            value, _ = next_token_loss(
                out.hidden, self.model.embed, targets, kept.flatten(), count=count, chunk_tokens=32
            )
            value.backward()
            loss, counts = loss + value.item(), counts + out.router.counts
        self.step, self.tokens = self.step + 1, self.tokens + rows[:, 1:].numel()
        stats = self.optimizer.step(OPTIM.lr * lr_fraction(SCHEDULE, self.tokens))
        self.optimizer.zero_grad()
        self.balancer.step(counts, decay_fraction(SCHEDULE, self.tokens))
        balance = asdict(load_stats(counts[:, : SHAPE.num_experts]))
        log.log(self.step, self.tokens, loss=loss, grad_norm=stats.grad_norm, **balance)
        return loss

    def save(self) -> None:
        save_checkpoint(self.folder / "ckpt", self.step, self.state(), {"tokens": self.tokens})


@pytest.mark.parametrize("precision", ["float32", "report"])
def test_learning_and_resuming(tmp_path: Path, precision: Any) -> None:
    whole = Run(tmp_path / "whole", precision)
    losses = whole.train(30)
    assert losses[0] > 3  # ln 48 is 3.9
    assert losses[-1] < 0.5 * losses[0]

    Run(tmp_path / "parts", precision).train(15)
    interrupted = Run(tmp_path / "parts", precision)
    assert interrupted.step == 0  # it had not been saved
    interrupted.train(15)
    interrupted.save()
    interrupted.train(18)  # and then it was killed

    resumed = Run(tmp_path / "parts", precision)
    assert resumed.step == 15
    assert resumed.train(30) == losses[15:]
    expected = whole.state()
    for name, tensor in resumed.state().items():
        assert torch.equal(tensor, expected[name]), name
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl") == read_metrics(tmp_path / "whole" / "metrics.jsonl")
