"""Rollouts from files.

1. Lines become problems with their rollouts, the same whatever the order of lines and files, with names of their own or
   from what they say.
2. Of a text the ids are those that a chat holds; ids that are given are taken as they are.
3. Fields may have other names; a trace gives the rollouts of its first round.
4. A line of another shape is an error that names file and line.
5. A problem is excluded by its words, or by its digest in the records of an evaluation.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from zaya.engine.scripted import ScriptedCompleter
from zaya.envs.arithmetic import ARITHMETIC
from zaya.errors import DataError, UsageError
from zaya.text import byte_tokenizer, render
from zaya.ttc.rollouts import Excluded, Pool, read_pools
from zaya.ttc.rsa import RsaConfig, solve

TOKENIZER = byte_tokenizer()
CLOSE = TOKENIZER.tags.think_close


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rollout(question: str = "What is 2 + 2?", number: int = 0, **more: Any) -> dict[str, Any]:
    return {"problem": question, "reasoning": f"thought {number}", "answer": f"\\boxed{{{number}}}", **more}


def plain(pools: list[Pool]) -> Any:
    return [
        (pool.digest, pool.problem, pool.messages, [(a.id, a.correct, a.completion.ids) for a in pool.attempts])
        for pool in pools
    ]


def test_problems_and_their_rollouts_in_any_order(tmp_path: Path) -> None:
    rows = [rollout(question, number) for question in ("one?", "two?") for number in (0, 1, 1)]
    rows += [rollout("two?", 5, id=7, correct=True), rollout("two?", 6, id="x", correct=0)]
    pools = read_pools([lines(tmp_path / "a.jsonl", rows)], TOKENIZER)
    assert {pool.problem: len(pool.attempts) for pool in pools} == {"one?": 3, "two?": 5}
    assert [pool.digest for pool in pools] == sorted(pool.digest for pool in pools)
    two = next(pool for pool in pools if pool.problem == "two?")
    assert two.messages == [{"role": "user", "content": "two?"}]
    labels = {attempt.id: attempt.correct for attempt in two.attempts}
    assert (labels["7"], labels["x"]) == (True, False)
    assert list(labels.values()).count(None) == 3
    assert sum(id.endswith("-2") for id in labels) == 1  # the same text twice
    random.Random(0).shuffle(rows)
    again = [lines(tmp_path / "b.jsonl", rows[3:]), lines(tmp_path / "c.jsonl", rows[:3])]
    assert plain(read_pools(again, TOKENIZER)) == plain(pools)


def test_the_ids_of_a_text_are_those_of_a_chat(tmp_path: Path) -> None:
    row = rollout(number=4)
    (pool,) = read_pools([lines(tmp_path / "a.jsonl", [row, {**row, "answer": None}])], TOKENIZER)
    whole, cut = sorted((a.completion for a in pool.attempts), key=lambda c: not c.is_closed)
    reply = {"role": "assistant", "reasoning_content": row["reasoning"], "content": row["answer"]}
    ids = list(render(TOKENIZER, [*pool.messages, reply]).ids)
    at = ids.index(CLOSE)
    thought = list(whole.reasoning_ids)
    assert ids[at - len(thought) : at] == thought
    assert ids[at + 1 :][: len(whole.ids) - len(thought)] == list(whole.ids[len(thought) :])
    assert (whole.text, whole.reasoning) == (row["answer"], row["reasoning"])
    assert (cut.is_closed, cut.text, TOKENIZER.decode(cut.ids)) == (False, "", row["reasoning"])
    (drawn,) = read_pools([lines(tmp_path / "b.jsonl", [{"problem": "?", "ids": ids[at - 5 :]}])], TOKENIZER)
    completion = drawn.attempts[0].completion
    assert (completion.ids, completion.reasoning_ids) == (tuple(ids[at - 5 :]), tuple(ids[at - 5 : at]))
    assert (completion.text, completion.is_closed) == (row["answer"], True)


def test_other_names_and_problems_of_environments(tmp_path: Path) -> None:
    problem = ARITHMETIC.sample(1, 0)
    rows = [{"question": json.loads(problem.to_json()), "thought": "hm", "said": "4"}]
    fields = {"problem": "question", "reasoning": "thought", "answer": "said"}
    (pool,) = read_pools([lines(tmp_path / "a.jsonl", rows)], TOKENIZER, fields)
    assert pool.messages == [{"role": "user", "content": problem.prompt}]
    assert pool.problem == json.loads(problem.to_json())
    assert pool.attempts[0].completion.reasoning == "hm"
    with pytest.raises(UsageError, match="no field 'problm'"):
        read_pools([], TOKENIZER, {"problm": "x"})
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}]
    (pool,) = read_pools([lines(tmp_path / "b.jsonl", [{"messages": chat, "answer": "4"}])], TOKENIZER)
    assert (pool.problem, pool.messages) == (None, chat)


def test_a_trace(tmp_path: Path) -> None:
    def script(prompt: Any, seed: int, index: int) -> str:
        return f"thought {seed % 97}\n</think>\n\n\\boxed{{{seed % 7}}}" if seed % 3 else "no end of it" * 30

    config = RsaConfig(
        population=6, fan_in=2, rounds=1, think_budget=60, tail_tokens=20, final_budget=80, answer_reserve=20
    )
    trace = tmp_path / "trace.jsonl"
    solution = solve("one?", ScriptedCompleter(TOKENIZER, script), TOKENIZER, config=config, seed=3, trace=trace)
    (pool,) = read_pools([trace], TOKENIZER)
    first = solution.rounds[0].candidates
    assert [attempt.id for attempt in pool.attempts] == [f"3/{worker}" for worker in range(6)]
    assert [(a.completion.reasoning, a.completion.text) for a in pool.attempts] == [
        (candidate.reasoning, candidate.text) for candidate in first
    ]
    assert len({a.completion.is_closed for a in pool.attempts}) == 2
    (other,) = read_pools([trace], byte_tokenizer([("a", "b")]))  # whose ids mean something else
    assert [a.completion.reasoning for a in other.attempts] == [candidate.reasoning for candidate in first]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", ":2 is not JSON"),
        ({"reasoning": "x"}, ":2 has no problem: None"),
        ({"problem": " "}, ":2 has no problem: ' '"),
        ({"problem": {"prompt": "?"}}, ":2: the problem is none of an environment"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, ":2: the last message must be a user's"),
        ({"messages": "x"}, ":2: messages must be a list"),
        ({"problem": "?", "reasoning": 3}, ":2: reasoning must be text: int"),
        ({"problem": "?", "correct": "yes"}, ":2: correct must be true or false"),
        ({"problem": "?", "id": 1.5}, ":2: an id is a text or a number: 1.5"),
        ({"problem": "What is 2 + 2?", "id": "a"}, ":2: the problem has a rollout of this id already: a"),
        ({"problem": "?", "ids": [1, 10**6]}, ":2: ids must be a list of numbers from 0 to"),
        ({"problem": "?", "ids": [70, 71], "reasoning": "other"}, ":2: ids and reasoning say different things"),
    ],
)
def test_lines_of_another_shape(row: Any, message: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [rollout(id="a")])
    with path.open("a") as stream:
        stream.write(row if isinstance(row, str) else json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl" + message):
        read_pools([path], TOKENIZER)


def test_one_question_is_one_problem(tmp_path: Path) -> None:
    problem = json.loads(ARITHMETIC.sample(1, 0).to_json())
    rows = [{"problem": problem, "answer": "1"}, {"problem": problem["prompt"], "answer": "2"}]
    with pytest.raises(DataError, match=":2: the same question is another problem elsewhere"):
        read_pools([lines(tmp_path / "a.jsonl", rows)], TOKENIZER)


def test_what_is_excluded(tmp_path: Path) -> None:
    problem, other = ARITHMETIC.sample(1, 0), ARITHMETIC.sample(2, 0)
    rows = [rollout("one?"), rollout("What\nis two?"), rollout(problem.prompt), rollout("three?")]
    pools = read_pools([lines(tmp_path / "a.jsonl", rows)], TOKENIZER)

    def kept(*rows: dict[str, Any]) -> set[str]:
        excluded = Excluded([lines(tmp_path / "b.jsonl", list(rows))])
        return {pool.problem for pool in pools if pool not in excluded}

    everything = {"one?", "What\nis two?", problem.prompt, "three?"}
    assert kept({"problem": "four?"}) == everything
    assert kept({"problem": "one?"}, {"problem": " What is  two? "}) == everything - {"one?", "What\nis two?"}
    assert kept(json.loads(problem.to_json())) == everything - {problem.prompt}
    assert kept({"problem": json.loads(problem.to_json())}) == everything - {problem.prompt}
    assert kept({"messages": [{"role": "user", "content": "three?"}]}) == everything - {"three?"}
    records = {"records": "samples", "problems": "x"}, {"digest": problem.digest, "env": "arithmetic", "sample": 0}
    assert kept(*records, {"digest": other.digest}) == everything - {problem.prompt}
    with pytest.raises(DataError, match=r"b\.jsonl:1 has no problem"):
        kept({"text": "what?"})
