"""From a chat that asks for Markovian RSA to what is done: settings, cut by what the server allows; or why not.

A field of the request goes before a preset, a preset before what the server has. Numbers that go with one that somebody
gave follow it: fan_in a smaller population, tail_tokens a smaller think_budget, answer_reserve a smaller final_budget.
Source: spec markovian-rsa 8.1; for the flat fields research runtimes.md 6.1. Carried out by `serve.rsa`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from zaya.engine.types import Structure
from zaya.errors import ConfigError, UsageError
from zaya.serve.errors import ApiError
from zaya.serve.limits import Limits
from zaya.serve.prompting import in_our_roles
from zaya.serve.protocol.chat import ChatBody
from zaya.serve.protocol.rsa import RsaBody
from zaya.serve.served import Served
from zaya.ttc.config import RsaConfig, resolve
from zaya.ttc.population import Population
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.vote import Selection, check_selection

_SETTINGS = frozenset(field.name for field in fields(RsaConfig))
_OF_CHATS = (
    "tools", "logprobs", "top_logprobs", "return_token_ids", "stop", "stop_token_ids", "min_tokens", "ignore_eos",
    "logit_bias", "presence_penalty", "frequency_penalty", "thinking_token_budget", "reasoning_effort",
    "reasoning", "thinking", "continue_final_message",
)  # fmt: skip
"""Fields that mean nothing to many rollouts, or to all but the last."""
_NOT_OF_THE_PROXY = ("rsa_summarize", "summarize", "summary_prompt", "use_pacore", "return_aggregation_prompt")
"""What the proxy can and this server cannot. PaCoRe's way of handing on is `rsa.compaction` "hybrid"."""
_PART_OF_DEADLINE = 0.95
"""Of the time a request has. The rest is for choosing among what there is by then."""
_SEED_BITS = 48
"""Of a seed that nobody gave. It is told, and JavaScript reads no larger numbers exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is done about one question."""

    body: ChatBody
    messages: Sequence[Mapping[str, Any]]
    preset: str | None
    """None where the request spoke in the words of the proxy."""
    config: RsaConfig
    selection: Selection
    seed: int
    structure: Structure | None
    """Of the answer."""
    max_concurrency: int
    deadline_s: float
    retries: int
    with_candidates: bool
    warnings: tuple[str, ...]
    """What was cut, and what is allowed and hardly meant."""


def planned(served: Served, body: ChatBody) -> Plan:
    """Raises ApiError for what does not go together, or is too long, before anything is drawn."""
    _refuse(body)
    preset, config, run = _in_words_of_the_proxy(body) if body.proxy_fields else _in_our_words(body, served.rsa_preset)
    config, warnings = _cut(config, served.limits)
    messages = [in_our_roles(message) for message in body.messages]
    aggregation_messages(messages, [""])  # what is no question is told as such
    seed = secrets.randbits(_SEED_BITS) if run.seed is None or served.ignore_client_seed else run.seed
    try:
        people = Population(messages, seed, config, served.tokenizer, served.context)
    except UsageError as error:
        raise ApiError(400, str(error), code="context_length_exceeded", param="messages") from None
    served.room(people.question_tokens, None)
    selection = run.selection or "auto"
    try:
        check_selection(selection, config.workers(config.rounds), None, None)
    except UsageError as error:
        raise ApiError(400, str(error), code="invalid_value", param="rsa.selection") from None
    longest = _PART_OF_DEADLINE * served.limits.deadline_s
    return Plan(
        body=body,
        messages=messages,
        preset=preset,
        config=config,
        selection=selection,
        seed=seed,
        structure=body.structure(),
        max_concurrency=min(run.max_concurrency or config.population, config.population),
        deadline_s=longest if run.deadline_s is None else min(run.deadline_s, longest),
        retries=1 if run.retries is None else run.retries,
        with_candidates=bool(run.return_candidates),
        warnings=(*warnings, *config.warnings),
    )


def _refuse(body: ChatBody) -> None:
    """Raises ApiError for a field that would have no effect."""
    if body.num_completions > 1 and not body.proxy_fields:
        raise _not_with_rsa("n", "one answer comes back; rsa.return_candidates has the others")
    for name in _OF_CHATS:
        value = getattr(body, name)
        if value or (name == "thinking_token_budget" and value == 0):  # none at all is a budget as well
            raise _not_with_rsa(name, _INSTEAD.get(name, "leave it out"))
    if body.tool_choice not in (None, "none", "auto"):
        raise _not_with_rsa("tool_choice", _INSTEAD["tools"])
    if body.repetition_penalty not in (None, 1):
        raise _not_with_rsa("repetition_penalty", "leave it out")
    template = body.chat_template_kwargs
    if not body.thinks or (template is not None and template.truncate_history_thinking is not None):
        raise _not_with_rsa("chat_template_kwargs", "every rollout thinks")
    if body.add_generation_prompt is False:
        raise _not_with_rsa("add_generation_prompt", "leave it out")


_INSTEAD = {
    "tools": "rollouts call nothing; ask for the call in a request of its own",
    "thinking_token_budget": "rsa.think_budget says how long a rollout thinks",
    "reasoning_effort": "rsa.think_budget says how long a rollout thinks",
}


def _not_with_rsa(name: str, instead: str) -> ApiError:
    return ApiError(400, f"{name} does not go with rsa: {instead}", code="invalid_value", param=name)


# ----- in whose words


def _in_our_words(body: ChatBody, default: str) -> tuple[str, RsaConfig, RsaBody]:
    match body.rsa:
        case RsaBody() as run:
            param, preset = "rsa.preset", run.preset or default
        case str() as preset:
            param, run = "rsa", RsaBody()
        case _:
            param, preset, run = "rsa", default, RsaBody()
    try:
        base = resolve(preset)
    except UsageError as error:
        raise ApiError(400, str(error), code="invalid_value", param=param) from None
    asked = {**_of_chat(body), **{n: v for n, v in run.model_dump(exclude_none=True).items() if n in _SETTINGS}}
    run = run if run.seed is not None else run.model_copy(update={"seed": body.seed})
    if "final_workers" not in asked and base.final_workers is None and run.selection in (None, "auto", "single"):
        asked["final_workers"] = 1
    return preset, _changed(base, asked), run


def _in_words_of_the_proxy(body: ChatBody) -> tuple[None, RsaConfig, RsaBody]:
    value = body.proxy_value
    for name in _NOT_OF_THE_PROXY:
        if getattr(body, name):
            raise ApiError(400, f"{name} is not offered here; {_SAY_IT}", code="invalid_value", param=name)
    if not value(True, "rsa_use_tail_window", "rsa_tail_window"):
        message = f"rsa_tail_window false is not offered here; {_SAY_IT}"
        raise ApiError(400, message, code="invalid_value", param="rsa_tail_window")
    population = value(body.n or 32, "rsa_n")
    final_top_k = value(40, "final_top_k")
    asked = {
        **_of_chat(body),
        "rounds": value(8, "rsa_t"),
        "population": population,
        "think_budget": value(32_768, "short_resp_len", "rsa_short_resp_len"),
        "final_workers": value(1, "rsa_final_n", "final_aggregation_prompts") or population,
        "final_temperature": value(0.6, "final_temperature"),
        "final_top_p": value(0.95, "final_top_p"),
        "final_top_k": final_top_k if final_top_k > 0 else None,
    }
    if body.rsa_k is not None:
        asked["fan_in"] = body.rsa_k
    tail = value(None, "tail_window_len", "rsa_tail_window_len")
    if tail is not None:
        asked["tail_tokens"] = tail
    config = _changed(RsaConfig(), asked)
    return None, config, RsaBody(max_concurrency=body.rsa_max_concurrency or None, seed=body.seed)


_SAY_IT = "rsa.compaction says what is handed on, and rsa.return_candidates shows it"


def _of_chat(body: ChatBody) -> dict[str, Any]:
    """What a chat says of its one completion, as settings of all rollouts."""
    top_k = body.top_k if body.top_k is not None and body.top_k > 0 else None
    said = {"temperature": body.temperature, "top_p": body.top_p, "top_k": top_k, "min_p": body.min_p}
    said["final_budget"] = body.token_limit
    return {name: value for name, value in said.items() if value is not None}


def _changed(base: RsaConfig, asked: Mapping[str, Any]) -> RsaConfig:
    """Raises ApiError for numbers that do not go together."""
    follow = {
        "fan_in": min(base.fan_in, asked.get("population", base.population)),
        "tail_tokens": min(base.tail_tokens, asked.get("think_budget", base.think_budget)),
        "answer_reserve": max(1, min(base.answer_reserve, asked.get("final_budget", base.final_budget) // 2)),
    }
    try:
        return replace(base, **{**follow, **asked})
    except (ConfigError, UsageError) as error:
        found = re.match(r"rsa\.\w+", error.message)
        raise ApiError(400, str(error), code="invalid_value", param=found[0] if found else "rsa") from None


# ----- what the server allows


def _cut(config: RsaConfig, limits: Limits) -> tuple[RsaConfig, list[str]]:
    """The configuration with a population that is allowed, and what is to be said of that."""
    most = min(limits.max_rsa_population, limits.max_completions, limits.max_pending)
    allowed = _with_population(config, min(config.population, most))
    while most_tokens(allowed) > limits.max_rsa_tokens:
        if allowed.population == 1:
            raise ApiError(
                400,
                f"a population of 1 may draw {most_tokens(allowed):,} tokens, and {limits.max_rsa_tokens:,} are "
                "allowed; lower think_budget, final_budget or rounds",
                code="invalid_value",
                param="rsa",
            )
        allowed = _with_population(config, allowed.population - 1)
    if allowed is config:
        return config, []
    why = f"{most} are allowed" if allowed.population == most else f"{limits.max_rsa_tokens:,} tokens are allowed"
    return allowed, [f"population was lowered from {config.population:,} to {allowed.population}: {why}"]


def _with_population(config: RsaConfig, population: int) -> RsaConfig:
    if population == config.population:
        return config
    final = None if config.final_workers is None else min(config.final_workers, population)
    return replace(config, population=population, fan_in=min(config.fan_in, population), final_workers=final)


def most_tokens(config: RsaConfig) -> int:
    """That may be drawn: by all rounds, and by a call that weighs the last candidates."""
    last, final = config.workers(config.rounds), config.params(config.rounds).max_tokens
    before = sum(config.workers(round) * config.params(round).max_tokens for round in range(config.rounds))
    return before + (last + (last > 1)) * final
