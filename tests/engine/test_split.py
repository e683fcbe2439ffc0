"""Sampled ids taken apart.

1. The first closing tag ends the reasoning; a second one neither splits again nor shows.
2. Thinking is open exactly where the prompt left it open.
3. What ends a turn is no text, also where it comes inside the reasoning.
4. Reasoning ids are the sampled ones, newlines included; the texts are trimmed.
"""

from __future__ import annotations

import pytest

from zaya.engine.split import split
from zaya.text import byte_tokenizer, render

TOKENIZER = byte_tokenizer()
QUESTION = [{"role": "user", "content": "?"}]
OPEN = render(TOKENIZER, QUESTION).ids
SHUT = render(TOKENIZER, QUESTION, enable_thinking=False).ids


@pytest.mark.parametrize(
    ("prompt", "sampled", "reasoning_ids", "is_closed", "reasoning", "answer"),
    [
        (OPEN, "so\n</think>\n\n42<|im_end|>", "so\n", True, "so", "42"),
        (OPEN, "so</think>a</think>b<|im_end|>", "so", True, "so", "ab"),
        (OPEN, "</think>\n\n\n 42\n", "", True, "", " 42\n"),
        (OPEN, "cut in the mid", "cut in the mid", False, "cut in the mid", ""),
        (OPEN, "gave up<|im_end|>", "gave up", False, "gave up", ""),
        (OPEN, "gave up<eos>", "gave up", False, "gave up", ""),
        (OPEN, "a</think>", "a", True, "a", ""),
        (OPEN, "a</think><zyphra_tool_call>x", "a", True, "a", "<zyphra_tool_call>x"),
        (OPEN, "", "", False, "", ""),
        (SHUT, "42</think>7<|im_end|>", "", True, "", "427"),
        ([], "42", "", True, "", "42"),
    ],
)
def test_split(
    prompt: list[int], sampled: str, reasoning_ids: str, is_closed: bool, reasoning: str, answer: str
) -> None:
    ids = TOKENIZER.encode(sampled, bos=False)
    expected = (tuple(TOKENIZER.encode(reasoning_ids, bos=False)), is_closed, reasoning, answer)
    assert split(TOKENIZER, prompt, ids) == expected
