"""The settings of a stage of reinforcement learning. Source: spec post-training 3.9; what the report leaves open is
marked there. Made definite by `rl.trainer`."""

from __future__ import annotations

from dataclasses import dataclass, field

from zaya.envs.calibration import CalibrationConfig
from zaya.envs.difficulty import ScheduleConfig
from zaya.envs.mixture import TaskConfig
from zaya.errors import ConfigError
from zaya.rl.advantage import AdvantageConfig
from zaya.rl.canary import CanaryConfig
from zaya.rl.loss import LossConfig
from zaya.train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RlRunConfig:
    """How the stage is carried out."""

    steps: int
    """Updates of the weights."""
    seed: int = 0
    """Decides which problems come when, and every draw."""
    threads: int | None = None
    """Processor threads; none takes what PyTorch finds. Another number gives other last digits."""
    warmup_steps: int = 5
    """Steps over which the rate climbs, in a straight line."""
    decay_steps: int = 0
    """Steps at the end over which it falls towards 0."""
    micro_tokens: int = 8192
    """Tokens that go through the model at once while it learns."""
    max_batch: int = 256
    """Rollouts that are sampled at once."""
    save_every_s: float = 120.0
    """Seconds between two checkpoints. Saving changes no result."""
    workers: int = 1
    """Processes that make and score problems."""

    def __post_init__(self) -> None:
        for name in ("steps", "micro_tokens", "max_batch", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"run.{name} must be at least 1: {getattr(self, name)}")
        if min(self.warmup_steps, self.decay_steps, self.save_every_s) < 0:
            raise ConfigError("run.warmup_steps, decay_steps and save_every_s must not be negative")
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ConfigError(
                "run.warmup_steps and decay_steps do not fit into steps: "
                f"{self.warmup_steps} + {self.decay_steps} > {self.steps}",
                hint="change run.decay_steps along with run.steps",
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"run.threads must be at least 1: {self.threads}", hint="none leaves it to PyTorch")

    def lr_fraction(self, step: int) -> float:
        """Of the peak, for step number `step`, counted from 1."""
        warmth = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        left = min(1.0, (self.steps - step + 1) / (self.decay_steps + 1)) if self.decay_steps else 1.0
        return min(warmth, left)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """What one step samples."""

    prompts: int = 128
    """Groups that a step learns from."""
    group_size: int = 16
    """Rollouts of one prompt."""
    max_tokens: int = 81_920
    """Longest response."""
    max_rounds: int = 4
    """How often a step samples, each time for the informative groups it still lacks; it then learns from those it
    has."""

    def __post_init__(self) -> None:
        for name in ("prompts", "max_tokens", "max_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sampling.{name} must be at least 1: {getattr(self, name)}")
        if self.group_size < 2:
            raise ConfigError(
                f"sampling.group_size must be at least 2: {self.group_size}", hint="credit is by comparison in a group"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregationConfig:
    """Prompts that show the policy's own attempts of a moment ago (self-aggregation, spec markovian-rsa 7.2)."""

    share: float = 0.0
    """Part of the prompts of a step, as far as there are attempts to show."""
    rounds: int = 1
    """How often attempts are handed on: 1 shows attempts at the question alone, as the report has it; 2 also those
    that were shown attempts themselves."""
    fan_in: int = 4
    """Attempts in a prompt."""
    tail_tokens: int = 4096
    """Tokens of an attempt that are shown."""
    answers: float = 0.0
    """Part of those prompts that show what attempts answer, not the ends of their reasoning; of attempts that were cut
    those still (`compaction = "hybrid"`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.answers <= 1:
            raise ConfigError(f"aggregation.answers must be from 0 to 1: {self.answers}")
        if not 0 <= self.share < 1:
            raise ConfigError(f"aggregation.share must be at least 0 and below 1: {self.share}")
        for name in ("rounds", "fan_in", "tail_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"aggregation.{name} must be at least 1: {getattr(self, name)}")


def _momentum_free() -> OptimConfig:
    return OptimConfig(lr=1e-5, momentum=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RlConfig:
    """A recipe of reinforcement learning."""

    init: str
    """A run, one of its checkpoints, or a published checkpoint: the policy to begin with, and its tokenizer."""
    run: RlRunConfig
    """How it is carried out."""
    tasks: dict[str, TaskConfig]
    """What is practised, by name."""
    held_out: float = 0.1
    """Part of all problems, by their content, that is never practised."""
    schedule: ScheduleConfig | None = None
    """Levels that follow what the policy can do; without this table tasks keep their levels and weights."""
    calibration: CalibrationConfig | None = None
    """Where those levels begin is found before the first step; without this table at the lowest."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Groups and rollouts of a step."""
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    """Prompts with attempts in them."""
    router_replay: bool = True
    """Train every token through the experts that worked on it when it was sampled."""
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    """From rewards to credit."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The trust region and the norm of the loss."""
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    """What counts as degenerate."""
    optim: OptimConfig = field(default_factory=_momentum_free)
    """Muon without momentum for matrices, AdamW for the rest."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("there is nothing to practise: tasks is empty", hint="add a table [tasks.NAME]")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out must be at least 0 and below 1: {self.held_out}")
        if self.schedule is not None:
            self._check_scheduled()
        elif self.calibration is not None:
            raise ConfigError(
                "calibration finds where levels begin, and none of them moves", hint="add a table [schedule]"
            )
        if self.aggregation.share and self.aggregation.fan_in > self.sampling.group_size:
            raise ConfigError(
                "aggregation.fan_in exceeds the rollouts of a group: "
                f"{self.aggregation.fan_in} > {self.sampling.group_size}"
            )

    def _check_scheduled(self) -> None:
        """That no task asks for what the schedule decides."""
        names: dict[str, str] = {}
        for name, task in self.tasks.items():
            if task != TaskConfig(env=task.env):
                raise ConfigError(
                    f"tasks.{name} has difficulties or a weight, which the schedule decides",
                    hint="remove them, or the table [schedule]",
                )
            if task.env in names:
                raise ConfigError(f"tasks.{names[task.env]} and tasks.{name} are one environment: {task.env}")
            names[task.env] = name
