"""What a chat says of Markovian RSA: the object `rsa`, or the flat fields of Zyphra's proxy.

The keys of `rsa` are spec markovian-rsa 8.1 and the rest of `ttc.config.RsaConfig`; the flat fields and what they are
where nobody gives them are research runtimes.md 6.1. What they come to is decided in `serve.planning`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, Body, Name, no_op
from zaya.ttc.config import Barrier, Continuation, Cut, Order, Subset
from zaya.ttc.tails import Compaction

Few = Annotated[int, Field(ge=1, le=MOST_INT)]
Tokens = Annotated[int, Field(ge=1, le=MOST_INT)]
Rounds = Annotated[int, Field(ge=0, le=64)]
Temperature = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(gt=0, le=1)]


class RsaBody(Body):
    """Markovian RSA: how many rollouts, how long, what they see of each other, and how the answer is chosen."""

    preset: Name | None = None
    """What the rest is taken from; by default the server's."""
    population: Few | None = None
    fan_in: Few | None = None
    rounds: Rounds | None = None
    """Rounds of aggregation; there is one stage more."""
    think_budget: Tokens | None = None
    tail_tokens: Tokens | None = None
    final_budget: Tokens | None = None
    """By default what the chat says as max_tokens, else the preset's."""
    answer_reserve: Tokens | None = None
    compaction: Compaction | None = None
    subset: Subset | None = None
    order: Order | None = None
    cut: Cut | None = None
    continuation: Continuation | None = None
    head_tokens: Annotated[int, Field(ge=0, le=MOST_INT)] | None = None
    barrier: Barrier | None = None
    quorum: Part | None = None
    temperature: Temperature | None = None
    """Of all rounds, as top_p, top_k and min_p are; by default the chat's, else the preset's."""
    top_p: Part | None = None
    top_k: Few | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    final_temperature: Temperature | None = None
    final_top_p: Part | None = None
    final_top_k: Few | None = None
    final_workers: Few | None = None
    """By default 1; all of the population where `selection` asks for a choice among several."""
    selection: Literal["auto", "majority", "aggregate", "single", "random"] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    """By default the chat's."""
    max_concurrency: Few | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """Then the best there is becomes the answer."""
    retries: Annotated[int, Field(ge=0, le=10)] | None = None
    return_candidates: bool | None = None
    """Texts and tails of all rollouts."""


class ProxyFields(Body):
    """Markovian RSA in the words of Zyphra's proxy. One of these that is not null asks for it."""

    rsa_t: Annotated[int, Field(ge=-MOST_INT, le=64)] | None = None
    """By default 8. 0 and less is an ordinary chat."""
    rsa_k: Few | None = None
    """By default 4."""
    rsa_n: Few | None = None
    """By default n, else 32."""
    rsa_tail_window: bool | None = None
    rsa_use_tail_window: bool | None = None
    tail_window_len: Few | None = None
    """By default 4,096. The proxy counts words; here they are tokens."""
    rsa_tail_window_len: Few | None = None
    rsa_summarize: bool | None = None
    summarize: bool | None = None
    summary_prompt: str | None = None
    short_resp_len: Few | None = None
    """By default 32,768: tokens of a rollout, not in the last round."""
    rsa_short_resp_len: Few | None = None
    use_pacore: bool | None = None
    rsa_final_n: Annotated[int, Field(ge=0, le=MOST_INT)] | None = None
    """By default 1; 0 is as many as rsa_n."""
    final_aggregation_prompts: Annotated[int, Field(ge=0, le=MOST_INT)] | None = None
    final_temperature: Temperature | None = None
    """By default 0.6."""
    final_top_p: Part | None = None
    """By default 0.95."""
    final_top_k: Annotated[int, Field(ge=-1, le=MOST_INT)] | None = None
    """By default 40; with -1 and 0 that of the other rounds."""
    return_aggregation_prompt: bool | None = None
    return_rsa_metadata: bool | None = None
    rsa_max_concurrency: Annotated[int, Field(ge=0, le=MOST_INT)] | None = None
    """By default 0: no bound but the server's."""
    rsa_debug: Any = no_op()

    @property
    def proxy_fields(self) -> dict[str, Any]:
        """Those that are given."""
        given = {name: getattr(self, name) for name in ProxyFields.model_fields}
        return {name: value for name, value in given.items() if value is not None}

    def proxy_value(self, default: Any, *names: str) -> Any:
        """Of a field that has several names. Raises ApiError where they differ."""
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if len(set(given.values())) > 1:
            said = " and ".join(given)
            raise ApiError(400, f"{said} say different things", code="invalid_value", param=next(iter(given)))
        return next(iter(given.values()), default)
