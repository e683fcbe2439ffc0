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
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = str(part).encode()
        kind = "i" if isinstance(part, int) else "s"
        digest.update(f"{kind}{len(data)}:".encode())
        digest.update(data)
    return int.from_bytes(digest.digest(), "big") >> 1
