"""Who is evaluated.

1. Nothing more is asked of a completer than fits into its context: responses are shortened, each by its own prompt, and
   a prompt without room gets an empty one that is cut off.
"""

from __future__ import annotations

from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.types import FinishReason, Request, SamplingParams
from zaya.eval.systems import WithinContext
from zaya.text import byte_tokenizer, render

TOKENIZER = byte_tokenizer()


def test_within_a_context() -> None:
    inner = ScriptedCompleter(TOKENIZER, lambda prompt, seed, index: "</think>\n\n" + "x" * 500)
    questions = ["?" * length for length in (1, 40, 90, 91, 200)]
    frame = len(render(TOKENIZER, [{"role": "user", "content": ""}]).ids)
    requests = [
        Request(messages=[{"role": "user", "content": question}], params=SamplingParams(max_tokens=60))
        for question in questions
    ]
    done: list[int] = []
    answers = WithinContext(inner, TOKENIZER, frame + 91).complete(requests, on_progress=lambda n, _: done.append(n))
    assert [request.params.max_tokens for request in inner.requests] == [60, 51, 1]
    assert [len(answer.ids) for (answer,) in answers] == [60, 51, 1, 0, 0]
    assert {answer.finish_reason for (answer,) in answers} == {FinishReason.LENGTH}
    assert [len(answer.prompt_ids) for (answer,) in answers[3:]] == [frame + 91, frame + 200]
    [[by_ids]] = WithinContext(inner, TOKENIZER, 9).complete([Request(prompt_ids=[1] * 5)])
    assert len(by_ids.ids) == 4
