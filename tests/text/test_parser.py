"""What a model wrote, taken apart.

1. However a text is cut, the joined events are the same, and the message is what they tell.
2. No part of a tag is given out before it is certain.
3. No thinking or call tag reaches the answer.
4. The fragments of a call's arguments are JSON, and equal to its arguments.
5. The cost of a character does not depend on how many came before.
6. What is rendered is parsed back.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.conversations import TOOLS, calls, inner
from tests.text.gemma import gemma_like
from zaya.text import (
    CallArguments,
    CallEnd,
    CallStart,
    Content,
    Decoder,
    Flag,
    Message,
    Parser,
    Reasoning,
    ToolCall,
    byte_tokenizer,
    opens_thinking,
    parse,
    render,
    tags,
)

FUNCTION = [
    "<zyphra_tool_call>\n<function=get_weather>\n",
    "<parameter=days>\n3\n</parameter>\n",
    "<parameter=city>\nParis\n</parameter>\n",
    "<parameter=place>\n{'lat': 1}\n</parameter>\n",
    "</function>\n</zyphra_tool_call>",
    "</function>",
    "<function=now>",
    "<function=",
    "<parameter=x>",
    "<parameter=",
    "</parameter>",
    '<zyphra_tool_call>{"name": "now", "arguments": {"a": [1]}}</zyphra_tool_call>',
    '{"name": "x", "arguments": "{\\"a\\": 1}"}',
]
FRAGMENTS = [tag[:n] for tag in (tags.THINK_CLOSE, tags.CALL_OPEN, tags.CALL_CLOSE, "</parameter>") for n in (1, 2, 5)]
texts = st.lists(
    st.one_of(
        st.sampled_from(tags.ASSISTANT_TAGS),
        st.sampled_from(FUNCTION),
        st.sampled_from(FRAGMENTS),
        st.sampled_from(["\n", "\n\n", " ", "a", "日", "{", "}", ">", '"', "\\", "\r", "null", "<"]),
        st.text(max_size=3),
    ),
    max_size=14,
).map("".join)
starts = st.booleans()
offered = st.sampled_from([None, TOOLS])


def merged(events):
    """Events with neighbours of one kind joined."""
    joined: list[Any] = []
    for event in events:
        last: Any = joined[-1] if joined else None
        if isinstance(event, (Reasoning, Content)) and type(last) is type(event):
            joined[-1] = type(event)(last.text + event.text)
        elif isinstance(event, CallArguments) and isinstance(last, CallArguments) and last.index == event.index:
            joined[-1] = CallArguments(event.index, last.text + event.text)
        else:
            joined.append(event)
    return joined


def stream(pieces, **options):
    parser = Parser(**options)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged([*events, *parser.finish()]), parser.message()


# 1. Cuts


@settings(max_examples=400, deadline=None)
@given(texts, starts, offered, st.data())
def test_cut_anywhere(text, in_thinking, tools, data):
    options = {"in_thinking": in_thinking, "tools": tools}
    whole, message = stream([text], **options)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert stream(pieces, **options) == (whole, message)
    assert stream(text, **options) == (whole, message)
    assert parse(text, **options) == message
    check_message(whole, message)


def check_message(events, message):
    assert message.reasoning == "".join(event.text for event in events if isinstance(event, Reasoning))
    assert message.content == "".join(event.text for event in events if isinstance(event, Content))
    names = {event.index: event.name for event in events if isinstance(event, CallStart)}
    ends = {event.index: event.complete for event in events if isinstance(event, CallEnd)}
    assert list(names) == list(ends) == list(range(len(message.tool_calls)))
    for i, call in enumerate(message.tool_calls):
        written = "".join(event.text for event in events if isinstance(event, CallArguments) and event.index == i)
        assert json.loads(written) == call.arguments
        assert (names[i], ends[i]) == (call.name, call.complete)
    # a call's events stand together, in order
    shape = [(type(event), event.index) for event in events if not isinstance(event, (Reasoning, Content))]
    assert shape == [(kind, i) for i in names for kind in (CallStart, CallArguments, CallEnd)]


# 2. and 3. Tags


# tags, and their halves, so that what stands around a dropped tag may meet and be one
halves = [half for tag in tags.ASSISTANT_TAGS for n in (1, 2, len(tag) - 1) for half in (tag[:n], tag[n:])]
torn = st.lists(st.sampled_from([*tags.ASSISTANT_TAGS, *halves, "<function=", "f>", "{", "\n"]), max_size=10)


@settings(max_examples=400, deadline=None)
@given(st.one_of(texts, torn.map("".join)), starts, st.data())
def test_no_tag_reaches_the_answer(text, in_thinking, data):
    cut = data.draw(st.integers(0, len(text)))
    events, message = stream([text[:cut], text[cut:]], in_thinking=in_thinking)
    assert (events, message) == stream([text], in_thinking=in_thinking)
    assert not any(tag in message.content for tag in tags.ASSISTANT_TAGS)
    assert "</think>" not in message.reasoning


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("</<think>think>", "</ think>"),
        ("a<</think>b", "a< b"),
        ("<</think></think>/think>", "< /think>"),
        ("<</think>\n/think>", "<\n/think>"),
        ("<zyphra_tool_call><zyphra_tool</think>_call></zyphra_tool_call>", "<zyphra_tool _call>"),
        ("</thi<zyphra_tool_call><function=f></function></zyphra_tool_call>nk>", "</thi nk>"),
        ("</thi<zyphra_tool_call>nk></zyphra_tool_call>", "</thi nk>"),
        ("a</think>b<", "ab<"),
    ],
)
def test_what_stands_around_something_dropped_does_not_become_a_tag(text, content):
    assert parse(text).content == content
    assert stream(text, in_thinking=False)[1].content == content


@pytest.mark.parametrize("tag", tags.ASSISTANT_TAGS)
def test_no_part_of_a_tag_is_given_out(tag):
    for n in range(1, len(tag)):
        parser = Parser(in_thinking=False)
        assert parser.feed("a" + tag[:n]) == [Content("a")]
        assert parser.feed("!") == [Content(tag[:n] + "!")]


def test_newlines_wait():
    parser = Parser(in_thinking=True)
    assert parser.feed("\n\n") == []
    assert parser.feed("a\n\nb\n") == [Reasoning("a\n\nb")]
    assert parser.feed("\n</think>\n") == []
    assert parser.feed("\nc\n") == [Content("c")]
    assert parser.feed("<zyphra_tool_call>") == []
    assert parser.message() == Message("a\n\nb", "c")


@pytest.mark.parametrize(
    ("text", "in_thinking", "message"),
    [
        ("", False, Message()),
        ("", True, Message(flags=frozenset({Flag.UNFINISHED_THINKING}))),
        ("a", False, Message(content="a")),
        ("\na\n", False, Message(content="\na\n")),
        ("r\n</think>\n\na\n", True, Message("r", "a\n")),
        ("r</think>a", True, Message("r", "a")),
        ("r\n", True, Message("r\n", flags=frozenset({Flag.UNFINISHED_THINKING}))),
        ("r</thi", True, Message("r</thi", flags=frozenset({Flag.UNFINISHED_THINKING}))),
        ("<think>\nr\n</think>\n\na", True, Message("r", "a")),
        ("<think>\n<think>r</think>a", True, Message("r", "a")),
        ("<think>\nr\n</think>\n\na", False, Message("r", "a")),
        ("\n<think>r</think>a", False, Message("r", "a")),
        ("r <think> r</think>a", True, Message("r <think> r", "a")),
        ("\n</think>\n\na", False, Message(content="a", flags=frozenset({Flag.STRAY_TAG}))),
        ("a</think>b", False, Message(content="ab", flags=frozenset({Flag.STRAY_TAG}))),
        ("r</think>a</think>b", True, Message("r", "ab", flags=frozenset({Flag.STRAY_TAG}))),
        ("r</think>\n<think>b</think>c", True, Message("r", "bc", flags=frozenset({Flag.STRAY_TAG}))),
        ("a<think>b", False, Message(content="ab", flags=frozenset({Flag.STRAY_TAG}))),
        ("a</zyphra_tool_call>", False, Message(content="a", flags=frozenset({Flag.STRAY_TAG}))),
        (
            "<zyphra_tool_call>\n<function=f>\n</function>\n</zyphra_tool_call>\n</think>a",
            True,
            Message("<zyphra_tool_call>\n<function=f>\n</function>\n</zyphra_tool_call>", "a"),
        ),
    ],
)
def test_thinking_and_answer(text, in_thinking, message):
    assert parse(text, in_thinking=in_thinking) == message
    assert stream(text, in_thinking=in_thinking)[1] == message


# 4. Calls


def xml(*parameters, name="get_weather", close="</function>\n</zyphra_tool_call>"):
    body = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<zyphra_tool_call>\n<function={name}>\n{body}{close}"


def test_values_have_the_declared_types():
    text = xml(("city", "\nNew\nYork "), ("days", "3"), ("place", "{'lat': 1.5}"), ("tags", '["a"]'), ("exact", "True"),
               ("factor", "null"), ("undeclared", "3"))  # fmt: skip
    arguments = {"city": "\nNew\nYork ", "days": 3, "place": {"lat": 1.5}, "tags": ["a"], "exact": True,
                 "factor": None, "undeclared": "3"}  # fmt: skip
    events, message = stream(["so\n\n" + text], in_thinking=False, tools=TOOLS)
    assert message == Message(content="so", tool_calls=(ToolCall("get_weather", arguments),))
    check_message(events, message)
    untyped = parse(text, in_thinking=False).tool_calls[0].arguments
    assert untyped == {"city": "\nNew\nYork ", "days": "3", "place": "{'lat': 1.5}", "tags": '["a"]', "exact": "True",
                       "factor": "null", "undeclared": "3"}  # fmt: skip


def test_what_cannot_be_converted_stays_a_string_and_is_flagged():
    message = parse(xml(("days", "three\n"), ("city", "x")), tools=TOOLS)
    assert message.tool_calls == (ToolCall("get_weather", {"days": "three\n", "city": "x"}),)
    assert message.flags == {Flag.UNCONVERTED_ARGUMENT}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("\n\n", ""),
        ("\n", ""),
        ("", ""),
        ("a", "a"),
        ("\na", "a"),
        ("a\n", "a"),
        ("\n\na\n\n", "\na\n"),
        ("\n \n", " "),
        ("\r\nParis\r\n", "Paris"),
        ("\r\n\r\na\r\nb\r\n\r\n", "\r\na\r\nb\r\n"),
        ("a\r\n", "a"),
        ("\r\na\n", "a"),
        ("\r\n", ""),
        ("\r", "\r"),
        ("\ra\r", "\ra\r"),
        ("\n\ra\r\n", "\ra\r"),
    ],
)
def test_one_newline_on_each_side_belongs_to_the_form(written, value):
    text = f"<zyphra_tool_call><function=f><parameter=p>{written}</parameter></function></zyphra_tool_call>"
    assert parse(text).tool_calls == (ToolCall("f", {"p": value}),)
    assert stream(text, in_thinking=False)[1].tool_calls == (ToolCall("f", {"p": value}),)


def test_strings_stream_and_other_values_come_whole():
    parser = Parser(in_thinking=False, tools=TOOLS)
    assert parser.feed("<zyphra_tool_call>\n<function=get_weather") == []
    assert parser.feed(">\n<parameter=city") == [CallStart(0, "get_weather")]
    assert parser.feed(">\nPa") == [CallArguments(0, '{"city":"'), CallArguments(0, "Pa")]
    assert parser.feed('"r\\is\n') == [CallArguments(0, '\\"r\\\\is')]
    assert parser.feed("!") == [CallArguments(0, "\\n!")]
    assert parser.feed("\n</para") == []
    assert parser.feed("meter>\n") == []
    assert parser.feed("<parameter=days>\n1") == [CallArguments(0, '"'), CallArguments(0, ',"days":')]
    assert parser.feed("2\n</parameter>") == []
    assert parser.feed("\n</function>") == [CallArguments(0, "12"), CallArguments(0, "}"), CallEnd(0, True)]
    assert parser.feed("\n</zyphra_tool_call>") == []
    assert parser.finish() == []
    assert parser.message() == Message(tool_calls=(ToolCall("get_weather", {"city": 'Pa"r\\is\n!', "days": 12}),))


def test_a_call_is_complete_when_it_is_over():
    parser = Parser(in_thinking=False)
    parser.feed("<zyphra_tool_call><function=f><parameter=a>1</parameter>")
    assert parser.message().tool_calls == (ToolCall("f", {}, complete=False),)
    parser.feed("</function>")
    assert parser.message().tool_calls == (ToolCall("f", {"a": "1"}),)


PROGRAMS = [
    'END = "</parameter>"',
    "</parameter>x",
    "a\n</parameter>\n\n b",
    "a</function>b",
    "</function>\n}\n",
    "</parameter></parameter> x",
    "</parameter></parameter </function>",
    "</function></parameter>.",
    "x = '<parameter=y>' + '</parameter>' + '</function>' + ''",
    "</parameter>\r\n\r\n.\r\n",
    "</parameter>\n<b>",
]


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_file_may_hold_closing_tags(text):
    """Whoever writes what comes out must not write half of it."""
    whole = xml(("city", text), ("days", "1"))
    message = Message(tool_calls=(ToolCall("get_weather", {"city": text, "days": 1}),))
    assert parse(whole, tools=TOOLS) == message
    assert stream(whole, in_thinking=False, tools=TOOLS)[1] == message
    last = xml(("days", "1"), ("city", text))
    assert parse(last, tools=TOOLS).tool_calls == (ToolCall("get_weather", {"days": 1, "city": text}),)


def test_one_closing_tag_too_many():
    body = "<parameter=a>\n1\n</parameter>\n</parameter>\n<parameter=b>\n2\n</parameter>\n"
    message = parse(f"<zyphra_tool_call>\n<function=f>\n{body}</function>\n</zyphra_tool_call>")
    assert message == Message(tool_calls=(ToolCall("f", {"a": "1", "b": "2"}),), flags=MALFORMED)


def test_several_calls():
    message = parse("a\n\n" + xml(("city", "x")) + "\n" + xml(name="now") + xml(("days", "1")) + "\n", tools=TOOLS)
    assert message == Message(
        content="a",
        tool_calls=(
            ToolCall("get_weather", {"city": "x"}),
            ToolCall("now", {}),
            ToolCall("get_weather", {"days": 1}),
        ),
    )


def test_text_behind_a_call_is_content():
    assert parse("a\n\n" + xml(name="now") + "\nb\n").content == "a\n\n\nb\n"
    assert parse(xml(name="now") + "\n\nb").content == "b"


UNCLOSED = frozenset({Flag.UNCLOSED_CALL})
MALFORMED = frozenset({Flag.MALFORMED_CALL})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml(("city", "x"), close="</function>"), Message("", "", (ToolCall("get_weather", {"city": "x"}),), UNCLOSED)),
        (
            xml(("city", "x"), close="</zyphra_tool_call>"),
            Message("", "", (ToolCall("get_weather", {"city": "x"}),), UNCLOSED),
        ),
        (
            xml(("city", "x"), close=""),
            Message("", "", (ToolCall("get_weather", {"city": "x"}, complete=False),), UNCLOSED),
        ),
        (
            xml(("city", "x"), close="<parameter=da"),
            Message("", "", (ToolCall("get_weather", {"city": "x"}, complete=False),), UNCLOSED),
        ),
        (
            xml(("city", "x"), close="<parameter=undeclared>\nab\nc\n</param"),
            Message("", "", (ToolCall("get_weather", {"city": "x", "undeclared": "ab\nc"}, complete=False),), UNCLOSED),
        ),
        (
            "<zyphra_tool_call>\n<function=f>\n<parameter=p>\na\n</function>\n</zyphra_tool_call>",
            Message("", "", (ToolCall("f", {"p": "a"}),), UNCLOSED),
        ),
        (
            "<zyphra_tool_call>\n<function=f>\n<parameter=p>\na\n</zyphra_tool_call>b",
            Message("", "b", (ToolCall("f", {"p": "a"}),), UNCLOSED),
        ),
        (
            xml(("city", "x"), close="</function>") + "\nb",
            Message("", "b", (ToolCall("get_weather", {"city": "x"}),), UNCLOSED),
        ),
        (
            xml(name="now", close="</function>") + xml(name="now", close="") + xml(name="now"),
            Message("", "", (ToolCall("now", {}),) * 3, UNCLOSED),
        ),
        (
            xml(name="now", close="</function>\n<function=now>\n</function>\n</zyphra_tool_call>"),
            Message("", "", (ToolCall("now", {}),) * 2),
        ),
        ("a<zyphra_tool_call>\n<function=get_we", Message("", "a", (), UNCLOSED)),
        ("a\n<zyphra_tool_call>", Message("", "a", (), UNCLOSED)),
        ('a<zyphra_tool_call>{"name": "f", "argu', Message("", "a", (), UNCLOSED)),
        ("<zyphra_tool_call>what(</think>)</zyphra_tool_call>", Message("", "what()", (), MALFORMED)),
        ("<zyphra_tool_call></zyphra_tool_call>a", Message("", "a", (), MALFORMED)),
        (
            "<zyphra_tool_call>x<function=f>y</function></zyphra_tool_call>",
            Message("", "", (ToolCall("f", {}),), MALFORMED),
        ),
    ],
)
def test_calls_that_are_not_in_order(text, message):
    assert parse(text) == message
    assert stream(text, in_thinking=False)[1] == message


@pytest.mark.parametrize(
    "text",
    [
        "<function=></function>",
        "<function= \n></function>",
        "<function=foo\n<parameter=a>1</parameter></function>",
        "<function=foo</function>",
        "<function=foo",
        "<function=foo bar></function>",
        "<function=foo<function=bar></function>",
        '{"name": "", "arguments": {}}',
        '{"name": "foo bar"}',
        '{"name": "</foo>"}',
        '{"name": "\\ud800"}',
        '{"name": "f", "parameters": [1]}',
        '{"name": "f", "arguments": {}, "parameters": {"path": "/x"}}',
        '{"name": "f", "args": {"path": "/x"}}',
        '{"name": "f", "arguments": {}, "id": 1}',
    ],
)
def test_what_only_resembles_a_call_is_content(text):
    whole = f"a<zyphra_tool_call>\n{text}\n</zyphra_tool_call>b"
    assert parse(whole) == Message(content=f"a{text}b", flags=MALFORMED)
    assert stream(whole, in_thinking=False)[1] == Message(content=f"a{text}b", flags=MALFORMED)
    again = parse(f"a<zyphra_tool_call>{text}{xml(name='now')}")
    assert again == Message("", f"a{text}", (ToolCall("now", {}),), MALFORMED | UNCLOSED)


def test_a_name_may_stand_between_blanks():
    assert parse("<zyphra_tool_call><function= f\n></function></zyphra_tool_call>").tool_calls == (ToolCall("f", {}),)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "f", "arguments": {"a": [1, "<function=x>"]}}', (ToolCall("f", {"a": [1, "<function=x>"]}),)),
        ('\n{"name": "f", "arguments": "{\\"a\\": null}"}\n', (ToolCall("f", {"a": None}),)),
        ('{"name": "f"}', (ToolCall("f", {}),)),
        ('{"name": "rm", "parameters": {"path": "/x"}}', (ToolCall("rm", {"path": "/x"}),)),
        ('{"parameters": "{}", "name": " f "}', (ToolCall("f", {}),)),
        ('{"name": "f", "arguments": [1]}', ()),
        ('{"name": 1, "arguments": {}}', ()),
        ('{"name": "f", "arguments": {"a": NaN}}', ()),
        ("[1]", ()),
    ],
)
def test_calls_in_json(text, calls):
    message = parse(f"a<zyphra_tool_call>{text}</zyphra_tool_call>")
    assert message.tool_calls == calls
    assert message.flags == (frozenset() if calls else MALFORMED)
    assert message.content == ("a" if calls else "a" + text)
    if calls:
        cut = parse(f"a<zyphra_tool_call>{text}")
        assert (cut.tool_calls, cut.content, cut.flags) == (calls, "a", UNCLOSED)


# 5. Cost


def joins(text):
    """How often the parser puts together what it has collected, which costs as much as was collected."""
    calls = 0

    def count(_frame, event, arg):
        nonlocal calls
        calls += event == "c_call" and arg.__name__ == "join"

    parser = Parser(in_thinking=False)
    sys.setprofile(count)
    try:
        parser.feed(text)
        parser.finish()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    ("opening", "repeated"),
    [
        ("", "a</think>"),
        ('<zyphra_tool_call>{"a":"', "<function="),
        ("<zyphra_tool_call>", "<function="),
        ("<zyphra_tool_call><function=>", "<function="),
        ("<zyphra_tool_call><function=", "f<"),
        ("<zyphra_tool_call><function=f><parameter=p>", "a\r\n<"),
    ],
)
def test_what_was_collected_is_put_together_once(opening, repeated):
    assert joins(opening + repeated * 100) == joins(opening + repeated * 10) <= 4


# 6. There and back

TOKENIZERS = [byte_tokenizer(), gemma_like()]
own_calls = st.lists(calls, max_size=3)
CLOSING = ("</parameter>", "</function>", "</zyphra_tool_call>")


@settings(max_examples=200, deadline=None)
@given(inner, inner, own_calls, st.sampled_from(TOKENIZERS), st.integers(1, 3))
def test_what_is_rendered_is_parsed_back(reasoning, content, tool_calls, tokenizer, step):
    reasoning = reasoning if reasoning.strip() else ""
    message = {"role": "assistant", "content": content.strip(), "reasoning": reasoning, "tool_calls": tool_calls}
    messages = [{"role": "user", "content": "Q"}]
    prompt = render(tokenizer, messages, tools=TOOLS, enable_thinking=bool(reasoning)).ids
    whole = render(tokenizer, [*messages, message], tools=TOOLS).ids
    end = len(whole) - 1 - whole[::-1].index(tokenizer.eos_id)
    assert whole[: len(prompt)] == prompt or not message["content"]
    sampled = whole[len(prompt) : end]

    decoder = Decoder(tokenizer)
    parser = Parser(in_thinking=opens_thinking(tokenizer, prompt), tools=TOOLS)
    events = []
    for at in range(0, len(sampled), step):
        events += parser.feed(decoder.feed(sampled[at : at + step]))
    events += parser.feed(decoder.finish())
    events += parser.finish()
    back = parser.message()
    check_message(merged(events), back)
    assert back.flags == frozenset()
    assert (back.reasoning, back.content) == (reasoning, message["content"])
    assert [(call.name, call.arguments) for call in back.tool_calls] == [
        (call["function"]["name"], call["function"]["arguments"]) for call in tool_calls
    ]
    again = render(tokenizer, [*messages, back.as_chat()], tools=TOOLS)
    assert again.ids == whole
