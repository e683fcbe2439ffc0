"""Finding the spellings of control tokens in text, and keeping text that is only text from forming them.

A tokenizer reads `<|im_end|>` as one token wherever it stands. Text from outside must never become such a token, so
`Escape` puts a stand-in character in its place before a chat template runs. Afterwards the text is whole again, and
every control token that is not entirely the template's own is known and is encoded as ordinary characters.
Used by `text.tokenizer` and `text.chat`.

Covered: whole spellings; spellings that only arise where a string touches the template's text or another string
(a parameter called `x><|im_start|`, which the template closes with `>`).
Not covered: a template that cuts a string apart and joins the pieces in another order.

What a template writes is the text itself. What it may see is the stand-in, one character in place of a spelling or of
a string's first or last character, and these then give another result than for the text:

- sizes and places: `length`, `count`, `wordcount`, indices and slices, `truncate`, `wordwrap`, `center`, `first`,
  `last`, `reverse`, loops over characters
- looking inside: `in`, `replace`, `split`, `startswith`, `strip` with characters, `striptags`, and `==` with anything
  but a string that the template's code spells out and that does not begin with `<` or `>`
- case: `upper`, `lower`, `capitalize`, `title` leave a stand-in as it is
- order: `sort`, `unique`, `groupby`, `min`, `max`, `<`; `dictsort` and `tojson(sort_keys=true)` do compare the text
- writing safely: `tojson`, `escape`, `forceescape`, `xmlattr` and `repr` leave what has a stand-in as it is; that
  matters for spellings with quotes, backslashes or angle brackets, and for rare ideographs under `ensure_ascii`
- bytes: `encode`, `hash`

A stand-in that comes out as an escape (`urlencode`, `%a`, the bytes of a string) is an error, unless the conversation
itself holds such an escape: then it cannot be told from text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from zaya.errors import UsageError

# Stand-ins must be printable, or `repr` and the string form of a list in a template would write them as escapes:
# that rules private-use characters out. These rare ideographs have no case, no width and no other form. Where one
# occurs in the input it gets a stand-in itself, so a stand-in is never mistaken for text. The range is that of whole
# high surrogates, D840 to D868, so that an escape tells by its beginning whether it is one of these.
_FIRST_STAND_IN, _LAST_STAND_IN = 0x20000, 0x2A3FF
RESERVED = re.compile(f"[{chr(_FIRST_STAND_IN)}-{chr(_LAST_STAND_IN)}]")
"""The characters that may be stand-ins. A template must hold none."""
_AS_ESCAPE = re.compile(r"\\ud8(?:[45].|6[0-8])|\\U0002(?:[0-9]|a[0-3])|(?:%F0%A|\\xf0\\xa)(?:[0-9]|[Aa](?:%|\\x)8)")


class ControlTokens:
    """A set of spellings, and where they occur. A spelling of one character cannot be taken apart and is left out."""

    def __init__(self, spellings: Iterable[str]) -> None:
        self.spellings = frozenset(s for s in spellings if len(s) > 1)
        self._lengths = sorted({len(s) for s in self.spellings}, reverse=True)
        self._longest = self._lengths[0] if self._lengths else 0
        initials = "".join(re.escape(c) for c in sorted({s[0] for s in self.spellings}))
        self._initial = re.compile(f"[{initials}]" if initials else "(?!)")
        self._heads = {s[:n] for s in self.spellings for n in range(1, len(s))}
        self._tails = {s[n:] for s in self.spellings for n in range(1, len(s))}
        self._joined = "\0".join(sorted(self.spellings))

    def find(self, text: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """(start, stop) of every spelling that begins in a range of the text, the longest at each place."""
        for match in self._initial.finditer(text, start, len(text) if stop is None else stop):
            at = match.start()
            for length in self._lengths:
                if (piece := text[at : at + length]) in self.spellings:
                    yield at, at + len(piece)
                    break

    def touching(self, text: str, start: int, stop: int) -> Iterator[int]:
        """Where the spellings begin that share a character with a range of the text."""
        for at, end in self.find(text, max(0, start - self._longest + 1), stop):
            if end > start:
                yield at

    def open_ends(self, text: str) -> tuple[bool, bool]:
        """Whether a spelling could arise across the beginning of a string, and across its end."""
        if 0 < len(text) < self._longest and text in self._joined:
            return True, True
        sizes = range(1, min(self._longest, len(text) + 1))
        return any(text[:n] in self._tails for n in sizes), any(text[-n:] in self._heads for n in sizes)


class Escape:
    """Stand-ins for the text that may not become a control token, and the way back."""

    def __init__(self, words: frozenset[str]) -> None:
        """`words` are what the template's code looks up or compares: such a string keeps its ends."""
        self._words = words
        self._stand_ins: dict[str, str] = {}
        self._originals: dict[str, str] = {}
        self._escapes_given = False

    def text(self, text: str, forbidden: ControlTokens) -> str:
        """The text with stand-ins where it spells something forbidden, or has an end that could complete one."""
        self._escapes_given = self._escapes_given or _AS_ESCAPE.search(text) is not None
        text = RESERVED.sub(lambda match: self._stand_in(match[0]), text)
        pieces, at = [], 0
        for start, stop in forbidden.find(text):
            if start >= at:
                pieces += [text[at:start], self._stand_in(text[start:stop])]
                at = stop
        text = "".join(pieces) + text[at:]
        body = text.strip()  # a template may trim, so the ends that count are the visible ones
        before, after = (False, False) if body in self._words else forbidden.open_ends(body)
        # What touches a string and reaches beyond it contains its first or its last character.
        if after:
            text = self._mark(text, len(text.rstrip()) - 1)
        if before:
            text = self._mark(text, len(text) - len(text.lstrip()))
        return text

    def value(self, value: object, forbidden: ControlTokens) -> object:
        """The same for JSON-like data, keys included. Mappings and sequences are copied into plain ones.

        Raises TypeError for anything that JSON does not have.
        """
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(value, forbidden)
            case Mapping():
                return {self.text(str(k), forbidden): self.value(v, forbidden) for k, v in value.items()}
            case Sequence() if not isinstance(value, (bytes, bytearray)):
                return [self.value(item, forbidden) for item in value]
        raise TypeError(f"{type(value).__name__} is not a JSON value")

    def plain(self, text: str) -> str:
        """The text with its originals."""
        return RESERVED.sub(lambda match: self._originals.get(match[0], match[0]), text)

    def restore(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """The text with its originals, and the (start, stop) in it of everything that had a stand-in.

        Raises UsageError where it holds stand-ins that cannot be traced back.
        """
        escape = None if self._escapes_given or not self._originals else _AS_ESCAPE.search(text)
        if escape is not None:
            raise _untraceable(f"writes characters as escapes: {escape[0]}")
        pieces, ranges, at, length = [], [], 0, 0
        for match in RESERVED.finditer(text):
            original = self._originals.get(match[0])
            if original is None:
                raise _untraceable(f"writes a character that stands for others here: U+{ord(match[0]):X}")
            before = text[at : match.start()]
            pieces += [before, original]
            length += len(before) + len(original)
            ranges.append((length - len(original), length))
            at = match.end()
        return "".join(pieces) + text[at:], ranges

    def _mark(self, text: str, at: int) -> str:
        if text[at] in self._originals:  # it is a stand-in already
            return text
        return text[:at] + self._stand_in(text[at]) + text[at + 1 :]

    def _stand_in(self, original: str) -> str:
        if original not in self._stand_ins:
            code = _FIRST_STAND_IN + len(self._stand_ins)
            if code > _LAST_STAND_IN:
                raise UsageError("one conversation spells too many different control tokens: over 41,000")
            self._stand_ins[original] = chr(code)
            self._originals[chr(code)] = original
        return self._stand_ins[original]


def _untraceable(what: str) -> UsageError:
    return UsageError(f"the chat template {what}", hint="so the text of the messages cannot be told in what it wrote")
