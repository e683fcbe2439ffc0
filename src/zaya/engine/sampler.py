"""From the logits of a pass to one token a row, as each row's settings say.

    1. ids that have no token are barred; the softmax of what is left is the model's own distribution, whose
       log-probabilities every token is returned with
    2. rows that want it: penalties, logit_bias, then what a constraint or min_tokens bars
    3. temperature, top_k, top_p, min_p (ops.sampling); this is the distribution that is drawn from
    4. the draw, at a point that is a function of seed, completion and position alone
    5. rows whose reasoning has used up its budget take the token that is due instead

Rows that want a step are gathered, go through it together, and are put back; rows of the model's own distribution, as
in reinforcement learning, pay for none of it. A row that has gone wrong carries its error and harms no other.

A draw depends on logits, state and position and on nothing else, so speculation is exact without further ado: rows
for several positions of one sequence are drawn in one call, each with the `drafts` before it, and a draft token is
right where it equals the token that was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zaya.engine.state import Constraint, SequenceState
from zaya.engine.thinking import Thinking
from zaya.engine.types import SamplingParams
from zaya.errors import UsageError
from zaya.ops.sampling import draw_rows, log_sums, penalize, points
from zaya.text import Tokenizer


class Drawn(NamedTuple):
    """A token for a row. A named tuple, because every step makes one for each row."""

    id: int
    logprob: float
    """Under the model's own distribution: all ids that have a token, temperature 1, before any setting."""
    behavior_logprob: float
    """Under the distribution that it was drawn from; 0 for a token that was forced."""
    top_ids: tuple[int, ...] = ()
    """The `top_logprobs` likeliest ids of the model's own distribution, best first."""
    top_logprobs: tuple[float, ...] = ()
    error: UsageError | None = None
    """Why nothing could be drawn; the other fields mean nothing then."""


class _Row(NamedTuple):
    """A place in the batch that wants more than the model's own distribution."""

    at: int
    state: SequenceState
    draft: Sequence[int]
    forced: int | None

    @property
    def is_early(self) -> bool:
        return len(self.state.ids) + len(self.draft) < self.state.params.min_tokens

    @property
    def is_edited(self) -> bool:
        """Whether its logits are changed before they become probabilities."""
        state = self.state
        return state.seen is not None or bool(state.params.logit_bias) or self.is_early or state.is_constrained


class Sampler:
    """Draws for every completion of an engine. It keeps nothing between two calls."""

    def __init__(
        self,
        vocab_size: int,
        never: Sequence[int],
        stop_ids: frozenset[int],
        tokenizer: Tokenizer | None,
        device: torch.device | str,
    ) -> None:
        """`never`: ids that are not drawn, such as the model's padding rows. `stop_ids`: those that end a turn."""
        self.vocab_size = vocab_size
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self._never = torch.tensor(list(never), dtype=torch.long, device=device)

    def start(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        seed: int = 0,
        index: int = 0,
        constraint: Constraint | None = None,
    ) -> SequenceState:
        """Completion `index` of a request, before its first token. `constraint` is what `params.structure` asks for.

        Raises UsageError for settings that this model or tokenizer cannot serve.
        """
        assert params.structure is None or constraint is not None
        self._check(params, constraint)
        thinking = None
        if self.tokenizer is not None and (params.think_budget is not None or constraint is not None):
            thinking = Thinking.after(self.tokenizer, prompt_ids, params.think_budget)
        if params.think_budget is not None and thinking is None:
            raise UsageError(
                f"think_budget needs a tokenizer with the tags of thinking: {params.think_budget}",
                hint="leave think_budget out, or give the engine the tokenizer of a ZAYA1 chat model",
            )
        stop_ids = frozenset(params.stop_ids) if params.ignore_eos else self.stop_ids.union(params.stop_ids)
        return SequenceState(
            prompt_ids,
            params,
            point=points(seed, index),
            stop_ids=stop_ids,
            tokenizer=self.tokenizer,
            thinking=thinking,
            constraint=constraint,
        )

    def _check(self, params: SamplingParams, constraint: Constraint | None) -> None:
        for name, ids in (("logit_bias", params.logit_bias), ("stop_ids", params.stop_ids)):
            if bad := [id for id in ids if not 0 <= id < self.vocab_size]:
                raise UsageError(f"{name} has ids that are not from 0 to {self.vocab_size - 1}: {bad[0]}")
        drawable = self.vocab_size - len(self._never)
        if params.top_logprobs > drawable:
            raise UsageError(f"top_logprobs is at most the number of tokens, {drawable}: {params.top_logprobs}")
        if params.stop and self.tokenizer is None:
            raise UsageError(f"stop strings need a tokenizer: {params.stop}", hint="Engine(model, tokenizer)")
        if constraint is not None and params.ignore_eos:
            raise UsageError("a structure ends with the turn, which ignore_eos forbids", hint="leave one of them out")

    @torch.inference_mode()
    def sample(
        self,
        logits: Float[Tensor, "rows vocab"],
        states: Sequence[SequenceState],
        drafts: Sequence[Sequence[int]] | None = None,
        *,
        in_place: bool = False,
    ) -> list[Drawn]:
        """A token for each row, which the caller pushes onto its state.

        Row i continues `states[i]` as if `drafts[i]` had been pushed before; a state with a constraint takes no drafts.
        With `in_place` the logits may be written over: a copy of many rows takes longer than drawing from them.
        """
        rows = [
            _row(at, state, () if drafts is None else drafts[at])
            for at, state in enumerate(states)
            if not state.is_plain
        ]
        own = logits.float()
        own = own.index_fill_(1, self._never, -torch.inf) if in_place else own.index_fill(1, self._never, -torch.inf)
        # before the settings change them
        theirs = own[[row.at for row in rows]] if rows else None
        lengths = [len(state.prompt_ids) + len(state.ids) for state in states]
        if drafts is not None:
            lengths = [length + len(draft) for length, draft in zip(lengths, drafts, strict=True)]
        at = [state.point(length) for state, length in zip(states, lengths, strict=True)]
        where = torch.tensor(at, dtype=torch.float64, device=logits.device)
        ids, behavior = draw_rows(own, where, **self._settings(own, states, rows))
        # Where nothing was cut or changed, what was drawn from is the model's own distribution.
        drawn = [Drawn(id, logprob, logprob) for id, logprob in zip(ids.tolist(), behavior.tolist(), strict=True)]
        before: dict[int, Tensor] = {}
        if theirs is not None:
            before = {row.at: line for row, line in zip(rows, theirs, strict=True)}
            for row, found in zip(rows, _with_settings(rows, drawn, theirs), strict=True):
                drawn[row.at] = found
        for row, found in enumerate(drawn):
            if not (math.isfinite(found.logprob) and math.isfinite(found.behavior_logprob)):
                drawn[row] = found._replace(error=self._error(before.get(row, logits[row])))
        return drawn

    def _settings(
        self, logits: Float[Tensor, "rows vocab"], states: Sequence[SequenceState], rows: list[_Row]
    ) -> dict[str, Tensor]:
        """How each row is drawn, where not all are plain. The logits of rows whose settings change them are written
        over."""
        if not rows:
            return {}
        device = logits.device
        if edited := [row for row in rows if row.is_edited]:
            at = torch.tensor([row.at for row in edited], device=device)
            logits.index_copy_(0, at, self._edited(logits[at], edited))
        params = [state.params for state in states]
        settings: dict[str, Tensor] = {}

        def set_for_all(name: str, values: list[float] | list[int], dtype: torch.dtype = torch.float32) -> None:
            settings[name] = torch.tensor(values, dtype=dtype, device=device)

        if any(p.temperature != 1 for p in params):
            set_for_all("temperature", [p.temperature for p in params])
        if any(p.top_k is not None for p in params):
            size = self.vocab_size
            set_for_all("top_k", [size if p.top_k is None else min(p.top_k, size) for p in params], torch.long)
        if any(p.top_p < 1 for p in params):
            set_for_all("top_p", [p.top_p for p in params])
        if any(p.min_p > 0 for p in params):
            set_for_all("min_p", [p.min_p for p in params])
        return settings

    def _edited(self, logits: Float[Tensor, "rows vocab"], rows: list[_Row]) -> Float[Tensor, "rows vocab"]:
        """The logits behind penalties, bias, constraint and min_tokens, in place."""
        _penalize(logits, rows)
        bias = [(i, id, value) for i, row in enumerate(rows) for id, value in row.state.params.logit_bias.items()]
        if bias:
            at, ids, values = zip(*bias, strict=True)
            index = torch.tensor([at, ids], device=logits.device).unbind()
            logits.index_put_(index, torch.tensor(values, dtype=torch.float32, device=logits.device), accumulate=True)
        masks = {i: mask for i, row in enumerate(rows) if (mask := self._mask(row)) is not None}
        if masks:
            at = torch.tensor(list(masks), device=logits.device)
            allowed = torch.from_numpy(np.stack(list(masks.values()))).to(logits.device)
            logits.index_copy_(0, at, logits[at].masked_fill_(~allowed, -torch.inf))
        barred = [
            (i, id) for i, row in enumerate(rows) if row.is_early and i not in masks for id in self._ends(row.state)
        ]
        if barred:
            index = torch.tensor(barred, device=logits.device).unbind(1)
            logits.index_put_(index, torch.tensor(-torch.inf, device=logits.device))
        return logits

    def _mask(self, row: _Row) -> np.ndarray | None:
        """The ids that a row's constraint leaves; None for all."""
        state, constraint = row.state, row.state.constraint
        if constraint is None or not state.is_constrained:
            return None
        if constraint.is_complete():
            mask = np.zeros(self.vocab_size, dtype=bool)
            mask[[id for id in self.stop_ids if id < self.vocab_size]] = True
            return mask
        mask = constraint.mask()
        if mask is not None and row.is_early:
            longer = mask.copy()
            longer[self._ends(state)] = False
            # an answer that can only end may do so before min_tokens
            return longer if longer.any() else mask
        return mask

    def _ends(self, state: SequenceState) -> list[int]:
        # a config may name an end that the model has no row for
        return [id for id in state.stop_ids if id < self.vocab_size]

    def _error(self, logits: Float[Tensor, " vocab"]) -> UsageError:
        """Why a row has no distribution: the model's fault, or that of the settings."""
        if not logits.float().index_fill(0, self._never, -torch.inf).max().isfinite():
            return UsageError(
                "the model's logits are not numbers", hint="its weights are damaged, or were trained to be so"
            )
        return UsageError(
            "every id is barred from being drawn, or the penalties leave no finite logits",
            hint="look at logit_bias, the penalties and the structure",
        )


def _row(at: int, state: SequenceState, draft: Sequence[int]) -> _Row:
    assert state.constraint is None or not draft, "what a constraint allows behind a draft is not known"
    return _Row(at, state, draft, None if state.thinking is None else state.thinking.ahead(draft).due)


def _penalize(logits: Float[Tensor, "rows vocab"], rows: list[_Row]) -> None:
    at: list[int] = []
    ids: list[int] = []
    counts: list[int] = []
    for i, row in enumerate(rows):
        seen = row.state.seen
        if seen is not None:
            if row.draft:
                seen = seen.copy()
                seen.update(row.draft)
            at += [i] * len(seen)
            ids += seen.keys()
            counts += seen.values()
    if not ids:
        return
    where, what, often = torch.from_numpy(np.array([at, ids, counts])).to(logits.device).unbind()
    params = [row.state.params for row in rows]
    settings = [[p.repetition_penalty, p.presence_penalty, p.frequency_penalty] for p in params]
    repetition, presence, frequency = torch.tensor(settings, dtype=torch.float32, device=logits.device).unbind(1)
    penalize(logits, where, what, often, repetition, presence, frequency)


def _with_settings(rows: list[_Row], drawn: list[Drawn], logits: Float[Tensor, "rows vocab"]) -> list[Drawn]:
    """What was drawn for `rows`: with what is forced, their own log-probabilities, and the likeliest ids."""
    ids = [drawn[row.at].id if row.forced is None else row.forced for row in rows]
    sums = log_sums(logits)
    logprobs = (logits.gather(1, torch.tensor(ids, device=logits.device)[:, None]).squeeze(1) - sums).tolist()
    behavior = [drawn[row.at].behavior_logprob if row.forced is None else 0.0 for row in rows]
    found = [Drawn(*values) for values in zip(ids, logprobs, behavior, strict=True)]
    wanted = {i: row.state.params.top_logprobs for i, row in enumerate(rows) if row.state.params.top_logprobs}
    if wanted:
        values, index = logits[list(wanted)].topk(max(wanted.values()))
        values = values - sums[list(wanted), None]
        for (i, k), top, top_ids in zip(wanted.items(), values.tolist(), index.tolist(), strict=True):
            found[i] = found[i]._replace(top_ids=tuple(top_ids[:k]), top_logprobs=tuple(top[:k]))
    return found
