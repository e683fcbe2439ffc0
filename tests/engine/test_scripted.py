"""The completer without a model.

1. What a script writes is cut at the budget as a model's text is: LENGTH, and not closed inside the reasoning.
2. The script sees the messages, or the text of the ids; its seed and index are the request's.
3. A completion that fails is left out, and its neighbours stay.
4. `submit` gives the same, in deltas and as a result.
"""

from __future__ import annotations

import asyncio

from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.types import Completion, FinishReason, Request, SamplingParams
from zaya.text import byte_tokenizer, render

TOKENIZER = byte_tokenizer()
QUESTION = [{"role": "user", "content": "?"}]


def ask(text: str, max_tokens: int) -> Completion:
    request = Request(messages=QUESTION, params=SamplingParams(max_tokens=max_tokens))
    [[completion]] = ScriptedCompleter(TOKENIZER, lambda *_: text).complete([request])
    return completion


def test_budgets() -> None:
    text = "ab\n</think>\n\n42"  # 8 tokens, and the end of the turn
    whole = ask(text, 9)
    assert (whole.text, whole.reasoning, whole.finish_reason) == ("42", "ab", FinishReason.STOP)
    assert whole.ids[-1] == TOKENIZER.tags.turn_close
    assert whole.prompt_ids == tuple(render(TOKENIZER, QUESTION).ids)

    for budget, expected in {8: ("42", True), 7: ("4", True), 4: ("", True), 3: ("", False), 1: ("", False)}.items():
        cut = ask(text, budget)
        assert len(cut.ids) == budget
        assert (cut.text, cut.is_closed, cut.finish_reason) == (*expected, FinishReason.LENGTH)
        assert cut.reasoning_ids == whole.ids[: min(budget, 3)]


def test_what_a_script_sees() -> None:
    seen = []

    def script(*asked: object) -> str | None:
        seen.append(asked)
        return None if asked[1:] == (5, 1) else f"{asked[1]} {asked[2]}"

    progress = []
    completer = ScriptedCompleter(TOKENIZER, script)
    ids = TOKENIZER.encode("<|im_start|>x", bos=False)
    requests = [Request(messages=QUESTION, seed=5, n=3), Request(prompt_ids=ids, seed=6)]
    answers = completer.complete(requests, on_progress=lambda *step: progress.append(step))
    assert [[c.text or c.reasoning for c in completions] for completions in answers] == [["5 0", "5 2"], ["6 0"]]
    assert seen == [(QUESTION, 5, 0), (QUESTION, 5, 1), (QUESTION, 5, 2), ("<|im_start|>x", 6, 0)]
    assert completer.requests == requests
    assert progress == [(3, 4), (4, 4)]


def test_submit() -> None:
    completer = ScriptedCompleter(TOKENIZER, lambda prompt, seed, index: None if index == 1 else f"{index}</think>a")
    request = Request(messages=QUESTION, n=3, thinking=True)

    async def ask_for_it() -> tuple[list[tuple[int, str, str]], list[Completion]]:
        handle = completer.submit(request)
        return [(delta.index, delta.reasoning, delta.text) async for delta in handle], await handle.result()

    deltas, completions = asyncio.run(ask_for_it())
    assert deltas == [(0, "0", "a"), (1, "2", "a")]
    assert [c.ids for c in completions] == [c.ids for c in completer.complete([request])[0]]
