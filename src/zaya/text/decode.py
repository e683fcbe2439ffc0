"""From token ids back to text: what bytes each token stands for, and a decoder that works while tokens arrive.

A token is a piece of a byte string, not of a text: characters may be cut between tokens. So tokens become bytes,
and bytes become text in one place. `Tokenizer.decode` and `Decoder` share that place and always agree.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zaya.errors import CheckpointError

if TYPE_CHECKING:
    from zaya.text.tokenizer import Tokenizer


def _byte_chars() -> dict[str, int]:
    # Byte-level vocabularies write a byte as a visible character: itself where Latin-1 has one, else the next free
    # character from U+0100 on.
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


BYTE_OF_CHAR = _byte_chars()
"""The byte that a character of a byte-level vocabulary stands for."""
CHAR_OF_BYTE = {byte: char for char, byte in BYTE_OF_CHAR.items()}

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level(token: str) -> bytes:
    try:
        return bytes(BYTE_OF_CHAR[char] for char in token)
    except KeyError:  # not written in that alphabet
        return token.encode()


def _byte_fallback(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


def bytes_reader(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes]:
    """How to read the tokens of a vocabulary as bytes, from the `decoder` entry of its tokenizer.json.

    Knows byte-level vocabularies and the byte-fallback ones of the Gemma family (spec 7). Raises CheckpointError for
    others: they would decode to something that is not the text.
    """
    parts = [] if decoder is None else decoder.get("decoders", [decoder])
    kinds = {part["type"] for part in parts}
    if kinds == {"ByteLevel"}:
        return _byte_level
    spaces = [(part["pattern"].get("String"), part["content"]) for part in parts if part["type"] == "Replace"]
    if "ByteFallback" in kinds and kinds <= {"Replace", "ByteFallback", "Fuse"} and spaces == [("▁", " ")]:
        return _byte_fallback
    raise CheckpointError(
        f"tokenizer.json decodes in a way that is not supported: {', '.join(sorted(kinds)) or 'no decoder'}",
        hint="supported are ByteLevel, and Replace ▁ with ByteFallback and Fuse as Gemma has them",
    )


class Decoder:
    """Text from ids that arrive over time. Holds back a character until its last byte is there.

    What `feed` and `finish` return, put together, is `tokenizer.decode` of all ids. The cost of a token does not
    depend on how many came before.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that these ids complete; empty while a character is still open."""
        return self._utf8.decode(self._tokenizer.to_bytes(ids, skip_special=self._skip_special))

    def finish(self) -> str:
        """What is left: U+FFFD for a character that never got complete, else nothing."""
        return self._utf8.decode(b"", final=True)
