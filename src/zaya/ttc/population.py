"""One question and its population: who reads whom, what each is asked, what came back.

A pure state machine without a clock: whoever drives it (`ttc.rsa`) asks what a rollout needs and says how it ended.
Everything drawn is a function of seed, question, round and worker, and a failed rollout is replaced in a draw by the
next one of an order that was drawn before anything began. So the result depends on which rollouts fail, never on the
order in which they end. Source: spec markovian-rsa 3.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zaya.core.rng import derive_seed
from zaya.engine.types import Completion, FinishReason, Request, SamplingParams, Structure
from zaya.errors import UsageError
from zaya.text import Tokenizer, render
from zaya.text.messages import normalize_messages
from zaya.ttc.config import RsaConfig
from zaya.ttc.prompts import aggregation_messages, fitted
from zaya.ttc.tails import carry, last_ids
from zaya.ttc.types import Candidate, Round
from zaya.ttc.vote import Extract

_BYTES = 4
"""Of a token, where nobody can say: most texts have about so many."""

Question = str | Sequence[Mapping[str, Any]]
"""A question, or a conversation that ends with one."""


@dataclass(slots=True, eq=False)
class Rollout:
    """One rollout: what it reads, and how it ended."""

    round: int
    worker: int
    seed: int
    """Names its stream."""
    sources: tuple[int, ...] | None = None
    """Workers of the round before whose tails it reads; None until that is known."""
    completion: Completion | None = None
    """What came back; of a chain that had ended before, that."""
    lost: str | None = None
    """Why it failed for good."""
    tail: str = ""
    """What it hands on."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    begun: float = 0.0
    """Seconds since the start of the run."""
    ended: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.completion is not None or self.lost is not None


class Population:
    """The rollouts of one question, round by round."""

    def __init__(
        self,
        question: Question,
        seed: int,
        config: RsaConfig,
        tokenizer: Tokenizer | None,
        context: int | None = None,
        structure: Structure | None = None,
    ) -> None:
        """`context`: tokens that the model can read and write. Without a tokenizer lengths of prompts are estimates,
        and tails are counted by the server's tokens. `structure` is that of answers of the last round; before it the
        model is free. Raises UsageError for a question that is too long."""
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
        self.messages = normalize_messages(messages)
        if self.messages and not str(self.messages[-1].get("content", "")).strip():
            raise UsageError("the question is empty")
        self.config = config
        self.tokenizer = tokenizer
        self.structure = structure
        self.digest = _digest(self.messages)
        self.name = (seed, "rsa", self.digest)
        self.rounds: list[list[Rollout]] = [
            [
                Rollout(round, worker, derive_seed(*self.name, "rollout", round, worker))
                for worker in range(config.workers(round))
            ]
            for round in range(config.rounds + 1)
        ]
        self._orders: dict[int, list[list[int]]] = {}
        if config.continuation == "prefill" and tokenizer is None:
            raise UsageError("continuation = 'prefill' needs the model's tokenizer", hint="or continuation = 'prompt'")
        self.question_ids = () if tokenizer is None else tuple(render(tokenizer, self.messages).ids)
        self.question_tokens = self._length(self.messages)
        self.frame = self._length(aggregation_messages(self.messages, [""] * config.fan_in))
        """Tokens of an aggregation prompt without the tails."""
        self._check_room(context)

    # ----- who reads whom

    def sources(self, rollout: Rollout, *, now: bool = False) -> tuple[int, ...] | None:
        """Whose tails a rollout reads; None where that is not known yet. `now`: of those that have ended by now.

        Empty for a question that is asked as it is: in the first round, and where a chain by itself has nothing to go
        on with.
        """
        if rollout.round == 0:
            return ()
        before = self.rounds[rollout.round - 1]
        if self.config.fan_in == 1:
            own = before[rollout.worker]
            return None if not own.is_over else (own.worker,) if own.tail else ()
        chosen = []
        for worker in self._order(rollout.round)[rollout.worker]:
            if before[worker].tail:
                chosen.append(worker)
            elif not before[worker].is_over and not now:
                return None
            if len(chosen) == self.config.fan_in:
                break
        return tuple(self._arranged(rollout.round, chosen))

    def is_over(self, round: int) -> bool:
        return all(rollout.is_over for rollout in self.rounds[round])

    def has_quorum(self, round: int) -> bool:
        over = sum(rollout.is_over for rollout in self.rounds[round])
        return over >= math.ceil(self.config.quorum * len(self.rounds[round]))

    def hands_on(self, round: int) -> bool:
        """Whether the next round has anything to read, or goes on without."""
        alive = [rollout for rollout in self.rounds[round] if rollout.completion is not None]
        return any(rollout.tail for rollout in alive)

    def _order(self, round: int) -> list[list[int]]:
        """For each worker of a round, all workers of the round before, in the order in which it would read them."""
        if round in self._orders:
            return self._orders[round]
        config, workers = self.config, range(self.config.workers(round - 1))
        shown = dict.fromkeys(workers, 0)
        orders = []
        for worker in range(config.workers(round)):
            rng = random.Random(derive_seed(*self.name, "tails", round, worker))
            order = rng.sample(workers, len(workers))
            if config.subset == "balanced":
                order.sort(key=shown.__getitem__)  # stable, so those shown equally often stay in random order
                for chosen in order[: config.fan_in]:
                    shown[chosen] += 1
            orders.append(order)
        self._orders[round] = orders
        return orders

    def _arranged(self, round: int, chosen: list[int]) -> list[int]:
        config = self.config
        if config.order == "index":
            return sorted(chosen)
        if config.order == "frequency":
            popular = Counter(worker for order in self._order(round) for worker in order[: config.fan_in])
            return sorted(chosen, key=lambda worker: (-popular[worker], worker))
        if config.subset == "balanced":  # sorted by how often they were shown, which says something
            random.Random(derive_seed(*self.name, "arranged", round, *sorted(chosen))).shuffle(chosen)
        return chosen

    # ----- what it is asked

    def request(self, rollout: Rollout) -> Request | None:
        """What a rollout whose sources are known is asked; None for a chain that has ended, which goes on as it is."""
        params = self.params(rollout.round)
        assert rollout.sources is not None
        if self.config.continuation == "prefill" and rollout.sources:
            chain = self._chain(rollout)
            if chain is None:
                return None
            return Request(prompt_ids=(*self.question_ids, *chain), params=params, seed=rollout.seed)
        before = self.rounds[rollout.round - 1] if rollout.round else []
        messages = self._prompt([before[worker] for worker in rollout.sources])
        return Request(messages=messages, params=params, seed=rollout.seed)

    def params(self, round: int) -> SamplingParams:
        """How a rollout of a round is drawn."""
        params = self.config.params(round)
        return replace(params, structure=self.structure) if round == self.config.rounds else params

    def weighing(self, readers: Sequence[Rollout], params: Any, seed: int) -> Request:
        """One more prompt, of the tails of these."""
        return Request(messages=self._prompt(readers), params=params, seed=seed)

    def _prompt(self, shown: Sequence[Rollout]) -> list[dict[str, Any]]:
        """The messages that show the tails of these, shortened alike until they fit."""
        if not shown or self.tokenizer is None:
            return aggregation_messages(self.messages, [rollout.tail for rollout in shown])
        messages, _, _ = fitted(
            self.tokenizer,
            self.messages,
            lambda tokens: [self._tail(rollout, tokens) for rollout in shown],
            self.config.carried,
            longest=max(len(rollout.completion.ids) for rollout in shown if rollout.completion),
            frame=self.frame,
            limit=self.config.max_prompt,
        )
        return messages

    def _length(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a prompt; without a tokenizer an estimate."""
        if self.tokenizer is None:
            return sum(len(str(message["content"]).encode("utf-8", "replace")) for message in messages) // _BYTES
        return len(render(self.tokenizer, messages).ids)

    def _tail(self, rollout: Rollout, tokens: int) -> str:
        assert rollout.completion is not None
        if tokens == self.config.carried:
            return rollout.tail
        return carry(self.tokenizer, rollout.completion, self.config.compaction, tokens)

    def _chain(self, rollout: Rollout) -> tuple[int, ...] | None:
        """The ids behind the question where a chain goes on inside its own reasoning; None where that has ended."""
        written: list[int] = []
        for round in reversed(range(rollout.round)):
            part = self.rounds[round][rollout.worker]
            assert part.completion is not None
            if part.completion.is_closed:
                return None
            written[:0] = part.completion.ids
            if not part.sources:
                break
        assert self.tokenizer is not None
        head, tail = self.config.head_tokens, self.config.carried
        if len(written) <= head + tail:
            return tuple(written)
        return (*written[:head], *last_ids(self.tokenizer, written, tail))

    # ----- what came back

    def carried(self, completion: Completion) -> str:
        """What later rounds see of it. It takes a while, and changes nothing: for a thread."""
        return carry(self.tokenizer, completion, self.config.compaction, self.config.carried)

    def accept(self, rollout: Rollout, completion: Completion, tail: str) -> None:
        """A rollout has ended."""
        rollout.prompt_tokens = completion.prompt_tokens
        rollout.cached_tokens = completion.cached_tokens
        rollout.generated_tokens = completion.generated_tokens
        self.restore(rollout, completion, tail)

    def restore(self, rollout: Rollout, completion: Completion, tail: str) -> None:
        """A rollout ended earlier, and what it cost was counted then."""
        rollout.completion, rollout.tail = completion, tail

    def carry_on(self, rollout: Rollout) -> None:
        """A chain that has ended is, in this round too, what it was; it costs nothing."""
        before = self.rounds[rollout.round - 1][rollout.worker]
        rollout.completion, rollout.tail = before.completion, before.tail

    def record(self, round: int, extract: Extract) -> Round:
        """What a round did, as far as it has."""
        rollouts = self.rounds[round]
        ended = [rollout for rollout in rollouts if rollout.is_over]
        begun = min((rollout.begun for rollout in ended), default=0.0)
        return Round(
            candidates=tuple(self.candidate(rollout, extract) for rollout in rollouts if rollout.completion),
            requests=len(rollouts),
            wall_s=max((rollout.ended for rollout in ended), default=0.0) - begun,
            lost=dict(Counter(rollout.lost for rollout in ended if rollout.lost is not None)),
        )

    def candidate(self, rollout: Rollout, extract: Extract) -> Candidate:
        completion = rollout.completion
        assert completion is not None
        params = self.config.params(min(rollout.round, self.config.rounds))
        is_forced = params.think_budget is not None and len(completion.reasoning_ids) >= params.think_budget
        return Candidate(
            worker=rollout.worker,
            text=completion.text,
            reasoning=completion.reasoning,
            answer=extract(completion.text) if completion.text else None,
            is_finished=completion.finish_reason is FinishReason.STOP,
            is_forced=is_forced,
            is_approximate=completion.is_approximate,
            prompt_tokens=rollout.prompt_tokens,
            cached_tokens=rollout.cached_tokens,
            generated_tokens=rollout.generated_tokens,
            tail=rollout.tail,
            sources=rollout.sources or (),
            seconds=rollout.ended - rollout.begun,
        )

    def _check_room(self, context: int | None) -> None:
        """Before anything is asked, not in the last round."""
        config = self.config
        if config.rounds and self.frame > config.max_prompt:
            raise UsageError(
                f"the question is too long: {self.frame:,} tokens in a prompt of at most {config.max_prompt:,}",
                hint="a prompt that shows attempts has room for fan_in * tail_tokens and 4,096 more",
            )
        if context is None:
            return
        longest = self.question_tokens + config.params(0).max_tokens
        for round in range(1, config.rounds + 1):
            shown = self.frame + config.fan_in * config.carried
            if config.continuation == "prefill":
                shown = self.question_tokens + config.head_tokens + config.carried
            longest = max(longest, shown + config.params(round).max_tokens)
        if longest > context:
            raise UsageError(
                f"the question and what is thought about it may take {longest:,} tokens, and the model's context "
                f"holds {context:,}",
                hint="ask a shorter question, or lower think_budget, final_budget, fan_in or tail_tokens",
            )


def _digest(messages: Sequence[Mapping[str, Any]]) -> str:
    """Names a question by its content."""
    text = json.dumps(messages, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
