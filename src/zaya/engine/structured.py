"""Which tokens may come next in an answer that must have a structure: JSON, a regular expression, a choice, tool calls.

    1. `Grammars` knows the bytes of every token, which ids are control tokens, and which end an answer
    2. a `Structure` becomes grammars in text (engine.lark; engine.tool_grammar for calls); one that cannot be held is
       refused here, before anything is drawn
    3. llguidance compiles them; what it made is kept, so that all completions of a request compile once
    4. each completion has a `GrammarConstraint`: `mask` tells what may come next, `push` takes what was drawn

A tool call, for example. While free text lasts, any token of text may come, an id that ends the answer, or the one
token `<zyphra_tool_call>`. After that token come only those whose bytes go on with `\\n<function=`, then those of a
declared name, then `>\\n<parameter=` and so on, each value by its schema, up to the token `</zyphra_tool_call>`.

Grammars know control tokens by their ids alone, so no text ever lets one in, and rows of the model without a token
never may come. An id that ends the answer may come where the structure may end, and nowhere else.
Not covered: a JSON object may have one of its undeclared keys twice, and a number may be too large for floating point.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from zaya.engine import lark
from zaya.engine.tool_grammar import tool_grammar
from zaya.engine.types import Structure
from zaya.errors import UsageError
from zaya.text import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_KEPT = 128
"""Compiled structures that are kept. Those who ask a server repeat a few; strangers' schemas must not fill memory."""

_EXPECTED = {
    "json": "a schema as a mapping",
    "regex": "an expression as a string that is not empty",
    "choice": "a list of strings that is not empty",
    "tools": "a list of tools",
}


class Grammars:
    """Structures compiled for one vocabulary. May be shared between threads; the constraints it makes may not."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int]) -> None:
        """`vocab_size` counts the model's rows; `stop_ids` end an answer.

        Raises CheckpointError for a tokenizer with more ids than rows, UsageError where no stop id has a token.
        """
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop_ids = sorted(set(stop_ids) - set(tokenizer.never_sampled(vocab_size)))
        if not self._stop_ids:
            raise UsageError(f"an answer must be able to end: none of the stop ids has a token: {sorted(stop_ids)}")
        self._compiled = lru_cache(maxsize=_KEPT)(self._compile)

    def constraint(self, structure: Structure, *, after_thinking: bool = False) -> GrammarConstraint:
        """A fresh constraint for the tokens of one answer.

        `after_thinking`: this completion closes its reasoning, and the answer begins behind the closing tag. Up to two
        newlines may come between the two, as the chat format has them; `Completion.text` is without them.

        Raises UsageError for a structure that cannot be held, with the part of it that is wrong.
        """
        try:
            values = json.dumps([structure.value, structure.answer_schema], ensure_ascii=False, allow_nan=False)
            values.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the value of a structure must be JSON: {error}") from error
        # The text tells structures apart, and so does the order of keys in it, in which a model has to write them.
        matchers = self._compiled(
            structure.kind, values, structure.require_call, structure.parallel_calls, after_thinking
        )
        return self._fresh(matchers)

    def _fresh(self, matchers: Sequence[LLMatcher]) -> GrammarConstraint:
        return GrammarConstraint([matcher.deep_copy() for matcher in matchers], self._vocab_size, self._stop_ids)

    def _compile(
        self, kind: str, values: str, require_call: bool, parallel_calls: bool, after_thinking: bool
    ) -> list[LLMatcher]:
        matchers = []
        value, answer_schema = json.loads(values)
        for rules in self._rules(kind, value, require_call, parallel_calls, answer_schema):
            text = lark.grammar(rules, newlines_first=after_thinking)
            matcher = lark.llguidance().LLMatcher(self._vocabulary, text, log_level=0)
            if matcher.is_error():
                raise UsageError(f"the structure ({kind}) cannot be held: {lark.reason(matcher.get_error())}")
            matchers.append(matcher)
        try:
            self._fresh(matchers).mask()
        except UsageError as error:
            raise UsageError(f"the structure ({kind}) allows no text, or is too large to follow") from error
        return matchers

    def _rules(
        self, kind: str, value: Any, require_call: bool, parallel_calls: bool, answer_schema: Mapping[str, Any] | None
    ) -> tuple[str, ...]:
        """The rules of each grammar that has to let a token in."""
        lark.check_size(f"the structure ({kind})", value)
        match kind, value:
            case "json", Mapping():
                lark.check_schema("the schema", value)
                return (f"answer: {lark.json_value(value)}",)
            case "regex", str() if value:
                lark.check_regex("the expression", value)
                return (f"answer: {lark.regex(value)}",)
            case "choice", [*texts] if texts and all(isinstance(text, str) for text in texts):
                return ("answer: TEXT\nTEXT: " + " | ".join(map(lark.literal, texts)),)
            case "tools", [*tools]:
                named = self._tokenizer.tags
                if named.call_open is None or named.call_close is None:
                    raise UsageError("this vocabulary lacks the control tokens between which a tool call stands")
                return tool_grammar(
                    tools,
                    require_call=require_call,
                    parallel_calls=parallel_calls,
                    answer_schema=answer_schema,
                    call_open=named.call_open,
                    call_close=named.call_close,
                )
        if kind not in _EXPECTED:
            raise UsageError(f"a structure is one of {', '.join(_EXPECTED)}: {kind!r}")
        raise UsageError(f"the value of a structure ({kind}) is {_EXPECTED[kind]}: {value!r}")

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        wrapped = _Vocabulary(
            tokens=[self._tokenizer.token_bytes(id) for id in range(self._vocab_size)],
            special_token_ids=sorted(self._tokenizer.control_ids.union(self._stop_ids)),
            eos_token_id=self._stop_ids[0],
            bos_token_id=self._tokenizer.bos_id,
        )
        return lark.llguidance().LLTokenizer(wrapped, eos_token=self._stop_ids)


class GrammarConstraint:
    """What may come next in one answer (`Constraint` of the sampler)."""

    def __init__(self, matchers: Sequence[LLMatcher], vocab_size: int, stop_ids: Sequence[int]) -> None:
        """A token may come where each of the matchers, which become this constraint's own, lets it in."""
        self._matchers = matchers
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids
        self._mask: np.ndarray | None = None

    def mask(self) -> Bool[np.ndarray, " vocab"]:
        """The ids that may come next; not to be written to.

        Raises UsageError where none may, and where the structure has become more than llguidance can follow.
        """
        if self._mask is None:
            mask = np.ones(self._vocab_size, dtype=bool)
            for matcher in self._matchers:
                packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
                if matcher.is_error():
                    reason = lark.reason(matcher.get_error())
                    raise UsageError(f"the structure leads nowhere from here, or is too large to follow: {reason}")
                mask &= np.unpackbits(packed, count=self._vocab_size, bitorder="little").view(bool)
            if not mask.any():
                raise UsageError("the structure leads nowhere from here: no id is let in by all its parts")
            mask.setflags(write=False)
            self._mask = mask
        return self._mask

    def push(self, id: int) -> None:
        """Take what was drawn. Raises UsageError for an id that the mask bars."""
        for matcher in self._matchers:
            if not matcher.consume_token(id):
                raise UsageError(f"the structure does not allow this id here: {id}")
        self._mask = None

    def is_complete(self) -> bool:
        """Whether nothing but the end may follow. A structure that may end or go on is not complete."""
        mask = self.mask()
        return bool(mask.sum() == mask[self._stop_ids].sum())


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """A tokenizer as llguidance wants to have it."""

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    bos_token_id: int | None
    is_tokenizer_wrapper: bool = True

    def __call__(self, text: str) -> list[int]:
        raise NotImplementedError("grammars do not force a split into tokens, so nobody asks for one")
