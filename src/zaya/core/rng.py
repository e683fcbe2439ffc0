"""Streams of randomness by name: one seed, one name, one stream, whoever asks and in whatever order.

A stream is named by a hash of everything that identifies it. Adding numbers to a seed makes neighbouring seeds share
items; hashing does not. Imports no torch.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any mix of integers and strings.

    Parts are encoded with their type and length, so ("a", "bc") and ("ab", "c"), or 1 and "1", name different streams.
    """
    digest = hashlib.blake2b(b"".join(map(_encoded, parts)), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1


class Seeds:
    """The seeds of names that differ in their last part only: what they have in common is hashed once."""

    def __init__(self, *parts: int | str) -> None:
        self._digest = hashlib.blake2b(b"".join(map(_encoded, parts)), digest_size=8)

    def derive(self, last: int | str) -> int:
        """`derive_seed` of the common parts and this one."""
        digest = self._digest.copy()
        digest.update(_encoded(last))
        return int.from_bytes(digest.digest(), "big") >> 1


def _encoded(part: int | str) -> bytes:
    data = str(part).encode()
    return b"%s%d:%s" % (b"i" if isinstance(part, int) else b"s", len(data), data)
