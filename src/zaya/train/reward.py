"""The reward model: which of two answers people prefer, as a number for one answer (Bradley-Terry).

    pairs.jsonl ─► train ─► DIR/model, with reward.json ─► RewardModel ─► reward in (0, 1] ─► gated by a checker

The probability that one answer is preferred to another is the sigmoid of the difference of their scores, and the loss
of a pair is minus its logarithm. The score is read at the last token of the conversation. Its weights are the row of
the tied embedding that belongs to `<pad>`, which is never an input: so a reward model has the tensors, the optimiser
and the checkpoints of any other. The row begins at 0, where every pair is a coin.

A pair has to be in memory together, which packed documents (`data.loader`) do not know; hence a loop of its own, from
the pieces of `train.loop`. Source: spec post-training 11.

Command: `zaya reward`. Each line of pairs.jsonl is one of

    {"chosen": [{"role": ...}, ...], "rejected": [...]}
    {"prompt": "..." or [{"role": ...}, ...], "chosen": "...", "rejected": "..."}
"""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from zaya import config as configuration
from zaya.core.checkpoint import save_checkpoint
from zaya.core.files import held, new_file
from zaya.core.jsonl import json_objects
from zaya.core.metrics import MetricsLog
from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.data.sources import Conversation, is_held_out
from zaya.errors import CheckpointError, ConfigError, DataError
from zaya.model.layouts import load_model, save
from zaya.model.transformer import Want, ZayaModel
from zaya.text import Tokenizer, load_tokenizer, render
from zaya.train.balance import BalanceConfig, Balancer
from zaya.train.loop import interrupts
from zaya.train.optim import OptimConfig, Optimizer
from zaya.train.recipe import RunConfig
from zaya.train.run import Position as RunPosition
from zaya.train.run import begin, compare_environment, is_done, load_weights, position_of, resumable, weights_of
from zaya.train.schedule import ScheduleConfig, decay_fraction, lr_fraction
from zaya.train.stage import Notice, open_initial, part

LEAST = 1e-4
"""A reward for what passes is never smaller: to pass is better than to fail, however little it is liked."""
_SCALE = "reward.json"
_MAX_SKIPPED = 5  # steps in a row

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardConfig:
    """A recipe."""

    init: str
    """A run, one of its checkpoints, or a published checkpoint to start from, with its tokenizer."""
    pairs: str
    """File of JSON lines, from the directory the command is run in."""
    schedule: ScheduleConfig
    """Length of the stage in tokens of both answers, and course of its rate."""
    context: int = 1024
    """Tokens of a conversation; a pair with a longer one is left out and counted."""
    pairs_per_step: int = 16
    """Pairs that a step learns from."""
    held_out: float = 0.1
    """Part of the pairs, by the content of their prompts, that is validated on."""
    run: RunConfig = field(default_factory=RunConfig)
    """How it is carried out."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))
    """How weights follow their gradients."""
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    """How the balancing biases follow the load."""

    def __post_init__(self) -> None:
        for name in ("context", "pairs_per_step"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            raise ConfigError(
                f"held_out must be above 0 and below 1: {self.held_out}",
                hint="scores are standardised on what is held out",
            )
        if self.run.micro_tokens < 2 * self.context:
            raise ConfigError(f"run.micro_tokens must hold a pair of context: {self.run.micro_tokens}, {self.context}")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, as ids of whole conversations."""

    chosen: list[int]
    rejected: list[int]

    @property
    def tokens(self) -> int:
        return len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How scores agree with preferences."""

    loss: float
    """Mean of -log sigmoid(chosen - rejected), in nats; log 2 is a coin's."""
    accuracy: float
    """Share of pairs whose chosen answer scores higher; equal scores count half."""
    margin: float
    """Mean of chosen - rejected."""


# ----- from a score to a reward


def to_unit(score: float, mean: float, std: float) -> float:
    """A reward in (0, 1]: the sigmoid of the standardised score, and never below `LEAST`."""
    z = max(-500.0, min(500.0, (score - mean) / std)) if std > 0 else 0.0
    return max(LEAST, 1 / (1 + math.exp(-z)))


def gated(passed: bool, rm: float) -> float:
    """The reward of an answer with a checker: 0 where it fails, else what the reward model gives, which is above 0.

    A score centred on 0 in its place would rank what passes and is disliked below what fails.
    """
    if not passed:
        return 0.0
    return min(1.0, rm) if rm > LEAST else LEAST  # also where it is no number


class RewardModel:
    """A trained one: scores and rewards of conversations that end with an assistant's turn."""

    def __init__(self, model: ZayaModel, tokenizer: Tokenizer, mean: float, std: float) -> None:
        self.model, self.tokenizer, self.mean, self.std = model, tokenizer, mean, std

    @classmethod
    def load(cls, directory: str | Path, *, device: torch.device | str = "cpu") -> RewardModel:
        """From `model/` of a run. Raises CheckpointError where that holds none."""
        directory = Path(directory)
        try:
            scale = json.loads((directory / _SCALE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{directory} is no reward model: {getattr(error, 'strerror', None) or error}: {_SCALE}",
                hint="name model/ of a run of zaya reward train",
            ) from error
        tokenizer = load_tokenizer(directory)
        if tokenizer is None:
            raise CheckpointError(f"{directory} has no tokenizer.json")
        model = load_model(directory, dtype="float32", quantize="none", device=device)
        return cls(model, tokenizer, scale["mean"], scale["std"])

    def save(self, directory: str | Path, *, text_from: str | Path) -> None:
        save(self.model, directory, text_from=text_from, overwrite=True)
        with new_file(Path(directory) / _SCALE) as stream:
            stream.write(json.dumps({"mean": self.mean, "std": self.std}).encode())

    @torch.no_grad()
    def scores(self, conversations: Sequence[Messages]) -> list[float]:
        """Not bounded, and only differences mean something."""
        head = head_of(self.tokenizer)
        return [
            float(last_scores(self.model, head, [render(self.tokenizer, messages).ids])[0][0])
            for messages in conversations
        ]

    def rewards(self, conversations: Sequence[Messages]) -> list[float]:
        """Each in (0, 1]."""
        return [to_unit(score, self.mean, self.std) for score in self.scores(conversations)]


# ----- pairs


def read_pairs(path: Path) -> Iterator[tuple[str, Messages, Messages]]:
    """Place, preferred and other conversation of each line. Raises DataError for a line of another shape."""
    for number, value in json_objects(path):
        where = f"{path}:{number}"
        match value:
            case {"prompt": str() | list() as prompt, "chosen": str() as chosen, "rejected": str() as rejected}:
                before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
                better, worse = ({"role": "assistant", "content": answer} for answer in (chosen, rejected))
                yield where, [*before, better], [*before, worse]
            case {"chosen": [*chosen], "rejected": [*rejected]} if "prompt" not in value:
                yield where, chosen, rejected
            case _:
                raise DataError(
                    f"{where} is no pair", hint="chosen and rejected are lists of messages, or texts beside a prompt"
                )


def load_pairs(config: RewardConfig, tokenizer: Tokenizer, notice: Notice) -> tuple[list[Pair], list[Pair]]:
    """Those to learn from, and those held out: by prompts, so that none has pairs on both sides. Raises DataError where
    there are none on a side, and for pairs that are none."""
    train: list[Pair] = []
    held_out: list[Pair] = []
    too_long = 0
    for where, chosen, rejected in read_pairs(Path(config.pairs)):
        if chosen == rejected:
            raise DataError(f"the two answers are the same: {where}")
        pair = Pair(render(tokenizer, chosen).ids, render(tokenizer, rejected).ids)
        if max(len(pair.chosen), len(pair.rejected)) > config.context:
            too_long += 1
            continue
        (held_out if is_held_out(Conversation(where, chosen), config.held_out) else train).append(pair)
    if too_long:
        notice(f"{too_long} pairs are longer than context ({config.context}) and left out")
    if not train or not held_out:
        raise DataError(
            f"{config.pairs} has too few pairs: {len(train)} to learn from, {len(held_out)} held out",
            hint="add pairs, or set held_out to another part",
        )
    return train, held_out


def step_pairs(pairs: Sequence[Pair], count: int, seed: int, step: int) -> list[Pair]:
    """The pairs of a step, a function of its number: all pairs once in an order, then all in another."""
    orders: dict[int, list[int]] = {}
    chosen = []
    for place in range(step * count, (step + 1) * count):
        epoch = place // len(pairs)
        if epoch not in orders:
            orders[epoch] = list(range(len(pairs)))
            random.Random(derive_seed(seed, "pairs", epoch)).shuffle(orders[epoch])
        chosen.append(pairs[orders[epoch][place % len(pairs)]])
    return chosen


# ----- scores and loss


def head_of(tokenizer: Tokenizer) -> int:
    """The row of the embedding that scores."""
    if tokenizer.pad_id is None:
        raise CheckpointError("a reward model needs a tokenizer with a padding token, and this one has none")
    return tokenizer.pad_id


def last_scores(
    model: ZayaModel, head: int, sequences: Sequence[Sequence[int]]
) -> tuple[Float[Tensor, " sequences"], Int[Tensor, "layers classes"]]:
    """The score of each sequence at its last token; and how often each class of the routers was chosen."""
    bounds = [0]
    for sequence in sequences:
        bounds.append(bounds[-1] + len(sequence))
    ids = torch.tensor([id for sequence in sequences for id in sequence], device=model.device)
    out = model(ids, cu_seqlens=bounds, want=Want(logits=None, hidden=True, router=True))
    assert out.hidden is not None
    assert out.router is not None
    last = out.hidden[torch.tensor(bounds[1:], device=model.device) - 1]
    return last.float() @ model.embed[head].float(), out.router.counts


def pair_losses(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """-log sigmoid(chosen - rejected) of each pair, in nats."""
    return -F.logsigmoid(chosen - rejected)


def agreement(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> Agreement:
    margins = (chosen - rejected).double()
    wins = (margins > 0).double() + (margins == 0).double() / 2
    return Agreement(float(pair_losses(chosen, rejected).mean()), float(wins.mean()), float(margins.mean()))


def _micro_batches(pairs: Sequence[Pair], micro_tokens: int) -> Iterator[list[Pair]]:
    part: list[Pair] = []
    for pair in pairs:
        if part and sum(other.tokens for other in part) + pair.tokens > micro_tokens:
            yield part
            part = []
        part.append(pair)
    if part:
        yield part


def _passes(
    model: ZayaModel, head: int, pairs: Sequence[Pair], micro_tokens: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each micro-batch: scores of the chosen, of the rejected, and the routers' counts."""
    for few in _micro_batches(pairs, micro_tokens):
        scores, counts = last_scores(model, head, [ids for pair in few for ids in (pair.chosen, pair.rejected)])
        yield scores[::2], scores[1::2], counts


@torch.no_grad()
def evaluate(model: ZayaModel, head: int, pairs: Sequence[Pair], micro_tokens: int) -> tuple[Tensor, Tensor]:
    """Scores of all chosen answers, and of all rejected ones."""
    chosen, rejected, _ = zip(*_passes(model, head, pairs, micro_tokens), strict=True)
    return torch.cat(chosen), torch.cat(rejected)


# ----- training


def differences(one: RewardConfig, other: RewardConfig) -> list[str]:
    """Dotted keys whose values differ and decide the result."""
    free = {"run.threads", "run.save_every_s", "run.eval_every"}
    return [key for key in configuration.differences(one, other) if key not in free]


def train(config: RewardConfig, directory: Path, notice: Notice) -> RunPosition:
    """Carry out a recipe in a directory, from wherever a run of it stands there. Ctrl-C ends it after a step, saved:
    the position returned is then not `finished`. Raises what `zaya.train.loop.train` does, for the same reasons."""
    with held(directory):
        return _train(config, directory, notice)


def _train(config: RewardConfig, directory: Path, notice: Notice) -> RunPosition:
    checkpoint = resumable(config, directory, notice, differences)
    if checkpoint is not None and is_done(checkpoint, directory):
        notice(f"{directory} was finished before")
        return position_of(checkpoint)
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    initial = open_initial(Path(config.init), notice)
    tokenizer = load_tokenizer(initial.text)
    if tokenizer is None:
        raise CheckpointError(f"{initial.text} has no tokenizer.json", hint="start from a run, or a whole checkpoint")
    head = head_of(tokenizer)
    pairs, held_out = load_pairs(config, tokenizer, notice)
    if checkpoint is None:
        begin(directory, configuration.to_toml(config), tokenizer)
    else:
        compare_environment(directory, notice)

    model = ZayaModel(initial.model, precision=config.run.precision, seed=None)
    weights = dict(initial.weights()) if checkpoint is None else part(checkpoint.tensors, "model")
    if checkpoint is None:
        weights["embed"] = weights["embed"].clone()
        weights["embed"][head] = 0
    optimizer, balancer = Optimizer(model, config.optim), Balancer(model, config.balance)
    load_weights(model, optimizer, weights)
    at = RunPosition()
    if checkpoint is not None:
        masters = {
            name: weights[name.removeprefix("master/")] for name in optimizer.state_dict() if name.startswith("master/")
        }
        optimizer.load_state_dict(part(checkpoint.tensors, "optim") | masters)
        balancer.load_state_dict(part(checkpoint.tensors, "balance"))
        at = position_of(checkpoint)
        notice(f"resuming {directory} after step {at.step}")

    def keep() -> None:
        optim = {name: t for name, t in optimizer.state_dict().items() if not name.startswith("master/")}
        parts = {"model": weights_of(model, optimizer), "optim": optim, "balance": balancer.state_dict()}
        tensors = {f"{kind}/{name}": t for kind, named in parts.items() for name, t in named.items()}
        state = {"position": asdict(at), "model": configuration.to_mapping(initial.model)}
        save_checkpoint(directory / "ckpt", at.step, tensors, state, mark=at.finished)

    total = config.schedule.total_tokens
    saved = time.monotonic()
    with (
        MetricsLog(directory / "metrics.jsonl", resume_at=at.step) as log,
        Progress(max(0, total - at.tokens), unit="tokens") as bar,
        interrupts() as asked,
    ):
        while at.tokens < total and not asked.is_set():
            batch = step_pairs(pairs, config.pairs_per_step, config.run.seed, at.step)
            before, at.tokens = at.tokens, at.tokens + sum(pair.tokens for pair in batch)
            values = train_step(
                model,
                optimizer,
                balancer,
                batch,
                head=head,
                lr=config.optim.lr * lr_fraction(config.schedule, at.tokens),
                balance_fraction=decay_fraction(config.schedule, at.tokens),
                micro_tokens=config.run.micro_tokens,
            )
            at.step += 1
            at.skipped += values["skipped"] is not None
            at.skipped_in_a_row = 0 if values["skipped"] is None else at.skipped_in_a_row + 1
            if at.step % config.run.eval_every == 0 or at.tokens >= total:
                seen = agreement(*evaluate(model, head, held_out, config.run.micro_tokens))
                values |= {f"val_{name}": value for name, value in asdict(seen).items()} | {"val_pairs": len(held_out)}
                bar.label = f"step {at.step:,}  held out: loss {seen.loss:.3f}, right {seen.accuracy:.3f}"
            log.log(at.step, at.tokens, **values)
            bar.update(min(at.tokens, total) - before)
            if at.skipped_in_a_row >= _MAX_SKIPPED:
                raise ConfigError(
                    f"{at.skipped_in_a_row} steps in a row up to step {at.step} changed nothing",
                    hint="metrics.jsonl says why; lower optim.lr or lengthen the warm-up",
                )
            if time.monotonic() - saved >= config.run.save_every_s:
                keep()
                saved = time.monotonic()
    at.finished = at.tokens >= total
    keep()
    if at.finished:
        scores = torch.cat(evaluate(model, head, held_out, config.run.micro_tokens)).tolist()
        trained = RewardModel(model, tokenizer, statistics.fmean(scores), statistics.pstdev(scores))
        trained.save(directory / "model", text_from=directory / "tokenizer")
    return at


def train_step(
    model: ZayaModel,
    optimizer: Optimizer,
    balancer: Balancer,
    pairs: Sequence[Pair],
    *,
    head: int,
    lr: float,
    balance_fraction: float,
    micro_tokens: int,
) -> dict[str, Any]:
    """Move weights and balancing biases once by some pairs; what the log says of it."""
    if model.dtype != torch.float32:
        for parameter in model.parameters():
            parameter.grad_dtype = torch.float32
    seen: list[tuple[Tensor, Tensor]] = []
    counts = torch.zeros(model.config.num_layers, model.config.num_classes, dtype=torch.long, device=model.device)
    for chosen, rejected, routed in _passes(model, head, pairs, micro_tokens):
        (pair_losses(chosen, rejected).sum() / len(pairs)).backward()
        seen.append((chosen.detach(), rejected.detach()))
        counts += routed
    found = agreement(torch.cat([c for c, _ in seen]), torch.cat([r for _, r in seen]))
    grad_norm, is_clipped, skipped = None, False, "not finite"
    if math.isfinite(found.loss):
        stats = optimizer.step(lr)
        grad_norm, is_clipped, skipped = stats.grad_norm, stats.is_clipped, stats.skipped
    optimizer.zero_grad()
    if skipped != "not finite":
        balancer.step(counts, balance_fraction)
    return {**asdict(found), "lr": lr, "grad_norm": grad_norm, "clipped": int(is_clipped), "skipped": skipped}
