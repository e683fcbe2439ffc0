"""Markdown with mathematics and code, as HTML that cannot do anything: what the page shows of an answer.

    text ─► markdown-it, without HTML ─► blocks ─► links checked, TeX to MathML, code by Pygments ─► nh3

Whatever the stages before do wrong, the last one lets through the elements and attributes named here and no others.
Nothing is fetched: an image is its description and a link. What is too long or takes too long is shown as it was
written. Used by `serve.pages`; on paper everything here is linear in the text, and in a test.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, Operator, String, _TokenType

from zaya.serve import mathematics

MOST_TEXT = 64 * 1024
"""Characters of a text that is rendered; the rest of it is shown as it is."""
MOST_PARAGRAPH = 8 * 1024
"""Of one piece of running text, in which marks are looked for."""
MOST_CODE = 16 * 1024
"""Of a block of code that is coloured."""
MOST_SECONDS = 1.0
"""After which what is left is shown as it is."""

_STRANGE = re.compile(r"(?<![^\n])(?:[^\n]{1000}|\s{100}\n)")
"""Code that nobody wrote: a line without an end, or nothing for many lines. Some lexers read it from each place."""
_LINK = re.compile(r"(?:https?://|mailto:)[^\s]+", re.IGNORECASE)

LANGUAGES = frozenset({
    "awk", "bash", "c", "c++", "clojure", "cmake", "cpp", "cs", "csharp", "css", "dart", "diff", "docker", "dockerfile",
    "elixir", "erlang", "fortran", "go", "haskell", "hs", "html", "java", "javascript", "js", "json", "jsx", "julia",
    "kotlin", "latex", "lean", "lua", "make", "makefile", "nginx", "objective-c", "perl", "php", "powershell",
    "proto", "py", "pycon", "python", "python3", "r", "rb", "ruby", "rs", "rust", "sass", "scala", "scheme", "scss",
    "sh", "shell", "sql", "swift", "tex", "toml", "ts", "tsx", "typescript", "vim", "xml", "yaml", "yml", "zig",
})  # fmt: skip
"""Those that are coloured. Lexers of rare languages are where a text can keep a lexer busy."""
_COLOURS: Sequence[tuple[_TokenType, str]] = (
    (Comment, "comment"), (Keyword, "keyword"), (Operator.Word, "keyword"), (Name.Tag, "keyword"),
    (String, "string"), (Number, "number"), (Name.Function, "name"), (Name.Class, "name"), (Name.Decorator, "name"),
    (Name.Attribute, "name"), (Name.Builtin, "builtin"), (Generic.Inserted, "inserted"), (Generic.Deleted, "deleted"),
)  # fmt: skip

_ALIGN = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
_TAGS = frozenset({
    "p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "span", "div", "table", "thead", "tbody", "tr", "th", "td",
})  # fmt: skip
_CLEANER = nh3.Cleaner(
    tags={*_TAGS, *mathematics.ELEMENTS},
    clean_content_tags={"script", "style"},
    attributes={
        "a": {"href"},
        "ol": {"start"},
        "pre": {"data-language"},
        **{name: set(mathematics.ATTRIBUTES) for name in mathematics.ELEMENTS},
    },
    attribute_filter=lambda tag, name, value: _filtered(tag, name, value),
    allowed_classes={
        "span": {name for _, name in _COLOURS},
        "div": {"math", "wide"},
        "code": {"tex"},
        "th": set(_ALIGN.values()),
        "td": set(_ALIGN.values()),
    },
    set_tag_attribute_values={"a": {"target": "_blank"}},
    link_rel="noopener noreferrer nofollow",
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
)


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a list, a table: what stands by itself in a text."""

    line: int
    """Where it begins."""
    html: str


def blocks(text: str) -> list[Block]:
    """A text in its blocks; those before the last change no more when the text goes on. Never raises for any text."""
    text, rest = text[:MOST_TEXT], text[MOST_TEXT:]
    env: dict[str, Any] = {"until": time.monotonic() + MOST_SECONDS}
    try:
        found = list(_rendered(_MARKDOWN.parse(text, env), env))
    except Exception:  # a mistake of a library must not keep an answer from whoever asked
        found = [Block(0, plain(text))]
    return [*found, Block(text.count("\n"), plain(rest))] if rest else found


def plain(text: str) -> str:
    """A text as it is written."""
    return f"<pre>{escape(text)}</pre>"


def clean(html: str) -> str:
    """HTML without what it must not have, whoever wrote it."""
    return _CLEANER.clean(html)


def _rendered(tokens: Sequence[Token], env: dict[str, Any]) -> Iterator[Block]:
    start = depth = 0
    for end, token in enumerate(tokens, 1):
        depth += token.nesting
        if depth == 0:
            html = _MARKDOWN.renderer.render(tokens[start:end], _MARKDOWN.options, env)
            yield Block((tokens[start].map or [0])[0], clean(html))
            start = end


def _filtered(tag: str, name: str, value: str) -> str | None:
    """The value of an attribute, or None where it may not stand."""
    if tag in mathematics.ELEMENTS:
        form = mathematics.ATTRIBUTES.get(name)
        return value if form is not None and form.fullmatch(value) else None
    if (tag, name) == ("a", "href"):
        return value if _LINK.fullmatch(value) else None
    if (tag, name) == ("ol", "start"):
        return value if value.isdecimal() and len(value) < 10 else None
    if (tag, name) == ("pre", "data-language"):
        return value if value in LANGUAGES else None
    return value if name in ("class", "target", "rel") else None  # the library lets titles and languages through


# ----- markdown


def _markdown() -> MarkdownIt:
    md = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    md.validateLink = lambda url: _LINK.fullmatch(url) is not None
    mathematics.install(md)
    md.core.ruler.at("inline", _inline)
    md.core.ruler.push("page", _for_the_page)
    for rule in (_fence, _code_block, _image, _math, _table_open, _table_close):
        md.add_render_rule(rule.__name__[1:], rule)
    return md


def _inline(state: StateCore) -> None:
    """As markdown-it's own, but not for what is too long."""
    for token in state.tokens:
        if token.type != "inline":
            continue
        if len(token.content) > MOST_PARAGRAPH or time.monotonic() > state.env["until"]:
            token.children = [Token("text", "", 0, content=token.content)]
        else:
            token.children = []
            state.md.inline.parse(token.content, state.md, state.env, token.children)


def _for_the_page(state: StateCore) -> None:
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):  # the page has headings of its own above these
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if (align := _ALIGN.get(str(token.attrs.pop("style", "")))) is not None:
            token.attrs["class"] = align


def _fence(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: dict[str, Any]) -> str:
    token = tokens[at]
    language = token.info.split(maxsplit=1)[0].lower() if token.info.strip() else ""
    if language not in LANGUAGES:
        return f"<pre><code>{escape(token.content)}</code></pre>\n"
    code = escape(token.content)
    if len(token.content) <= MOST_CODE and not _STRANGE.search(token.content):
        code = "".join(_coloured(token.content, language, env["until"]))
    return f'<pre data-language="{escape(language)}"><code>{code}</code></pre>\n'


def _coloured(code: str, language: str, until: float) -> Iterator[str]:
    told = 0
    for kind, value in get_lexer_by_name(language, stripnl=False, ensurenl=False).get_tokens(code):
        if time.monotonic() > until:
            yield escape(code[told:])
            return
        told += len(value)
        name = next((name for base, name in _COLOURS if kind in base), None)
        yield escape(value) if name is None else f'<span class="{name}">{escape(value)}</span>'


def _code_block(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: dict[str, Any]) -> str:
    return f"<pre><code>{escape(tokens[at].content)}</code></pre>\n"


def _image(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: dict[str, Any]) -> str:
    """Fetched, it would tell a stranger that this answer was read."""
    address = str(tokens[at].attrs["src"])
    words = self.renderInlineAsText(tokens[at].children or [], options, env)
    return f'<a href="{escape(address)}">{escape(words or "image")}</a> (image at {escape(address)})'


def _math(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: dict[str, Any]) -> str:
    token = tokens[at]
    is_block = token.info == "block"
    found = None
    if time.monotonic() < env["until"]:
        found = mathematics.as_mathml(token.content, is_block=is_block)
    html = f'<code class="tex">{escape(token.content)}</code>' if found is None else found
    return f'<div class="math">{html}</div>\n' if token.block else html


def _table_open(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: dict[str, Any]) -> str:
    return '<div class="wide"><table>\n'  # it scrolls by itself


def _table_close(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: dict[str, Any]) -> str:
    return "</table></div>\n"


_MARKDOWN = _markdown()
