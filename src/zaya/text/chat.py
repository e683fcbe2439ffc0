"""The one path from messages to token ids.

1. Messages and tools are checked and brought into one form (`text.messages`).
2. What could forge a control token gets stand-ins (`text.control`): in system, user and tool text, in names,
   descriptions and arguments no spelling of a control token becomes one; in an assistant's own text the thinking and
   tool-call tags do, nothing else.
3. The checkpoint's own template runs in a sandbox (`text.template`), or ours where it has none.
4. The text is encoded in one piece, cut only where something had to be disarmed.
5. The frame tokens tell what is to be learned (`text.spans`).

What a model samples never takes this path again: its ids are kept, and `render_next` gives the ids of what follows.
Source: spec checkpoint-and-model 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zaya.errors import UsageError
from zaya.text.control import Escape
from zaya.text.messages import Message, normalize_messages, normalize_tools
from zaya.text.spans import Span, scan
from zaya.text.template import DEFAULT_TEMPLATE, compile_template
from zaya.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as ids."""

    ids: list[int]
    trainable: list[bool]
    """For each id: whether it is an assistant's and to be learned (see `text.spans.scan`)."""
    spans: tuple[Span, ...]
    """What each id belongs to; the spans partition the ids."""


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    /,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    enable_thinking: bool = True,
    add_generation_prompt: bool | None = None,
    **template_kwargs: object,
) -> Rendered:
    """The ids of a conversation, opened by bos as the template has it.

    `add_generation_prompt` opens an assistant's turn at the end; by default where the last message is not an
    assistant's. With `enable_thinking` that turn begins inside `<think>`, else behind an empty pair. Further keywords
    are handed to the template, such as `truncate_history_thinking`.
    Raises UsageError for messages, tools or keywords that cannot be rendered, CheckpointError for a template or
    tokenizer that is not a ZAYA1 chat model's.
    """
    conversation = normalize_messages(messages)
    if add_generation_prompt is None:
        add_generation_prompt = not conversation or conversation[-1]["role"] != "assistant"
    offered = normalize_tools(tools)
    source = tokenizer.chat_template
    if offered and tokenizer.tool_template is not None:
        source = tokenizer.tool_template
    template = compile_template(DEFAULT_TEMPLATE if source is None else source)
    escape = Escape(template.words)
    own = {
        "messages": [_escape_message(i, message, tokenizer, escape) for i, message in enumerate(conversation)],
        "tools": _escape_value("tools", offered, tokenizer, escape),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "enable_thinking": enable_thinking,
        **tokenizer.special_names,
    }
    if taken := sorted(own.keys() & template_kwargs.keys()):
        raise UsageError(f"the template variable {taken[0]} is set by render and cannot be passed")
    for name, value in template_kwargs.items():
        own[name] = _escape_value(name, value, tokenizer, escape)
    text, ranges = escape.restore(template.render(own, escape.plain))
    ids = _encode(tokenizer, text, ranges)
    trainable, spans = scan(tokenizer, ids, [message["role"] for message in conversation])
    return Rendered(ids, trainable, spans)


def render_next(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], /, **options: Any) -> Rendered:
    """The ids to append to a conversation whose last sampled id is `<|im_end|>`: these messages and a new prompt.

    For tool results and further questions in a rollout; the ids sampled before stay as they are. Takes the options of
    `render`; message indices in the spans count from the first message given here. Raises UsageError where one of the
    messages is an assistant's.
    """
    if any(message["role"] == "assistant" for message in normalize_messages(messages)):
        raise UsageError("render_next takes what follows an assistant's turn; what an assistant said is kept as ids")
    before = [{"role": "user", "content": "."}, {"role": "assistant", "content": "."}]
    whole = render(tokenizer, [*before, *messages], **options)
    start = len(whole.ids) - whole.trainable[::-1].index(True)  # behind the <|im_end|> of the turn before
    spans = []
    for span in whole.spans:
        if span.stop > start:
            message = None if span.message is None or span.message < 2 else span.message - 2
            spans.append(Span(span.kind, max(span.start, start) - start, span.stop - start, message))
    return Rendered(whole.ids[start:], whole.trainable[start:], tuple(spans))


def opens_thinking(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether what is sampled after these ids begins inside `<think>`: what a `Parser` must be told."""
    tags = tokenizer.tags
    for id in reversed(ids):
        if id == tags.think_open:
            return True
        if id in (tags.think_close, tags.turn_open, tags.turn_close):
            return False
    return False


def _escape_message(index: int, message: Message, tokenizer: Tokenizer, escape: Escape) -> Message:
    escaped: Message = {}
    for key, value in message.items():
        if message["role"] == "assistant" and key in ("content", "reasoning_content"):
            escaped[key] = escape.text(value, tokenizer.assistant_control)
        else:
            escaped[key] = _escape_value(f"messages[{index}].{key}", value, tokenizer, escape)
    return escaped


def _escape_value(where: str, value: object, tokenizer: Tokenizer, escape: Escape) -> object:
    try:
        return escape.value(value, tokenizer.control)
    except TypeError as error:
        raise UsageError(f"{where} cannot be rendered: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{where} cannot be rendered: it is nested too deeply, or contains itself") from error


def _encode(tokenizer: Tokenizer, text: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
    cuts = {at + 1 for start, stop in ranges for at in tokenizer.control.touching(text, start, stop)}
    ids = tokenizer.encode_cut(text, cuts)
    # The promise, checked: the control tokens among the ids are those that nothing from outside took part in.
    wanted = [text[start:stop] for start, stop in tokenizer.control.find(text) if start + 1 not in cuts]
    if [id for id in ids if id in tokenizer.control_ids] != [tokenizer.id_of(spelling) for spelling in wanted]:
        raise UsageError(
            "the tokenizer makes control tokens of text that does not spell them",
            hint="a normalizer that changes characters cannot be used for chat",
        )
    return ids
