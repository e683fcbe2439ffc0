"""The body of /v1/completions: text or ids to continue, as they are, without the form of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, OneError
from zaya.serve.protocol.sampling import Id, Sampling

Prompt = str | Sequence[int]


class CompletionBody(Sampling):
    """Prompts, and how to continue them."""

    prompt: (
        str
        | Annotated[list[Id], OneError]
        | Annotated[list[str], OneError]
        | Annotated[list[Annotated[list[Id], OneError]], OneError]
    )
    """One prompt or several, each as text or as ids."""
    max_tokens: Annotated[int, Field(ge=0, le=MOST_INT)] | None = None
    """By default 16. 0 draws nothing, and is for `echo`."""
    echo: bool | None = None
    """The text begins with the prompt, and so do its log-probabilities."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Log-probabilities, with so many of the likeliest tokens at each place."""
    add_special_tokens: bool | None = None
    """Whether a text is opened by the token that opens every text; by default it is."""

    @property
    def prompts(self) -> list[Prompt]:
        """Raises ApiError where there are none."""
        given = self.prompt
        one = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        prompts = [given] if one else list(given)
        if not prompts:
            raise ApiError(400, "prompt is an empty list", code="invalid_value", param="prompt")
        return prompts  # type: ignore[return-value]  # what `one` says is more than a type checker sees

    @property
    def token_limit(self) -> int:
        return 16 if self.max_tokens is None else self.max_tokens
