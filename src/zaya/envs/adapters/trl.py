"""For trainers with reward functions: rows with a question, and a function that scores completions by their columns.

    dataset = Dataset.from_list(rows(mixture.next(10_000)))
    trainer = GRPOTrainer(..., reward_funcs=reward_function(pool, in_thinking=False), train_dataset=dataset)

The signature is TRL's, which others have taken over; nothing is imported from it. A scorer that failed gives None: TRL
leaves that completion out, instead of taking it for wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zaya.envs.adapters.visible import Completion, visible
from zaya.envs.base import Problem, Status
from zaya.envs.pool import TaskPool
from zaya.errors import UsageError
from zaya.text import tags

COLUMN = "problem"
"""The column that holds a problem, as JSON."""


def rows(problems: Iterable[Problem], *, chat: bool = True) -> list[dict[str, Any]]:
    """A row of a dataset for each problem: `prompt`, the messages of a chat or else plain text, and `problem`."""
    return [
        {
            "prompt": [{"role": "user", "content": problem.prompt}] if chat else problem.prompt,
            COLUMN: problem.to_json(),
        }
        for problem in problems
    ]


def reward_function(
    pool: TaskPool, *, in_thinking: bool, decode: Callable[[Sequence[int]], str] | None = None
) -> Callable[..., list[float | None]]:
    """A function `(prompts, completions, **columns) -> rewards` for rows that `rows` made.

    `in_thinking`: the chat template leaves the prompt inside `<think>`. `decode`: reads `completion_ids`, where the
    trainer hands them over, in place of its texts, and keeps special tokens. TRL drops them; where `</think>` is one,
    its texts do not say any more where the reasoning ends.
    """

    def verified(
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Completion] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        if COLUMN not in columns:
            raise UsageError(
                f"the dataset has no column {COLUMN!r}; it has {', '.join(sorted(columns)) or 'none'}",
                hint="make it by zaya.envs.adapters.trl.rows, and keep its columns",
            )
        problems = [Problem.from_json(text) for text in columns[COLUMN]]
        if decode is not None:
            if completion_ids is None:
                raise UsageError("the trainer hands over no completion_ids", hint="leave out decode")
            completions = [decode(ids).removesuffix(tags.EOS).removesuffix(tags.TURN_CLOSE) for ids in completion_ids]
        if completions is None or len(completions) != len(problems):
            raise UsageError(f"completions and problems differ in number: {len(completions or ())}, {len(problems)}")
        texts = [visible(completion, in_thinking=in_thinking) for completion in completions]
        scores = pool.score(list(zip(problems, texts, strict=True)))
        return [None if score.status is Status.INFRA else score.reward for score in scores]

    return verified
