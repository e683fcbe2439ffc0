"""Who is evaluated: a checkpoint, the run that made one, or a server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.engine.types import Completer, Completion, FinishReason, Handle, OnProgress, Request
from zaya.errors import CheckpointError, ConfigError, UsageError
from zaya.text import Tokenizer, load_tokenizer, render

if TYPE_CHECKING:
    from zaya.engine.engine import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemConfig:
    """One system: a model, and the run that made it where there is one; or a model on a server."""

    run: str | None = None
    """Directory of the run: its log is quoted, and its result is the model."""
    model: str | None = None
    """A checkpoint directory; none takes the result of `run`. With `url`, what the server calls its model."""
    is_base: bool = False
    """Whether it knows no conversations, only texts: it is asked to go on from a problem, not to answer a user."""
    url: str | None = None
    """An OpenAI-compatible server, such as http://localhost:8000/v1."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key. The key itself belongs in no recipe."""
    tokenizer: str | None = None
    """Directory of the tokenizer of a server's model; without one nothing is counted or cut here."""

    def __post_init__(self) -> None:
        if self.url is None:
            if self.run is None and self.model is None:
                raise ConfigError("a system needs a run, a model or a url")
            if self.api_key_env is not None or self.tokenizer is not None:
                raise ConfigError("api_key_env and tokenizer are for a system with a url")
        elif self.model is None:
            raise ConfigError(f"{self.url} needs the name of a model", hint='model = "NAME", as the server calls it')
        elif self.run is not None or self.is_base:
            raise ConfigError(f"{self.url}: run and is_base are for checkpoints")

    @property
    def directory(self) -> Path | None:
        """Of the checkpoint; None where a server has it."""
        if self.url is not None:
            return None
        return Path(self.model) if self.model is not None else Path(str(self.run)) / "model"

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.model} at {self.url}" if self.url is not None else str(self.directory)


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """A system that can be asked."""

    completer: Completer
    tokenizer: Tokenizer | None
    is_base: bool = False


class WithinContext:
    """A completer that is asked for no more than fits into its context.

    A response is at most as long as the room behind its prompt. A prompt without room gets an empty one, cut off at
    once: the model cannot answer that problem, which is its own fault and not that of the other problems.
    """

    def __init__(self, completer: Completer, tokenizer: Tokenizer, context: int) -> None:
        self.completer = completer
        self.tokenizer = tokenizer
        self.context = context

    def submit(self, request: Request) -> Handle:
        return self.completer.submit(request)

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        prompts = [self._prompt(request) for request in requests]
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < self.context]
        answers = self.completer.complete(
            [self._shortened(requests[i], len(prompts[i])) for i in fitting], on_progress=on_progress
        )
        found = [[_no_room(prompt)] * request.n for request, prompt in zip(requests, prompts, strict=True)]
        for i, answer in zip(fitting, answers, strict=True):
            found[i] = answer
        return found

    def _prompt(self, request: Request) -> Sequence[int]:
        if request.messages is None:
            return request.prompt_ids or ()
        return render(
            self.tokenizer, request.messages, tools=request.tools, enable_thinking=request.thinking
        ).ids  # fmt: skip

    def _shortened(self, request: Request, length: int) -> Request:
        room = self.context - length
        if request.params.max_tokens <= room:
            return request
        return replace(request, params=replace(request.params, max_tokens=room))


def _no_room(prompt: Sequence[int]) -> Completion:
    return Completion(
        ids=(), text="", reasoning="", finish_reason=FinishReason.LENGTH, prompt_ids=tuple(prompt), is_closed=False
    )


def check_system(name: str, system: SystemConfig) -> None:
    """Raises CheckpointError or UsageError where a system is not there, as far as that is seen without asking it."""
    if system.directory is not None and not system.directory.is_dir():
        raise CheckpointError(f"the system {name} is not there: {system.directory}", hint="run the stage that makes it")
    if system.api_key_env is not None and not os.environ.get(system.api_key_env):
        raise UsageError(f"the key of the system {name} is not there: {system.api_key_env} is not set")


def open_system(system: SystemConfig, max_batch: int) -> System:
    """A system as its recipe describes it. Raises CheckpointError, UsageError."""
    if system.directory is not None:
        return local_system(*open_engine(system.directory, max_batch), is_base=system.is_base)
    from zaya.engine.remote import RemoteCompleter

    tokenizer = None if system.tokenizer is None else _tokenizer(Path(system.tokenizer))
    key = None if system.api_key_env is None else os.environ[system.api_key_env]
    assert system.model is not None
    assert system.url is not None
    remote = RemoteCompleter(system.url, system.model, key, tokenizer)
    return System(remote, tokenizer)


def local_system(engine: Engine, tokenizer: Tokenizer, *, is_base: bool = False) -> System:
    """An engine as a system."""
    return System(WithinContext(engine, tokenizer, engine.model.config.max_positions), tokenizer, is_base)


def open_engine(directory: Path, max_batch: int) -> tuple[Engine, Tokenizer]:
    """An engine over a checkpoint directory, float32. Raises CheckpointError where it has no tokenizer."""
    from zaya.engine.engine import Engine
    from zaya.model.layouts import load

    model, tokenizer = load(directory, dtype="float32")
    if tokenizer is None:
        raise CheckpointError(f"{directory} has no tokenizer.json", hint="evaluation asks questions in words")
    return Engine(model, tokenizer, max_batch=max_batch), tokenizer


def _tokenizer(directory: Path) -> Tokenizer:
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise CheckpointError(f"{directory} has no tokenizer.json")
    return tokenizer
