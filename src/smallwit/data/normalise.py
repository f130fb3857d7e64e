"""What of a text counts when texts are compared."""

import hashlib
import re

_NOT_WORD = re.compile(r"[\W_]+")


def squeezed(text: str) -> str:
    """Lower case, and nothing but letters and digits: texts that differ in case, spacing, marks or signs become one."""
    return _NOT_WORD.sub("", text.lower())


def text_hash(*texts: str, size: int = 8) -> int:
    """A hash of texts, the same on every machine; `size` is in bytes."""
    digest = hashlib.blake2b(digest_size=size)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "big")
