"""Where practice begins: before the first step, the level of every environment at which the policy solves about half.

    Calibrator.advance ─► a level and a problem for each environment ─► roll_out ─► what was right ─► again
    Calibrator.starts  ─► the levels that the schedule begins at

All environments are searched side by side, a group of each at a time, until each is known well enough or has had its
budget (`envs.calibration`). Nothing is learned from these rollouts, and their problems are of a stream of their own, on
the side of the split that is practised. One that nobody solves at its lowest level is given up as a schedule would, and
begins parked. Source: spec post-training 8.4. Driven by `rl.trainer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from zaya.core.rng import derive_seed
from zaya.engine.types import Completer
from zaya.envs import registry
from zaya.envs.base import Problem
from zaya.envs.calibration import Calibration, CalibrationConfig
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out, item_seed
from zaya.rl.recipe import RlConfig
from zaya.rl.rollout import Prompt, roll_out
from zaya.rl.types import RolloutGroup, Start

STREAM = "calibration"
"""Names the items that are tried."""
_MOST_ITEMS = 64
"""Items of a level that are looked at for one that may be practised."""


class _Search:
    """The search in one environment. Its state is JSON."""

    def __init__(self, env: str, config: CalibrationConfig, seed: int, unsolved: int) -> None:
        self.env = env
        self.version = registry.get(env).version
        self.calibration = Calibration(registry.get(env).about, config, seed)
        self.items = 0
        """Items looked at so far, of any level."""
        self.groups = 0
        """Sampled so far, those that no scorer could judge too."""
        self._unsolved = unsolved

    @property
    def is_parked(self) -> bool:
        return self.calibration.is_unsolved(self._unsolved) or not self.calibration.can_be_made

    @property
    def is_done(self) -> bool:
        return self.groups >= self.calibration.config.budget or self.calibration.is_done or self.is_parked

    def item(self, level: int) -> tuple[str, int, int]:
        self.items += 1
        return self.env, item_seed(self.env, self.version, STREAM, level, self.items - 1), level

    def observe(self, difficulty: int, group: RolloutGroup) -> None:
        self.groups += 1
        self.calibration.observe(difficulty, right=group.num_right, rollouts=len(group.rollouts))

    def start(self) -> Start:
        seen = self.calibration.observations
        rollouts = sum(observation.rollouts for observation in seen)
        right = sum(observation.right for observation in seen)
        about, found = self.calibration.about, self.calibration
        return Start(
            level=about.lowest if self.is_parked else found.start,
            groups=self.groups,
            solve_rate=right / rollouts if rollouts else 0.0,
            spread=found.spread,
            is_parked=self.is_parked,
        )

    def state(self) -> dict[str, Any]:
        return {"calibration": self.calibration.state(), "items": self.items, "groups": self.groups}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.calibration.load_state(state["calibration"])
        self.items, self.groups = state["items"], state["groups"]


class Calibrator:
    """The search in all environments of a recipe. Its state is JSON; once it is done, no more than what was found."""

    def __init__(self, config: RlConfig, pool: TaskPool, fits: Callable[[Problem], bool], vocab_size: int) -> None:
        """`fits`: whether a problem leaves room for a response."""
        assert config.schedule is not None
        assert config.calibration is not None
        self.config = config
        self.pool = pool
        self.fits = fits
        self.vocab_size = vocab_size
        self.failures = config.schedule.failures
        self._starts: dict[str, Start] | None = None
        self._rounds = 0
        self._searches = {
            task.env: _Search(task.env, config.calibration, config.run.seed, config.schedule.unsolved)
            for task in config.tasks.values()
        }

    @property
    def is_done(self) -> bool:
        return self._starts is not None

    @property
    def num_searched(self) -> int:
        """Environments that are not settled yet."""
        return 0 if self.is_done else sum(not search.is_done for search in self._searches.values())

    @property
    def starts(self) -> dict[str, Start]:
        """What was found, by environment. Only once it is done."""
        assert self._starts is not None
        return self._starts

    def advance(self, completer: Completer) -> tuple[int, int]:
        """Sample a group of each environment that is still searched; how many groups, and tokens, that were."""
        problems = self._problems()
        seed = derive_seed(self.config.run.seed, "calibration", self._rounds)
        prompts = [Prompt.plain(problem) for problem in problems]
        groups, _ = roll_out(prompts, completer, self.pool, self.config, self.vocab_size, seed=seed)
        for problem, group in zip(problems, groups, strict=True):
            self._searches[problem.env].observe(problem.difficulty, group)
        self._rounds += 1
        if not self.num_searched:
            self._starts = {env: search.start() for env, search in sorted(self._searches.items())}
        return len(groups), sum(len(rollout.ids) for group in groups for rollout in group.rollouts)

    def state(self) -> dict[str, Any]:
        if self._starts is not None:
            return {"starts": {env: asdict(start) for env, start in self._starts.items()}}
        return {"rounds": self._rounds, "searches": {env: search.state() for env, search in self._searches.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if "starts" in state:
            self._starts = {env: Start(**start) for env, start in state["starts"].items()}
            return
        self._rounds = state["rounds"]
        for env, search in self._searches.items():
            search.load_state(state["searches"][env])

    def _problems(self) -> list[Problem]:
        """One of each environment that is still searched, at the level it asks for; none of one of which none can be
        made."""
        found: dict[str, Problem] = {}
        wanted = {env: search.calibration.next() for env, search in self._searches.items() if not search.is_done}
        failed, looked_at = Counter[str](), Counter[str]()
        while wanted:
            items = [self._searches[env].item(level) for env, level in wanted.items()]
            for (env, _, level), problem in zip(items, self.pool.sample(items), strict=True):
                if problem is not None and not self.fits(problem):
                    problem = None
                failed[env] += problem is None
                looked_at[env] += 1
                if problem is not None and not is_held_out(problem, self.config.held_out):
                    found[env] = problem
                    del wanted[env]
                elif failed[env] == self.failures or looked_at[env] == _MOST_ITEMS:
                    failed[env] = looked_at[env] = 0
                    calibration = self._searches[env].calibration
                    calibration.failed(level)
                    if calibration.highest is not None and calibration.can_be_made:
                        wanted[env] = calibration.highest
                    else:
                        del wanted[env]
        return list(found.values())


def summary(starts: Mapping[str, Start]) -> str:
    """For people, in a line or two."""
    parked = [env for env, start in starts.items() if start.is_parked]
    levels = {env: start.level for env, start in starts.items() if not start.is_parked}
    groups = sum(start.groups for start in starts.values())
    parts = [f"{env} {level}" for env, level in levels.items()]
    if len(parts) > 12:
        parts = [f"{len(levels)} environments at {min(levels.values())} to {max(levels.values())}"]
    line = f"levels to begin at, from {groups} groups: {', '.join(parts) or 'none'}"
    return line if not parked else f"{line}; nobody solves {', '.join(parked[:12])}{' ...' * (len(parked) > 12)}"
