"""Records as tests write them down."""

from __future__ import annotations

from collections.abc import Sequence

from zaya.envs.base import Problem, Status
from zaya.eval.presets import SamplingConfig
from zaya.eval.records import Record, RsaRecord
from zaya.eval.tasks import TaskSet


def record(
    digest: str, sample: int, correct: bool, env: str = "sums", status: Status = Status.OK, reward: float | None = None
) -> Record:
    return Record(
        digest=digest, env=env, sample=sample, seed=0, correct=correct,
        reward=float(correct) if reward is None else reward, status=status, finish="stop", tokens=10 + sample,
        answer="5" if correct else "4",
    )  # fmt: skip


def records(*rows: str, env: str = "sums", status: Status = Status.OK) -> list[Record]:
    """`a 1 0 1`: the samples of problem a, right, wrong and right."""
    found = []
    for row in rows:
        digest, *values = row.split()
        found += [record(digest, i, value == "1", env, status) for i, value in enumerate(values)]
    return found


def rsa(digest: str, accuracy: Sequence[float | None], majority: bool | None) -> RsaRecord:
    return RsaRecord(
        digest=digest, env="sums", run=0, seed=0, score=accuracy[-1], accuracy=tuple(accuracy), majority=majority,
        answer=None, left_out=0, tokens=300, prompt_tokens=99,
    )  # fmt: skip


def task_set(name: str, *problems: Problem, k: int = 2, **changes: object) -> TaskSet:
    found = TaskSet(name=name, problems=problems, k=k, sampling=SamplingConfig(), max_tokens=60, steps={})
    for key, value in changes.items():
        object.__setattr__(found, key, value)
    return found
