"""One HTML page of evaluations.

1. It is well-formed, loads and runs nothing, and its policy allows its own style alone.
2. Whatever a file name, a task, a problem or an answer says is text; nothing of it becomes markup.
3. The figure has every point at its place, and stands as a table below; labels do not cover points.
4. It says the numbers of the summary; what is long is limited, and says so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.eval.test_report import ROUNDS, evaluation, run, sample
from zaya.errors import UsageError
from zaya.eval import page as page_module
from zaya.eval.figure import draw
from zaya.eval.metrics import Estimate
from zaya.eval.page import page
from zaya.eval.report import Point

VOID = {"meta", "br"}
KNOWN = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "b", "section", "div", "table", "thead",
    "tbody", "tr", "th", "td", "figure", "figcaption", "ul", "li", "svg", "desc", "path", "text", "circle", "details",
    "summary", "span", "pre", "dl", "dt", "dd",
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>", "</script><script>alert(1)//", "</pre><img src=x onerror=alert(1)>", '" onload="x',
    "' x='", "</style><style>*{}", "<!-- -->", "--><b>", "]]><svg onload=x>", "&lt;&amp;&#60;", "\x00\x1b[2J\x07\x08",
    "\u202egnp.exe", "\ud800", "javascript:alert(1)", "</title><h1>", "<a href=//x>", "${x}{{x}}<%x%>", "<svg><desc>",
    "x" * 5000, "\n", "",
]  # fmt: skip


class Reader(HTMLParser):
    """Every element and attribute, and that what is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def two_systems() -> str:
    samples = [sample(d, i, i < n, 10 + i, answer=str(i < n)) for d, n in (("a", 1), ("b", 3)) for i in range(4)]
    samples = [replace(r, question=f"What is {r.digest}?\nIn a box.", text="so", reasoning="hm") for r in samples]
    rounds = [run("a", 0.5, question="What is a?"), run("b", 1.0, tokens=3000)]
    return page([evaluation("rl", samples), evaluation("rl--deep", rounds, records="rsa", **ROUNDS)])


# 1


def test_it_stands_alone() -> None:
    html = two_systems()
    reader = Reader(html)
    assert reader.open == []
    assert {tag for tag, _ in reader.elements} <= KNOWN
    names = {name for _, attributes in reader.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("style", "src", "href", "srcset", "action")}
    assert not re.search(r"https?:|//\w|url\(|@import", html)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = (a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "prefers-color-scheme: dark" in style
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    classes = {word for _, a in reader.elements for word in (a.get("class") or "").split()}
    assert {word for word in classes if f".{word}" not in style} <= {"broad"}
    assert html == two_systems(), "the same records give the same bytes"


# 2


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text: str) -> None:
    def saying(said: str) -> str:
        one = replace(sample("a", 0, False, answer=said, env=said), question=said, text=said, reasoning=said)
        records = [replace(one, sample=i, correct=i == 0) for i in range(4)]
        return page([evaluation(said, records), evaluation(f"{said}--x", records)])

    plain, hostile = saying("plain"), saying(text)
    hostile = hostile.encode("utf-8", "replace").decode()
    shape, found = Reader(plain), Reader(hostile)
    assert found.open == []
    kinds = [[(t, sorted(a)) for t, a in reader.elements if t not in ("pre", "text")] for reader in (shape, found)]
    assert kinds[0] == kinds[1], "not an element or an attribute more"
    assert "\x1b" not in hostile
    assert "\u202e" not in hostile
    assert len(hostile) < 200_000
    if text.startswith("<"):
        assert text in "".join(found.words)
    for svg in re.findall(r"<svg.*?</svg>", hostile, re.DOTALL):
        ElementTree.fromstring(svg)


# 3


def point(family: str, tokens: float, accuracy: float, label: str = "x", half: float | None = 0.05) -> Point:
    return Point(family=family, label=label, tokens=tokens, accuracy=Estimate(accuracy, 0.01, half, 9, 9))


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle class="mark f0" cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_points_stand_where_they_should() -> None:
    svg = draw([point("a", 100, 0.2), point("a", 1000, 0.4), point("a", 10_000, 0.3)], 600, 400, id="x")
    root = ElementTree.fromstring(svg)
    assert [child.tag for child in root][:2] == ["title", "desc"]
    assert root.attrib["aria-labelledby"] == "x-t x-d"
    assert "a, x: 20.0 percent at 100 tokens" in (root[1].text or "")
    first, second, third = places(svg)
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2), "a decade is a decade"
    assert second[1] < third[1] < first[1]
    assert first[1] - third[1] == pytest.approx(third[1] - second[1], abs=0.2), (
        "ten percent are ten percent, and up is better"
    )
    ticks = {text.text: float(text.attrib["x"]) for text in root.iter("text") if text.attrib.get("class") == "tick"}
    assert ticks["1k"] == pytest.approx(second[0], abs=0.1)
    scale = {t.text: float(t.attrib["y"]) - 4 for t in root.iter("text") if t.attrib.get("text-anchor") == "end"}
    assert scale["20"] == pytest.approx(first[1], abs=0.1)
    assert scale["40"] == pytest.approx(second[1], abs=0.1)
    # the thin bar of the first point: from 15 to 25 percent
    (low, high) = re.findall(rf'class="thin f0" d="M{first[0]:.1f} ([\d.]+)V([\d.]+)"', svg)[0]
    percent = (scale["20"] - scale["40"]) / 20
    assert float(low) - float(high) == pytest.approx(10 * percent, abs=0.2)


@pytest.mark.parametrize("numbers", [False, True])
def test_labels_cover_no_points(numbers: bool) -> None:
    crowd = [point(f"f{i % 3}", 900 + 40 * i, 0.5 + 0.004 * i, label=f"label {i}") for i in range(8)]
    svg = draw(crowd, 340 if numbers else 860, 440, id="x", numbers=numbers)
    root = ElementTree.fromstring(svg)
    labels = [text for text in root.iter("text") if text.attrib.get("class", "").startswith("label")]
    assert [text.text for text in labels] == [str(i + 1) if numbers else f"label {i}" for i in range(8)]
    boxes = []
    for text in labels:
        length = 6.4 * len(text.text or "")
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        left = x - length if text.attrib["text-anchor"] == "end" else x
        boxes.append((left, y - 11, left + length, y + 3))
    for a in range(8):
        for b in range(a):
            apart = boxes[a][0] >= boxes[b][2] - 0.1 or boxes[b][0] >= boxes[a][2] - 0.1
            assert apart or boxes[a][1] >= boxes[b][3] - 0.1 or boxes[b][1] >= boxes[a][3] - 0.1, (a, b)


@pytest.mark.parametrize(
    "crowd",
    [
        [point("a", 5, 0.5, half=None)],
        [point("a", 5, 0.0), point("a", 5, 0.0)],
        [point("a", 1e9, 1.0, half=0), point("b", 0.5, 1.0, half=0)],
        [point(str(i), 10**i, i / 30) for i in range(30)],
    ],
)
def test_any_figure_can_be_drawn(crowd: list[Point]) -> None:
    svg = draw(crowd, 340, 320, id="x")
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg
    numbers = [float(y) for y in re.findall(r'cy="([-\d.]+)"', svg)]
    assert all(0 <= y <= 320 for y in numbers)


# 4


def cells(html: str, label: str) -> list[list[str]]:
    (table,) = re.findall(rf'aria-label="{label}".*?<table>(.*?)</table>', html, re.DOTALL)
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL)
        for line in re.findall("<tr>(.*?)</tr>", table, re.DOTALL)
    ]


def test_it_says_the_numbers() -> None:
    html = two_systems()
    head, single, rounds = cells(html, "Systems")
    assert dict(zip(head, single, strict=True)) == {
        "system": "rl\none sample, up to 192", "accuracy": "50.0", "± new problems": "49.0", "± sampling": "34.6",
        "lenient": "50.0", "form": "+0.0", "vote": "", "tokens": "12", "median": "11", "p90": "13", "cut off": "0.0",
        "problems": "2", "values": "8",
    }  # fmt: skip
    assert rounds[:2] == ["rl--deep\nMarkovian RSA, C 4, τ 4,096, β 8,192, T 2", "75.0"]
    assert [row[:5] for row in cells(html, "Points of the figure")[1:]] == [
        ["1", "rl: Markovian RSA, C 4, τ 4,096", "β 8,192, T 2", "2,000", "75.0"],
        ["2", "rl: one sample", "up to 192", "12", "50.0"],
        ["3", "rl: vote", "of 4", "46", "50.0"],
    ]
    assert cells(html, "pass@k")[1] == ["rl", "50.0 ±49.0", "75.0 ±49.0", "100.0 ±0.0"]
    assert cells(html, "By task") == [["task", "rl", "rl--deep"], ["sums", "50.0 ±49.0 (2)", "75.0 ±49.0 (2)"]]
    assert cells(html, "By difficulty")[1][0] == "sums\nlevel 0"
    assert cells(html, "Problems") == [
        ["problem", "rl", "rl--deep"],
        ["What is a?\nsums, level 0", "1/4", "50 %"],
        ["What is b?\nsums, level 0", "3/4", "100 %"],
    ]
    assert "rl was interrupted: 1 of its problems have no record." in html


def test_a_wrong_form_is_said() -> None:
    html = page([evaluation("x", [sample("a", 0, False, lenient=True), sample("b", 0, False, finish="length")])])
    assert "wrong by form: the right answer stands elsewhere; no answer; 10 tokens" in html
    assert "wrong, cut off; no answer; 10 tokens" in html
    assert dict(zip(*cells(html, "Systems"), strict=True))["form"] == "+50.0"


def test_long_lists_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MOST_PROBLEMS", 5)
    monkeypatch.setattr(page_module, "MOST_SAMPLED", 3)
    html = page([evaluation("x", [replace(sample(f"{i:032}", 0, i > 4), question=f"q{i}") for i in range(9)])])
    assert [row[0].split("\n")[0] for row in cells(html, "Problems")[1:]] == ["q0", "q1", "q2", "q3", "q4"]
    assert "The first 5 of 9 problems." in html
    assert html.count("<dl>") == 3
    assert len(json.dumps(html)) < 40_000
    with pytest.raises(UsageError, match="a page shows 1 to 40 evaluations: 0"):
        page([])


def test_the_style_is_shipped() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert '"**/*.css"' in project.read_text()
