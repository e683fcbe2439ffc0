"""One spelling for what people and models write in many: LaTeX variants, Unicode, typed-out words.

`\\dfrac12`, `½` and `\\tfrac{1}{2}` come out alike. What a text means is read from the result by `envs.math.formula`
and `envs.math.equivalence`; nothing is decided here.
"""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of an answer. A longer one is not read."""

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
        "∙": "\\cdot ",
        "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "π": "\\pi ", "∞": "\\infty ", "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ",
        "≥": "\\ge ", "≠": "\\ne ", "⩽": "\\le ", "⩾": "\\ge ", "∪": "\\cup ", "∅": "\\emptyset ", "∈": "\\in ",
        "°": "^\\circ ", "√": "\\sqrt ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ",
        "λ": "\\lambda ", "ω": "\\omega ", "φ": "\\phi ", "ϕ": "\\phi ", "μ": "\\mu ", "½": "\\frac{1}{2}",
        "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅕": "\\frac{1}{5}",
        "⅙": "\\frac{1}{6}", "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}",
        "“": '"', "”": '"', "’": "'", "\u00a0": " ", "\u2009": "\\,", "\u202f": "\\,", "\u2061": "", "…": "\\ldots ",
        "€": "\\text{euros}", "£": "\\text{pounds}", "％": "%",
        "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}", "′": "'",
        "″": "''", "≡": "\\equiv ", "∑": "\\sum ", "∫": "\\int ", "∖": "\\setminus ", "Γ": "\\Gamma ",
        "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "∠": "\\angle ",
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

_SPACES = re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad\b|(?<=.)~|\\(?:displaystyle|textstyle|limits|nolimits)(?![A-Za-z])")
_SIZES = re.compile(r"\\(?:left|right|bigg?[lr]?|Bigg?[lr]?)(?![A-Za-z])\.?")
_SYNONYMS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge",
    "lt": "<", "gt": ">", "neq": "ne", "varnothing": "emptyset", "dbinom": "binom", "tbinom": "binom",
    "lbrace": "\\{", "rbrace": "\\}", "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|", "vert": "|",
    "mid": "|", "lfloor": "\\lfloor", "degree": "^\\circ", "infin": "infty", "varphi": "phi", "varepsilon": "epsilon",
    "ast": "*", "div": "/", "colon": ":", "bmatrix": "pmatrix", "dots": "ldots", "cdots": "ldots",
    "backslash": "setminus", "smallsetminus": "setminus", "Bbb": "mathbb",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_FONT = re.compile(r"\\(?:mathbf|mathit|mathsf|boldsymbol|bm)\s*(?=\{)")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|operatorname\*?|mbox|hbox|emph)\s*\{([^{}]*)\}"
)
_WHOLE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)
_DOLLARS = re.compile(r"\$\$?(.*?)\$\$?", re.DOTALL)
_PART = r" ?(\{[^{}]*\}|[^{}]*?) ?"
_STRUCTURES = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (rf"\{{{_PART}\\choose(?![A-Za-z]){_PART}\}}", r"\\binom{\1}{\2}"),
        (r"\\mathbb ?([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        (r"\\(?:hat|vec)\{\\?([ijk])(?:math)?\}|\\hat ?\\([ij])math", r"\1\2"),
        (r"\^\{?((?:\\prime ?)+)\}?", lambda match: "'" * match[1].count("\\prime")),
        (r"\(? ?(?:\\(?:p|b)?mod|\\text\{\(?mod\}) ?(?:\{([^{}]*)\}|(\d+|[a-z])) ?\)?", r"\\pmod{\1\2}"),
        (r"\\text\{\(?mod (\d+|[a-z])\)?\}", r"\\pmod{\1}"),
        (r"\(mod (\d+|[a-z])\)", r"\\pmod{\1}"),
        (r"\((\d[0-9A-F]*)\)_(?=\{?\d)", r"\1_"),
        (r"[(\[]\\begin\{array\}\{[lcr| ]*\}(.*?)\\end\{array\}[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (r"\\\{\\begin\{array\}\{[lcr| ]*\}(.*?)\\end\{array\}(?!\\\})", r"\\begin{cases}\1\\end{cases}"),
    )
)
"""Several spellings of one structure."""
_WORDS = re.compile(r"(?<![A-Za-z\\])(sqrt|pi|infinity|inf|theta|alpha|beta|gamma|lambda|omega|sin|cos|tan|cot|sec|csc"
                    r"|arcsin|arccos|arctan|arccot|arcsec|arccsc|asin|acos|atan|sinh|cosh|tanh|coth|sech|csch|arcsinh"
                    r"|arccosh|arctanh|log|ln|exp|binom|gcd|lcm)(?![A-Za-z])")  # fmt: skip
_WORD_COMMANDS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "inf": "infty", "infinity": "infty"}


def respelled(text: str) -> str:
    """The text in one spelling. Words of `\\text{...}` stay behind in `\\text{...}`, whatever font they had."""
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda run: "_{" + run[0].translate(_SUBSCRIPTS) + "}", text)
    text = text.translate(_CHARACTERS).strip()
    text = _without_delimiters(text)
    text = text.replace("\\$", "\\text{dollars}").replace("$", "\\text{dollars}").replace("\\%", "%")
    text = re.sub(r"(?<=\d)\{,\}(?=\d{3}(?!\d))", "", text).replace("{,}", ".")
    text = re.sub(r"(?<=\d)\\[,! ](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d),\\!(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\\not\s*=", r"\\ne ", text)
    text = re.sub(r"(?<!\\)\\!", "", text)
    text = _SIZES.sub("", _SPACES.sub(" ", text))
    text = _FONT.sub("", text)
    text = _TEXT.sub(lambda match: _as_text(match[1]), text)
    text = _COMMAND.sub(_synonym, text)
    text = re.sub(r"\\(begin|end)\s*\{[bp]matrix\}", r"\\\1{pmatrix}", text)
    text = "".join(
        part if part.startswith("\\text{") else _WORDS.sub(_command, part.replace("**", "^"))
        for part in re.split(r"(\\text\{[^{}]*\})", text)
    )
    text = re.sub(r"\s+", " ", text)
    for pattern, replacement in _STRUCTURES:
        text = pattern.sub(replacement, text)
    return _without_idle_spaces(re.sub(r"_\{([A-Za-z0-9])\}", r"_\1", text))


def _without_delimiters(text: str) -> str:
    """Without what says only that mathematics begins or ends: dollars, brackets, bold, a box, a full stop."""
    while True:
        before = text
        if (match := _DOLLARS.fullmatch(text)) and "$" not in match[1]:
            text = match[1].strip()
        for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("**", "**")):
            if len(text) > 4 and text.startswith(opening) and text.endswith(closing):
                text = text[2:-2].strip()
        if match := _WHOLE_BOX.fullmatch(text):
            text = match[1].strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].strip()
        if text == before:
            return text


def _as_text(words: str) -> str:
    words = words.strip()
    if not any(character.isalpha() for character in words):
        return words
    if words in ("i", "e", "d") or words in _WORD_COMMANDS or _WORDS.fullmatch(words):
        return f" {words} "
    return f"\\text{{{words}}}"


def _synonym(match: re.Match[str]) -> str:
    name = _SYNONYMS.get(match[1], match[1])
    return name if not name.isalpha() else f"\\{name}"


def _command(match: re.Match[str]) -> str:
    return f"\\{_WORD_COMMANDS.get(match[1], match[1])}"


def _without_idle_spaces(text: str) -> str:
    """Spaces only where leaving them out would join two numbers or words: `2 1/2` is not `21/2`."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(?<![A-Za-z0-9.,]) | (?![A-Za-z0-9.])", "", text)
