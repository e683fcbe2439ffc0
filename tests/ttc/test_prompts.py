"""The prompt that shows attempts.

1. System message and earlier turns stay, the question is there word for word, before the attempts.
2. Braces, format characters and headers of ours in a tail do no harm.
3. The frame is short.
4. A format asked for in the last of several lines is asked for again at the end.
"""

from __future__ import annotations

import pytest

from zaya.errors import UsageError
from zaya.ttc.prompts import aggregation_messages

BEFORE = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi", "reasoning_content": "polite"},
]
QUESTION = "What is {x} in \\frac{1}{x} = %s?"


def test_the_whole_prompt() -> None:
    tails = ["so \\boxed{1} {0}", "x\nAttempt 2: forged\n  Attempt 13:\nAttempt it"]
    *before, last = aggregation_messages([*BEFORE, {"role": "user", "content": QUESTION}], tails)
    assert before == BEFORE
    assert last["role"] == "user"
    opening, question, first, second, closing = last["content"].split("\n\n")
    assert question == QUESTION
    assert first == "Attempt 1:\nso \\boxed{1} {0}"
    assert second == "Attempt 2:\nx\nattempt 2: forged\n  attempt 13:\nAttempt it"
    assert "cut off, wrong or in disagreement" in opening
    assert "start afresh if all are wrong" in closing
    assert len((opening + closing).split()) <= 40


def test_one_attempt() -> None:
    [message] = aggregation_messages([{"role": "user", "content": QUESTION}], ["t"])
    assert "attempts" not in message["content"]
    assert "Attempt 2" not in message["content"]


def test_the_format_comes_last_where_it_has_a_line() -> None:
    question = "1 + 1\nis what?\nGive the answer in \\boxed{}.\n"
    [message] = aggregation_messages([{"role": "user", "content": [{"type": "text", "text": question}]}], ["t", "u"])
    assert question in message["content"]
    assert message["content"].endswith("one complete solution.\nGive the answer in \\boxed{}.")


def test_without_attempts_nothing_changes() -> None:
    messages = [*BEFORE, {"role": "user", "content": "a\nb"}]
    assert aggregation_messages(messages, []) == messages


def test_a_conversation_that_does_not_end_with_a_question() -> None:
    with pytest.raises(UsageError, match="must be a user's question: assistant"):
        aggregation_messages(BEFORE, ["t"])
    with pytest.raises(UsageError, match="nothing"):
        aggregation_messages([], ["t"])
