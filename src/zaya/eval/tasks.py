"""What is asked: tasks of a recipe, and the problems that they stand for.

    env = "rlve/Sorting"                      problems made by an environment, from the held-out side, at these levels
    env = "rlve/*"                            by every environment of that name which passed the audit; levels count
                                              from the lowest of each that can be trusted then
    file = "aime25.jsonl", kind = "math"      problems of a file (`envs.files`); `fields` says where its fields stand
    file = "aime25.jsonl", benchmark = "aime" the same, with kind, fields, sampling and number of samples by name

A task is its content: a hash of its problems with their answers and versions is in the first line of its records, so
that records of another version are refused, never mixed. Source: spec post-training 12.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from zaya.core.rng import derive_seed
from zaya.envs import registry
from zaya.envs.base import Problem, Stream
from zaya.envs.catalogue import catalogue, in_default_mix
from zaya.envs.files.base import FileEnvironment, file_name
from zaya.envs.files.kinds import KINDS
from zaya.envs.pool import TaskPool
from zaya.envs.stream import take
from zaya.errors import ConfigError, DataError, UsageError, did_you_mean
from zaya.eval.presets import BENCHMARKS, SamplingConfig, sampling

Notice = Callable[[str], None]

_SCORE_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalTask:
    """Problems of one kind, and how they are sampled where that is not as for the others."""

    env: str | None = None
    """Name of the environment that makes them, such as `arithmetic`; with `*`, every one that passed the audit."""
    difficulties: tuple[int, ...] = (0,)
    """Levels, each as often as the others; with `*` counted from the lowest level of each environment."""
    weight: float = 1.0
    """Share of the suite's problems, relative to the other environments."""
    file: str | None = None
    """A file of problems instead, an object on each line."""
    kind: str | None = None
    """Of what kind they are: math, choice, code, instruct or tools."""
    benchmark: str | None = None
    """Which public benchmark it is: says the kind, the fields, the sampling and k."""
    fields: dict[str, str] = field(default_factory=dict)
    """Where the file has what the kind reads, as in prompt = "question.text"; dots lead into nested objects."""
    categories: tuple[str, ...] = ()
    """Of a file, only these categories; empty takes all."""
    problems: int | None = None
    """How many: of an environment instead of its share, of a file at most; none takes all of a file."""
    k: int | None = None
    """Samples of each problem; none takes the benchmark's, else the suite's."""
    sampling: str | SamplingConfig | None = None
    """A preset by name, or temperature, top_p and top_k; none takes the benchmark's, else the suite's."""
    max_tokens: int | None = None
    """Longest response; none takes the suite's."""

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ConfigError("a task has an env or a file, one of the two")
        if self.env is not None:
            if self.kind is not None or self.benchmark is not None or self.fields or self.categories:
                raise ConfigError(f"{self.env}: kind, benchmark, fields and categories are for files")
            if not self.difficulties or min(self.difficulties) < 0:
                raise ConfigError(f"{self.env}: difficulties must be levels from 0 on: {list(self.difficulties)}")
            if self.weight <= 0:
                raise ConfigError(f"{self.env}: weight must be positive: {self.weight}")
        elif self.kind is None and self.benchmark is None:
            raise ConfigError(f"{self.file}: say what it is: a kind or a benchmark", hint=f"kinds: {', '.join(KINDS)}")
        if self.kind is not None and self.kind not in KINDS:
            raise ConfigError(f"{self.file}: there is no kind {self.kind!r}", hint=did_you_mean(self.kind, KINDS))
        if self.benchmark is not None and self.benchmark not in BENCHMARKS:
            raise ConfigError(
                f"{self.file}: there is no benchmark {self.benchmark!r}", hint=did_you_mean(self.benchmark, BENCHMARKS)
            )
        for name in ("problems", "k", "max_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{self.env or self.file}: {name} must be at least 1: {value}")
        if self.sampling is not None:
            sampling(self.sampling)

    @property
    def environment(self) -> str:
        """The name of the environment of a file."""
        assert self.file is not None
        known = None if self.benchmark is None else BENCHMARKS[self.benchmark]
        kind = self.kind or (known.kind if known is not None else "")
        usual = dict(known.fields) if known is not None and known.kind == kind else {}
        return file_name(kind, self.file, usual | self.fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSet:
    """The problems of a task, and how they are sampled."""

    name: str
    problems: tuple[Problem, ...]
    k: int
    sampling: SamplingConfig
    max_tokens: int
    steps: Mapping[str, int]
    """Digest of each problem made at a level -> the level, as the task counts them; empty for a file."""
    content: str | None = None
    """Hash of the content of a file."""
    score_timeout_s: float = _SCORE_TIMEOUT_S
    """Seconds that judging an answer may need."""


def task_sets(
    tasks: Mapping[str, EvalTask],
    pool: TaskPool,
    notice: Notice,
    *,
    problems: int,
    k: int,
    usual: SamplingConfig,
    max_tokens: int,
    held_out: float,
    seed: int,
) -> list[TaskSet]:
    """The problems of all tasks, no two alike; what is given is for tasks that say nothing else.

    Files are read first: what is wrong in one is said before anything is made. Raises DataError, UsageError.
    """
    files = {name: _of_file(name, task, notice, seed) for name, task in tasks.items() if task.file is not None}
    shares = _shares({name: task for name, task in tasks.items() if task.env is not None}, problems)
    maker = _Maker(pool, Stream(f"eval {seed}", "held_out", held_out), notice, seed)
    found = []
    for name, task in tasks.items():
        known = None if task.benchmark is None else BENCHMARKS[task.benchmark]
        chosen = task.sampling or (known.sampling if known is not None else usual)
        if name in files:
            environment, asked = files[name]
            steps, content, timeout_s = {}, environment.content, environment.score_timeout_s
        else:
            steps, asked = maker.problems(name, task, shares[name])
            content, timeout_s = None, _SCORE_TIMEOUT_S
        if asked:  # there may be fewer problems than tasks
            found.append(
                TaskSet(
                    name=name,
                    problems=tuple(asked),
                    k=task.k or (known.k if known is not None else k),
                    sampling=sampling(chosen),
                    max_tokens=task.max_tokens or max_tokens,
                    steps=steps,
                    content=content,
                    score_timeout_s=timeout_s,
                )
            )
    return found


def _of_file(name: str, task: EvalTask, notice: Notice, seed: int) -> tuple[FileEnvironment, Sequence[Problem]]:
    environment = registry.get(task.environment)
    assert isinstance(environment, FileEnvironment)
    asked: Sequence[Problem] = environment.problems
    if environment.left_out:
        notice(f"{name}: {len(environment.left_out)} left out, such as {environment.left_out[0]}")
    if task.categories:
        there = sorted({str(problem.meta.get("category")) for problem in asked})
        for category in task.categories:
            if category not in there:
                raise UsageError(
                    f"{name}: {task.file} has no category {category!r}", hint=did_you_mean(category, there)
                )
        asked = [problem for problem in asked if problem.meta.get("category") in task.categories]
    if task.problems is not None and task.problems < len(asked):
        # by lot and by content: the same ones wherever they stand in the file
        lots = {problem.digest: derive_seed(seed, "eval", problem.digest) for problem in asked}
        chosen = sorted(lots, key=lots.__getitem__)[: task.problems]
        asked = [problem for problem in asked if problem.digest in chosen]
    return environment, asked


def _shares(tasks: Mapping[str, EvalTask], problems: int) -> dict[str, int]:
    """How many problems each task gets, by weight; what remains goes to those that have lost most by rounding."""
    shares = {name: task.problems for name, task in tasks.items() if task.problems is not None}
    rest = {name: task.weight for name, task in tasks.items() if task.problems is None}
    exact = {name: problems * weight / sum(rest.values()) for name, weight in rest.items()}
    shares |= {name: int(share) for name, share in exact.items()}
    missing = problems - sum(shares[name] for name in rest) if rest else 0
    for name in sorted(rest, key=lambda name: int(exact[name]) - exact[name])[:missing]:
        shares[name] += 1
    return shares


class _Maker:
    """Held-out problems of environments, no two alike."""

    def __init__(self, pool: TaskPool, stream: Stream, notice: Notice, seed: int) -> None:
        self.pool = pool
        self.stream = stream
        self.notice = notice
        self.seed = seed
        self._seen: set[str] = set()
        self._next: dict[tuple[str, int], int] = {}
        """Item at which the stream of a level goes on."""

    def problems(self, name: str, task: EvalTask, count: int) -> tuple[dict[str, int], list[Problem]]:
        """So many problems of a task, evenly over its levels, and the level of each as the task counts it."""
        assert task.env is not None
        is_pattern = "*" in task.env
        levels = _audited(task) if is_pattern else [(task.env, level, level) for level in task.difficulties]
        if is_pattern:
            random.Random(derive_seed(self.seed, "eval levels", name)).shuffle(levels)
        steps: dict[str, int] = {}
        made: list[Problem] = []
        for place, (env, level, step) in enumerate(levels):
            wanted = len(range(place, count, len(levels)))
            try:
                more = self._take(env, level, wanted)
            except DataError as error:
                if not is_pattern:
                    raise
                self.notice(f"{name}: {error.message}")
                continue
            made += more
            steps |= {problem.digest: step for problem in more}
        return steps, made

    def _take(self, env: str, level: int, count: int) -> list[Problem]:
        found: list[Problem] = []
        while len(found) < count:
            first = self._next.get((env, level), 0)
            more, self._next[env, level] = take(self.pool, env, level, self.stream, first, count - len(found))
            fresh = [problem for problem in more if problem.digest not in self._seen]
            if not fresh:
                raise DataError(
                    f"{env} at difficulty {level} has too few held_out problems that no other task has: {len(found)} "
                    f"found, {count} wanted",
                    hint="ask for fewer, or for another difficulty",
                )
            self._seen |= {problem.digest for problem in fresh}
            found += fresh
        return found


def _audited(task: EvalTask) -> list[tuple[str, int, int]]:
    """Environment, level and step of all that a pattern stands for."""
    assert task.env is not None
    rows = [row for name, row in catalogue().items() if fnmatchcase(name, task.env) and in_default_mix(row)]
    if not rows:
        raise UsageError(f"no environment that passed the audit is called {task.env}", hint="`zaya env list` has all")
    return [
        (row["env"], row["lowest"] + step, step)
        for row in rows
        for step in task.difficulties
        if row["highest"] is None or row["lowest"] + step <= row["highest"]
    ]
