"""Runs of Markovian RSA that nobody computed: the events of a stream and the block at its end, of any size.

Agreement grows from round to round, as it should; the shapes are those of `zaya.serve.progress`, and a test compares
them with a recorded run.
"""

from __future__ import annotations

import random
from typing import Any

ANSWERS = ["140", "130", "153", "40", "141", r"\frac{280}{2}", "14", "1400", "104", "410"]


def run(
    population: int = 16,
    rounds: int = 2,
    *,
    fan_in: int = 4,
    final_workers: int | None = None,
    budget: int = 16_384,
    tail: int = 4096,
    seed: int = 1,
    answers: list[str] | None = None,
    with_candidates: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Events in the order of time, and the `rsa` block."""
    rng = random.Random(seed)
    words = answers or ANSWERS
    fan_in = min(fan_in, population)
    sizes = [population] * rounds + [final_workers or population]
    settings = {
        "population": population, "fan_in": fan_in, "rounds": rounds, "think_budget": budget, "tail_tokens": tail,
        "final_budget": budget, "compaction": "tail", "final_workers": final_workers, "preset": "rsa_16k_4k",
    }  # fmt: skip
    plan = [{"workers": size, "budget": budget} for size in sizes]
    events: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    at = 0.0
    for number, size in enumerate(sizes):
        right = 0.35 + 0.5 * number / max(1, rounds)
        rollouts: list[dict[str, Any]] = []
        latest = at
        for worker in range(size):
            sources = rng.sample(range(population), fan_in) if number else []
            begun = at + 0.4 * rng.random()
            tokens = min(budget, int(budget * (0.25 + 0.6 * rng.random() ** 0.7) / (1 + 0.4 * number)) + 1)
            is_cut = not number and rng.random() < 0.2
            tokens = budget if is_cut else tokens
            ended = begun + 30 * tokens / budget
            latest = max(latest, ended)
            group = None if is_cut else 0 if rng.random() < right else rng.randrange(1, len(words))
            place = {"round": number, "worker": worker}
            one = {
                "worker": worker, "sources": sources, "group": group, "is_finished": not is_cut, "is_forced": False,
                "prompt_tokens": 60 + len(sources) * tail, "generated_tokens": tokens,
            }  # fmt: skip
            rollouts.append(one)
            events.append({"kind": "start", "at": begun, **place, "sources": sources})
            for step in range(1, 60):
                when = begun + 0.5 * step
                if when >= ended:
                    break
                grown = int(tokens * (when - begun) / (ended - begun))
                events.append({"kind": "grow", "at": when, **place, "tokens": grown, "is_answering": False})
            answer = None if group is None else words[group]
            end = {"kind": "end", "at": ended, **place, "group": group}
            if with_candidates:
                reasoning = f"Attempt {worker} of round {number} thinks.\n" * 6 + "So it is what it is."
                end["candidate"] = {
                    **{name: one[name] for name in one if name != "group"}, "answer": answer, "is_approximate": False,
                    "cached_tokens": 0, "text": "" if answer is None else f"It is \\boxed{{{answer}}}.",
                    "reasoning": reasoning, "tail": "...thinks.\nSo it is what it is.", "seconds": ended - begun,
                }  # fmt: skip
                one["candidate"] = end["candidate"]
            else:
                end |= {name: one[name] for name in one if name not in ("worker", "group")} | {"answer": answer}
            events.append(end)
        counts = _counts(rollouts, latest - at)
        events.append({"kind": "round", "at": latest, "round": number, **counts})
        told.append({**counts, "budget": budget, "rollouts": rollouts})
        at = latest
    events.sort(key=lambda event: (event["at"], event["kind"] == "round"))
    last = told[-1]["rollouts"]
    found = [one["group"] for one in last if one["group"] is not None]
    tally = sorted({group: found.count(group) for group in found}.items(), key=lambda each: -each[1])
    best = next((one for one in last if tally and one["group"] == tally[0][0]), last[0])
    answer = None if best["group"] is None else words[best["group"]]
    chosen = {"round": rounds, "worker": best["worker"]}
    how = "single" if len(last) == 1 else "majority"
    events.append({"kind": "choice", "at": at, **chosen, "selection": how, "answer": answer})
    for each in told:
        if with_candidates:
            each["candidates"] = [one.pop("candidate") for one in each["rollouts"]]
    block = {
        "answer": answer, "selection": how, "chosen": chosen, "partial": False, "stopped": None, "closing": None,
        "tally": [{"answer": words[group], "count": count} for group, count in tally], "rounds": told,
        "answers": [None if one["group"] is None else words[one["group"]] for one in last], "groups": words,
        "settings": settings, "stages": rounds + 1, "warnings": [],
    }  # fmt: skip
    return [{"kind": "plan", "at": 0.0, "rounds": plan, "settings": settings}, *events], block


def _counts(rollouts: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "requests": len(rollouts), "prompt_tokens": sum(one["prompt_tokens"] for one in rollouts), "cached_tokens": 0,
        "generated_tokens": sum(one["generated_tokens"] for one in rollouts), "wall_s": seconds, "median_s": seconds,
        "longest_s": seconds, "finished": sum(one["is_finished"] for one in rollouts),
        "truncated": sum(not one["is_finished"] for one in rollouts), "lost": {},
    }  # fmt: skip
