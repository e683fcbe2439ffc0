"""Calls of tools, judged by what they say.

1. A call is right with the function, every argument that is required and the values that may be given; what may be left
   out may be. Texts are equal however they are written, numbers are of their type. Calls have no order.
2. Anything else is wrong: too many or too few calls, another name, an argument that is missing, unknown or of another
   type, a call that is not closed. Where nothing is to be called any call is wrong, and the other way round; so is an
   empty answer.
3. The model is offered the functions through the chat template, with the types of JSON schema, and a conversation is
   asked as one; two questions that differ in their functions are two.
4. The wheel of BFCL is read as an archive: the categories that are covered, by name.
5. Calls that are written from the answers of BFCL score 1 on everything that is asked, and changed ones 0.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.types import SamplingParams
from zaya.envs import registry
from zaya.envs.base import Problem, Status
from zaya.envs.files import bfcl
from zaya.envs.files.base import FileEnvironment
from zaya.envs.files.tools import in_xml, written
from zaya.errors import DataError, UsageError
from zaya.eval.run import evaluate
from zaya.text import byte_tokenizer

WEATHER = {
    "name": "weather.get", "description": "The weather.",
    "parameters": {
        "type": "dict", "required": ["city"],
        "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "limit": {"type": "float"},
            "hours": {"type": "tuple", "items": {"type": "integer"}}, "exact": {"type": "boolean"},
            "place": {"type": "dict"}, "stops": {"type": "array", "items": {"type": "dict"}},
        },
    },
}  # fmt: skip
NOTE = {
    "name": "note",
    "parameters": {"type": "dict", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def asked(tmp_path: Path, *calls: Mapping[str, Any], **changes: Any) -> tuple[FileEnvironment, Problem]:
    row = {"question": "How is the weather?", "function": [WEATHER, NOTE], "ground_truth": list(calls), **changes}
    file = tmp_path / "some.jsonl"
    file.write_text(json.dumps(row) + "\n")
    environment = registry.get(f"tools:{file}")
    assert isinstance(environment, FileEnvironment)
    return environment, environment.problems[0]


def said(*calls: tuple[str, dict[str, Any]]) -> str:
    return "Let me look.\n\n" + "\n".join(in_xml(name, arguments) for name, arguments in calls)


# 1 and 2


@pytest.mark.parametrize(
    ("possible", "right", "wrong"),
    [
        ({"city": ["Ulm", "Ulm, Germany"]}, [{"city": "Ulm"}, {"city": "ulm germany"}], [{}, {"city": "Bonn"}]),
        ({"city": ["St. John's"]}, [{"city": 'st john"s'}], [{"city": "St Johns"}, {"city": ["St. John's"]}]),
        ({"city": ["Ulm"], "days": ["", 3]}, [{"city": "Ulm"}, {"city": "Ulm", "days": 3}],
         [{"city": "Ulm", "days": 2}, {"days": 3}]),
        ({"city": ["Ulm"], "days": [3]}, [{"city": "Ulm", "days": 3}],
         [{"city": "Ulm"}, {"city": "Ulm", "days": True}]),
        ({"city": ["Ulm"]}, [], [{"city": "Ulm", "days": 1}, {"city": "Ulm", "unknown": 1}]),
        ({"city": ["Ulm"], "limit": [2.0]}, [{"city": "Ulm", "limit": 2}, {"city": "Ulm", "limit": 2.0}],
         [{"city": "Ulm", "limit": "much"}, {"city": "Ulm", "limit": 2.5}]),
        ({"city": ["Ulm"], "exact": [True]}, [{"city": "Ulm", "exact": True}],
         [{"city": "Ulm", "exact": False}, {"city": "Ulm", "exact": 1}]),
        ({"city": ["Ulm"], "hours": [[6, 18]]}, [{"city": "Ulm", "hours": [6, 18]}],
         [{"city": "Ulm", "hours": [18, 6]}, {"city": "Ulm", "hours": ["6", "18"]},
          {"city": "Ulm", "hours": [6]}, {"city": "Ulm", "hours": 6}]),
        ({"city": ["Ulm"], "place": [{"lat": [48.4], "name": ["", "Ulm"]}]},
         [{"city": "Ulm", "place": {"lat": 48.4}}, {"city": "Ulm", "place": {"lat": 48.4, "name": "ULM"}}],
         [{"city": "Ulm", "place": {}}, {"city": "Ulm", "place": {"lat": 48.4, "x": 1}}]),
        ({"city": ["Ulm"], "stops": [[{"at": ["Bonn"]}, {"at": ["Kiel"]}]]},
         [{"city": "Ulm", "stops": [{"at": "Bonn"}, {"at": "Kiel"}]}],
         [{"city": "Ulm", "stops": [{"at": "Kiel"}, {"at": "Bonn"}]}, {"city": "Ulm", "stops": [{"at": "Bonn"}]}]),
        ({"city": ["Ulm"], "hours": [[1, 0]]}, [{"city": "Ulm", "hours": [1, 0]}],
         [{"city": "Ulm", "hours": [True, False]}]),
        ({"city": ["", "Ulm"]}, [{"city": ""}, {"city": "Ulm"}], [{}]),  # required, even if nothing may be said
        ({"city": [2, True]}, [{"city": "2"}, {"city": "True"}], [{"city": "3"}]),  # declared as text
    ],
)  # fmt: skip
def test_arguments(
    tmp_path: Path, possible: dict[str, Any], right: list[dict[str, Any]], wrong: list[dict[str, Any]]
) -> None:
    environment, problem = asked(tmp_path, {"weather.get": possible})
    for arguments in right:
        score = environment.score(problem, said(("weather.get", arguments)))
        assert score.correct, (arguments, score.detail)
    for arguments in wrong:
        score = environment.score(problem, said(("weather.get", arguments)))
        assert (score.reward, score.status) == (0, Status.OK), arguments
        assert score.detail


def test_several_calls(tmp_path: Path) -> None:
    environment, problem = asked(
        tmp_path,
        {"weather.get": {"city": ["Ulm", "Bonn"]}},
        {"weather.get": {"city": ["Ulm"]}},
        {"note": {"text": ["x"]}},
    )
    ulm, bonn, note = (("weather.get", {"city": "Ulm"}), ("weather.get", {"city": "Bonn"}), ("note", {"text": "x"}))
    assert environment.score(problem, said(ulm, bonn, note)).correct  # the first one leaves Ulm to the second
    assert environment.score(problem, said(note, bonn, ulm)).correct
    for calls in ((ulm, note), (ulm, bonn, note, note), (bonn, bonn, note), (ulm, note, note), ()):
        score = environment.score(problem, said(*calls))
        assert (score.correct, score.status) == (False, Status.OK), calls


def test_calls_that_are_none(tmp_path: Path) -> None:
    environment, problem = asked(tmp_path, {"note": {"text": ["x"]}})
    whole = said(("note", {"text": "x"}))
    assert environment.score(problem, whole).correct
    for text in (whole.rpartition("</parameter>")[0], whole.rpartition("</function>")[0], whole + "<zyphra_tool_call>"):
        assert environment.score(problem, text).status is Status.BAD_FORMAT, text
    assert not environment.score(problem, "note(text='x')").correct
    assert not environment.score(problem, said(("notes", {"text": "x"}))).correct


def test_nothing_and_anything(tmp_path: Path) -> None:
    environment, problem = asked(tmp_path)
    assert environment.score(problem, "There is no function for that.").correct
    assert not environment.score(problem, said(("note", {"text": "x"}))).correct
    assert environment.score(problem, environment.reference(problem) or "").correct
    assert environment.score(problem, " ").status is Status.BAD_FORMAT  # cut off in thought, it has answered nothing
    environment, problem = asked(tmp_path, ground_truth=bfcl.ANY)
    assert environment.score(problem, said(("note", {"text": "x"}))).correct
    assert not environment.score(problem, "There is no function for that.").correct
    assert environment.reference(problem) is None


# 3


def test_what_is_offered(tmp_path: Path) -> None:
    turn = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is it?"}]
    environment, problem = asked(tmp_path, {"note": {"text": ["x"]}}, question=[turn])
    properties = problem.meta["tools"][0]["function"]["parameters"]["properties"]
    assert [properties[key]["type"] for key in ("limit", "hours", "place")] == ["number", "array", "object"]
    completer = ScriptedCompleter(
        byte_tokenizer(), lambda prompt, seed, index: "</think>\n\n" + said(("note", {"text": "X"}))
    )
    records = evaluate(completer, [problem], k=1, params=SamplingParams(max_tokens=500), pool=Here(environment))
    assert records[0].correct
    [request] = completer.requests
    assert request.tools == problem.meta["tools"]
    assert [message["content"] for message in request.messages or ()] == ["Be brief.", "How is it?"]
    _, other = asked(tmp_path, {"note": {"text": ["x"]}}, question=[turn], function=[NOTE])
    assert other.prompt == problem.prompt
    assert other.digest != problem.digest
    _, shorter = asked(tmp_path, {"note": {"text": ["x"]}}, question="How is it?")
    assert shorter.digest != problem.digest


class Here:
    """A pool that is this process."""

    def __init__(self, environment: FileEnvironment) -> None:
        self.environment = environment

    def score(self, pairs: Any) -> list[Any]:
        return [self.environment.score(problem, text) for problem, text in pairs]

    def loosely_right(self, pairs: Any) -> list[None]:
        return [None] * len(pairs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"function": [{"name": ""}]}, "has no function name"),
        ({"question": [[{"role": "assistant", "content": "x"}]]}, "messages that end with a user's text"),
        ({"ground_truth": [{"other": {}}]}, "other is wanted, and not among the functions: weather.get, note"),
        ({"ground_truth": [{"note": {"text": "x"}}]}, "arguments with lists of values"),
        ({"ground_truth": {"note": {}}}, "must be a list of calls"),
        ({"ground_truth": [{"note": {"text": ["x"], "more": [1]}}]}, "note has no more, which is wanted"),
        ({"ground_truth": [{"note": {"text": []}}]}, "note may have no value of text, which is wanted"),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(tmp_path, **changes)
    assert says in f"{caught.value} {caught.value.hint}"


# 4


def test_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "bfcl_eval-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for number, category in enumerate(bfcl.CATEGORIES):
            question = {
                "id": f"{category}_0",
                "question": [[{"role": "user", "content": f"{number}?"}]],
                "function": [NOTE],
            }
            archive.writestr(f"bfcl_eval/data/BFCL_v4_{category}.json", json.dumps(question) + "\n")
            answer = {"id": f"{category}_0", "ground_truth": [{"note": {"text": [str(number)]}}]}
            archive.writestr(f"bfcl_eval/data/possible_answer/BFCL_v4_{category}.json", json.dumps(answer))
    environment = registry.get(f"tools:{wheel}?category=category")
    assert isinstance(environment, FileEnvironment)
    found = {problem.meta["category"]: problem for problem in environment.problems}
    assert tuple(found) == bfcl.CATEGORIES
    assert found["irrelevance"].meta["calls"] == found["live_irrelevance"].meta["calls"] == []
    assert found["live_relevance"].meta["calls"] == bfcl.ANY
    assert environment.score(found["parallel"], said(("note", {"text": "2"}))).correct
    wheel.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is not a wheel of bfcl-eval as it is known here"):
        registry.get(f"tools:{wheel}")


# 5


def changed(calls: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Ways to spoil the calls that are wanted: one left out, one twice, another name, another argument."""
    spoilt: list[list[dict[str, Any]]] = [calls[1:], [*calls, calls[0]]]
    [(name, possible)] = calls[0].items()
    spoilt.append([{f"{name}_": possible}, *calls[1:]])
    spoilt.append([{name: {**possible, "no_such_argument": ["x"]}}, *calls[1:]])
    for key, values in possible.items():
        if "" not in values:
            spoilt.append([{name: {k: v for k, v in possible.items() if k != key}}, *calls[1:]])
            other = copy.deepcopy(possible)
            other[key] = ["surely no value of this argument"]
            spoilt.append([{name: other}, *calls[1:]])
    return spoilt


@pytest.mark.net
def test_all_of_bfcl(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), "bfcl-eval==2026.3.23"]
    subprocess.run(command, check=True)
    [wheel] = tmp_path.glob("*.whl")
    oracle(wheel)


def oracle(wheel: Path) -> None:
    environment = registry.get(f"tools:{wheel}?category=category")
    assert isinstance(environment, FileEnvironment)
    assert (len(environment.problems), len(environment.left_out)) == (3481, 10)
    something = said(("anything", {}))
    for problem in environment.problems:
        calls, tools = problem.meta["calls"], problem.meta["tools"]
        if not isinstance(calls, list):
            assert environment.score(problem, something).correct
            assert not environment.score(problem, "No.").correct
            continue
        right = environment.score(problem, f"Well.\n{environment.reference(problem)}")
        assert right.correct, (problem.seed, right.detail)
        if not calls:
            assert not environment.score(problem, something).correct
            continue
        for spoilt in changed(calls):
            text = "\n".join(named(call, tools) for call in spoilt)
            assert not environment.score(problem, text).correct, (problem.seed, spoilt)


def named(call: dict[str, Any], tools: list[dict[str, Any]]) -> str:
    """A call in words, also of a function that is not offered."""
    [(name, possible)] = call.items()
    if any(tool["function"]["name"] == name for tool in tools):
        return written(call, tools)
    return in_xml(name, {key: next(v for v in values if v != "") for key, values in possible.items() if any(values)})
