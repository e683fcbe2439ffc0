"""All stages of a model, one after another: text, pretraining, midtraining, fine-tuning, reinforcement, evaluation.

    cascade.toml ─► each stage by its own recipe, in a directory of its own ─► the model to ship, with its card

A cascade can be stopped at any moment and goes on where it stood: finished stages are left, the one in work resumes.
It keeps a note of what each stage was made from, all stages before it included, and refuses to build on something
else. The recipes name their directories below one root; another place is that root moved. Command: `zaya cascade`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from zaya import __version__
from zaya import config as configuration
from zaya.core.files import held, new_file
from zaya.core.metrics import read_metrics
from zaya.errors import CheckpointError, ConfigError, UsageError, did_you_mean
from zaya.eval.scores import SuiteResult
from zaya.eval.suite import SuiteConfig, run_suite
from zaya.eval.tables import markdown
from zaya.model.embedded import MANIFEST
from zaya.model.flops import active_parameters, parameters
from zaya.model.layouts import save
from zaya.model.transformer import ZayaModel
from zaya.rl.recipe import RlConfig
from zaya.rl.trainer import train as train_rl
from zaya.train.loop import train
from zaya.train.recipe import StageConfig
from zaya.train.stage import Notice, open_initial, open_stage
from zaya.ttc.corpus import CorpusConfig, make_corpus

T = TypeVar("T")

_NOTES = "cascade.json"
MODEL = "shipped"
"""Directory of the model that the cascade is for, below its root."""

Kind = Literal["prepare", "pretrain", "sft", "rl", "eval"]
_RECIPES: dict[Kind, type[Any]] = {
    "prepare": CorpusConfig,
    "pretrain": StageConfig,
    "sft": StageConfig,
    "rl": RlConfig,
    "eval": SuiteConfig,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEntry:
    """One stage of a cascade."""

    kind: Kind
    """The command that carries it out."""
    recipe: str
    """Its recipe, from the directory of the cascade's file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeConfig:
    """A recipe of recipes."""

    root: str
    """Directory that the recipes' own paths begin with; a stage works in the one below it that has its name."""
    stages: dict[str, StageEntry]
    """By name, in order."""
    ship: str
    """The stage whose result is the model, written in bfloat16 with a card."""

    def __post_init__(self) -> None:
        if self.ship not in self.stages:
            raise ConfigError(f"ship names no stage: {self.ship!r}", hint=did_you_mean(self.ship, self.stages))
        if not any(stage.kind == "eval" for stage in self.stages.values()):
            raise ConfigError("no stage evaluates", hint="a model is shipped with what it scores: add a stage of eval")
        if self.stages[self.ship].kind in ("prepare", "eval"):
            raise ConfigError(f"ship names a stage that makes no model: {self.ship!r}", hint="name one that trains")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage made definite."""

    name: str
    kind: Kind
    config: Any
    directory: Path
    digest: str
    """Of its settings and of those of all stages before it."""


@dataclass(slots=True)
class Cascade:
    """A cascade made definite."""

    stages: list[Stage]
    root: Path
    ship: str
    recipe_digest: str
    """Of all settings, wherever the root is."""
    notes: dict[str, str] = field(default_factory=dict)
    """Of each stage that was begun, what it was made from."""


def open_cascade(file: Path, overrides: Sequence[str] = (), out: Path | None = None) -> Cascade:
    """Read a cascade and all its recipes. `overrides` are settings behind the name of a stage, as in
    `rl.run.steps=90`; `seed=1` is for all of them. Raises ConfigError for whatever is wrong in any of them."""
    config = configuration.load(CascadeConfig, file)
    by_stage: dict[str, list[str]] = {name: [] for name in config.stages}
    for override in overrides:
        name, dot, rest = override.partition(".")
        if override.startswith("seed="):
            for stage, entry in config.stages.items():
                by_stage[stage].append(("" if entry.kind in ("prepare", "eval") else "run.") + override)
        elif not dot or name not in by_stage:
            raise ConfigError(
                f"an override begins with the name of a stage: {override!r}", hint=did_you_mean(name, by_stage)
            )
        else:
            by_stage[name].append(rest)
    root = Path(config.root) if out is None else out
    cascade = Cascade([], root, config.ship, "")
    before = plain = ""
    for name, entry in config.stages.items():
        try:
            recipe = configuration.load(_RECIPES[entry.kind], file.parent / entry.recipe, by_stage[name])
        except ConfigError as error:
            raise ConfigError(f"{entry.recipe}: {error.message}", hint=error.hint) from error
        plain = _digest(plain, name, configuration.to_mapping(recipe))
        before = _digest(before, name, _deciding(configuration.to_mapping(recipe)))
        moved = _moved(recipe, config.root, str(root))
        cascade.stages.append(Stage(name, entry.kind, moved, root / name, before))
    cascade.recipe_digest = plain
    return cascade


def run_cascade(cascade: Cascade, notice: Notice, heading: Callable[[Stage], None]) -> SuiteResult | None:
    """Carry out every stage that is not finished. Returns what the last evaluation measured; None where Ctrl-C ended a
    stage before its end, which is saved. Raises ConfigError where a stage was begun with other settings."""
    with held(cascade.root):
        return _run_cascade(cascade, notice, heading)


def _run_cascade(cascade: Cascade, notice: Notice, heading: Callable[[Stage], None]) -> SuiteResult | None:
    notes = _read_notes(cascade.root)
    for stage in cascade.stages:
        if stage.directory.is_dir() and notes.get(stage.name, stage.digest) != stage.digest:
            raise ConfigError(
                f"{stage.directory} was made with other settings, its own or those of a stage before it",
                hint="go on with the settings it was made with, or name another directory with --out",
            )
    result = None
    for stage in cascade.stages:
        heading(stage)
        notes[stage.name] = stage.digest
        _write(cascade.root / _NOTES, json.dumps(notes, indent=1))
        match stage.kind:
            case "prepare":
                make_corpus(stage.config, stage.directory, notice)
            case "pretrain" | "sft":
                if train(open_stage(stage.config, notice), stage.directory, notice).how == "interrupted":
                    return None
            case "rl":
                if not train_rl(stage.config, stage.directory, notice).finished:
                    return None
            case "eval":
                started = time.perf_counter()
                result = run_suite(stage.config, stage.directory, notice)
                notice(f"evaluated in {time.perf_counter() - started:.0f} s")
        if stage.name == cascade.ship:
            _ship(cascade, stage, notice)
    if result is not None:
        write_card(cascade, result)
    return result


def write_card(cascade: Cascade, result: SuiteResult) -> None:
    """The card of the model, and its manifest. Written last, when there is something to say."""
    directory = cascade.root / MODEL
    suite = next(stage.config for stage in cascade.stages if stage.kind == "eval")
    about = {
        "recipe": cascade.recipe_digest,
        "zaya": __version__,
        "data": _data(cascade),
        "made_by": {key: value for key, value in _environment(cascade).items() if key != "platform"},
        "weights": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
    }
    _write(directory / MANIFEST, json.dumps(about, indent=1))
    model = open_initial(directory, lambda _: None).model
    numbers = parameters(model)
    data = "\n".join(f"- {name}: {value}" for name, value in about["data"].items())
    total, active = (number.total / 1e6 for number in (numbers, active_parameters(model)))
    commit, python, torch, threads = (about["made_by"].get(key) for key in ("commit", "python", "torch", "threads"))
    _write(
        directory / "README.md",
        f"""---
license: apache-2.0
tags: [zaya, reasoning]
---

# Micro ZAYA

A ZAYA1 of {total:.2f} million parameters, {active:.2f} million of which work on a token. It was trained from nothing
on two processor cores to show every stage of the system at work: it solves small problems of the kinds below, in
writing, and knows nothing else. Context: {model.max_positions:,} tokens.

Made by `zaya cascade recipes/micro/cascade.toml`, zaya {__version__}, commit {commit or "unknown"}, Python {python},
PyTorch {torch}, {threads} threads. Recipe {cascade.recipe_digest}.

## Results

{markdown(result, suite.ttc).strip()}

## Validation of fine-tuning

Loss on what was held out, after so many steps; it stops where it is flat, and the best weights are kept.

{_curve(cascade)}

## Data

Worked problems made by this project's own teachers, on tasks of its own and of RLVE-Gym (MIT), and the standard library
of the Python that trained it. Teachers slip now and then, on purpose: nobody verified the traces of fine-tuning, and
reinforcement learning had to. Fingerprints:

{data}

## Limits

Other questions get nonsense. Numbers beyond those of the tasks get wrong answers. No safety training of any kind.
""",
    )


def _ship(cascade: Cascade, stage: Stage, notice: Notice) -> None:
    """The result of a stage in bfloat16, in the native layout."""
    directory = cascade.root / MODEL
    if directory.is_dir() and (directory / "made_from").is_file():
        if (directory / "made_from").read_text(encoding="utf-8").strip() == stage.digest:
            return
        raise UsageError(f"{directory} holds another model", hint="move it away")
    initial = open_initial(stage.directory, notice)
    model = ZayaModel(initial.model, precision="float32", seed=None)
    model.load_state_dict(initial.weights())
    model.set_precision("report")
    save(model, directory, text_from=initial.text, overwrite=True)
    _write(directory / "made_from", stage.digest)


def _data(cascade: Cascade) -> dict[str, str]:
    """Hashes of all that was read, by stage and component."""
    found = {}
    for stage in cascade.stages:
        for path in sorted(stage.directory.glob("data/*/manifest.json")):
            if not path.parent.name.endswith(".held-out"):
                manifest = json.loads(path.read_text(encoding="utf-8"))
                found[f"{stage.name}/{path.parent.name}"] = manifest["source_digest"]
    return found


def _curve(cascade: Cascade) -> str:
    """Validation losses of the stages that stop by them."""
    lines = []
    for stage in cascade.stages:
        if stage.kind == "sft":
            log = read_metrics(stage.directory / "metrics.jsonl")
            points = [f"{line['step']}: {line['val_loss']:.4f}" for line in log if "val_loss" in line]
            lines.append(", ".join(points))
    return "\n\n".join(lines)


def _environment(cascade: Cascade) -> dict[str, Any]:
    ship = next(stage for stage in cascade.stages if stage.name == cascade.ship)
    try:
        return json.loads((ship.directory / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _moved(config: T, root: str, out: str) -> T:
    """The same settings with every path below one directory put below another."""

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: move(item) for key, item in value.items()}
        if isinstance(value, str) and (value == root or value.startswith(f"{root}/")):
            return out + value[len(root) :]
        return value

    return configuration.from_mapping(type(config), move(configuration.to_mapping(config)))


def _deciding(mapping: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that change how a stage runs and not what comes out."""
    run = {k: v for k, v in mapping.get("run", {}).items() if k not in ("threads", "save_every_s", "workers")}
    return {**{k: v for k, v in mapping.items() if k not in ("run", "workers")}, "run": run}


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read_notes(root: Path) -> dict[str, str]:
    path = root / _NOTES
    if not path.is_file():
        return {}
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in notes.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint="remove it, or name another --out") from error


def _write(path: Path, text: str) -> None:
    with new_file(path) as stream:
        stream.write(text.encode() + b"\n" * (not text.endswith("\n")))


def dry_run(cascade: Cascade) -> Iterator[str]:
    """What each stage would be, a few lines each."""
    for stage in cascade.stages:
        yield f"# {stage.name}: zaya {stage.kind}, in {stage.directory}"
        match stage.config:
            case StageConfig() as config:
                step = config.loader.context * config.loader.bins_per_step
                total = config.schedule.total_tokens
                yield f"#   {total:,} tokens in steps of {step:,}, from {config.init or 'nothing'}"
            case RlConfig() as config:
                groups = f"{config.sampling.prompts} x {config.sampling.group_size}"
                yield f"#   {config.run.steps} steps of {groups} rollouts, from {config.init}"
            case CorpusConfig() as config:
                yield f"#   {sum(f.problems for f in config.files.values()):,} problems in {len(config.files)} files"
            case SuiteConfig() as config:
                yield f"#   {config.problems} problems, {len(config.systems)} systems"
        yield ""
        yield configuration.to_toml(stage.config)
