"""A solution for programs.

1. Rounds and usage are those of the solution, the call that weighed the candidates among them; stages count sampling.
2. Texts and tails are there on request, and all of it is JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from tests.ttc.test_rsa import SMALL, TOKENIZER, tagging
from zaya.engine.scripted import ScriptedCompleter
from zaya.ttc.report import as_mapping
from zaya.ttc.rsa import solve


def test_a_solution_for_programs() -> None:
    solution = solve("one?", ScriptedCompleter(TOKENIZER, tagging), TOKENIZER, config=SMALL, selection="aggregate")
    found = as_mapping(solution, SMALL, seed=7, retries=2)
    assert found["stages"] == len(found["rounds"]) == 4
    assert found["closing"]["requests"] == 1
    for name, total in asdict(solution.usage).items():
        assert total == sum(round[name] for round in (*found["rounds"], found["closing"]))
    assert [round["requests"] for round in found["rounds"]] == [6, 6, 6, 6]
    assert found["answers"] == [candidate.answer for candidate in solution.candidates]
    assert [(row["answer"], row["count"]) for row in found["tally"]] == list(solution.tally)
    assert found["settings"] == {**asdict(SMALL), "seed": 7, "retries": 2}
    assert "candidates" not in found["rounds"][0]
    whole = json.loads(json.dumps(as_mapping(solution, SMALL, seed=7, with_candidates=True)))
    texts = [[candidate["text"] for candidate in round["candidates"]] for round in whole["rounds"]]
    assert texts == [[candidate.text for candidate in round.candidates] for round in solution.rounds]
    assert whole["rounds"][0]["candidates"][2]["tail"] == solution.rounds[0].candidates[2].tail
