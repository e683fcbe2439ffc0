"""The settings of a stage: what a recipe says, and what follows from it on paper.

Pretraining, midtraining and supervised fine-tuning are one thing with other data: midtraining starts from the run
before (`init`) with a longer context and another rotary base; fine-tuning learns conversations and stops where
validation is flat (`stop`). Source: spec pretraining 5, post-training 2. Made definite by `train.stage`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from zaya import config as configuration
from zaya.data.loader import LoaderConfig
from zaya.data.masks import LossOn
from zaya.data.sources import ConversationLines, Source, StandardLibrary, TextFolder, TextLines
from zaya.errors import ConfigError
from zaya.model.config import ModelConfig, Precision
from zaya.model.init import tensor_table
from zaya.train.balance import BalanceConfig
from zaya.train.optim import OptimConfig
from zaya.train.schedule import ScheduleConfig

Kind = Literal["stdlib", "text_folder", "text_lines", "conversation_lines"]

ModelSetting = bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How the stage is carried out."""

    seed: int = 0
    """Decides initial weights and the order of the data."""
    precision: Precision = "float32"
    """Of weights and activations; the optimiser keeps float32 in any case."""
    threads: int | None = None
    """Processor threads; none takes what PyTorch finds. Another number gives other last digits."""
    micro_tokens: int = 8192
    """Tokens that go through the model at once; a step has as many passes as it needs."""
    eval_every: int = 200
    """Steps between two validations; there is one at the end in any case."""
    save_every_s: float = 120.0
    """Seconds between two checkpoints. Saving changes no result."""

    def __post_init__(self) -> None:
        for name in ("micro_tokens", "eval_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"run.{name} must be at least 1: {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"run.threads must be at least 1: {self.threads}", hint="none leaves it to PyTorch")
        if self.save_every_s < 0:
            raise ConfigError(f"run.save_every_s must not be negative: {self.save_every_s}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """One component of the data."""

    kind: Kind
    """The running Python's standard library, text files of a folder, or JSON lines of text or of conversations."""
    path: str | None = None
    """File or folder, from the directory the command is run in. All kinds but `stdlib` need it."""
    weight: float = 1.0
    """Share of the bins, relative to the other components."""
    exclude: tuple[str, ...] = ()
    """Files of the standard library to leave out, as in `encodings/*`."""
    context: int | None = None
    """Tokens that conversations are trimmed to; none takes the loader's."""
    keep_min: int = 0
    """Tokens of reasoning that trimming must leave in the last turn."""
    loss_on: LossOn = "all_turns"
    """Which assistant turns of a conversation are learned."""

    def __post_init__(self) -> None:
        if (self.path is None) != (self.kind == "stdlib"):
            raise ConfigError(f"data of kind {self.kind} {'needs a' if self.path is None else 'takes no'} path")
        if self.exclude and self.kind != "stdlib":
            raise ConfigError(f"data of kind {self.kind} takes no exclude")

    def source(self) -> Source:
        """Where the documents come from."""
        if self.kind == "stdlib":
            return StandardLibrary(self.exclude)
        assert self.path is not None
        kinds = {"text_folder": TextFolder, "text_lines": TextLines, "conversation_lines": ConversationLines}
        return kinds[self.kind](Path(self.path))


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """What is never trained on. One fraction for all components, so that none trains on what another holds out."""

    held_out: float = 0.02
    """Part of the documents, chosen by their content. With 0 there is no validation."""
    bins: int = 8
    """Bins of each component that a validation reads, always the same; fewer where there are no more."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"validation.held_out must be at least 0 and below 1: {self.held_out}")
        if self.bins < 1:
            raise ConfigError(f"validation.bins must be at least 1: {self.bins}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StopConfig:
    """When to stop before the schedule ends. The weights of the best validation are then the result."""

    patience: int = 3
    """Validations in a row that may bring nothing."""
    min_delta: float = 0.0
    """A validation brought something if it is better by more than this, in nats."""

    def __post_init__(self) -> None:
        if self.patience < 1 or self.min_delta < 0:
            raise ConfigError(
                f"stop.patience must be at least 1 and min_delta not negative: {self.patience}, {self.min_delta}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """A recipe."""

    loader: LoaderConfig
    """Context and batch."""
    schedule: ScheduleConfig
    """Length of the stage and course of its rate."""
    data: dict[str, DataConfig]
    """Components by name."""
    init: str | None = None
    """A run, one of its checkpoints, or a published checkpoint to take weights and balancing biases from; none starts
    from fresh ones."""
    tokenizer: str | None = None
    """Directory with tokenizer.json; none takes that of `init`."""
    run: RunConfig = field(default_factory=RunConfig)
    """How it is carried out."""
    model: dict[str, ModelSetting] = field(default_factory=dict)
    """Settings of the model that differ from those of `init`, or from those of the `preset` that is named here."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """How weights follow their gradients."""
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    """How the balancing biases follow the load."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What is measured on the way."""
    stop: StopConfig | None = None
    """Stop where validation is flat; without this table the schedule alone says when."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("there is nothing to learn from: data has no component", hint="add a table [data.NAME]")
        for name, data in self.data.items():
            if not re.fullmatch(r"\w[\w-]*", name):
                raise ConfigError(f"a component's name is letters, digits, _ and -: {name!r}")
            if data.context is not None and data.context > self.loader.context:
                raise ConfigError(f"data.{name}.context exceeds the loader's: {data.context} > {self.loader.context}")
        if self.run.micro_tokens < self.loader.context:
            raise ConfigError(
                f"run.micro_tokens must hold a sequence of loader.context: {self.run.micro_tokens}, "
                f"{self.loader.context}"
            )
        if self.tokenizer is None and self.init is None:
            raise ConfigError("required and not given: tokenizer", hint="a stage with init takes the tokenizer of that")
        if self.stop is not None and not self.validation.held_out:
            raise ConfigError("stop needs validation, and validation.held_out is 0")


def differences(one: StageConfig, other: StageConfig) -> list[str]:
    """Dotted keys whose values differ and decide the result.

    Threads, and how often to save, may change when a run is resumed; so may the steps between validations, unless
    they decide where it stops.
    """
    free = {"run.threads", "run.save_every_s"}
    if one.stop is None:
        free.add("run.eval_every")
    return [key for key in configuration.differences(one, other) if key not in free]


def memory(config: StageConfig, model: ModelConfig) -> dict[str, int]:
    """Bytes that a training step holds, by purpose. Activations are counted roughly, by a fit to measured peaks of the
    small presets on a CPU, which it meets within 15 %."""
    wide = config.run.precision == "float32"
    specs = [spec for spec in tensor_table(model) if not spec.is_buffer]
    numbers = sum(spec.numel for spec in specs)
    muon = sum(spec.numel for spec in specs if spec.group in ("matrix", "expert"))
    states = 2 * (numbers - muon) + (muon if config.optim.momentum else 0) + (0 if wide else numbers)
    tokens = min(config.run.micro_tokens, config.loader.context * config.loader.bins_per_step)
    layer = 14 * model.hidden_size + 10 * (model.conv_channels + model.router_size)
    layer += 6 * model.expert_size * model.experts_per_token
    logits = 2 * min(1024, tokens) * model.vocab_size
    return {
        "weights": numbers * (4 if wide else 2),
        "gradients": numbers * 4,
        "optimiser": states * 4,
        "activations": (tokens * model.num_layers * layer + logits) * 4,
    }
