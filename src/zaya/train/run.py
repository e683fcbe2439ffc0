"""The directory of a run and what is in memory of it: opened anew or where it stood, validated, saved, finished.

    config.toml     the recipe, every setting spelled out
    env.json        what it was begun with: Python, PyTorch, threads, commit
    tokenizer/      a copy, so that the next stage needs this directory alone
    data/           prepared shards: NAME, and NAME.held-out
    metrics.jsonl   a line for each step
    ckpt/step_N/    float32 weights, optimiser, balancer; where data and schedule stand
    model/          the result as a checkpoint in the native layout, once the stage is finished

Used by `train.loop`.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from zaya import __version__
from zaya import config as configuration
from zaya.core.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from zaya.core.files import new_file
from zaya.data.loader import Batch, Component, Loader
from zaya.data.prepare import PrepareConfig, prepare
from zaya.errors import CheckpointError, ConfigError, DataError, UsageError
from zaya.model.layouts import save
from zaya.model.layouts.faithful import check_faithful
from zaya.model.transformer import ZayaModel
from zaya.text import Tokenizer
from zaya.train.balance import Balancer
from zaya.train.optim import Optimizer
from zaya.train.recipe import StageConfig
from zaya.train.stage import Notice, Stage, part
from zaya.train.step import StepRecord, evaluate

T = TypeVar("T")

_EMA_STEPS = 20
_RECIPE, _ENVIRONMENT = "config.toml", "env.json"


@dataclass(frozen=True, slots=True)
class Validation:
    """Losses on what is held out."""

    step: int
    loss: float
    """Of the components by their weights."""
    losses: dict[str, float]
    """By component."""


@dataclass(slots=True)
class Position:
    """Where a run stands, besides its tensors. JSON in every checkpoint."""

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    """Steps that changed nothing."""
    skipped_in_a_row: int = 0
    """Of them, those since the last one that did."""
    averages: dict[str, float] = field(default_factory=dict)
    """Moving averages of the load's entropy, over about 20 steps."""
    validations: tuple[Validation, ...] = ()
    finished: bool = False

    def take(self, record: StepRecord, tokens: int) -> dict[str, float | str | None]:
        """Move on by a step after which `tokens` have been consumed; what the log says of it."""
        self.step += 1
        self.tokens = tokens
        self.skipped += record.skipped is not None
        self.skipped_in_a_row = 0 if record.skipped is None else self.skipped_in_a_row + 1
        load = {} if record.load is None else asdict(record.load)
        for name in load.keys() & {"entropy_mean", "entropy_min"}:
            before = self.averages.get(f"{name}_ema", load[name])
            self.averages[f"{name}_ema"] = before + (load[name] - before) / _EMA_STEPS
        plain = {name: getattr(record, name) for name in ("loss", "loss_tokens", "lr", "grad_norm", "skipped")}
        by_component = {f"loss/{name}": loss for name, loss in record.losses.items()}
        return {**plain, "clipped": int(record.is_clipped), **by_component, **load, **self.averages}


@dataclass(slots=True)
class Run:
    """A run in memory."""

    stage: Stage
    directory: Path
    model: ZayaModel
    optimizer: Optimizer
    balancer: Balancer
    loader: Loader
    held_out: dict[str, Batch]
    position: Position
    best: dict[str, Tensor]
    """Weights of the best validation, where the recipe has a rule to stop by it."""

    def validate(self) -> dict[str, float]:
        """Measure the losses on what is held out, and keep the weights if they are the best; what the log says."""
        if not self.held_out:
            return {}
        losses = evaluate(self.model, self.held_out, self.stage.config.run.micro_tokens)
        weights = {name: data.weight for name, data in self.stage.config.data.items()}
        loss = sum(weights[name] * losses[name] for name in losses) / sum(weights.values())
        at = self.position
        if self.stage.config.stop is not None and all(loss < other.loss for other in at.validations):
            self.best = {name: tensor.clone() for name, tensor in weights_of(self.model, self.optimizer).items()}
        at.validations = (*at.validations, Validation(at.step, loss, losses))
        return {"val_loss": loss, **{f"val_loss/{name}": value for name, value in losses.items()}}

    def save(self) -> None:
        """A checkpoint of this step; that of a finished run stays."""
        optim = {k: v for k, v in self.optimizer.state_dict().items() if not k.startswith("master/")}
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": weights_of(self.model, self.optimizer),
            "optim": optim,
            "balance": self.balancer.state_dict(),
            "best": self.best,
        }
        save_checkpoint(
            self.directory / "ckpt",
            self.position.step,
            {f"{kind}/{name}": tensor for kind, tensors in parts.items() for name, tensor in tensors.items()},
            {
                "position": asdict(self.position),
                "loader": self.loader.state(),
                "model": configuration.to_mapping(self.stage.model),
            },
            mark=self.position.finished,
        )

    def write_model(self, notice: Notice) -> None:
        """The result as a checkpoint that everything else opens: the best weights where they were kept, else these."""
        try:
            check_faithful(self.stage.model, "native", [])
        except CheckpointError as error:
            notice(f"no {self.directory / 'model'} is written: {error.message}")
            return
        if self.best:
            load_weights(self.model, self.optimizer, self.best)
        save(self.model, self.directory / "model", text_from=self.directory / "tokenizer", overwrite=True)


def resumable(
    config: T, directory: Path, notice: Notice, differences: Callable[[T, T], list[str]]
) -> Checkpoint | None:
    """The checkpoint from which a run in that directory goes on; None where it has to begin.

    `differences` names the settings of two recipes that differ and decide the result. Raises ConfigError where the
    checkpoint belongs to another recipe, UsageError where the directory is no run's.
    """
    recipe = directory / _RECIPE
    if not recipe.is_file():
        # hidden files do not count: one is what a kill leaves while the recipe is written
        if directory.exists() and (not directory.is_dir() or any(p.name[0] != "." for p in directory.iterdir())):
            raise UsageError(f"{directory} is not empty and no run", hint="name another directory with --out")
        return None
    checkpoint = latest_checkpoint(directory / "ckpt", notice)
    if checkpoint is None:
        return None  # nothing is lost by beginning again, with whatever recipe
    if changed := differences(configuration.load(type(config), recipe), config):
        raise ConfigError(
            f"{directory} holds a run of another recipe; what differs: {', '.join(changed)}",
            hint="resume with the recipe it was begun with, or name another directory with --out",
        )
    return checkpoint


def position_of(checkpoint: Checkpoint) -> Position:
    """Where the run of a checkpoint stands."""
    return configuration.from_mapping(Position, checkpoint.state["position"])


def is_done(checkpoint: Checkpoint, directory: Path) -> bool:
    """Whether nothing is left to do for the run that the checkpoint is of."""
    return position_of(checkpoint).finished and (directory / "model").is_dir()


def open_run(stage: Stage, directory: Path, checkpoint: Checkpoint | None, notice: Notice) -> Run:
    """A run where a checkpoint of it stands, or at its beginning. Raises what the data's sources raise."""
    config = stage.config
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    if checkpoint is None:
        begin(directory, configuration.to_toml(config), stage.tokenizer)
    else:
        compare_environment(directory, notice)
    train, held_out = _datasets(stage, directory, overwrite=checkpoint is None)
    fresh = checkpoint is None and stage.initial is None
    model = ZayaModel(stage.model, precision=config.run.precision, seed=config.run.seed if fresh else None)
    run = Run(
        stage=stage,
        directory=directory,
        model=model,
        optimizer=Optimizer(model, config.optim),
        balancer=Balancer(model, config.balance),
        loader=Loader(train, config.loader, config.run.seed, prefetch=1),
        held_out={component.name: _sample(component, config) for component in held_out},
        position=Position(),
        best={},
    )
    if checkpoint is not None:
        weights = part(checkpoint.tensors, "model")
        load_weights(model, run.optimizer, weights)
        masters = {name: weights[name.removeprefix("master/")] for name in _masters(run.optimizer)}
        run.optimizer.load_state_dict(part(checkpoint.tensors, "optim") | masters)
        run.balancer.load_state_dict(part(checkpoint.tensors, "balance"))
        run.loader.load_state(checkpoint.state["loader"])
        run.position = position_of(checkpoint)
        run.best = {name: tensor.clone() for name, tensor in part(checkpoint.tensors, "best").items()}
    elif stage.initial is not None:
        load_weights(model, run.optimizer, stage.initial.weights())
    return run


def weights_of(model: ZayaModel, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights and balancing biases in float32: the optimiser's masters where the model's are narrower. Not copies."""
    masters = {name.removeprefix("master/"): tensor for name, tensor in _masters(optimizer).items()}
    return {name: tensor.float() for name, tensor in (model.state_dict() | masters).items()}


@torch.no_grad()
def load_weights(model: ZayaModel, optimizer: Optimizer, weights: Mapping[str, Tensor]) -> None:
    """The inverse of `weights_of`, in place."""
    masters = _masters(optimizer)
    for name, tensor in model.state_dict().items():
        tensor.copy_(weights[name])
        if (master := masters.get(f"master/{name}")) is not None:
            master.copy_(weights[name])


def _masters(optimizer: Optimizer) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in optimizer.state_dict().items() if name.startswith("master/")}


def _datasets(stage: Stage, directory: Path, *, overwrite: bool) -> tuple[list[Component], list[Component]]:
    """The components to train on, and those that are held out."""
    config = stage.config
    splits: dict[Literal["train", "held_out"], list[Component]] = {"train": [], "held_out": []}
    for name, data in config.data.items():
        for split, components in splits.items():
            if split == "held_out" and not config.validation.held_out:
                continue
            settings = PrepareConfig(
                split=split,
                held_out=config.validation.held_out,
                context=config.loader.context if data.context is None else data.context,
                keep_min=data.keep_min,
                loss_on=data.loss_on,
            )
            # a component's name has no dot
            where = directory / "data" / (name if split == "train" else f"{name}.held-out")
            try:
                dataset = prepare(data.source(), stage.tokenizer, where, settings, overwrite=overwrite)
            except DataError as error:
                raise DataError(f"data.{name}, {split}: {error.message}", hint=error.hint) from error
            components.append(Component(name, dataset, data.weight))
    return splits["train"], splits["held_out"]


def _sample(component: Component, config: StageConfig) -> Batch:
    """The same few bins in every run of a recipe."""
    with Loader([component], replace(config.loader, bins_per_step=1), seed=0) as loader:
        bins = min(config.validation.bins, loader.bins[component.name])
    return Loader([component], replace(config.loader, bins_per_step=bins), seed=0).batch(0)


def begin(directory: Path, recipe: str, tokenizer: Tokenizer) -> None:
    """Write what a run's directory holds from its first moment on."""
    for name, text in {
        _RECIPE: recipe,
        _ENVIRONMENT: json.dumps(_environment(), indent=2) + "\n",
    }.items():
        with new_file(directory / name) as stream:
            stream.write(text.encode())
    tokenizer.save(directory / "tokenizer")


def _environment() -> dict[str, Any]:
    return {
        "zaya": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    root = Path(__file__).parents[3]  # of a checkout, where the package lies in src/
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    except OSError:  # there is no git
        return None
    return done.stdout.strip() or None


def compare_environment(directory: Path, notice: Notice) -> None:
    """Say what is different from when a run was begun, where it may change last digits."""
    try:
        before = json.loads((directory / _ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    for name, value in _environment().items():
        if before.get(name) != value:
            notice(
                f"this run was begun with {name} {before.get(name)}, it goes on with {value}: last digits may differ"
            )
