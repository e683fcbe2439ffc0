"""From logits to a token, and a completion under way: temperature, top-k and top-p, stop ids.

Stands in for the sampler with all settings, whose interface it has: `Sampler.start` makes the state of a completion,
`Sampler.sample` draws for many of them, the caller pushes. Settings that it does not know are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zaya.engine.split import split
from zaya.engine.types import FinishReason, SamplingParams
from zaya.errors import UsageError
from zaya.ops.sampling import batch_draw, batch_probabilities, point
from zaya.text import Tokenizer

KNOWN = ("max_tokens", "temperature", "top_k", "top_p", "stop_ids", "ignore_eos")


class Drawn(NamedTuple):
    """A token for a row."""

    id: int
    logprob: float
    behavior_logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()
    error: UsageError | None = None


class SequenceState:
    """One completion under way."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        seed: int,
        index: int,
        stop_ids: frozenset[int],
        tokenizer: Tokenizer | None,
    ) -> None:
        self.prompt_ids = prompt_ids
        self.params = params
        self.seed = seed
        self.index = index
        self.stop_ids = stop_ids
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self._tokenizer = tokenizer
        self._given = (0, 0)

    def push(self, id: int) -> None:
        """Take in the token that was drawn."""
        self.ids.append(id)
        if id in self.stop_ids:
            self.finish_reason, self.stop_reason = FinishReason.STOP, id
        elif len(self.ids) == self.params.max_tokens:
            self.finish_reason = FinishReason.LENGTH

    def texts(self) -> tuple[str, str]:
        """All reasoning and answer so far."""
        if self._tokenizer is None:
            return "", ""
        return split(self._tokenizer, self.prompt_ids, self.ids)[2:]

    def take(self) -> tuple[str, str]:
        """Reasoning and answer that were decided since the last call; all that is left once it is over."""
        if self._tokenizer is None:
            return "", ""
        _, is_closed, reasoning, answer = split(self._tokenizer, self.prompt_ids, self.ids)
        if self.finish_reason is None:
            answer = answer.rstrip("\ufffd")
            if not is_closed:
                reasoning = reasoning.rstrip("\ufffd").rstrip("\n")
        given, self._given = self._given, (len(reasoning), len(answer))
        return reasoning[given[0] :], answer[given[1] :]


class Sampler:
    """Draws for every completion of an engine."""

    def __init__(
        self,
        vocab_size: int,
        never: Sequence[int],
        stop_ids: frozenset[int],
        tokenizer: Tokenizer | None,
        device: torch.device | str,
    ) -> None:
        self.vocab_size = vocab_size
        self.stop_ids = stop_ids
        self.tokenizer = tokenizer
        self._never = torch.tensor(list(never), dtype=torch.long, device=device)

    def start(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, seed: int = 0, index: int = 0
    ) -> SequenceState:
        """Completion `index` of a request. Raises UsageError for settings that are not known."""
        plain = SamplingParams(**{name: getattr(params, name) for name in KNOWN})
        if params != plain:
            raise UsageError(f"of the settings only these are known yet: {', '.join(KNOWN)}")
        stop_ids = frozenset(params.stop_ids) if params.ignore_eos else self.stop_ids.union(params.stop_ids)
        return SequenceState(prompt_ids, params, seed=seed, index=index, stop_ids=stop_ids, tokenizer=self.tokenizer)

    def sample(
        self,
        logits: Float[Tensor, "rows vocab"],
        states: Sequence[SequenceState],
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> list[Drawn]:
        """A token for each row. Row i continues `states[i]` as if `drafts[i]` had been pushed before."""
        device, vocab = logits.device, logits.shape[1]
        logits = logits.index_fill(1, self._never, -torch.inf)
        is_good = logits.max(-1).values.isfinite()
        logits = logits.masked_fill(~is_good[:, None], 0.0)
        params = [state.params for state in states]
        temperature = torch.tensor([p.temperature for p in params], dtype=torch.float32, device=device)
        top_k = top_p = None
        if any(p.top_k is not None or p.top_p < 1 for p in params):
            top_k = torch.tensor([vocab if p.top_k is None else p.top_k for p in params], device=device)
            top_p = torch.tensor([p.top_p for p in params], dtype=torch.float32, device=device)
        probs = batch_probabilities(logits, temperature, top_k, top_p)
        points = [
            point(state.seed, state.index, len(state.prompt_ids) + len(state.ids) + (len(drafts[i]) if drafts else 0))
            for i, state in enumerate(states)
        ]
        ids = batch_draw(probs, torch.tensor(points, dtype=torch.float64, device=device))
        logprobs = logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
        behavior = probs.gather(1, ids[:, None]).squeeze(1).log()
        found = map(Drawn, ids.tolist(), logprobs.tolist(), behavior.tolist())
        wrong = UsageError(
            "the model's logits are not numbers", hint="its weights are damaged, or were trained to be so"
        )
        return [d if good else d._replace(error=wrong) for d, good in zip(found, is_good.tolist(), strict=True)]
