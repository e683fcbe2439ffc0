"""A recipe made definite: its model with every setting, what it starts from, and its tokenizer.

    recipe ─► open_stage ─► Stage ─► train.run ─► train.loop

Nothing is written here; a dry run ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from zaya import config as configuration
from zaya.core.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from zaya.errors import CheckpointError, ConfigError
from zaya.model.config import ModelConfig, preset
from zaya.model.init import tensor_table
from zaya.model.layouts import load_model, open_checkpoint
from zaya.text import Tokenizer, load_tokenizer
from zaya.train.recipe import StageConfig

Notice = Callable[[str], None]
"""Takes one line for whoever watches."""


@dataclass(frozen=True, slots=True)
class Initial:
    """What a stage starts from: the checkpoint of a run, or one in a published layout."""

    model: ModelConfig
    text: Path
    """Directory of the tokenizer."""
    source: Checkpoint | Path

    def weights(self) -> Mapping[str, Tensor]:
        """Weights and balancing biases by our names, float32. Those of the best validation, where a run had an eye on
        it."""
        if isinstance(self.source, Path):
            return load_model(self.source, dtype="float32", quantize="none").state_dict()
        return part(self.source.tensors, "best") or part(self.source.tensors, "model")


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a run needs to know before it has a place to write."""

    config: StageConfig
    """With every setting of the model spelled out."""
    model: ModelConfig
    initial: Initial | None
    tokenizer: Tokenizer


def open_stage(config: StageConfig, notice: Notice) -> Stage:
    """Find and check what a recipe names. Raises ConfigError for settings that do not exist or do not fit the weights
    they start from, CheckpointError for a tokenizer or a stage before that is not there or damaged."""
    initial = None if config.init is None else open_initial(Path(config.init), notice)
    model = _model(config, initial)
    directory = initial.text if config.tokenizer is None and initial is not None else Path(str(config.tokenizer))
    if not directory.is_dir():
        raise CheckpointError(
            f"the tokenizer is not there: {directory}", hint="make it with zaya prepare, or name another in tokenizer"
        )
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise CheckpointError(f"{directory} has no tokenizer.json", hint="name a directory in tokenizer=...")
    tokenizer.never_sampled(model.vocab_size)  # raises where a token has no row
    return Stage(replace(config, model=configuration.to_mapping(model)), model, initial, tokenizer)


def part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of a run's checkpoint whose names begin with `kind/`, under the rest of their names."""
    return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}


def open_initial(path: Path, notice: Notice) -> Initial:
    """Weights and tokenizer of a run, of one of its checkpoints, or of a published checkpoint. Raises CheckpointError
    where there are none."""
    if (path / "config.json").is_file():
        return Initial(open_checkpoint(path).config, path, path)
    run = path.parent.parent if path.name.startswith("step_") else path
    checkpoint = latest_checkpoint(run / "ckpt", notice) if run == path else None
    if run != path and path.is_dir():
        checkpoint = load_checkpoint(path)
    if checkpoint is None:
        raise CheckpointError(
            f"the stage to start from is not there: {path} has no checkpoint",
            hint=f"make it with zaya pretrain --config RECIPE --out {run}, or zaya sft; or set init to another",
        )
    if not checkpoint.state["position"]["finished"]:
        notice(f"{run} is not finished; starting from its step {checkpoint.step}")
    return Initial(configuration.from_mapping(ModelConfig, checkpoint.state["model"]), run / "tokenizer", checkpoint)


@dataclass(frozen=True, slots=True)
class _Table:
    model: ModelConfig


def _model(config: StageConfig, initial: Initial | None) -> ModelConfig:
    changes: dict[str, Any] = dict(config.model)
    name = changes.pop("preset", None)
    if initial is not None and name is not None:
        raise ConfigError("model.preset and init exclude each other", hint="the model's shape is that of init")
    base = preset(str(name or "micro")) if initial is None else initial.model
    # inside a table, so that errors name model.KEY
    model = configuration.from_mapping(_Table, {"model": changes}, base=_Table(base)).model
    if initial is not None and _shapes(model) != _shapes(base):
        changed = [f"model.{key}" for key in changes if getattr(model, key) != getattr(base, key)]
        raise ConfigError(
            f"the weights of {config.init} do not fit the changed model: {', '.join(changed)}",
            hint="change only what leaves every shape alone, such as rope_theta and max_positions",
        )
    return model


def _shapes(model: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    return [(spec.name, spec.shape) for spec in tensor_table(model)]
