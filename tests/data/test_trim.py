"""Promises of data/trim (spec pretraining 13, test 5):

1. Four branches, as worked out by hand.
2. What was trimmed has exactly `context` tokens, and is what the template makes of a shorter reasoning.
3. Without earlier reasoning the ids, the learned part and the spans are those of messages that never had it.
4. Prompts, answers, tool calls and results keep every token; trimming what is trimmed changes nothing.
5. More context keeps more: each part where the branch is the same, the total always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.conversations import conversations, inner
from tests.text.gemma import gemma_like
from zaya.data.trim import TrimCounts, Trimmed, trim, without_earlier_thinking
from zaya.text import Rendered, byte_tokenizer, render, train_tokenizer
from zaya.text.template import DEFAULT_TEMPLATE

BYTES = byte_tokenizer()
TOKENIZERS = {"byte": BYTES, "trained": train_tokenizer([DEFAULT_TEMPLATE] * 3, 400), "gemma": gemma_like()}
ONE = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Ans", "reasoning": "abcdefghij"}]
TWO = [
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1", "reasoning": "earlier"},
    {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2", "reasoning": "abcdefghij"},
]


def rendered_of(messages: Sequence[dict[str, Any]], tokenizer=BYTES) -> Rendered:
    return render(tokenizer, messages, add_generation_prompt=False)


def trimmed(messages: Sequence[dict[str, Any]], context: int, tokenizer=BYTES, **options: int) -> Trimmed:
    roles = [message["role"] for message in messages]
    return trim(tokenizer, rendered_of(messages, tokenizer), roles, context, **options)


def text_of(result: Trimmed) -> str:
    assert result.rendered is not None
    return BYTES.decode(result.rendered.ids)


def with_reasoning(messages: list[dict[str, Any]], *reasonings: str | None) -> list[dict[str, Any]]:
    """The messages with the reasoning of each assistant's turn replaced."""
    given = iter(reasonings)
    return [m | {"reasoning": next(given)} if m["role"] == "assistant" else m for m in messages]


def ids_of(rendered: Rendered, *kinds: str) -> list[tuple[str, list[int], int | None]]:
    return [(s.kind, rendered.ids[s.start : s.stop], s.message) for s in rendered.spans if s.kind in kinds]


# 1. By hand


def test_what_fits_is_kept():
    whole = rendered_of(ONE)
    result = trimmed(ONE, len(whole.ids))
    assert result == Trimmed(whole, "kept", 0)


def test_the_tail_of_the_reasoning_goes():
    whole = rendered_of(ONE)
    result = trimmed(ONE, len(whole.ids) - 3)
    assert (result.outcome, result.removed) == ("trimmed", 3)
    assert text_of(result) == (
        "<bos><|im_start|>system\n<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nabcdefg\n</think>\n\nAns<|im_end|>\n"
    )


def test_all_of_the_reasoning_may_go_but_no_more():
    whole = rendered_of(ONE)
    result = trimmed(ONE, len(whole.ids) - 10)
    assert "<think>\n\n</think>\n\nAns" in text_of(result)
    result = trimmed(ONE, len(whole.ids) - 11)
    assert result == Trimmed(None, "dropped", len(whole.ids))


def test_a_least_length_of_the_reasoning():
    length = len(rendered_of(ONE).ids)
    assert trimmed(ONE, length - 6, keep_min=4).outcome == "trimmed"
    assert trimmed(ONE, length - 7, keep_min=4).outcome == "dropped"


def test_earlier_reasoning_goes_when_the_last_is_too_short():
    whole = len(rendered_of(TWO).ids)
    assert trimmed(TWO, whole - 10).outcome == "trimmed"
    # "earlier" and its newline are 8 tokens, so 11 too many leave 3 for the last reasoning to lose
    result = trimmed(TWO, whole - 11)
    assert (result.outcome, result.removed) == ("thinned", 11)
    assert text_of(result) == (
        "<bos><|im_start|>system\n<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n</think>\n\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nabcdefg\n</think>\n\nA2<|im_end|>\n"
    )
    assert trimmed(TWO, whole - 18).outcome == "thinned"
    assert trimmed(TWO, whole - 19).outcome == "dropped"


def test_the_last_reasoning_stays_whole_where_the_earlier_is_enough():
    messages = with_reasoning(TWO, "much longer than what comes last", "ab")
    whole = len(rendered_of(messages).ids)
    result = trimmed(messages, whole - 3)
    assert (result.outcome, result.removed) == ("thinned", 33)
    assert result.rendered == rendered_of(with_reasoning(TWO, None, "ab"))


def test_a_last_turn_without_reasoning():
    messages = with_reasoning(TWO, "earlier", None)
    whole = len(rendered_of(messages).ids)
    assert trimmed(messages, whole - 8).rendered == rendered_of(with_reasoning(TWO, None, None))
    assert trimmed(messages, whole - 9).outcome == "dropped"


def test_conversations_without_anything_to_cut():
    for messages in (with_reasoning(ONE, None), ONE[:1], []):
        whole = len(rendered_of(messages).ids)
        assert trimmed(messages, whole).outcome == "kept"
        assert trimmed(messages, whole - 1).outcome == "dropped"


def test_a_reasoning_that_was_never_closed_loses_its_end():
    messages = [ONE[0], {"role": "assistant", "content": "<think>\nno end"}]
    result = trimmed(messages, len(rendered_of(messages).ids) - 2)
    assert text_of(result).endswith("<think>\nno e<|im_end|>\n")


def test_an_assistants_own_tags():
    messages = [*TWO[:1], {"role": "assistant", "content": "earlier\n</think>\n\nA1"}, *TWO[2:]]
    whole = rendered_of(messages)
    thin = without_earlier_thinking(BYTES, whole, [message["role"] for message in messages])
    assert thin == rendered_of(with_reasoning(TWO, None, "abcdefghij"))


def test_a_newline_that_is_no_token_of_its_own_goes_with_the_reasoning():
    tokenizer = TOKENIZERS["gemma"]
    messages = with_reasoning(ONE, "ab\n")  # and the template's newline: one token "\n\n"
    whole = rendered_of(messages, tokenizer)
    result = trimmed(messages, len(whole.ids) - 1, tokenizer)
    assert result.rendered is not None
    assert "<think>\nab</think>\n\nAns" in tokenizer.decode(result.rendered.ids)


def test_counts():
    counts = TrimCounts()
    removed = [("kept", 0), ("trimmed", 1), ("trimmed", 4), ("trimmed", 5), ("thinned", 8), ("dropped", 90)]
    for outcome, tokens in removed:
        counts.add(Trimmed(None, outcome, tokens))
    assert counts == TrimCounts(1, 3, 1, 1, 18, 90, {"1": 1, "4": 1, "8": 2})


# 2. to 5. In general


@given(inner, inner, st.integers(1, 12))
def test_trimmed_is_what_the_template_makes_of_shorter_reasoning(reasoning: str, answer: str, over: int):
    reasoning = "x" + reasoning.encode("ascii", "ignore").decode() + "y"
    messages = with_reasoning([ONE[0], ONE[1] | {"content": answer}], reasoning)
    result = trimmed(messages, len(rendered_of(messages).ids) - over)
    if over < len(reasoning) and reasoning[:-over].strip():
        assert result.rendered == rendered_of(with_reasoning(messages, reasoning[:-over]))


@settings(max_examples=100)
@given(conversations, st.sampled_from(sorted(TOKENIZERS)))
def test_without_earlier_reasoning_is_as_if_it_never_was(messages: list[dict[str, Any]], name: str):
    tokenizer = TOKENIZERS[name]
    messages = [m for m in messages if "think>" not in m["content"]]
    roles = [message["role"] for message in messages]
    last = max((i for i, role in enumerate(roles) if role == "assistant"), default=None)
    bare = [{k: v for k, v in m.items() if k != "reasoning_content" or i == last} for i, m in enumerate(messages)]
    thin = without_earlier_thinking(tokenizer, rendered_of(messages, tokenizer), roles)
    assert thin == rendered_of(bare, tokenizer)


@settings(max_examples=100)
@given(conversations, st.sampled_from(sorted(TOKENIZERS)), st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_context(messages: list[dict[str, Any]], name: str, keep_min: int, random):
    tokenizer = TOKENIZERS[name]
    whole = rendered_of(messages, tokenizer)
    roles = [message["role"] for message in messages]
    shown = "system", "user", "answer", "tool_call", "tool_response"
    contexts = sorted(random.sample(range(len(whole.ids) + 2), min(12, len(whole.ids) + 2)))
    smaller: Trimmed | None = None
    for context in contexts:
        result = trim(tokenizer, whole, roles, context, keep_min=keep_min)
        now = result.rendered
        if now is None:
            assert smaller is None  # what fitted a smaller context fits a larger one
            continue
        assert len(now.ids) <= context
        assert result.removed == len(whole.ids) - len(now.ids)
        if result.outcome == "trimmed":
            assert len(now.ids) == context
        if result.outcome == "thinned":
            assert len(now.ids) <= context
            assert without_earlier_thinking(tokenizer, now, roles) == now
        assert ids_of(now, *shown) == ids_of(whole, *shown)
        again = trim(tokenizer, now, roles, context, keep_min=keep_min)
        assert again == Trimmed(now, "kept", 0)
        if smaller is not None and smaller.rendered is not None:
            assert len(smaller.rendered.ids) <= len(now.ids)
            if smaller.outcome == result.outcome:
                assert is_part_of(smaller.rendered.ids, now.ids)
        smaller = result


def is_part_of(few: list[int], many: list[int]) -> bool:
    """Whether `few` is `many` with some of its ids left out."""
    rest = iter(many)
    return all(id in rest for id in few)


def test_across_the_border_of_two_branches_the_last_reasoning_may_shrink():
    messages = with_reasoning(TWO, "e" * 100, "abcdefghij")
    whole = len(rendered_of(messages).ids)
    below, above = trimmed(messages, whole - 11), trimmed(messages, whole - 9)
    assert (below.outcome, above.outcome) == ("thinned", "trimmed")
    assert "abcdefghij" in text_of(below)
    assert "<think>\na\n</think>" in text_of(above)
