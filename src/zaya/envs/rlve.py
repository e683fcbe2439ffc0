"""The tasks of RLVE-Gym (arXiv 2511.07317), one environment for each: `rlve/Sorting`, `rlve/LCM` and so on.

The package `rlve-gym`, imported as `Gym`, makes the problems and judges the answers; here it gets our prompt, our box
and our score. It imports torch and seeds the global generators of its process, so it runs in the workers of
`envs.pool` only. Outside of one, an environment is a name that can read a reference out of a problem.
Source: spec post-training 8.2.

Left out: its rewards for answers that are nearly right. A right answer earns 1, any other 0. Six tasks are judged by
`envs.rlve_judges`.
"""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.answers import INSTRUCTION, NO_ANSWER, boxed
from zaya.envs.base import About, Problem, Score, Status
from zaya.envs.pool import is_worker
from zaya.envs.rlve_judges import DISTINCT, JUDGES, are_distinct
from zaya.envs.rlve_solvers import solvers
from zaya.errors import UsageError, did_you_mean

PREFIX = "rlve/"
LONGEST_PROMPT = 4000
"""Characters. Some tasks grow beyond any context with their difficulty; a longer prompt counts as no problem."""

# Its markers around an answer may be chosen. Control characters stand in no right answer, so one that holds them, and
# could end early by it, is wrong.
_MARKERS = ("\x02", "\x03")


@cache
def _table() -> Mapping[str, Any]:
    """What is known of every task of the package. Written down, as importing it takes a worker."""
    return tomllib.loads(Path(__file__).with_name("rlve.toml").read_text("utf-8"))


@cache
def categories() -> Mapping[str, str]:
    """Every task of the package, without its prefix, and what kind it is of."""
    return {name: category for category, names in _table()["categories"].items() for name in names}


def names() -> tuple[str, ...]:
    return tuple(PREFIX + name for name in sorted(categories()))


def environment(name: str) -> RlveEnvironment:
    return RlveEnvironment(name)


class RlveEnvironment:
    """One task of RLVE-Gym. In a worker the package is loaded, and the name checked, at once."""

    version = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self._identifier = name.removeprefix(PREFIX)
        if self._identifier not in categories():
            raise UsageError(
                f"rlve-gym has no task {self._identifier!r}", hint=did_you_mean(self._identifier, categories(), PREFIX)
            )
        self.about = About(
            category=categories()[self._identifier],
            license="MIT",
            lowest=_table()["lowest"].get(self._identifier, 0),
            highest=_table()["highest"].get(self._identifier),
            choices=2 if self._identifier in _table()["binary"] else None,
        )
        self._classes = _load(self._identifier) if is_worker() else None

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        environment_class, controller_class = self._loaded()
        controller = controller_class()
        for _ in range(difficulty):
            controller.update()
        rng = random.Random(derive_seed("rlve", self._identifier, self.version, seed, difficulty))
        parameters = controller.get_parameter_list()
        if not parameters:
            return None
        environment = environment_class(answer_markers=_MARKERS)
        if not self._is_made(environment, rng.getrandbits(32), rng.choice(parameters)):
            return None
        prompt = f"{environment.prompt_generator()}\n{INSTRUCTION}"
        if len(prompt) > LONGEST_PROMPT:
            return None
        if self._is_right(environment, ""):
            return None  # nothing is to be done in it: it would pay for an empty box
        reference = environment.parameter.get("reference_answer")
        meta = {"config": _to_json(environment.get_config())}
        if reference is not None:
            meta["reference"] = str(reference)
        return Problem(self.name, prompt, meta, difficulty, seed, self.version)

    @staticmethod
    def _is_made(environment: Any, seed: int, parameter: Any) -> bool:
        """Make the problem as the package's `generator` does, but for its thread: that costs more than most problems,
        and where a time limit leaves it running it goes on drawing from the global generators. The pool ends the
        process instead. Seeds of numpy have 32 bits."""
        from Gym.environment import manual_seed

        environment.seed, environment.parameter = seed, copy.deepcopy(parameter)
        manual_seed(seed)
        try:
            environment._generate()
        except MemoryError:
            raise
        except Exception:
            return False
        return environment.parameter is not None

    def score(self, problem: Problem, text: str) -> Score:
        environment = self._loaded()[0](answer_markers=_MARKERS)
        environment.set_config(_from_json(problem.meta["config"]))
        answer = boxed(text)
        if answer is None:
            return NO_ANSWER
        if not set(_MARKERS).isdisjoint(answer):
            return Score(0.0, False, answer=answer)
        out_of_memory = False
        judge = environment.scorer

        def watched(output: str) -> float:
            nonlocal out_of_memory
            try:
                return judge(output)
            except MemoryError:
                out_of_memory = True  # the verifier makes a wrong format of every exception
                raise

        environment.scorer = watched
        is_correct = self._is_right(environment, answer)
        if out_of_memory:
            return Score(0.0, False, Status.ANSWER_LIMIT, answer, "judging it took more memory than allowed")
        return Score(float(is_correct), is_correct, answer=answer)

    def _is_right(self, environment: Any, answer: str) -> bool:
        if (judge := JUDGES.get(self._identifier)) is not None:
            return judge(environment.parameter, answer)
        if self._identifier in DISTINCT and not are_distinct(answer):
            return False
        return bool(environment.verifier(f"{_MARKERS[0]}{answer}{_MARKERS[1]}")["accuracy"])

    def reference(self, problem: Problem) -> str | None:
        """As the package gives it, else from a solver of ours."""
        if "reference" in problem.meta:
            return problem.meta["reference"]
        solver = solvers().get(self._identifier)
        return None if solver is None else solver(_from_json(problem.meta["config"])["parameter"])

    def _loaded(self) -> tuple[Any, Any]:
        if self._classes is None:
            raise UsageError(
                f"{self.name} runs in worker processes only: it seeds the global generators of its process",
                hint="use zaya.envs.pool.TaskPool",
            )
        return self._classes


def _to_json(value: Any) -> Any:
    """A configuration as JSON that keeps its types: a quarter of the tasks hold tuples, which scorers compare with."""
    match value:
        case tuple():
            return {"__tuple__": [_to_json(item) for item in value]}
        case list():
            return [_to_json(item) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _to_json(item) for key, item in value.items()}
        case dict():
            return {"__pairs__": [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    return value


def _from_json(value: Any) -> Any:
    match value:
        case list():
            return [_from_json(item) for item in value]
        case {"__tuple__": items}:
            return tuple(_from_json(item) for item in items)
        case {"__pairs__": pairs}:
            return {_from_json(key): _from_json(item) for key, item in pairs}
        case dict():
            return {key: _from_json(item) for key, item in value.items()}
    return value


def _load(identifier: str) -> tuple[Any, Any]:
    """Its environment and its controller of difficulty."""
    try:
        from Gym.environments import identifier2environment
        from Gym.parameter_controllers import identifier2controller
    except ImportError as error:
        raise UsageError(
            f"{PREFIX}{identifier} needs the extra 'envs': {error}", hint="pip install 'openzaya[envs]'"
        ) from error
    return identifier2environment[identifier], identifier2controller[identifier]
