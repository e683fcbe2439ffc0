"""What becomes of an answer on its way to the page.

1. Nothing that a text says can run, be fetched by being shown, or look like a part of the page: whatever comes out has
   the elements and attributes that are listed here, and every link leaves by http, https or mailto.
2. Markdown is what CommonMark says, with tables; blocks come with the line where they begin, and a text in pieces gives
   the same HTML as a whole.
3. Mathematics is found between its delimiters, prices are none, and it becomes the MathML that one would write by hand.
4. Code is coloured by its language, and its text is what was written.
5. What is too long, too deep or too slow is shown as it was written, soon; no text is an error.
6. Files, policy and rendering at the server: types, ETag, keys, and what a body may be.
"""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.serve.fakes import Typist, eventually, running
from tests.serve.malicious import BATTERY
from zaya.serve.auth import KeyConfig, Keys, hash_of
from zaya.serve.rendering import MOST_CODE, MOST_TEXT, blocks, clean

HTML = {
    "p": set(), "br": set(), "hr": set(), "h3": set(), "h4": set(), "h5": set(), "h6": set(), "strong": set(),
    "em": set(), "s": set(), "code": {"class"}, "pre": {"data-language"}, "blockquote": set(), "ul": set(),
    "ol": {"start"}, "li": set(),
    "a": {"href", "target", "rel"}, "span": {"class"}, "div": {"class"}, "table": set(), "thead": set(), "tbody": set(),
    "tr": set(), "th": {"class"}, "td": {"class"},
}  # fmt: skip
MATHML_ELEMENTS = {
    "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle", "mpadded",
    "mphantom", "msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "mtable",
    "mtr", "mtd", "menclose",
}  # fmt: skip
MATHML_ATTRIBUTES = {
    "display", "displaystyle", "scriptlevel", "stretchy", "fence", "form", "accent", "accentunder", "largeop",
    "movablelimits", "mathvariant", "columnalign", "notation", "width", "height", "depth", "lspace", "rspace",
    "voffset", "minsize", "maxsize", "linethickness",
}  # fmt: skip
CLASSES = {
    "math", "wide", "tex", "left", "center", "right", "comment", "keyword", "string", "number", "name", "builtin",
    "inserted", "deleted",
}  # fmt: skip


class Seen(HTMLParser):
    """What a browser would find in it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.strange: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.strange.append(data)

    def handle_decl(self, decl: str) -> None:
        self.strange.append(decl)

    def handle_pi(self, data: str) -> None:
        self.strange.append(data)

    unknown_decl = handle_pi


def html_of(text: str) -> str:
    return "".join(block.html for block in blocks(text))


def check(html: str) -> Seen:
    seen = Seen(html)
    assert seen.strange == []
    for tag, attributes in seen.elements:
        allowed = MATHML_ATTRIBUTES if tag in MATHML_ELEMENTS else HTML.get(tag)
        assert allowed is not None, f"<{tag}> in {html}"
        assert attributes.keys() <= allowed, f"{attributes} in {html}"
        assert set(attributes.get("class", "").split()) <= CLASSES
        if tag == "a" and "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"]), html
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"
        for name, value in attributes.items():
            if tag in MATHML_ELEMENTS:
                assert re.fullmatch(r"[a-z0-9 .+-]{0,60}", value), f"{name}={value!r}"
    return seen


# ----- 1


@pytest.mark.parametrize("text", BATTERY)
def test_nothing_can_run(text: str) -> None:
    check(html_of(text))


@pytest.mark.parametrize(
    "frame", ["- a\n\n  {}", "> {}", "**{}**", "a {} b", "| a |\n|---|\n| {} |", "$x$ {} \\(y\\)", "```html\n{}"]
)
def test_nothing_can_run_inside_of_something(frame: str) -> None:
    for text in BATTERY:
        check(html_of(frame.format(text)))


@pytest.mark.parametrize(
    "frame", ["{}", "<p>{}", "<math><mtext>{}", "<table><td>{}", "<a href='{}'>x</a>", "<p title='{}'>"]
)
def test_the_last_stage_by_itself(frame: str) -> None:
    """If the stages before it let everything through; and a second time, as a browser that reads it once more."""
    for text in (
        *BATTERY,
        '<pre data-language="x" class="send"><ol start="9e9"><math href="javascript:x" mathcolor="red">',
    ):
        html = clean(frame.format(text))
        check(html)
        assert clean(html) == html


def test_what_was_written_stays_readable() -> None:
    assert "<script>window.__xss=1</script>" in Seen(html_of(BATTERY[0])).text
    assert "<b>bold</b>" in Seen(html_of("<b>bold</b>")).text


def test_links() -> None:
    html = html_of(
        "[a](https://ok.example/x?y=1&z) <mailto:a@b.example> [b](javascript:x) [c](/metrics) [d](#x) [e](ftp://x)"
    )
    links = [attributes["href"] for tag, attributes in check(html).elements if tag == "a"]
    assert links == ["https://ok.example/x?y=1&z", "mailto:a@b.example"]


def test_images_are_words_and_a_link() -> None:
    seen = check(html_of("![a cat](https://evil.example/cat.png) ![](https://evil.example/b.png)"))
    assert [tag for tag, _ in seen.elements] == ["p", "a", "a"]
    assert seen.text.strip() == (
        "a cat (image at https://evil.example/cat.png) image (image at https://evil.example/b.png)"
    )


# ----- 2


def test_markdown() -> None:
    assert html_of("# A *b*\n\n1. x\n2. y\n\n~~z~~ `q`") == (
        "<h3>A <em>b</em></h3>\n<ol>\n<li>x</li>\n<li>y</li>\n</ol>\n<p><s>z</s> <code>q</code></p>\n"
    )
    assert html_of("|a|b|\n|-:|:-:|\n|1|2|") == (
        '<div class="wide"><table>\n<thead>\n<tr>\n<th class="right">a</th>\n<th class="center">b</th>\n</tr>\n'
        '</thead>\n<tbody>\n<tr>\n<td class="right">1</td>\n<td class="center">2</td>\n</tr>\n'
        "</tbody>\n</table></div>\n"
    )


LONG = "# A\n\none\ntwo\n\n- a\n- b\n\n  c\n\n```python\nx = 1\n\ny\n```\n\n"
LONG += "$$\nx\n$$\nafter\n\n| a |\n|---|\n| b |\n\n> q\n"


def test_blocks_begin_where_they_say() -> None:
    lines = LONG.split("\n")
    assert [lines[block.line] for block in blocks(LONG)] == [
        "# A",
        "one",
        "- a",
        "```python",
        "$$",
        "after",
        "| a |",
        "> q",
    ]


@pytest.mark.parametrize("size", [1, 7, 23])
def test_a_text_in_pieces(size: int) -> None:
    """As the page does it: what is before the last block is rendered once."""
    done, start = "", 0
    lines = LONG.split("\n")
    for end in range(size, len(LONG) + size, size):
        *complete, last = blocks("\n".join(LONG[:end].split("\n")[start:]))
        if complete:
            done += "".join(block.html for block in complete)
            start += last.line
    assert done + "".join(block.html for block in blocks("\n".join(lines[start:]))) == html_of(LONG)


# ----- 3


def mathml(text: str) -> list[str]:
    return re.findall(r"<math.*?</math>", html_of(text))


X = '<math display="inline"><mrow><mi>x</mi></mrow></math>'
BLOCK = X.replace("inline", "block")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so $x$ is", [X]),
        ("so \\(x\\) is", [X]),
        ("so \\[x\\] is", [BLOCK]),
        ("so $$x$$ is", [BLOCK]),
        ("$$x$$", [BLOCK]),
        ("$$\nx\n$$", [BLOCK]),
        ("text\n$$\nx\n$$\ntext", [BLOCK]),
        ("text\n\\[\nx\n\\].\ntext", [BLOCK]),
        ("- item\n  \\[ x \\]", [BLOCK]),
        ("> $$\n> x\n> $$", [BLOCK]),
        ("($x$), $x$-axis and $x$.", [X, X, X]),
        ("$5 and $6", []),
        ("from $5-$10, or US$5/$6 and $7.", []),
        ("it costs $20 here and 20$ there", []),
        ("costs $5, the line is $x$", [X]),
        ("$3 apples cost as much as they$", []),
        ("escaped \\$x\\$ and `$x$`", []),
        ("$ x$ and $x $", []),
        ("$x", []),
        ("$$\nx", []),
        ("\\(x", []),
        ("```\n$x$\n```", []),
    ],
)  # fmt: skip
def test_where_mathematics_is(text: str, found: list[str]) -> None:
    assert mathml(text) == found


def mo(sign: str) -> str:
    return f"<mo>{sign}</mo>"


@pytest.mark.parametrize(
    ("tex", "inside"),
    [
        ("\\frac{1}{2}", "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"),
        ("x_1^2", "<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>"),
        ("\\sqrt{2}", "<msqrt><mrow><mn>2</mn></mrow></msqrt>"),
        ("a<b", f"<mi>a</mi>{mo('&lt;')}<mi>b</mi>"),
        ("\\alpha\\to\\beta", f"<mi>α</mi>{mo('→')}<mi>β</mi>"),
        ("\\text{a & b}", "<mtext>a\u00a0&amp;\u00a0b</mtext>".replace("\u00a0", "&nbsp;")),
        ("\\boxed{7}", '<menclose notation="box"><mrow><mn>7</mn></mrow></menclose>'),
    ],
)  # fmt: skip
def test_what_mathematics_looks_like(tex: str, inside: str) -> None:
    assert mathml(f"${tex}$") == [f'<math display="inline"><mrow>{inside}</mrow></math>']


@pytest.mark.parametrize(
    ("answer", "inside"),
    [
        ("3 1 2", "<mtext>3&nbsp;1&nbsp;2</mtext>"),
        ("not possible", "<mtext>not&nbsp;possible</mtext>"),
        ("x + y", f"<mi>x</mi>{mo('+')}<mi>y</mi>"),
        ("2 x", "<mn>2</mn><mi>x</mi>"),
        ("x_1 2", "<msub><mi>x</mi><mn>1</mn></msub><mn>2</mn>"),
    ],
)  # fmt: skip
def test_a_list_in_a_box_keeps_its_spaces(answer: str, inside: str) -> None:
    [found] = mathml(f"\\boxed{{{answer}}}")
    assert inside in found


def test_a_box_needs_no_dollars() -> None:
    assert mathml("So \\boxed{\\text{a {b}}} it is") == mathml("$\\boxed{\\text{a {b}}}$") != []


@pytest.mark.parametrize("name", ["align", "align*", "aligned", "gather", "split"])
def test_lines_below_each_other(name: str) -> None:
    tex = f"\\begin{{{name}}} a &= b \\\\ c &= d \\end{{{name}}}"
    for text in (tex, f"$$\n{tex}\n$$", f"\\[{tex}\\]"):
        [found] = mathml(text)
        assert found.count("<mtr>") == 2
        assert found.count("<mtd") == 4
        assert "&amp;" not in found


def test_what_cannot_be_read_is_shown() -> None:
    assert html_of("$x^1^2$") == '<p><code class="tex">x^1^2</code></p>\n'


# ----- 4


def test_code() -> None:
    html = html_of('```python title="x"\ndef f(x):\n    return "<b>" # 1\n```')
    assert '<pre data-language="python"><code><span class="keyword">def</span> <span class="name">f</span>(x):' in html
    assert Seen(html).text.strip("\n") == 'def f(x):\n    return "<b>" # 1'


@pytest.mark.parametrize("language", ["", "nonsense", "python", "html", "c++", '"><script>'])
def test_code_is_what_was_written(language: str) -> None:
    code = "  <a href='x'>\t&amp;\r\n\n\n  if (x < 1 && y > 2) { \"\\n\" }   \n"
    html = html_of(f"~~~{language}\n{code}~~~")
    assert Seen(html).text.rstrip("\n") == code.replace("\r\n", "\n").rstrip("\n")
    check(html)


# ----- 5

UNITS = (
    "[", "[a](", "![", "*a ", "**a_b ", "*_", "`", "``a```b`", "<", "<a ", "<!--", "&", "\\", "$a ", "$$a\n", "\\( ",
    "\\[ \n", "\\begin{align}\n", "> ", "- ", "- a\n", "1. a\n", "|a", "|a|b|\n", "[a]: <\n", "[a]: b\n", "~", "~~a",
    "---\n", "a\n=\n", " ", "\n", "a", "\\boxed{", "$x_{x_{x_{1}}}$ ", "    a\n", "> a\nb\n", "- - - a\n", "<http://a>",
    "&#123;", "\x00", "\u2028", "😀", "|-|-|\n|a|b|\n", "```\n", "```python\n", "{", "\\frac{", "\t",
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_takes_long(unit: str) -> None:
    """What is quadratic takes minutes at this size."""
    begun = time.process_time()
    for text in (unit * (MOST_TEXT // len(unit)), (unit * (4000 // len(unit)) + "\n\n") * 4):
        html_of(text)
    assert time.process_time() - begun < 15


@pytest.mark.parametrize("language", ["python", "c++", "html", "diff", "yaml", "ini"])
def test_no_code_takes_long(language: str) -> None:
    begun = time.process_time()
    for unit in ("=", "1", '"', "\n", "a ", "<!--", "(", "/*"):
        html_of(f"```{language}\n{unit * (MOST_CODE // len(unit) - 1)}\n```")
    assert time.process_time() - begun < 20


def test_what_is_too_long_is_shown_as_it_is() -> None:
    text = "a" * (MOST_TEXT - 4) + "\n\n*b*\n*<c>*"
    *_, last = blocks(text)
    assert Seen(last.html).text == text[MOST_TEXT:]
    assert last.line == text[:MOST_TEXT].count("\n")
    assert html_of("*a*" + "b" * 9000) == f"<p>*a*{'b' * 9000}</p>\n"


@pytest.mark.parametrize(
    "tex", ["{" * 900 + "}" * 900, "\\frac{" * 300 + "1" + "}{2}" * 300, "_" * 1500, "\\left(" * 300, "\\" * 1999]
)
def test_formulas_of_any_depth(tex: str) -> None:
    check(html_of(f"$${tex}$$ $x$"))


def test_nothing() -> None:
    assert blocks("") == blocks("\n \n") == []


# ----- 6

KEY = "sk-of-somebody-who-may"


def test_the_page_and_its_files() -> None:
    with running(Typist(lambda *_: "x")) as server:
        connection = server.connection()
        connection.request("GET", "/")
        answer = connection.getresponse()
        page = answer.read().decode()
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert (
            policy["default-src"]
            == policy["base-uri"]
            == policy["form-action"]
            == policy["frame-ancestors"]
            == "'none'"
        )
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["img-src"] == "'self' data:"
        assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == (
            "nosniff",
            "no-referrer",
        )
        named = set(re.findall(r'(?:src|href)="(/[^"]*)"', page))
        kinds = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
        seen = set()
        while named - seen:
            path = (named - seen).pop()
            seen.add(path)
            connection.request("GET", path)
            answer = connection.getresponse()
            data = answer.read().decode()
            assert (answer.status, answer.headers["content-type"]) == (200, kinds[path.rpartition(".")[2]]), path
            assert answer.headers["cache-control"] == "no-cache"
            named |= {
                f"/ui/{name}" for name in re.findall(r'(?:from|import)[ (]"\./([^"]+)"', data) if path.count("/") == 2
            }
            connection.request("GET", path, headers={"If-None-Match": answer.headers["etag"]})
            again = connection.getresponse()
            assert (again.status, again.read()) == (304, b"")
        assert {"/ui/chat.js", "/ui/population.js"} <= seen
        for path in ("/ui/nothing.js", "/ui/../pages.py", "/ui/%2e%2e/pages.py", "/ui/", "/ui"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404, path
            answer.read()
        connection.close()


def test_no_file_holds_scripts_or_styles_in_its_markup() -> None:
    """The policy would stop them; here it is found without a browser."""
    from zaya.serve.pages import FILES

    page = Seen(FILES["page.html"].data.decode())
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert tag != "style"
        assert tag != "script" or attributes["src"].startswith("/ui/")
    written = {name: file.data.decode() for name, file in FILES.items() if name.endswith(".js")}
    sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc")
    assert {name for name, text in written.items() if sinks.search(text)} == {"rendering.js"}
    everything = "".join(file.data.decode() for file in FILES.values())
    assert set(re.findall(r"https?://[\w.]+", everything)) <= {"http://www.w3.org"}


def test_rendering_at_the_server() -> None:
    with running(Typist(lambda *_: "x")) as server:
        status, answer, _ = server.send("/ui/render", {"text": "*a*\n\n<b>"})
        assert (status, answer) == (
            200, {"blocks": [{"line": 0, "html": "<p><em>a</em></p>\n"}, {"line": 2, "html": "<p>&lt;b&gt;</p>\n"}]}
        )  # fmt: skip
        for body, code in (
            ({"text": 1}, 400),
            ({}, 400),
            ({"text": "", "x": 1}, 400),
            (b"{", 400),
            ({"text": "\ud800"}, 400),
        ):
            assert server.send("/ui/render", body)[0] == code
        assert server.send("/ui/render", {"text": "a"}, headers={"Content-Type": "text/plain"})[0] == 415
        assert eventually(lambda: len(server.log) == 6)
        assert {line["status"] for line in server.log} == {400, 415}  # of what went well there is no line


def test_what_the_page_is_told() -> None:
    with running(Typist(lambda *_: "x", context=512), max_rsa_population=8) as server:
        told: dict[str, Any] = server.send("/ui/about")[1]
        assert (told["model"], told["context"], told["preset"], told["max_population"]) == ("m", 512, "micro", 8)
        assert len(told["questions"]) == 3
        assert told["presets"]["micro"]["population"] == 8
        assert "rsa_16k_4k" not in told["presets"]


def test_keys() -> None:
    keys = Keys({"a": KeyConfig(sha256=hash_of(KEY.encode()), requests_per_minute=1)})
    bearer = {"Authorization": f"Bearer {KEY}"}
    with running(Typist(lambda *_: "x"), keys=keys) as server:
        connection = server.connection()
        for path in ("/", "/ui/main.js", "/ui/page.css"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()
        for path, body in (("/ui/about", None), ("/ui/render", {"text": "a"}), ("/ui/nothing.js", None)):
            assert server.send(path, body)[0] == 401
        for _ in range(5):  # no requests in the sense of the key's limit
            assert server.send("/ui/render", {"text": "a"}, headers=bearer)[0] == 200
        assert server.send("/tokenize", {"prompt": "a"}, headers=bearer)[0] == 200
        assert server.send("/tokenize", {"prompt": "a"}, headers=bearer)[0] == 429
        assert server.send("/ui/render", {"text": "a"}, headers=bearer)[0] == 200
