"""The fields that all ways of asking for text have in common, and what they mean to the engine.

Names and meanings are OpenAI's, and beyond those vLLM's and SGLang's (research runtimes.md 5.1). Defaults are OpenAI's:
nothing is taken from a checkpoint's generation_config.json, so what a request does not say is the same everywhere.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from zaya.engine.types import SamplingParams, Structure
from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, Body, Name, NoOps, OneError, no_op

MOST_IDS = 1024
"""With settings of their own. Each of them is work in every step."""


def boolean(value: Any) -> bool:
    """To a literal of a boolean, 0 and 1 are one."""
    if not isinstance(value, bool):
        raise ValueError("input should be a valid boolean")
    return value


Count = Annotated[int, Field(ge=0, le=MOST_INT)]
Id = Annotated[int, Field(ge=0, le=MOST_INT)]
Text = Annotated[str, Field(min_length=1)]


class StreamOptions(Body):
    """What a stream has beside its text."""

    include_usage: bool | None = None
    """A last chunk with the tokens that were read and written."""
    continuous_usage_stats: bool | None = None
    """The same in every chunk, as far as it goes."""
    include_obfuscation: Any = no_op()


class JsonSchema(Body):
    """A schema with a name, which changes nothing."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What an answer must look like, in OpenAI's words."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Body):
    """What an answer must look like, in vLLM's words. One of them."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: Annotated[list[str], OneError] | None = None


class Sampling(NoOps):
    """How text is drawn, where it ends, and what is told of it."""

    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    """Same seed, same text. Without one every request draws a new text."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST_INT)] | None = None
    """-1 and 0 keep all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], float] | None = Field(None, max_length=MOST_IDS)
    stop: Text | Annotated[list[Text], Field(max_length=64)] | None = None
    stop_token_ids: list[Id] | None = Field(default=None, max_length=MOST_IDS)
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    thinking_token_budget: Count | None = None
    """Reasoning of this many tokens is closed by force, and the answer follows."""
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: Text | None = None
    guided_choice: Annotated[list[str], OneError] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    """The ids of prompt and text, as they were read and drawn."""
    priority: Annotated[int, Field(ge=-MOST_INT, le=MOST_INT)] | None = None
    """Smaller comes first."""
    cache_salt: str | None = None
    """Prefixes are shared between requests of one salt only."""
    skip_special_tokens: Annotated[Literal[True], BeforeValidator(boolean)] | None = None
    include_stop_str_in_output: Annotated[Literal[False], BeforeValidator(boolean)] | None = None

    @property
    def num_completions(self) -> int:
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(
            self.stream_options.include_usage or self.stream_options.continuous_usage_stats
        )

    @property
    def wants_usage_always(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    def drawn_seed(self, *, ignore: bool = False) -> int:
        """The seed that was asked for, or one that nobody has had."""
        return secrets.randbits(63) if self.seed is None or ignore else self.seed

    def params(self, *, max_tokens: int, top_logprobs: int, think_budget: int | None, **others: Any) -> SamplingParams:
        """What is left to the ways of asking comes as arguments. Raises UsageError."""
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=self.min_tokens or 0,
            temperature=_or(self.temperature, 1.0),
            top_p=_or(self.top_p, 1.0),
            top_k=self.top_k if self.top_k is not None and self.top_k > 0 else None,
            min_p=_or(self.min_p, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            logit_bias={int(id): bias for id, bias in (self.logit_bias or {}).items()} | others.pop("bias", {}),
            stop=stop,
            stop_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            top_logprobs=top_logprobs,
            think_budget=think_budget,
            **others,
        )

    def structure(self) -> Structure | None:
        """What the answer must look like. Raises ApiError where it is said twice."""
        found = [each for each in (*self._formats(), *self._structured(), *self._guided()) if each is not None]
        if len(found) > 1:
            names = ", ".join(name for name, _ in found)
            raise ApiError(400, f"an answer can have one structure, and these ask for several: {names}", param=names)
        return found[0][1] if found else None

    def _formats(self) -> list[tuple[str, Structure] | None]:
        form = self.response_format
        if form is None or form.type == "text":
            return []
        if form.type == "json_object":
            return [("response_format", Structure(kind="json", value={}))]
        if form.json_schema is None or form.json_schema.schema_ is None:
            path = "response_format.json_schema.schema"
            raise ApiError(400, f"{path} is missing", code="missing_field", param=path)
        return [("response_format", Structure(kind="json", value=form.json_schema.schema_))]

    def _structured(self) -> list[tuple[str, Structure] | None]:
        given = self.structured_outputs
        if given is None:
            return []
        whole = "structured_outputs"
        return [
            _json(f"{whole}.json", given.json_),
            (f"{whole}.json_object", Structure(kind="json", value={})) if given.json_object else None,
            _plain(f"{whole}.regex", "regex", given.regex),
            _plain(f"{whole}.choice", "choice", given.choice),
        ]

    def _guided(self) -> list[tuple[str, Structure] | None]:
        return [
            _json("guided_json", self.guided_json),
            _plain("guided_regex", "regex", self.guided_regex),
            _plain("guided_choice", "choice", self.guided_choice),
        ]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _plain(name: str, kind: Literal["regex", "choice"], value: Any) -> tuple[str, Structure] | None:
    return None if value is None else (name, Structure(kind=kind, value=value))


def _json(name: str, schema: dict[str, Any] | str | None) -> tuple[str, Structure] | None:
    """A schema, which some clients send as text."""
    from zaya.serve.protocol.reading import read_json

    if schema is None:
        return None
    if isinstance(schema, str):
        try:
            schema = read_json(schema.encode())
        except ApiError as error:
            raise ApiError(400, f"{name} is not JSON", code="invalid_value", param=name) from error
        if not isinstance(schema, dict):
            raise ApiError(400, f"{name} must be a JSON schema, an object", code="invalid_value", param=name)
    return name, Structure(kind="json", value=schema)
