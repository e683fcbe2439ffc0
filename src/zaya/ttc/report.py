"""A solution as plain values, for programs: what came out, what each round did and cost, under which settings.

The names are those of spec markovian-rsa 8.1. Printed by `zaya solve --json`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from zaya.ttc.config import RsaConfig
from zaya.ttc.types import Round, Solution

_COUNTED = (
    "requests", "prompt_tokens", "cached_tokens", "generated_tokens", "wall_s", "median_s", "longest_s", "finished",
    "truncated",
)  # fmt: skip


def as_mapping(
    solution: Solution, config: RsaConfig, *, seed: int, with_candidates: bool = False, **settings: Any
) -> dict[str, Any]:
    """`settings` are of the run, beside the configuration. `with_candidates` adds texts and tails of all rounds."""
    closing = solution.closing
    return {
        "answer": solution.answer,
        "text": solution.text,
        "reasoning": solution.reasoning,
        "selection": solution.selection,
        "tally": [{"answer": answer, "count": count} for answer, count in solution.tally],
        "answers": [candidate.answer for candidate in solution.candidates],
        "partial": solution.partial,
        "stopped": solution.stopped,
        "stages": config.rounds + 1,
        "rounds": [round_mapping(round, with_candidates) for round in solution.rounds],
        "closing": None if closing is None else round_mapping(closing, with_candidates),
        "usage": asdict(solution.usage),
        "settings": {**asdict(config), "seed": seed, **settings},
    }


def round_mapping(round: Round, with_candidates: bool = False) -> dict[str, Any]:
    told = {name: getattr(round, name) for name in _COUNTED} | {"lost": dict(round.lost)}
    if with_candidates:
        told["candidates"] = [asdict(candidate) for candidate in round.candidates]
    return told
