"""The view of a population in a browser, under the policy of the server's page (`make test-net`; Chromium by
`ZAYA_CHROMIUM` or on the path).

1. A recorded stream becomes a card for each rollout, a line for each tail that was read, shares for each round and the
   answer, without a word of the browser against it.
2. Nothing that a model, a question or a server says becomes markup or runs.
3. One tab stop; arrows go to every card; who is looked at shows whose tails it read and who read its own. A card opens
   as a dialog with its texts, the tail marked, and closes with Escape.
4. Who does not see the picture is told once when a round is over, and at the end; the table has a row for each rollout.
5. However many events come, what changed is drawn once in a frame. 128 rollouts in 11 rounds stay a bounded page.
6. Nothing is wider than the page, from 320 pixels. Both schemes; no motion where none is wanted.
7. The last chunk alone, an error, a second run and a replay come out as they should.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.population.browser import browser, harness
from tests.serve.population.scripted import run as scripted

pytestmark = pytest.mark.net

RECORDED = json.loads((Path(__file__).parent / "population" / "recorded.json").read_text(encoding="utf-8"))
EVENTS = [event for chunk in RECORDED["chunks"] for event in chunk]
RSA = RECORDED["rsa"]
PLAN = {"question": RECORDED["question"], "population": 8, "fan_in": 4, "rounds": 2, "preset": "micro"}
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with harness() as found:
        yield found


class View:
    """A page with the view on it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        page.wait_for_function("window.view")

    def do(self, what: str, *values: Any) -> None:
        self.page.evaluate("([what, values]) => view[what](...values)", [what, values])
        self.page.evaluate(SETTLED)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.text_content()

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def card(self, round: int, worker: int) -> Any:
        return self.page.locator(f'.card[data-round="{round}"][data-worker="{worker}"]')


@pytest.fixture
def view(chromium: Any, address: str) -> Iterator[View]:
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    found = View(page, address)
    yield found
    page.close()
    assert found.said == []


def shown(view: View) -> list[tuple[str, ...]]:
    """What cards and lines look like."""
    script = """() => [...document.querySelectorAll(".card")].map((card) => [
        card.dataset.state, card.textContent, card.querySelector(".ink").style.height,
        card.querySelectorAll(".slip").length, card.getAttribute("aria-label"),
        [...card.classList].filter((name) => !["looked", "source", "reader"].includes(name)).sort().join(" "),
    ])"""
    return [tuple(map(str, each)) for each in view.page.evaluate(script)]


# ----- 1


def test_a_recorded_stream(view: View) -> None:
    view.do("begin", PLAN)
    assert view.count(".card") == 24
    for chunk in RECORDED["chunks"]:
        view.do("feed", chunk)
    view.do("finish", RSA)
    reads = sum(len(one["sources"]) for each in RSA["rounds"] for one in each["rollouts"])
    assert view.count(".always path") == reads == 64
    for number, each in enumerate(RSA["rounds"]):
        for one in each["rollouts"]:
            card = view.card(number, one["worker"])
            assert card.get_attribute("data-state") == ("done" if one["is_finished"] else "cut")
            assert card.locator(".slip").count() == len(one["sources"])
            if one["group"] is not None:
                assert card.locator(".words").text_content() == RSA["groups"][one["group"]]
    most = RSA["tally"][0]
    assert view.text(".caption") == f"The answers of the last round vote: {most['answer']} has {most['count']} of 8."
    assert view.text(".answer strong") == RSA["answer"]
    assert view.count(".card.chosen") == 1
    assert view.count(".under path") == most["count"]
    assert view.count(".strip") == 3
    tokens = sum(each["generated_tokens"] for each in RSA["rounds"])
    assert view.text(".stats div:nth-child(2) dd") == f"{tokens:,}"
    badges = view.page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('.card.has-group')].map((c) =>"
        " [c.querySelector('.words').textContent, c.querySelector('.badge').textContent]))"
    )
    assert len(set(badges.values())) == len(badges)


# ----- 2

PAYLOADS = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", '"><svg onload=alert(1)>', "javascript:alert(1)",
    "</pre></dialog><b id=pwned>", "<style>*{display:none}</style>", "\u202eevil\u0000\ufffe", "a" * 100_000,
    "<iframe srcdoc='<script>alert(1)</script>'>", "{{constructor.constructor('alert(1)')()}}", "__proto__", "😀" * 500,
    "</title><script>alert(1)</script>", "&lt;b&gt;", "$&$1`", "\n\n\n", "url(//x)", "';alert(1);//",
]  # fmt: skip


ELEMENTS = {
    "div", "p", "dl", "dt", "dd", "button", "details", "summary", "ul", "li", "span", "strong", "svg", "g", "path",
    "dialog", "header", "h3", "h4", "pre", "mark", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


@pytest.mark.parametrize("with_candidates", [True, False])
def test_nothing_runs(view: View, with_candidates: bool) -> None:
    events, block = scripted(len(PAYLOADS), 1, answers=PAYLOADS, with_candidates=with_candidates, seed=4)
    for event in events:
        candidate = event.get("candidate")
        if candidate:
            words = PAYLOADS[candidate["worker"]]
            candidate.update(text=words, reasoning=words * 2, tail=words, answer=words)
    view.do("begin", {**PLAN, "question": "\n".join(PAYLOADS)})
    view.do("feed", events[: len(events) // 2])
    failures = [{"round": 1, "worker": worker, "why": words} for worker, words in enumerate(PAYLOADS)]
    view.do("feed", [{"kind": kind, "at": 1, **each} for kind in ("retry", "lost") for each in failures])
    for worker in range(len(PAYLOADS)):
        view.card(1, worker).click()
        view.page.keyboard.press("Escape")
    view.do("feed", events[len(events) // 2 :])
    view.page.locator("summary").click()
    view.do("finish", {**block, "selection": PAYLOADS[0], "stopped": PAYLOADS[1], "answer": PAYLOADS[2]})
    for worker in range(len(PAYLOADS)):
        view.card(0, worker).click()
        if with_candidates:
            words = PAYLOADS[worker]
            assert view.text("dialog .thought").strip() == (words * 2).strip()
        is_as_it_was(view)
        view.page.keyboard.press("Escape")
    for words in PAYLOADS:
        view.do("begin", {})
        view.do("fail", words)
        assert view.text(".caption") == "It stopped."
    view.do("begin", {**PLAN, "preset": PAYLOADS[0], "rounds": PAYLOADS[1]})
    is_as_it_was(view)
    assert view.page.evaluate("Object.keys(Object.prototype)") == []


def is_as_it_was(view: View) -> None:
    """No element below the view that it does not make, and none that could do anything."""
    script = """() => [...document.querySelectorAll("#view *")].map((made) =>
        [made.tagName.toLowerCase(), [...made.attributes].map((each) => each.name)])"""
    for tag, attributes in view.page.evaluate(script):
        assert tag in ELEMENTS
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "srcdoc")]


# ----- 3


def test_hands_and_eyes(view: View) -> None:
    view.do("begin", PLAN)
    view.do("feed", EVENTS)
    view.do("finish", RSA)
    assert view.count('.card[tabindex="0"]') == 1
    one = RSA["rounds"][1]["rollouts"][3]
    readers = [each["worker"] for each in RSA["rounds"][2]["rollouts"] if 3 in each["sources"]]
    view.card(1, 3).hover()
    marked = (
        "(name) => [...document.querySelectorAll('.card.' + name)].map((c) => [+c.dataset.round, +c.dataset.worker])"
    )
    assert sorted(view.page.evaluate(marked, "source")) == sorted([0, worker] for worker in one["sources"])
    assert sorted(view.page.evaluate(marked, "reader")) == [[2, worker] for worker in readers]
    assert view.count(".related path") == len(one["sources"]) + len(readers)
    view.page.mouse.move(2, 2)
    assert view.count(".related path") == 0

    view.card(0, 0).focus()
    keys = [
        "ArrowDown",
        "ArrowRight",
        "ArrowDown",
        "ArrowLeft",
        "ArrowUp",
        "End",
        "Home",
        "ArrowUp",
        "ArrowUp",
        "ArrowLeft",
    ]
    way = []
    for key in keys:
        view.page.keyboard.press(key)
        way.append(
            view.page.evaluate("[+document.activeElement.dataset.round, +document.activeElement.dataset.worker]")
        )
    assert way == [[1, 0], [1, 1], [2, 1], [2, 0], [1, 0], [1, 7], [1, 0], [0, 0], [0, 0], [0, 0]]
    assert view.count('.card[tabindex="0"]') == 1

    view.card(0, 2).focus()
    view.page.keyboard.press("Enter")
    candidate = RSA["rounds"][0]["candidates"][2]
    assert view.text("dialog h3") == "Attempt 2 of round 0"
    assert view.text("dialog .thought") == candidate["reasoning"]
    assert view.text("dialog mark") == candidate["tail"].removeprefix("...")
    assert candidate["text"] in view.text("dialog")
    told = view.page.evaluate("opened")
    assert [(each["round"], each["worker"], each["candidate"]["text"]) for each in told] == [(0, 2, candidate["text"])]
    view.page.keyboard.press("Escape")
    assert not view.page.locator("dialog").is_visible()
    assert view.page.evaluate("[document.activeElement.dataset.round, document.activeElement.dataset.worker]") == [
        "0",
        "2",
    ]


def test_facts_without_candidates(view: View) -> None:
    events, block = scripted(4, 1)
    view.do("begin", {**PLAN, "population": 4, "rounds": 1})
    view.do("feed", events)
    view.do("finish", block)
    view.card(1, 1).click()
    one = block["rounds"][1]["rollouts"][1]
    facts = view.text("dialog .facts")
    assert f"{one['generated_tokens']:,} tokens of at most 16,384" in facts
    assert f"of attempts {', '.join(map(str, one['sources']))} of round 0" in facts
    assert view.count("dialog pre") == 0


# ----- 4


def test_what_is_said(view: View) -> None:
    view.page.evaluate(
        """() => {
            window.heard = [];
            const spoken = document.querySelector("[aria-live]");
            new MutationObserver(() => heard.push(spoken.textContent))
                .observe(spoken, { childList: true, characterData: true, subtree: true });
        }"""
    )
    view.do("begin", PLAN)
    for event in EVENTS:
        view.do("feed", [event])
    view.do("finish", RSA)
    heard = [words for words in view.page.evaluate("heard") if words]
    assert len(heard) == 4
    assert [words.partition(":")[0] for words in heard[:3]] == [
        "Round 0 is over",
        "Round 1 is over",
        "Round 2, the last is over",
    ]
    assert heard[3].startswith("The answers of the last round vote")
    assert view.page.locator(".lines:not(.under)").get_attribute("aria-label") == heard[3]
    view.page.locator("summary").click()
    view.page.evaluate(SETTLED)
    rows = view.page.evaluate(
        "[...document.querySelectorAll('tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert len(rows) == 24
    one = RSA["rounds"][2]["rollouts"][5]
    row = next(row for row in rows if row[:2] == ["2", "5"])
    assert row[3] == str(one["generated_tokens"])
    assert row[4].split()[1:] == [RSA["groups"][one["group"]]]
    assert row[5] == ", ".join(map(str, one["sources"]))


# ----- 5


def test_a_frame_at_a_time(view: View) -> None:
    events, block = scripted(128, 10)
    begin = {**PLAN, "population": 128, "rounds": 10}
    drawn = view.page.evaluate(
        """async ([begin, events, settled]) => {
            let draws = 0;
            const draw = view._draw.bind(view);
            view._draw = () => { draws += 1; draw(); };
            view.begin(begin);
            for (const event of events) view.feed([event]);
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            return draws;
        }""",
        [begin, events, SETTLED],
    )
    assert 1 <= drawn <= 3
    view.do("finish", block)
    assert view.count(".card") == 128 * 11
    assert view.page.evaluate("document.querySelectorAll('*').length") < 25_000
    # a card that was not spoken of is not touched
    touched = view.page.evaluate(
        """async ([events]) => {
            view.begin({});
            view.feed(events);
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            let touched = 0;
            const observer = new MutationObserver((records) => { touched += records.length; });
            const watched = { subtree: true, childList: true, attributes: true, characterData: true };
            for (const card of document.querySelectorAll(".card")) observer.observe(card, watched);
            view.feed([{ kind: "grow", at: 3, round: 0, worker: 5, tokens: 9000 }]);
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            return touched;
        }""",
        [[events[0], *(event for event in events if event["at"] < 2)]],
    )
    assert 1 <= touched <= 6


# ----- 6


@pytest.mark.parametrize("width", [320, 360, 700, 1600])
def test_widths(view: View, width: int) -> None:
    view.page.set_viewport_size({"width": width, "height": 800})
    for population in (1, 4, 16, 33):
        events, block = scripted(population, 2, answers=["x" * 300, r"\frac{1}{2}", "7"])
        view.do("begin", {**PLAN, "population": population, "question": "w" * 2000})
        view.do("feed", events)
        view.do("finish", block)
        assert view.page.evaluate("document.documentElement.scrollWidth") <= width
        where = (
            "() => [...document.querySelectorAll('.card, .round, .answer')].map((e) => e.getBoundingClientRect().right)"
        )
        assert max(view.page.evaluate(where)) <= width


def test_it_follows_the_width(view: View) -> None:
    view.do("begin", PLAN)
    view.do("feed", EVENTS)
    before = view.page.evaluate("document.querySelector('.graphic').dataset.side")
    view.page.set_viewport_size({"width": 400, "height": 800})
    view.page.evaluate(SETTLED)
    view.page.evaluate(SETTLED)
    assert (before, view.page.evaluate("document.querySelector('.graphic').dataset.side")) == ("true", "false")


def test_schemes(chromium: Any, address: str) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        page = chromium.new_page(color_scheme=scheme)
        view = View(page, address)
        view.do("begin", PLAN)
        script = "getComputedStyle(document.querySelector('.card')).backgroundColor"
        colors[scheme] = page.evaluate(script)
        other = "dark" if scheme == "light" else "light"
        page.evaluate("(name) => { document.documentElement.dataset.theme = name; }", other)
        colors[f"told {other}"] = page.evaluate(script)
        page.close()
    assert colors["light"] == colors["told light"] == "rgb(255, 255, 255)"
    assert colors["dark"] == colors["told dark"] == "rgb(20, 24, 29)"


def test_no_motion_where_none_is_wanted(chromium: Any, address: str) -> None:
    moving = {}
    for motion in ("no-preference", "reduce"):
        page = chromium.new_page(reduced_motion=motion)
        view = View(page, address)
        view.do("begin", PLAN)
        view.do("feed", [event for event in EVENTS if event["kind"] in ("plan", "start")])
        moving[motion] = page.evaluate("document.getAnimations().length")
        page.close()
    assert moving["reduce"] == 0 < moving["no-preference"]


# ----- 7


def test_the_end_alone_and_once_more(view: View) -> None:
    view.do("begin", PLAN)
    view.do("feed", EVENTS)
    view.do("finish", RSA)
    expected = shown(view)
    view.do("begin", PLAN)
    assert view.count('.card[data-state="waiting"]') == 24
    assert (view.count(".always path"), view.count(".under path"), view.count(".card.chosen")) == (0, 0, 0)
    view.do("finish", RSA)
    alone = shown(view)
    assert [each[0] for each in alone] == [each[0] for each in expected]
    assert view.count(".always path") == 64
    assert not view.page.locator(".again").is_visible()
    view.do("feed", EVENTS)  # of a run that is over
    assert shown(view) == alone


def test_an_error(view: View) -> None:
    view.do("begin", PLAN)
    view.do("feed", EVENTS[:20])
    view.do("fail", "every rollout of round 1 failed")
    assert (view.text(".caption"), view.text(".aside")) == ("It stopped.", "every rollout of round 1 failed")
    assert view.text(".answer") == "There is no answer."
    states = [each[0] for each in shown(view)]
    assert set(states) <= {"done", "cut", "stopped"}


def test_a_replay(chromium: Any, address: str) -> None:
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.clock.install()
    view = View(page, address)

    def do(what: str, value: Any) -> None:
        page.evaluate("([what, value]) => view[what](value)", [what, value])
        page.clock.run_for(100)

    do("begin", PLAN)
    do("feed", EVENTS)
    do("finish", RSA)
    expected = shown(view)
    page.locator(".again").click()
    page.clock.run_for(2000)
    states = [each[0] for each in shown(view)]
    assert states.count("thinking") + states.count("reading") > 0
    assert states.count("waiting") >= 8
    assert not page.locator(".again").is_visible()
    page.clock.run_for(40_000)
    assert shown(view) == expected
    assert page.locator(".again").is_visible()
    assert view.said == []
    page.close()
