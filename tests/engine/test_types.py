"""Settings that mean nothing are refused where they are written down, with the name and the value."""

from __future__ import annotations

import math

import pytest

from zaya.engine.types import Request, SamplingParams
from zaya.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1: 0"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens must be from 0 to max_tokens: 9, 8"),
        ({"temperature": math.inf}, "temperature must be a finite number: inf"),
        ({"temperature": -0.1}, "temperature must not be negative: -0.1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1: 0.0"),
        ({"top_k": 0}, "top_k must be at least 1: 0"),
        ({"min_p": 1.5}, "min_p must be from 0 to 1: 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0: 0.0"),
        ({"presence_penalty": math.nan}, "presence_penalty must be a finite number: nan"),
        ({"stop": ("end", "")}, "none empty"),
        ({"logit_bias": {3: math.inf}}, "-inf to bar an id"),
        ({"top_logprobs": -1}, "top_logprobs must not be negative: -1"),
        ({"think_budget": -1}, "think_budget must not be negative: -1"),
    ],
)
def test_settings_that_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SamplingParams(**settings)


def test_requests_that_mean_nothing() -> None:
    with pytest.raises(UsageError, match="prompt_ids or messages, one of the two"):
        Request()
    with pytest.raises(UsageError, match="tools are rendered with messages"):
        Request(prompt_ids=[1], tools=[])
    with pytest.raises(UsageError, match="n must be at least 1: 0"):
        Request(prompt_ids=[1], n=0)
