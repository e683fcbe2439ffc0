"""TeX in running text: where it is, by the delimiters that models use, and what it looks like as MathML.

    $x$   \\(x\\)   \\boxed{x}             in a line
    $$x$$   \\[x\\]   \\begin{align}x\\end{align}      by itself, or in a line

Prices are no mathematics: behind an opening dollar there is no space and before it no digit, before a closing one no
space and behind it no digit, and what begins with a number and goes on in words is none. Rules for markdown-it; those
that come as a plugin for it look for an end through the whole text at each beginning, here only as far as a formula may
reach. The MathML is latex2mathml's, as a tree: its text is not escaped. Used by `serve.rendering`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

MOST_FORMULA = 2000
"""Characters of a formula; a longer one stays text."""

ELEMENTS = frozenset({
    "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle", "mpadded",
    "mphantom", "msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "mtable",
    "mtr", "mtd", "menclose",
})  # fmt: skip
"""Of MathML, and those that may come out of a formula. No links, no annotations, and so no HTML inside."""
_LENGTH = re.compile(r"[+-]?\d?(\.\d{1,4})?(em|ex|pt)?")
_TOKEN = re.compile(r"[a-z-]{1,20}|[+-]?\d")
_ALIGNED = re.compile(r"[a-z ]{1,60}")
ATTRIBUTES = {
    **dict.fromkeys(("width", "height", "depth", "lspace", "rspace", "voffset", "minsize", "maxsize"), _LENGTH),
    **dict.fromkeys(("linethickness",), _LENGTH),
    **dict.fromkeys(("display", "displaystyle", "scriptlevel", "stretchy", "fence", "form", "accent"), _TOKEN),
    **dict.fromkeys(("accentunder", "largeop", "movablelimits", "mathvariant", "columnalign"), _TOKEN),
    "notation": _ALIGNED,
}
"""Of MathML, with what they may say. Colours and sizes are the page's."""

_PLACES = {"$$": "$$", "\\[": "\\]"}
_ENVIRONMENT = re.compile(r"\\begin\{((?:align|aligned|gather|gathered|equation|multline|eqnarray|split)\*?)\}")
_AS_SPLIT = re.compile(r"(\\(?:begin|end)\{)(?:align|aligned|gather|gathered|multline|eqnarray|split)\*?\}")
"""Environments of lines below each other: the converter knows this one, and numbers no equations in it."""
_ITEM = r"(?:-?\d[\d.,:;]*|[^\W\d_]{2,}[.,:;]?)"
_BOXED_LIST = re.compile(rf"\\boxed\{{\s*({_ITEM}(?:\s+{_ITEM})+)\s*\}}")
"""An answer of numbers or words one after the other. TeX would draw 3 1 2 as 312, which is another answer."""
_IN_WORDS = re.compile(r"\d[^\\]*\s[A-Za-z]{3,}[^\\]*")
_BEHIND = re.compile(r"[\s.,;:]*")
"""What may follow a formula that has lines of its own."""


def install(md: MarkdownIt) -> None:
    """Tokens of the type `math`: TeX as their content, `info` "block" where it has a place of its own."""
    md.inline.ruler.before("escape", "math", _inline)
    md.block.ruler.before("fence", "math", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})


# ----- where it is


def _inline(state: StateInline, silent: bool) -> bool:
    found = _dollars(state.src, state.pos) if state.src[state.pos] == "$" else _slash(state.src, state.pos)
    if found is None:
        return False
    tex, end, is_block = found
    if not silent:
        token = state.push("math", "", 0)
        token.content, token.info = tex, "block" if is_block else ""
    state.pos = end
    return True


def _dollars(src: str, pos: int) -> tuple[str, int, bool] | None:
    is_block = src.startswith("$$", pos)
    mark = "$$" if is_block else "$"
    start = pos + len(mark)
    end = _unescaped(src, mark, start)
    if end is None or not (tex := src[start:end]).strip() or "\n\n" in tex:
        return None
    after = src[end + len(mark) : end + len(mark) + 1]
    if not is_block:
        is_price = tex[0].isspace() or tex[-1].isspace() or after.isdigit() or src[max(0, pos - 1) : pos].isdigit()
        if is_price or _IN_WORDS.fullmatch(tex):
            return None
    return tex, end + len(mark), is_block


def _slash(src: str, pos: int) -> tuple[str, int, bool] | None:
    if src.startswith("\\boxed{", pos):
        end = _closing_brace(src, pos + 7)
        return None if end is None else (src[pos:end], end, False)
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        if src.startswith(opening, pos):
            end = src.find(closing, pos + 2, pos + MOST_FORMULA)
            tex = src[pos + 2 : end]
            return None if end < 0 or not tex.strip() else (tex, end + 2, opening == "\\[")
    return None


def _unescaped(src: str, mark: str, start: int) -> int | None:
    limit, at = start + MOST_FORMULA, start
    while (end := src.find(mark, at, limit)) >= 0:
        before = src[start:end]
        if (len(before) - len(before.rstrip("\\"))) % 2 == 0:
            return end
        at = end + 1
    return None


def _closing_brace(src: str, start: int) -> int | None:
    depth = 1
    for at in range(start, min(len(src), start + MOST_FORMULA)):
        if src[at] in "{}" and src[at - 1] != "\\":
            depth += 1 if src[at] == "{" else -1
            if depth == 0:
                return at + 1
    return None


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    environment = _ENVIRONMENT.match(first)
    if environment is None and first[:2] not in _PLACES:
        return False
    closing = f"\\end{{{environment[1]}}}" if environment else _PLACES[first[:2]]
    begin = state.bMarks[start] + state.tShift[start]
    found = state.src.find(closing, begin + 2, begin + MOST_FORMULA)
    last = next((line for line in range(start, end) if state.eMarks[line] >= found), end)
    if found < 0 or last == end or not _BEHIND.fullmatch(state.src[found + len(closing) : state.eMarks[last]]):
        return False
    for line in range(start + 1, last + 1):
        if state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            return False
    if silent:
        return True
    whole = state.getLines(start, last + 1, state.sCount[start], False).strip()
    tex = whole[: whole.rindex(closing)]
    token = state.push("math", "", 0)
    token.block, token.info, token.map = True, "block", [start, last + 1]
    token.content = tex + closing if environment else tex[2:]
    state.line = last + 1
    return True


# ----- what it looks like


def as_mathml(tex: str, *, is_block: bool) -> str | None:
    """None for what the converter does not read, or reads only in part."""
    tex = _BOXED_LIST.sub(r"\\boxed{\\text{\1}}", _AS_SPLIT.sub(r"\1split}", tex.strip()))
    try:
        tree = convert_to_element(tex, display="block" if is_block else "inline")
    except Exception:  # it raises whatever a formula makes it stumble over, as RecursionError
        return None
    if sum(1 for _ in tree.iter()) > 4 * MOST_FORMULA:
        return None
    for element in tree.iter():
        _clean(element)
    return tostring(tree, encoding="unicode")


def _clean(element: Element) -> None:
    if element.tag not in ELEMENTS:
        element.tag = "mrow"
    element.attrib = dict(_kept(element))
    for part in ("text", "tail"):
        if value := getattr(element, part):
            setattr(element, part, html.unescape(value))  # the converter writes references, for text that it unescapes


def _kept(element: Element) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name in ATTRIBUTES and ATTRIBUTES[name].fullmatch(value):
            yield name, value
