"""The page at /, in a browser without a head. `ZAYA_CHROMIUM` names one where none is on the path.

1. A question is answered while one looks on: reasoning opens and closes by itself, the answer is rendered, and who
   listens hears each state once.
2. Stop stops the server's work; an answer can be asked for again, a question be changed, both and code be copied.
3. All of it goes by keyboard alone.
4. A server with keys is asked with the key that it asks for, which stays in the tab.
5. Conversations survive a reload, in this browser, where it keeps anything.
6. Nothing is wider than the screen, and text is readable, in light and dark.
7. Errors are the server's words and a way on; an answer that cannot be rendered is text.
8. The page follows an answer only for whoever is at its end.
9. Markovian RSA runs to its end, with its view above the answer.
10. Whatever a model, a server or a stored conversation says: nothing of it runs, nothing leaves for another host, and
    the policy has nothing to stop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.fakes import Running, Typist, eventually, running
from tests.serve.malicious import BATTERY
from tests.serve.population.browser import browser as chromium
from zaya.serve.auth import KeyConfig, Keys, hash_of

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

pytestmark = pytest.mark.net

CHAT = "**/v1/chat/completions"
TEXT = "so it is\n</think>\n\nIt is **four**, as $2+2=4$.\n\n```python\nprint(4)\n```\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


class Tab:
    """A page, and whatever went wrong on it."""

    def __init__(self, browser: Any, server: Running, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(8000)
        self.server = server
        self.wrong: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if "Content Security Policy" in said.text else None
        )

    def __enter__(self) -> Tab:
        self.page.goto(self.server.url)
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            assert self.wrong == []
            assert self.hosts == {self.server.url.split("/")[2]}
            assert self.page.evaluate("window.__xss") is None
        self.context.close()

    def ask(self, text: str = "What is 2 + 2?") -> None:
        self.page.wait_for_selector(".example", state="attached")
        self.page.fill("#question", text)
        self.page.keyboard.press("Enter")

    def answered(self, count: int = 1) -> Any:
        expect(self.page.locator(".turn-foot:not([hidden])")).to_have_count(count)
        return self.page.locator(".turn").last

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


# ----- 1


def test_a_question_is_answered(browser: Any) -> None:
    typist = Typist(lambda *_: TEXT, hold_after=5)
    with running(typist) as server, Tab(browser, server) as tab:
        page = tab.page
        page.evaluate(
            "() => { window.heard = [];"
            "new MutationObserver(() => heard.push(document.querySelector('#status').textContent))"
            ".observe(document.querySelector('#status'), {childList: true}) }"
        )
        tab.ask()
        expect(page.locator(".reasoning")).to_contain_text("so")
        assert page.locator(".thinking").get_attribute("open") is not None
        expect(page.locator("#stop")).to_be_visible()
        typist.go_on.set()
        answer = tab.answered()
        assert page.locator(".thinking").get_attribute("open") is None
        expect(page.locator(".thinking summary")).to_contain_text("Thought for")
        expect(page.locator(".thinking summary")).to_contain_text("tokens")
        assert answer.locator("strong").inner_text() == "four"
        assert answer.locator("math mo").count() == 2
        assert answer.locator(".code .code-head span").inner_text() == "python"
        assert answer.locator("pre .builtin").inner_text() == "print"
        expect(answer.locator(".turn-foot .small")).to_contain_text("tokens/s")
        assert page.evaluate("heard") == ["Waiting for the answer", "Thinking", "Answering", "Answered"]
        expect(page.locator("#send")).to_be_visible()


def test_reasoning_that_was_opened_stays_open(browser: Any) -> None:
    typist = Typist(lambda *_: TEXT, hold_after=5)
    with running(typist) as server, Tab(browser, server) as tab:
        tab.ask()
        for _ in range(2):  # closed and opened again by hand
            tab.page.click(".thinking summary")
        typist.go_on.set()
        tab.answered()
        assert tab.page.locator(".thinking").get_attribute("open") is not None


def test_settings_are_what_is_asked(browser: Any) -> None:
    with running(typist := Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        page = tab.page
        page.wait_for_selector(".example")
        page.click("#open-settings")
        page.fill("[name=system]", "Be brief.")
        for name, value in (
            ("temperature", "0.5"),
            ("top_p", "0.9"),
            ("top_k", "7"),
            ("seed", "3"),
            ("max_tokens", "99"),
        ):
            page.fill(f"[name={name}]", value)
        page.fill("[name=think_budget_chat]", "50")
        page.click("#settings .main")
        tab.ask()
        tab.answered()
        [request] = typist.requests
        params = request.params
        assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (0.5, 0.9, 7, 99)
        assert (request.seed, params.think_budget) == (3, 50)
        assert "Be brief." in typist.tokenizer.decode(request.prompt_ids)
        page.reload()
        page.click("#think")
        assert page.locator("#think").get_attribute("aria-pressed") == "false"
        with page.expect_request(CHAT) as sent:
            tab.ask()
        body = json.loads(sent.value.post_data)
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert "thinking_token_budget" not in body
        assert body["temperature"] == 0.5


# ----- 2


def test_stop(browser: Any) -> None:
    typist = Typist(lambda *_: TEXT, hold_after=30)
    with running(typist) as server, Tab(browser, server) as tab:
        tab.ask()
        expect(tab.page.locator(".reply")).to_contain_text("It")
        tab.page.keyboard.press("Escape")
        assert eventually(typist.cancelled.is_set)
        answer = tab.answered()
        expect(answer.locator(".turn-foot .small")).to_contain_text("stopped")
        typist.hold_after = None
        tab.ask("Again?")
        tab.answered(2)
        assert server.served.gate.pending == 0


def test_again(browser: Any) -> None:
    typist = Typist(lambda prompt, seed, _: f"</think>\n\n{len(typist.requests)}")
    with running(typist) as server, Tab(browser, server) as tab:
        tab.ask()
        assert tab.answered().locator(".reply").inner_text() == "1"
        tab.page.click("[aria-label='Answer again']")
        expect(tab.page.locator(".reply")).to_have_text("2")
        assert typist.requests[0].prompt_ids == typist.requests[1].prompt_ids
        assert typist.requests[0].seed != typist.requests[1].seed


def test_a_changed_question(browser: Any) -> None:
    with running(typist := Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        tab.ask("One?")
        tab.answered()
        tab.ask("Two?")
        tab.answered(2)
        tab.page.locator(".asked").first.hover()
        tab.page.locator("[aria-label='Edit and send again']").first.click()
        tab.page.fill(".editing textarea", "Three?")
        tab.page.keyboard.press("Enter")
        tab.answered(1)
        assert tab.texts(".bubble") == ["Three?"]
        asked = typist.tokenizer.decode(typist.requests[-1].prompt_ids)
        assert "Three?" in asked
        assert "One?" not in asked


@pytest.mark.parametrize("is_secure", [True, False])
def test_copying(browser: Any, is_secure: bool) -> None:
    with running(Typist(lambda *_: TEXT)) as server:
        tab = Tab(browser, server, permissions=["clipboard-read", "clipboard-write"])
        if not is_secure:  # as a page is that came over plain HTTP from another machine
            tab.context.add_init_script("navigator.clipboard.writeText = undefined")
        with tab:
            tab.ask()
            answer = tab.answered()
            for label, text in (("Copy code", "print(4)\n"), ("Copy the answer", TEXT.split("</think>\n\n")[1])):
                answer.get_by_role("button", name=label).click()
                expect(tab.page.locator("#status")).to_have_text("Copied")
                assert tab.page.evaluate("navigator.clipboard.readText()") == text


# ----- 3


def focused(page: Any) -> str:
    return page.evaluate(
        "() => { const e = document.activeElement; return e.getAttribute('aria-label') || e.id || e.tagName }"
    )


def test_by_keyboard_alone(browser: Any) -> None:
    typist = Typist(lambda *_: TEXT)
    with running(typist) as server, Tab(browser, server) as tab:
        page = tab.page
        page.wait_for_selector(".example")
        assert focused(page) == "question"
        page.keyboard.type("a")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("b")
        assert page.input_value("#question") == "a\nb"
        page.keyboard.press("Enter")
        tab.answered()
        assert tab.texts(".bubble") == ["a\nb"]
        assert focused(page) == "question"
        around = {"Tab": ["think", "together", "Send"], "Shift+Tab": ["Answer again", "Copy the answer", "Copy code"]}
        for key, names in around.items():
            page.locator("#question").focus()
            for name in names:
                page.keyboard.press(key)
                assert focused(page) == name
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.locator("[aria-label='Answer again']").focus()
        page.keyboard.press("Enter")
        assert eventually(lambda: len(typist.requests) == 2)
        tab.answered()
        page.locator("#open-settings").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#settings")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#settings")).to_be_hidden()
        assert focused(page) == "Settings"


def test_everything_has_a_name(browser: Any) -> None:
    with running(Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        tab.ask()
        tab.answered()
        nameless = tab.page.evaluate(
            """() => [...document.querySelectorAll("button, input, textarea, select, summary, a[href]")].filter((e) =>
                !e.getAttribute("aria-label") && !e.textContent.trim() && !e.labels?.length).map((e) => e.outerHTML)"""
        )
        assert nameless == []


# ----- 4


def test_a_key(browser: Any) -> None:
    key = "sk-of-somebody-who-may"
    keys = Keys({"a": KeyConfig(sha256=hash_of(key.encode()))})
    with running(Typist(lambda *_: TEXT), keys=keys) as server, Tab(browser, server) as tab:
        page = tab.page
        page.wait_for_selector("#key[open]")
        page.fill("[name=key]", "sk-wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-note")).to_contain_text("not one of this server's")
        page.fill("[name=key]", key)
        page.keyboard.press("Enter")
        tab.ask()
        tab.answered()
        assert page.evaluate("sessionStorage['zaya.key']") == key
        assert key not in page.evaluate("JSON.stringify(localStorage)")
        page.reload()
        tab.answered()
        expect(page.locator("#key")).to_be_hidden()
        page.evaluate("sessionStorage.removeItem('zaya.key')")
        page.reload()
        page.click("#key .shut")
        expect(page.locator("#welcome-note")).to_contain_text("there is no API key")
        page.get_by_role("button", name="Try again").click()
        page.fill("[name=key]", key)
        page.keyboard.press("Enter")
        page.wait_for_selector(".example", state="attached")


# ----- 5


def test_a_reload(browser: Any) -> None:
    with running(Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        page = tab.page
        tab.ask("Who?")
        tab.answered()
        expect(page.locator(".reasoning")).to_be_hidden()
        before = tab.texts(".turn")
        page.reload()
        tab.answered()
        assert tab.texts(".turn") == before
        page.click("#new")
        expect(page.locator("#welcome")).to_be_visible()
        tab.ask("Where?")
        tab.answered()
        assert tab.texts("#conversations .title") == ["Where?", "Who?"]
        page.get_by_role("button", name="Who?", exact=True).click()
        assert tab.texts(".bubble") == ["Who?"]
        page.click("[aria-label='Delete: Who?']")
        assert tab.texts("#conversations .title") == ["Where?"]
        expect(page.locator("#welcome")).to_be_visible()
        assert "Who?" not in page.evaluate("JSON.stringify(localStorage)")


def test_the_last_twenty(browser: Any) -> None:
    with running(Typist(lambda *_: "</think>\n\nx")) as server, Tab(browser, server) as tab:
        old = [{"id": f"{i}", "title": f"t{i}", "turns": [{"role": "user", "content": "q"}]} for i in range(20)]
        tab.page.evaluate("(old) => localStorage.setItem('zaya.conversations', JSON.stringify(old))", old)
        tab.ask("new")
        tab.answered()
        assert tab.texts("#conversations .title") == ["new", *(f"t{i}" for i in range(19))]


@pytest.mark.parametrize("what", ["denied", "full", "nonsense"])
def test_a_browser_that_keeps_nothing(browser: Any, what: str) -> None:
    with running(Typist(lambda *_: TEXT)) as server:
        tab = Tab(browser, server)
        tab.context.add_init_script(
            {
                "denied": "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no') }})",
                "full": "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }",
                "nonsense": "localStorage.setItem('zaya.conversations', '[1, {\"id\": 3}, null]');"
                'localStorage.setItem(\'zaya.settings\', \'{"preset": "of another server", "seed": {}\')',
            }[what]
        )
        with tab:
            tab.ask()
            tab.answered()
            expect(tab.page.locator("#past-note")).to_contain_text(
                "keeps nothing" if what != "nonsense" else "The last 20"
            )


# ----- 6

WIDE = (
    "</think>\n\n"
    + "x" * 300
    + "\n\n|"
    + "a wide cell|" * 12
    + "\n|"
    + "-|" * 12
    + "\n\n```\n"
    + "y" * 300
    + "\n```\n\n$$"
)
WIDE += "+".join(f"x_{{{i}}}" for i in range(60)) + "$$\n\n[" + "z" * 200 + "](https://ok.example/" + "w" * 200 + ")"


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (360, "dark"), (640, "light"), (1200, "dark")])
def test_nothing_is_too_wide(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 640}
    typist = Typist(lambda *_: WIDE, together=50)
    with running(typist, name="m" * 60) as server, Tab(browser, server, viewport=size, color_scheme=scheme) as tab:
        page = tab.page
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        page.wait_for_selector(".example")
        assert page.evaluate(over) <= 0
        tab.ask("q" * 300)
        tab.answered()
        assert page.evaluate(over) <= 0
        assert page.evaluate(
            "[...document.querySelectorAll('.turn, .turn > *')].every("
            "(e) => e.getBoundingClientRect().right <= innerWidth)"
        )
        page.click("#open-settings")
        inside = page.locator("#settings").bounding_box()
        assert inside["x"] >= 0
        assert inside["x"] + inside["width"] <= width
        assert (
            page.evaluate(
                "(() => { const d = document.querySelector('#settings'); return d.scrollWidth - d.clientWidth })()"
            )
            <= 0
        )


CONTRAST = """(pairs) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const over = (colour, below) => {
    canvas.fillStyle = `rgb(${below})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const paper = (e) =>
    (e === null ? [255, 255, 255] : over(getComputedStyle(e).backgroundColor, paper(e.parentElement)));
  const light = (c) => c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return pairs.map((selector) => {
    const e = document.querySelector(selector);
    if (e === null) return [selector, 0];
    const below = paper(e), own = over(getComputedStyle(e).color, below);
    const [a, b] = [light(own), light(below)].sort((x, y) => y - x);
    return [selector, (a + 0.05) / (b + 0.05)];
  });
}"""
COLOURED = (
    "</think>\n\nx `y` [l](https://ok.example)\n\n> q\n\n```python\ndef f(): # c\n    return print('s', 1)\n```\n\n"
    "```diff\n+a\n-b\n```\n"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(browser: Any, scheme: str) -> None:
    with running(Typist(lambda *_: COLOURED)) as server, Tab(browser, server, color_scheme=scheme) as tab:
        page = tab.page
        tab.ask()
        tab.answered()
        page.click("#open-settings")
        selectors = [
            "body", ".small", ".bubble", ".reply", ".reply a", ".reply code", ".reply blockquote", ".comment",
            ".keyword", ".string", ".number", ".name", ".builtin", ".inserted", ".deleted", ".code-head",
            ".switch[aria-pressed=true]", ".switch[aria-pressed=false]", "#stop", "#settings .main", "#settings .quiet",
            ".field", ".act", "[aria-current]",
        ]  # fmt: skip
        poor = {selector: ratio for selector, ratio in page.evaluate(CONTRAST, selectors) if ratio < 4.5}
        assert poor == {}
        assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
            scheme == "light"
        )


def test_the_theme_is_chosen_and_kept(browser: Any) -> None:
    with running(Typist(lambda *_: TEXT)) as server, Tab(browser, server, color_scheme="light") as tab:
        page = tab.page
        paper = "getComputedStyle(document.body).backgroundColor"
        page.wait_for_selector(".example")
        for name, colour in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 29)")):
            page.click("#theme")
            assert page.locator("#theme").get_attribute("aria-label") == f"Theme: {name}"
            assert page.evaluate(paper) == colour
        page.reload()
        assert page.evaluate(paper) == "rgb(20, 24, 29)"
        page.click("#theme")
        assert page.evaluate(paper) == "rgb(255, 255, 255)"


def test_targets_for_fingers(browser: Any) -> None:
    size = {"width": 360, "height": 640}
    with (
        running(Typist(lambda *_: TEXT)) as server,
        Tab(browser, server, viewport=size, has_touch=True, is_mobile=True) as tab,
    ):
        tab.ask()
        tab.answered()
        small = tab.page.evaluate(
            """() => [...document.querySelectorAll("button, textarea")]
                .map((e) => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
                .filter(([, box]) => box.width && (box.width < 44 || box.height < 43.5)).map(([html]) => html)"""
        )
        assert small == []


# ----- 7


def test_errors(browser: Any) -> None:
    with running(Typist(lambda *_: TEXT, context=60)) as server, Tab(browser, server) as tab:
        page = tab.page
        tab.ask("long " * 40)
        expect(page.locator(".trouble")).to_contain_text("the model's context holds 60")
        body = {"error": {"message": "too many requests are waiting; come again in 2 s"}}
        page.route(CHAT, lambda route: route.fulfill(status=429, headers={"Retry-After": "2"}, json=body))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".trouble")).to_contain_text("too many requests are waiting")
        expect(page.locator(".trouble button")).to_have_text("Try again in 2 seconds")
        assert page.locator(".trouble button").is_disabled()
        expect(page.locator(".trouble button")).to_have_text("Try again")
        page.unroute(CHAT)
        page.route(
            CHAT, lambda route: route.fulfill(body='data: {"choices": []}\n\n', content_type="text/event-stream")
        )
        page.locator(".trouble button").click()
        expect(page.locator(".trouble")).to_contain_text("ended before the answer did")
        page.unroute(CHAT)
        page.route(CHAT, lambda route: route.abort())
        page.locator(".trouble button").click()
        expect(page.locator(".trouble")).to_contain_text("does not answer")
        expect(page.locator("#send")).to_be_visible()


def test_an_answer_that_is_not_rendered(browser: Any) -> None:
    with running(Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        tab.page.route("**/ui/render", lambda route: route.fulfill(status=500, body="no"))
        tab.ask()
        answer = tab.answered()
        assert "It is **four**, as $2+2=4$." in answer.locator(".reply").inner_text()


def test_an_answer_in_pieces_is_the_answer(browser: Any) -> None:
    """What is complete is kept while the rest is rendered; slowed down, so that there are many pieces."""
    text = "</think>\n\n" + "".join(
        f"para {i} with $x_{i}$\n\n- a\n- b\n\n```python\nx = {i}\n```\n\n" for i in range(8)
    )
    typist = Typist(lambda *_: text, together=3)
    with running(typist) as server, Tab(browser, server) as tab:
        page = tab.page
        page.wait_for_selector(".example")
        page.evaluate(
            "() => { window.renders = 0; const f = fetch;"
            "window.fetch = (...a) => { renders += a[0] === '/ui/render'; return f(...a) } }"
        )
        typist.hold_after = 200
        tab.ask()
        expect(page.locator(".complete > *").nth(3)).to_be_visible()
        typist.hold_after = None
        typist.go_on.set()
        answer = tab.answered().locator(".reply")
        assert page.evaluate("renders") >= 2
        assert answer.locator("p").count() == answer.locator("ul").count() == answer.locator("pre").count() == 8
        assert page.locator(".growing > *").count() == 0


# ----- 8


def test_the_page_follows_its_end(browser: Any) -> None:
    typist = Typist(lambda *_: "</think>\n\n" + "a\n\n" * 200, hold_after=150)
    with running(typist) as server, Tab(browser, server) as tab:
        page = tab.page
        end = "document.documentElement.scrollHeight - innerHeight - scrollY"
        tab.ask()
        assert eventually(lambda: page.locator(".reply p").count() > 30)
        assert page.evaluate(end) < 100
        page.mouse.move(600, 300)
        page.mouse.wheel(0, -400)
        expect(page.locator("#latest")).to_be_visible()
        at = page.evaluate("scrollY")
        typist.go_on.set()
        tab.answered()
        assert page.evaluate("scrollY") == at
        page.click("#latest")
        assert eventually(lambda: page.evaluate(end) < 100)
        expect(page.locator("#latest")).to_be_hidden()


# ----- 9


def test_thinking_together(browser: Any) -> None:
    typist = Typist(lambda prompt, seed, _: "hm\n</think>\n\nSo \\boxed{4}.", context=2048)
    with running(typist) as server, Tab(browser, server) as tab:
        page = tab.page
        page.wait_for_selector(".example")
        page.click("#together")
        assert page.locator("#think").is_disabled()
        tab.ask("2 + 2?")
        answer = tab.answered()
        assert answer.locator("menclose").text_content() == "4"
        assert len(typist.requests) == 24  # the preset for the micro model: 8 attempts in 3 rounds, all of the last
        expect(answer.locator(".population-frame")).to_be_visible()
        inside = answer.locator(".population-frame").bounding_box()
        page.click(".enlarge")
        assert page.locator(".population-frame").bounding_box()["width"] > inside["width"] + 200
        page.keyboard.press("Escape")
        assert page.locator(".population-frame").bounding_box()["width"] == inside["width"]
        page.reload()
        answer = tab.answered()
        expect(answer.locator(".population-frame")).to_be_visible()


# ----- 10

LOOK = """() => {
  const bad = [];
  const FORBIDDEN = /^(script|style|iframe|object|embed|base|meta|link|form|img|animate|foreignobject)$/i;
  for (const e of document.querySelectorAll("#turns *, #conversations *, #model, #welcome *")) {
    for (const { name, value } of e.attributes) {
      if (name.startsWith("on") || name === "style" || name === "srcdoc") bad.push(e.outerHTML);
      if (/^(href|src|xlink:href|action)$/.test(name) && !/^(https?:|mailto:|#i-)/.test(value)) bad.push(e.outerHTML);
    }
    if (FORBIDDEN.test(e.tagName)) bad.push(e.outerHTML);
    if (e.closest(".reply") && (e.id || e.getAttribute("name"))) bad.push(e.outerHTML);
    for (const kind of ["mouseover", "focus", "toggle", "pointerenter"]) e.dispatchEvent(new Event(kind));
  }
  return bad;
}"""


def test_nothing_of_an_answer_runs(browser: Any) -> None:
    text = "\n".join(BATTERY).replace("</think>", "") + "\n</think>\n\n" + "\n\n---\n\n".join(BATTERY)
    typist = Typist(lambda *_: text, context=1 << 16, together=200)
    with running(typist, name=BATTERY[2]) as server, Tab(browser, server) as tab:
        tab.page.set_default_timeout(30_000)
        tab.ask("\n".join(BATTERY))
        expect(tab.page.locator(".turn-foot:not([hidden])")).to_have_count(1, timeout=30_000)
        assert tab.page.evaluate(LOOK) == []
        assert tab.page.locator("#model").inner_text() == BATTERY[2]
        assert "<script>" in tab.page.locator(".reasoning").text_content()


def test_nothing_of_a_stored_conversation_runs(browser: Any) -> None:
    """Each text in every place where one is shown."""
    stored = [
        {
            "id": f"{i}", "title": text,
            "turns": [
                {"role": "user", "content": text},
                {
                    "role": "assistant", "content": text, "reasoning": text, "facts": [text], "notes": [text],
                    "error": text, "calls": [{"name": text, "arguments": text}], "thoughtTokens": text,
                },
            ],
        }
        for i, text in enumerate(BATTERY)
    ]  # fmt: skip
    whole = {"id": "all", "title": "all", "turns": [turn for each in stored for turn in each["turns"]]}
    with running(Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        tab.page.evaluate(
            "(all) => localStorage.setItem('zaya.conversations', JSON.stringify(all))", [whole, *stored[:19]]
        )
        tab.page.reload()
        tab.page.get_by_role("button", name="all", exact=True).click()
        expect(tab.page.locator(".turn-foot:not([hidden])")).to_have_count(len(BATTERY), timeout=30_000)
        assert tab.page.evaluate(LOOK) == []


def test_nothing_of_errors_and_calls_runs(browser: Any) -> None:
    with running(Typist(lambda *_: TEXT)) as server, Tab(browser, server) as tab:
        page = tab.page
        said = "\n".join(BATTERY)
        page.route(CHAT, lambda route: route.fulfill(status=400, json={"error": {"message": said}}))
        tab.ask()
        expect(page.locator(".trouble")).to_contain_text("<script>")
        assert page.evaluate(LOOK) == []
        page.unroute(CHAT)
        call = {"index": 0, "id": "c", "function": {"name": said, "arguments": said}}
        chunks = [
            {"delta": {"tool_calls": [call]}, "finish_reason": None},
            {"delta": {}, "finish_reason": "tool_calls"},
        ]
        events = "".join(f"data: {json.dumps({'choices': [chunk]})}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        page.route(CHAT, lambda route: route.fulfill(body=events, content_type="text/event-stream"))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".call code")).to_contain_text("<script>")
        assert page.locator(".call pre").text_content() == said
        assert page.evaluate(LOOK) == []


def test_html_from_a_server_that_lets_everything_through(browser: Any) -> None:
    """The policy holds by itself."""
    with running(Typist(lambda *_: TEXT)) as server:
        tab = Tab(browser, server)
        with tab:
            html = (
                "<img src=x onerror='window.__xss=1'><script>window.__xss=1</script><img src='https://evil.example/x'>"
            )
            blocks = {"blocks": [{"line": 0, "html": html}]}
            tab.page.route("**/ui/render", lambda route: route.fulfill(json=blocks))
            tab.ask()
            tab.answered()
            tab.page.wait_for_timeout(200)
            assert any("Content Security Policy" in said for said in tab.wrong)
            tab.wrong.clear()
            tab.hosts.discard("evil.example")  # asked for, and refused before it left
