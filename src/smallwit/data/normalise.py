"""What of a text counts when texts are compared."""

import hashlib
import re

_NOT_WORD = re.compile(r"[\W_]+")
_NOT_SIGN = re.compile(r"(?:[^\w+*/=<>^\u2212\u00d7\u00f7-]|_)+")


def squeezed(text: str) -> str:
    """Lower case, and nothing but letters and digits: texts that differ in case, spacing, marks or signs become one."""
    return _NOT_WORD.sub("", text.lower())


def squeezed_formula(text: str) -> str:
    """`squeezed`, and the signs of arithmetic: `sin(-60)` is not `sin 60`."""
    return _NOT_SIGN.sub("", text.lower())


def text_hash(*texts: str, size: int = 8) -> int:
    """A hash of texts, the same on every machine; `size` is in bytes."""
    digest = hashlib.blake2b(digest_size=size)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "big")
