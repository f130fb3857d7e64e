"""Derive seeds from what they are used for."""

import hashlib


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends only on `parts`."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
