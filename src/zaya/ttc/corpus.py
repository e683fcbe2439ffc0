"""Text to learn from, made of tasks: worked problems, conversations of several, examples of aggregation, pairs.

    tasks ─► problems ─► worked solutions ─► NAME.jsonl, which a recipe names as `text_lines` or `conversation_lines`,
                                                         or as pairs for a reward model

Beside the files lies the tokenizer that was learned from them and from the standard library. Problems are made in a
process of their own and never from the held-out side; each file has a stream of its own. What is there already, made
from the same settings, is left. Source: spec pretraining 5 and 6, markovian-rsa 7.1. Command: `zaya prepare`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zaya import config as configuration
from zaya.core.files import held, new_file
from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.data.sources import InMemory, Source, StandardLibrary, Text, canonical
from zaya.data.tokenizer import make_tokenizer
from zaya.envs.base import Problem, Stream
from zaya.envs.demonstrate import demonstrate
from zaya.envs.mixture import Mixture, TaskConfig
from zaya.envs.pool import TaskPool
from zaya.errors import ConfigError
from zaya.text import Tokenizer, load_tokenizer
from zaya.ttc import examples
from zaya.ttc.prompts import aggregation_messages

_FORMAT = 2
_SAMPLE_TEXTS = 4000
"""Worked problems that the tokenizer is learned from."""
_AT_ONCE = 2000

Kind = Literal["text", "conversation", "dialogue", "aggregation", "pair"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileConfig:
    """One file of documents."""

    kind: Kind
    """Plain text of question and solution; a conversation of one problem, or of several; an aggregation; a right and a
    wrong solution of one problem, for a reward model."""
    problems: int
    """Problems worked in it."""
    turns: int = 8
    """Most problems of a dialogue; it has at least two, but for the last of a file."""
    slip: float = 0.0
    """Probability that a step of a solution errs, as in traces that nobody verified. In an aggregation that of the
    attempts shown, at most: each example has its own. In a pair that of the wrong solution."""
    cut: float = 0.05
    """Probability that such an attempt ends somewhere in its work."""
    cut_alone: float = 0.3
    """The same of an attempt that is the only one shown: a solution may go on from it."""
    later: float = 0.5
    """Probability that an aggregation is of a later round, whose attempts weighed others themselves."""
    answers: float = 0.0
    """Probability that an aggregation shows what attempts answer, not the ends of their reasoning; of attempts that
    were cut those still (`compaction = "hybrid"`)."""

    def __post_init__(self) -> None:
        if self.problems < 1 or self.turns < 2:
            raise ConfigError(f"problems must be at least 1, and turns 2: {self.problems}, {self.turns}")
        for name in ("slip", "cut", "cut_alone", "later", "answers"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability: {getattr(self, name)}")
        if self.kind == "pair" and not self.slip:
            raise ConfigError("a pair has a wrong solution, and slip is 0: nobody errs", hint="set slip = 0.1")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig:
    """A recipe of text to learn from."""

    tasks: dict[str, TaskConfig]
    """What the problems are, by name."""
    files: dict[str, FileConfig]
    """What is written, by name."""
    seed: int = 0
    """Decides which problems come from which level, and how attempts err."""
    held_out: float = 0.1
    """Part of all problems, by their content, that no file has."""
    vocabulary: int = 1024
    """Tokens of the tokenizer."""
    library_exclude: tuple[str, ...] = ()
    """Files of the standard library that the tokenizer is not learned from."""
    library_share: float = 0.1
    """Part of the standard library's files, by their content, that it is learned from."""
    fan_in: tuple[int, ...] = (1, 2, 3, 4)
    """Attempts shown in an aggregation; one of these numbers, each as often as it is listed."""
    tail_tokens: tuple[int, ...] = (40,)
    """Tokens of an attempt that an aggregation shows at most; one of these numbers, each as often as it is listed."""
    workers: int = 1
    """Processes that make problems."""

    def __post_init__(self) -> None:
        if not self.tasks or not self.files:
            raise ConfigError("a corpus needs tasks and files", hint="add tables [tasks.NAME] and [files.NAME]")
        if not 0 < self.library_share <= 1:
            raise ConfigError(f"library_share must be above 0 and at most 1: {self.library_share}")
        for name in ("fan_in", "tail_tokens"):
            if min(getattr(self, name), default=0) < 1:
                raise ConfigError(f"{name} lists numbers of at least 1: {list(getattr(self, name))}")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1: {self.workers}")


def make_corpus(config: CorpusConfig, directory: Path, notice: Callable[[str], None]) -> None:
    """Write the files and the tokenizer into a directory, as far as they are not there.

    Raises UsageError and DataError for tasks that do not exist, have no teacher, or have too few problems.
    """
    with held(directory), TaskPool(config.workers) as pool:

        def problems(name: str, count: int) -> list[Problem]:
            stream = Stream(name, "train", config.held_out)
            mixture, found = Mixture(config.tasks, stream, pool, config.seed), []
            with Progress(count, f"problems of {name}") as bar:
                while len(found) < count:
                    found += mixture.next(min(_AT_ONCE, count - len(found)))
                    bar.update(len(found) - bar.done)
            return found

        tokenizer = _tokenizer(config, directory, problems("tokenizer", _SAMPLE_TEXTS))
        for name, file in config.files.items():
            path = directory / f"{name}.jsonl"
            key = _key(name, file, config, tokenizer)
            if _read_key(path) == key:
                notice(f"{path} is there already")
                continue
            documents = list(_documents(name, file, config, problems(name, file.problems), tokenizer))
            _write(path, documents, key)
            notice(f"{path}: {len(documents):,} documents of {file.problems:,} problems")


def _documents(
    name: str, file: FileConfig, config: CorpusConfig, problems: Sequence[Problem], tokenizer: Tokenizer
) -> Iterator[dict[str, Any]]:
    rng = random.Random(derive_seed(config.seed, "documents", name))
    match file.kind:
        case "text":
            yield from ({"text": _text(problem, file.slip)} for problem in problems)
        case "conversation":
            yield from ({"messages": examples.conversation(problem, slip=file.slip)} for problem in problems)
        case "dialogue":
            left = list(problems)
            while left:
                turns = rng.randint(2, file.turns)
                part, left = left[:turns], left[turns:]
                solved = [examples.conversation(problem, slip=file.slip) for problem in part]
                yield {"messages": [message for messages in solved for message in messages]}
        case "aggregation":
            for place, problem in enumerate(problems):
                fan_in = rng.choice(config.fan_in)
                messages = examples.aggregation(
                    problem,
                    tokenizer,
                    fan_in=fan_in,
                    tail_tokens=rng.choice(config.tail_tokens),
                    slip=rng.uniform(0, file.slip),
                    cut=file.cut_alone if fan_in == 1 else file.cut,
                    later=file.later,
                    compaction="hybrid" if rng.random() < file.answers else "tail",
                    seed=derive_seed(config.seed, name, place),
                )
                if messages is not None:
                    yield {"messages": messages}
        case "pair":
            for problem in problems:
                if (pair := examples.pair(problem, slip=file.slip)) is not None:
                    chosen, rejected = pair
                    yield {"chosen": chosen, "rejected": rejected}


def _tokenizer(config: CorpusConfig, directory: Path, problems: Sequence[Problem]) -> Tokenizer:
    """The tokenizer of a directory, learned if it is not there: from a part of the library, worked problems, and the
    words that show attempts."""
    worked = [Text(problem.digest, _text(problem)) for problem in problems]
    question = {"role": "user", "content": "?"}
    shown = [aggregation_messages([question], ["."] * n)[-1]["content"] for n in sorted({*config.fan_in, 1, 2})]
    frame = [Text(f"frame {i}", text) for i, text in enumerate(shown)]
    sources: list[Source] = [
        _Part(StandardLibrary(config.library_exclude), config.library_share),
        InMemory([*worked, *frame * 50]),
    ]
    made = make_tokenizer(sources, config.vocabulary, directory / "tokenizer", overwrite=True)
    tokenizer = load_tokenizer(made)
    assert tokenizer is not None
    return tokenizer


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the documents of a source, chosen by their content."""

    source: Source
    share: float

    conversations = False

    def __iter__(self) -> Iterator[Any]:
        for document in self.source:
            digest = hashlib.blake2b(canonical(document).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            if int.from_bytes(digest, "big") < self.share * 2**64:
                yield document


def _text(problem: Problem, slip: float = 0.0) -> str:
    shown = demonstrate(problem, slip=slip)
    return f"{problem.prompt}\n{shown.reasoning}\n{shown.answer}"


def _key(name: str, file: FileConfig, config: CorpusConfig, tokenizer: Tokenizer) -> str:
    """Names what a file is made from. Tasks count in their order, which decides which problem gets which."""
    settings = configuration.to_mapping(config)
    keys, digest = ["tasks", "seed", "held_out"], ""
    if file.kind == "aggregation":  # the only kind that counts tokens
        keys, digest = [*keys, "fan_in", "tail_tokens"], tokenizer.digest
    parts = [_FORMAT, name, configuration.to_mapping(file), {key: settings[key] for key in keys}, digest]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _read_key(path: Path) -> str | None:
    """What a file was made from, as its first line says."""
    try:
        with path.open(encoding="utf-8") as stream:
            return str(json.loads(stream.readline())["made_from"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, documents: Sequence[dict[str, Any]], key: str) -> None:
    lines = [{"made_from": key, **documents[0]}, *documents[1:]] if documents else []
    with new_file(path) as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
