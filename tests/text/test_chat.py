"""From messages to ids.

1. The ids are those of the template's text, encoded once; transformers agrees.
2. The built-in template writes the published format (spec checkpoint-and-model 8).
3. The spans partition the ids, and what is learned is what an assistant wrote, to the end of its turn.
4. A conversation that goes on begins with the ids it had.
5. Input of another shape is refused, and the error names the message.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.conversations import TOOLS, conversations
from tests.text.gemma import gemma_like
from zaya.errors import CheckpointError, UsageError
from zaya.text import Span, byte_tokenizer, opens_thinking, render, render_next, train_tokenizer
from zaya.text.template import DEFAULT_TEMPLATE

OTHER_TEMPLATE = """\
{%- for message in messages %}
    {%- if loop.first and tools %}{{ bos_token }}{{ tools | tojson(indent=2) }}{% endif %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
<|im_start|>{{ message.role }}
    {%- generation %}{{ '\\n' + message.content[:5] + message['content'][5:] | trim }}{% endgeneration %}
    {%- for call in message.tool_calls or [] %}
{{ call.function.name }}: {{ call.function.arguments }} {{ call.function.arguments | tojson(sort_keys=true) }}
    {%- endfor %}
{{ eos_token }}{{ strftime_now('%Y') }}
{% else %}<|im_start|>
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""

BYTES = byte_tokenizer()
TOKENIZERS = {
    "byte": BYTES,
    "trained": train_tokenizer([DEFAULT_TEMPLATE] * 3, 400),
    "gemma": gemma_like(),
    "other template": gemma_like(chat_template=OTHER_TEMPLATE),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    from transformers import AutoTokenizer

    found = {}
    for name, tokenizer in TOKENIZERS.items():
        path = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save(path)
        found[name] = AutoTokenizer.from_pretrained(path)
    return found


def text_of(messages, **options):
    return BYTES.decode(render(BYTES, messages, **options).ids)


def segments(rendered, tokenizer=BYTES):
    return [
        (span.kind, tokenizer.decode(rendered.ids[span.start : span.stop]), span.message) for span in rendered.spans
    ]


def learned(rendered, tokenizer=BYTES):
    return tokenizer.decode([id for id, learn in zip(rendered.ids, rendered.trainable, strict=True) if learn])


# 1. The ids


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(conversations.filter(bool), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_ids_are_those_of_transformers(theirs, name, messages, tools, thinking, generate, truncate):
    tokenizer = TOKENIZERS[name]
    options = {"tools": TOOLS if tools else None, "enable_thinking": thinking, "add_generation_prompt": generate}
    options["truncate_history_thinking"] = truncate
    text = theirs[name].apply_chat_template(messages, tokenize=False, **options)
    if "<|im_start|>" not in text:
        with pytest.raises(CheckpointError, match="no turns"):
            render(tokenizer, messages, **options)
        return
    rendered = render(tokenizer, messages, **options)
    assert rendered.ids == tokenizer.encode(text, bos=False)
    assert rendered.ids == theirs[name].apply_chat_template(messages, **options)["input_ids"]
    assert rendered == render(tokenizer, messages, **options)
    check_partition(rendered)
    if tokenizer.chat_template is None:  # the other one drops messages, their turns cannot be told
        check_spans(messages, rendered)


def check_partition(rendered):
    edges = [0, *(span.stop for span in rendered.spans)]
    assert edges == [*(span.start for span in rendered.spans), len(rendered.ids)]
    assert all(span.start < span.stop for span in rendered.spans)
    assert len(rendered.trainable) == len(rendered.ids)


def check_spans(messages, rendered):
    for span in rendered.spans:
        flags = set(rendered.trainable[span.start : span.stop])
        role = None if span.message is None else messages[span.message]["role"]
        if span.kind in ("thinking", "answer", "tool_call"):
            assert role == "assistant"
            assert flags == {True}
        elif span.kind == "frame":
            turn_ends = [id == 106 for id in rendered.ids[span.start : span.stop]]
            assert rendered.trainable[span.start : span.stop] == [end and role == "assistant" for end in turn_ends]
        else:
            assert flags == {False}
            assert role is None or {"system": "system", "tool": "tool_response"}.get(role, "user") == span.kind


# 2. The format


def test_the_smallest_conversation():
    system = "<bos><|im_start|>system\n<|im_end|>\n"
    text = system + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert text_of([{"role": "user", "content": "Hi"}]) == text
    assert text_of([{"role": "user", "content": "Hi"}], enable_thinking=False) == text + "</think>\n\n"
    assert text_of([]) == system + "<|im_start|>assistant\n<think>\n"
    assert text_of([], add_generation_prompt=False) == system


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ({"content": "A"}, "<think>\n</think>\n\nA"),
        ({"content": " A\n"}, "<think>\n</think>\n\n A"),
        ({"content": "A", "reasoning_content": "R"}, "<think>\nR\n</think>\n\nA"),
        ({"content": "A", "reasoning": "R"}, "<think>\nR\n</think>\n\nA"),
        ({"content": "A", "reasoning_content": "R", "reasoning": "Q"}, "<think>\nR\n</think>\n\nA"),
        ({"content": "A", "reasoning_content": " \n"}, "<think>\n</think>\n\nA"),
        ({"content": "A", "reasoning_content": None}, "<think>\n</think>\n\nA"),
        ({"content": "<think>\nR\n</think>\n\nA\n"}, "<think>\nR\n</think>\n\nA"),
        ({"content": "R\n</think>\n\nA"}, "R\n</think>\n\nA"),
        ({"content": None}, "<think>\n</think>"),
        ({"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "<think>\n</think>\n\nAB"),
    ],
)
def test_an_assistants_turn(message, body):
    text = text_of([{"role": "user", "content": "Q"}, {"role": "assistant", **message}])
    assert text.partition("Q<|im_end|>\n")[2] == f"<|im_start|>assistant\n{body}<|im_end|>\n"


CALL = '{"city": "Paris\\n", "days": 3, "place": {"lat": 1.5}, "exact": true, "none": null}'
CALL_TEXT = (
    "<zyphra_tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n\n</parameter>\n<parameter=days>\n3\n"
    '</parameter>\n<parameter=place>\n{"lat": 1.5}\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n'
    "<parameter=none>\nNone\n</parameter>\n</function>\n</zyphra_tool_call>\n"
)


def call(name: str = "get_weather", arguments: Any = CALL):
    return {"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_tool_calls_and_results():
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A ", "reasoning": "R", "tool_calls": [call(), call("now", "")]},
        {"role": "tool", "content": "1", "tool_call_id": "x", "name": "get_weather"},
        {"role": "tool", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "content": None, "tool_calls": [call("now", {})]},
        {"role": "tool", "content": "3"},
    ]
    now = "<zyphra_tool_call>\n<function=now>\n</function>\n</zyphra_tool_call>\n"
    assert text_of(messages, add_generation_prompt=False) == (
        "<bos><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\nR\n</think>\n\nA\n\n{CALL_TEXT}{now}<|im_end|>\n"
        "<|im_start|>user\n<zyphra_tool_response>\n1\n</zyphra_tool_response>\n"
        "<zyphra_tool_response>\n2\n</zyphra_tool_response>\n<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n</think>\n\n{now}<|im_end|>\n"
        "<|im_start|>user\n<zyphra_tool_response>\n3\n</zyphra_tool_response>\n<|im_end|>\n"
    )
    tools = [("tool_call", CALL_TEXT, 2), ("tool_call", now, 2)]
    rendered = render(BYTES, messages)
    assert segments(rendered) == [
        ("frame", "<bos>", None),
        ("frame", "<|im_start|>system\n", 0),
        ("system", "S", 0),
        ("frame", "<|im_end|>\n", 0),
        ("frame", "<|im_start|>user\n", 1),
        ("user", "Q", 1),
        ("frame", "<|im_end|>\n", 1),
        ("frame", "<|im_start|>assistant\n<think>\n", 2),
        ("thinking", "R\n</think>\n\n", 2),
        ("answer", "A\n\n", 2),
        *tools,
        ("frame", "<|im_end|>\n", 2),
        ("frame", "<|im_start|>user\n", 3),
        ("tool_response", "<zyphra_tool_response>\n1\n</zyphra_tool_response>\n", 3),
        ("tool_response", "<zyphra_tool_response>\n2\n</zyphra_tool_response>\n", 4),
        ("frame", "<|im_end|>\n", 4),
        ("frame", "<|im_start|>assistant\n<think>\n</think>\n\n", 5),
        ("tool_call", now, 5),
        ("frame", "<|im_end|>\n", 5),
        ("frame", "<|im_start|>user\n", 6),
        ("tool_response", "<zyphra_tool_response>\n3\n</zyphra_tool_response>\n", 6),
        ("frame", "<|im_end|>\n", 6),
        ("frame", "<|im_start|>assistant\n<think>\n", None),
    ]
    assert learned(rendered) == f"R\n</think>\n\nA\n\n{CALL_TEXT}{now}<|im_end|>{now}<|im_end|>"


def test_tools_in_the_system_block():
    block = (
        "<tools>\n<function>\n<name>get_weather</name>\n<description>Weather of a place.</description>\n<parameters>\n"
        "<parameter>\n<name>city</name>\n<type>string</type>\n<description>Where</description>\n</parameter>\n"
        "<parameter>\n<name>days</name>\n<type>integer</type>\n<enum>[1, 3, 7]</enum>\n<minimum>1</minimum>\n"
        "</parameter>\n"
    )
    without = text_of([{"role": "user", "content": "Q"}], tools=TOOLS)
    assert without.startswith("<bos><|im_start|>system\n# Tools\n\n")
    assert block in without
    assert '<required>["city"]</required>\n</parameters>\n</function>\n<function>\n<name>now</name>\n' in without
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert text_of(messages, tools=TOOLS).startswith("<bos><|im_start|>system\nS\n\n# Tools\n\n")
    assert text_of(messages, tools=TOOLS).split("# Tools")[1] == without.split("# Tools")[1]
    bare = [tool["function"] for tool in TOOLS]
    assert text_of(messages, tools=bare) == text_of(messages, tools=TOOLS)
    assert text_of(messages, tools=[]) == text_of(messages)


def test_history_may_lose_its_thinking():
    messages = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "A", "reasoning": "R"},
        {"role": "assistant", "content": "<think>\nQ\n</think>\n\nB"},
        {"role": "user", "content": "2"},
        {"role": "assistant", "content": "C", "reasoning": "T"},
        {"role": "tool", "content": "3"},
    ]
    text = text_of(messages, truncate_history_thinking=True)
    assert "R" not in text
    assert "Q" not in text
    assert "<think>\n</think>\n\nA<|im_end|>" in text
    assert "<think>\n</think>\n\nB<|im_end|>" in text
    assert "<think>\nT\n</think>\n\nC<|im_end|>" in text
    assert "R" in text_of(messages)


# 3. Spans


def test_an_assistants_own_tags_are_read_by_the_spans():
    content = "R\n</think>\n\nA<zyphra_tool_call>\nx\n</zyphra_tool_call>\nB"
    rendered = render(BYTES, [{"role": "assistant", "content": content}])
    assert segments(rendered)[3:] == [
        ("frame", "<|im_start|>assistant\n", 0),
        ("thinking", "R\n</think>\n\n", 0),
        ("answer", "A", 0),
        ("tool_call", "<zyphra_tool_call>\nx\n</zyphra_tool_call>\n", 0),
        ("answer", "B", 0),
        ("frame", "<|im_end|>\n", 0),
    ]
    rendered = render(BYTES, [{"role": "assistant", "content": "<think>\nno end <zyphra_tool_call>"}])
    assert segments(rendered)[4] == ("thinking", "no end <zyphra_tool_call>", 0)
    rendered = render(BYTES, [{"role": "assistant", "content": "a<think>b</think>c"}])
    assert segments(rendered)[4] == ("answer", "a<think>b</think>c", 0)


def test_a_token_that_reaches_out_of_the_prompt_is_not_learned():
    tokenizer = gemma_like()
    rendered = render(tokenizer, [{"role": "assistant", "content": "A", "reasoning": "\nR"}])
    think = rendered.ids.index(tokenizer.encode("<think>", bos=False)[0])
    assert tokenizer.token_bytes(rendered.ids[think + 1]) == b"\n\n"
    assert learned(rendered, tokenizer) == "R\n</think>\n\nA<|im_end|>"


def test_a_system_block_the_template_adds_belongs_to_no_message():
    rendered = render(BYTES, [{"role": "user", "content": "Q"}, {"role": "system", "content": "late"}])
    kinds = [(span.kind, span.message) for span in rendered.spans if span.kind != "frame"]
    assert kinds == [("user", 0), ("system", 1)]


# 4. Conversations that go on


@settings(max_examples=60, deadline=None)
@given(conversations, st.sampled_from(["byte", "trained", "gemma"]))
def test_a_longer_conversation_begins_with_the_shorter(messages, name):
    # not between results of one turn: they are written into one frame
    whole = render(TOKENIZERS[name], messages, add_generation_prompt=False).ids
    for n in range(len(messages)):
        if not (n and messages[n - 1]["role"] == messages[n]["role"] == "tool") and messages[0]["role"] != "system":
            part = render(TOKENIZERS[name], messages[:n], add_generation_prompt=False).ids
            assert whole[: len(part)] == part


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("name", ["byte", "trained", "gemma"])
def test_the_prompt_is_where_the_learned_part_begins(name, thinking):
    tokenizer = TOKENIZERS[name]
    question = [{"role": "user", "content": "Q"}]
    answer = {"role": "assistant", "content": "A"} | ({"reasoning": "R"} if thinking else {})
    prompt = render(tokenizer, question, enable_thinking=thinking)
    whole = render(tokenizer, [*question, answer])
    assert not any(prompt.trainable)
    assert whole.ids[: len(prompt.ids)] == prompt.ids
    assert whole.trainable.index(True) == len(prompt.ids)
    assert opens_thinking(tokenizer, prompt.ids) is thinking
    assert not opens_thinking(tokenizer, whole.ids)


@pytest.mark.parametrize("name", ["byte", "trained", "gemma"])
def test_what_follows_a_sampled_turn(name):
    tokenizer = TOKENIZERS[name]
    before = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "tool_calls": [call()]}]
    results = [{"role": "tool", "content": "1 <|im_end|>"}, {"role": "tool", "content": "2"}]
    asked = [{"role": "user", "content": "and?"}]
    for new in (results, asked, [*results, *asked]):
        sampled = render(tokenizer, before, tools=TOOLS).ids
        assert sampled.pop() == tokenizer.encode("\n", bos=False)[0]  # a model stops at the end of its turn
        following = render_next(tokenizer, new, tools=TOOLS)
        whole = render(tokenizer, [*before, *new], tools=TOOLS)
        assert sampled + following.ids == whole.ids
        assert following.trainable == [False] * len(following.ids)
        moved = [Span(s.kind, s.start + len(sampled), s.stop + len(sampled), s.message) for s in following.spans]
        assert [(s.kind, s.start, s.stop) for s in moved[1:]] == [
            (s.kind, s.start, s.stop) for s in whole.spans if s.start > len(sampled)
        ]
        assert [s.message for s in following.spans if s.kind != "frame"] == list(range(len(new)))
    with pytest.raises(UsageError, match="kept as ids"):
        render_next(tokenizer, [{"role": "assistant", "content": "x"}])


# 5. Errors


DEEP: Any = []
for _ in range(600):
    DEEP = [DEEP]
ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hi", "messages must be a list"),
        ({"role": "user", "content": "x"}, "messages must be a list"),
        (["hi"], r"messages\[0\] must be a mapping"),
        ([{"role": "user", "content": "x"}, {"content": "x"}], r"messages\[1\]\.role must be one word: None"),
        ([{"role": "us er", "content": "x"}], r"messages\[0\]\.role must be one word"),
        ([{"role": "assistant\n", "content": "x"}], r"messages\[0\]\.role must be one word"),
        ([{"role": "user"}], r"messages\[0\] \(user\) has no content"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\.content must be a string or a list of text parts: int"),
        ([{"role": "user", "content": b"x"}], r"messages\[0\]\.content must be a string"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], r"content\[0\] must be a text part: 'image_url'"),
        ([{"role": "user", "content": ["a", 3]}], r"content\[1\] must be"),
        ([{"role": "assistant", "reasoning": 3}], r"messages\[0\]\.reasoning_content must be a string"),
        ([{"role": "user", "content": "", "tool_calls": [call()]}], "only an assistant calls tools"),
        ([{"role": "assistant", "tool_calls": 3}], r"messages\[0\]\.tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], r"tool_calls\[0\] has no function name"),
        ([{"role": "assistant", "tool_calls": [call("f", "{")]}], r"tool_calls\[0\]\.arguments is not JSON"),
        ([{"role": "assistant", "tool_calls": [call("f", '{"a": %s}' % ("9" * 5000))]}], r"arguments is not JSON"),
        ([{"role": "assistant", "tool_calls": [call("f", {"a": DEEP})]}], r"messages\[0\]\.tool_calls .* too deeply"),
        ([{"role": "assistant", "tool_calls": [call("f", {"a": ENDLESS})]}], r"or contains itself"),
        ([{"role": "assistant", "tool_calls": [call("f", "[1]")]}], r"arguments must be a JSON object: list"),
        ([{"role": "assistant", "tool_calls": [call("f", None)]}], r"arguments must be a JSON object: NoneType"),
        ([{"role": "assistant", "tool_calls": [call("f", {"a": {1, 2}})]}], r"messages\[0\]\.tool_calls cannot be"),
        ([{"role": "user", "content": "\ud800"}], "cannot be encoded"),
    ],
)
def test_messages_of_another_shape(messages, said):
    with pytest.raises(UsageError, match=said):
        render(BYTES, messages)


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (["f"], r"tools\[0\] has no function name"),
        ([TOOLS[0], {"type": "function", "function": {"name": 3}}], r"tools\[1\] has no function name"),
        ([{"name": "f", "parameters": "x"}], r"tools\[0\]\.parameters must be a JSON schema"),
        ([{"name": "f", "parameters": {"properties": []}}], None),
        ([{"name": "f", "parameters": {"properties": {"a": ENDLESS}}}], "tools cannot be rendered: .* contains itself"),
        (5, "tools must be a list of tools: int"),
        ([{"name": "f", "parameters": {"properties": ["x"]}}], r"properties must map"),
    ],
)
def test_tools_of_another_shape(tools, said):
    if said is None:
        assert render(BYTES, [], tools=tools)
        return
    with pytest.raises(UsageError, match=said):
        render(BYTES, [], tools=tools)


@pytest.mark.parametrize("name", ["messages", "bos_token", "documents"])
def test_what_render_sets_cannot_be_passed(name):
    options: dict[str, Any] = {name: "x"}
    with pytest.raises(UsageError, match=f"variable {name} is set by render"):
        render(BYTES, [], **options)


def test_the_input_is_left_alone():
    messages = [
        {"role": "user", "content": "a<think>"},
        {"role": "assistant", "tool_calls": [call()], "reasoning": "<bos>"},
    ]
    before = copy.deepcopy((messages, TOOLS))
    render(BYTES, messages, tools=TOOLS)
    assert (messages, TOOLS) == before
