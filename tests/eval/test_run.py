"""Evaluation with a scripted model and a scorer of three lines.

1. Every sample of every problem is asked once, by a stream of its own, and its record says what came of it.
2. What was finished before a kill is not asked again, also where the kill cut a line; the file ends up the same.
3. The records of something else are refused, by name of what differs; nothing is written to them.
4. What failed, in the completer or in the scorer, counts nowhere, is counted, and is tried again.
5. A run of Markovian RSA is scored by the mean over its last candidates, and round by round.
6. Without torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_layers import modules_after
from zaya.engine.scripted import Prompt, ScriptedCompleter
from zaya.engine.types import Completion, OnProgress, Request, SamplingParams
from zaya.envs.base import Problem, Score, Status
from zaya.errors import UsageError
from zaya.eval.records import Record, by_problem
from zaya.eval.run import evaluate, evaluate_rsa, opening
from zaya.text import byte_tokenizer
from zaya.ttc.rsa import RsaConfig
from zaya.ttc.vote import boxed

TOKENIZER = byte_tokenizer()
PROBLEMS = [Problem("sum", f"What is {i} + {i}?", {"gold": str(2 * i)}, 0, i) for i in range(4)]
PARAMS = SamplingParams(max_tokens=60)


class Pool:
    """Right is what is in the box; `fails` says of which texts the scorer dies."""

    def __init__(self, fails: Callable[[str], bool] = lambda text: False) -> None:
        self.fails = fails
        self.scored = 0

    def score(self, pairs: Sequence[tuple[Problem, str]], /) -> list[Score]:
        self.scored += len(pairs)
        return [self._score(problem, text) for problem, text in pairs]

    def _score(self, problem: Problem, text: str) -> Score:
        if self.fails(text):
            return Score(0.0, False, Status.INFRA, detail="out of memory")
        answer = boxed(text)
        if answer is None:
            return Score(0.0, False, Status.BAD_FORMAT)
        is_right = answer == problem.meta["gold"]
        return Score(float(is_right), is_right, answer=answer)


def script(prompt: Prompt, seed: int, index: int) -> str:
    """Right for an even seed, wrong for an odd one; one in five thinks for too long."""
    if seed % 5 == 0:
        return "hm " * 40
    assert not isinstance(prompt, str)
    number = int(prompt[-1]["content"].split()[2])
    return f"hm\n</think>\n\nIt is \\boxed{{{2 * number + seed % 2}}}"


class Mortal(ScriptedCompleter):
    """Dies at one of its calls."""

    def __init__(self, dies_at: int) -> None:
        super().__init__(TOKENIZER, script)
        self.calls_left = dies_at

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        if self.calls_left == 0:
            raise KeyboardInterrupt
        self.calls_left -= 1
        return super().complete(requests, on_progress=on_progress)


def test_records() -> None:
    completer, pool, progress = ScriptedCompleter(TOKENIZER, script), Pool(), []
    records = evaluate(
        completer, PROBLEMS, k=3, params=PARAMS, pool=pool, seed=7, chunk=5,
        on_progress=lambda *step: progress.append(step),
    )  # fmt: skip
    assert [(r.digest, r.sample) for r in records] == [(p.digest, i) for p in PROBLEMS for i in range(3)]
    assert len({r.seed for r in records}) == 12
    assert progress == [(i, 12) for i in range(1, 13)]
    assert pool.scored == 12
    for request, record in zip(completer.requests, records, strict=True):
        problem = next(problem for problem in PROBLEMS if problem.digest == record.digest)
        assert request == Request(
            messages=[{"role": "user", "content": problem.prompt}], params=PARAMS, seed=record.seed
        )
        if record.seed % 5 == 0:
            assert record == replace(
                record, correct=False, reward=0.0, status=Status.BAD_FORMAT, finish="length", tokens=60, answer=None
            )
        else:
            gold = int(problem.meta["gold"])
            assert (record.finish, record.status, record.env) == ("stop", Status.OK, "sum")
            assert record.answer == str(gold + record.seed % 2)
            assert record.correct == (record.seed % 2 == 0) == bool(record.reward)
    assert {r.finish for r in records} == {"stop", "length"}


def test_a_base_model_goes_on_from_a_text(tmp_path: Path) -> None:
    """It is shown how a document of a worked problem begins, with nothing of a conversation around it."""
    out = tmp_path / "r.jsonl"
    seen: list[str] = []

    def text(prompt: Prompt, seed: int, index: int) -> str:
        seen.append(prompt if isinstance(prompt, str) else "a conversation")
        return "1 + 1: 2.\nSo 2.\n\\boxed{2}"

    completer = ScriptedCompleter(TOKENIZER, text)
    records = evaluate(completer, PROBLEMS, k=1, params=PARAMS, pool=Pool(), plain=TOKENIZER, out=out)
    assert seen == [f"<bos>{problem.prompt}\n" for problem in PROBLEMS]
    for request, problem in zip(completer.requests, PROBLEMS, strict=True):
        assert request.prompt_ids == opening(TOKENIZER, problem)
        document = TOKENIZER.encode_plain(f"{problem.prompt}\n1 + 1: 2.")
        assert [TOKENIZER.bos_id, *document][: len(request.prompt_ids)] == request.prompt_ids
    assert [record.correct for record in records] == [False, True, False, False]
    with pytest.raises(UsageError, match="plain"):
        evaluate(completer, PROBLEMS, k=1, params=PARAMS, pool=Pool(), out=out)


def test_a_larger_k_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    whole = evaluate(ScriptedCompleter(TOKENIZER, script), PROBLEMS, k=4, params=PARAMS, pool=Pool())
    completer = ScriptedCompleter(TOKENIZER, script)
    for k, asked in ((1, 4), (4, 16), (2, 16)):
        records = evaluate(completer, PROBLEMS, k=k, params=PARAMS, pool=Pool(), out=out)
        assert records == [record for record in whole if record.sample < k]
        assert len(completer.requests) == asked


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_killed_evaluation_goes_on(tmp_path: Path, cut: int) -> None:
    out, progress = tmp_path / "sub/r.jsonl", []
    whole = evaluate(
        ScriptedCompleter(TOKENIZER, script), PROBLEMS, k=3, params=PARAMS, pool=Pool(), out=tmp_path / "w.jsonl"
    )
    with pytest.raises(KeyboardInterrupt):
        evaluate(Mortal(2), PROBLEMS, k=3, params=PARAMS, pool=Pool(), out=out, chunk=4)
    written = out.read_bytes()
    assert written.count(b"\n") == 1 + 8
    out.write_bytes(written[: len(written) - cut])
    completer = ScriptedCompleter(TOKENIZER, script)
    records = evaluate(
        completer, PROBLEMS, k=3, params=PARAMS, pool=Pool(), out=out, chunk=4,
        on_progress=lambda *step: progress.append(step),
    )  # fmt: skip
    assert records == whole
    assert len(completer.requests) == (4 if cut == 0 else 5)
    assert progress[-1] == (12, 12)
    assert out.read_bytes() == (tmp_path / "w.jsonl").read_bytes()


def test_a_header_that_was_cut_is_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    evaluate(ScriptedCompleter(TOKENIZER, script), PROBLEMS, k=1, params=PARAMS, pool=Pool(), out=out)
    written = out.read_bytes()
    out.write_bytes(written[:20])
    evaluate(ScriptedCompleter(TOKENIZER, script), PROBLEMS, k=1, params=PARAMS, pool=Pool(), out=out)
    assert out.read_bytes() == written


def test_records_of_something_else_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    completer = ScriptedCompleter(TOKENIZER, script)
    evaluate(completer, PROBLEMS, k=1, params=PARAMS, pool=Pool(), out=out)
    written, asked = out.read_bytes(), len(completer.requests)

    def again(problems: Sequence[Problem] = PROBLEMS, params: SamplingParams = PARAMS, seed: int = 0) -> None:
        evaluate(completer, problems, k=1, params=params, pool=Pool(), seed=seed, out=out)

    with pytest.raises(UsageError, match=r"max_tokens is 60 there, 61 here"):
        again(params=replace(PARAMS, max_tokens=61))
    with pytest.raises(UsageError, match="seed is 0 there, 1 here"):
        again(seed=1)
    with pytest.raises(UsageError, match="problems is"):
        again(PROBLEMS[:3])
    with pytest.raises(UsageError, match="problems is"):
        again([replace(problem, env="sum-v2") for problem in PROBLEMS])
    with pytest.raises(UsageError, match="problems is"):
        again([replace(problem, version=2) for problem in PROBLEMS])
    with pytest.raises(UsageError, match="records is 'samples' there, 'rsa' here"):
        evaluate_rsa(completer, TOKENIZER, PROBLEMS, config=SMALL, runs=1, pool=Pool(), out=out)
    assert out.read_bytes() == written
    for foreign in (b"my notes", b"my notes\n", b"[1]\n", written + b"[1]\n"):
        out.write_bytes(foreign)
        with pytest.raises(UsageError, match="is not a file of records"):
            again()
        assert out.read_bytes() == foreign
    with pytest.raises(UsageError, match="cannot be opened"):
        evaluate(completer, PROBLEMS, k=1, params=PARAMS, pool=Pool(), out=tmp_path)
    assert len(completer.requests) == asked


def test_failures_count_nowhere_and_are_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    lost = {request.seed for request in probe(k=2).requests[:3]}  # all of the first problem, and one of the second

    def losing(prompt: Prompt, seed: int, index: int) -> str | None:
        return None if seed in lost else script(prompt, seed, index)

    first = evaluate(ScriptedCompleter(TOKENIZER, losing), PROBLEMS, k=2, params=PARAMS, pool=Pool(), out=out)
    assert [record.value is None for record in first] == [True] * 3 + [False] * 5
    assert [(r.status, r.finish, r.tokens) for r in first[:3]] == [(Status.INFRA, None, 0)] * 3
    assert [len(values) for values in by_problem(first).values()] == [0, 1, 2, 2]

    completer = ScriptedCompleter(TOKENIZER, script)
    dying = evaluate(completer, PROBLEMS, k=2, params=PARAMS, pool=Pool(lambda text: True), out=out)
    assert len(completer.requests) == 3
    assert [record.status for record in dying[:3]] == [Status.INFRA] * 3
    assert all(record.finish is not None for record in dying)

    last = evaluate(completer, PROBLEMS, k=2, params=PARAMS, pool=Pool(), out=out)
    assert len(completer.requests) == 6
    assert last == evaluate(ScriptedCompleter(TOKENIZER, script), PROBLEMS, k=2, params=PARAMS, pool=Pool())
    rows = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert len(rows) == 8 + 3 + 3
    assert Record.from_row(rows[-1]) == last[2]


def probe(k: int) -> ScriptedCompleter:
    completer = ScriptedCompleter(TOKENIZER, script)
    evaluate(completer, PROBLEMS, k=k, params=PARAMS, pool=Pool())
    return completer


def test_problems_are_told_apart() -> None:
    with pytest.raises(UsageError, match=r"problems\[4\] is there twice: 'What is 1"):
        evaluate(probe(1), [*PROBLEMS, PROBLEMS[1]], k=1, params=PARAMS, pool=Pool())
    with pytest.raises(UsageError, match="no problems"):
        evaluate(probe(1), [], k=1, params=PARAMS, pool=Pool())


SMALL = RsaConfig(population=4, fan_in=2, rounds=1, think_budget=60, tail_tokens=30, final_budget=60, answer_reserve=10)


def rsa_script(prompt: Prompt, seed: int, index: int) -> str:
    """One in four is right at first; then whoever sees a right one."""
    assert not isinstance(prompt, str)
    text = prompt[-1]["content"]
    number = int(text[text.index("What is") :].split()[2])
    is_right = "good" in text if "Attempt" in text else seed % 4 == 0
    return f"{'good' if is_right else 'bad'}\n</think>\n\n\\boxed{{{2 * number + (not is_right)}}}"


def test_runs_of_rsa(tmp_path: Path) -> None:
    out, progress = tmp_path / "r.jsonl", []

    def run(completer: ScriptedCompleter, runs: int, pool: Pool | None = None, to: Path | None = None):
        return evaluate_rsa(
            completer, TOKENIZER, PROBLEMS, config=SMALL, runs=runs, pool=pool or Pool(), out=to, chunk=3,
            on_progress=lambda *step: progress.append(step),
        )  # fmt: skip

    completer = ScriptedCompleter(TOKENIZER, rsa_script)
    records = run(completer, 3, to=out)
    assert [(r.digest, r.run) for r in records] == [(p.digest, i) for p in PROBLEMS for i in range(3)]
    assert len(completer.requests) == 12 * 8
    assert progress[-1] == (96, 96)
    for record in records:
        assert len(record.accuracy) == 2
        assert record.score is not None
        assert record.score == record.accuracy[1] == record.value
        assert record.score * 4 in range(5)
        gold = next(p.meta["gold"] for p in PROBLEMS if p.digest == record.digest)
        assert record.majority == (record.answer == gold)
        if record.score != 0.5:
            assert record.majority == (record.score > 0.5)
        assert record.left_out == 0
    assert len({record.score for record in records}) > 2  # streams differ from run to run
    # what is asked again is the one run more of each
    more = ScriptedCompleter(TOKENIZER, rsa_script)
    assert [record for record in run(more, 4, to=out) if record.run < 3] == records
    assert len(more.requests) == 4 * 8

    # a scorer that dies on every wrong answer leaves the right ones
    biased = run(ScriptedCompleter(TOKENIZER, rsa_script), 3, Pool(lambda text: boxed(text) in {"1", "3", "5", "7"}))
    for record, whole in zip(biased, records, strict=True):
        assert record.score in ((None,) if whole.score == 0 else (1.0,))
        assert record.left_out == sum(4 - round(4 * (part or 0)) for part in whole.accuracy)


def test_a_run_that_did_not_reach_its_last_round_counts_nowhere(tmp_path: Path) -> None:
    def failing(prompt: Prompt, seed: int, index: int) -> str | None:
        assert not isinstance(prompt, str)
        return None if "Attempt" in prompt[-1]["content"] else rsa_script(prompt, seed, index)

    arguments = {"config": SMALL, "runs": 1, "pool": Pool(), "out": tmp_path / "r.jsonl"}
    records = evaluate_rsa(ScriptedCompleter(TOKENIZER, failing), TOKENIZER, PROBLEMS, **arguments)
    assert [(r.score, r.majority, r.answer, len(r.accuracy)) for r in records] == [(None, None, None, 1)] * 4
    again = ScriptedCompleter(TOKENIZER, rsa_script)
    assert all(r.score is not None for r in evaluate_rsa(again, TOKENIZER, PROBLEMS, **arguments))
    assert len(again.requests) == 4 * 8


def test_without_torch() -> None:
    code = "import zaya.eval.run, zaya.eval.report, zaya.engine.scripted"
    assert not modules_after(code) & {"torch", "transformers"}
