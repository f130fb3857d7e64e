"""What of a text counts when texts are compared."""

import hashlib
import re
import sys
import unicodedata

_NOT_WORD = re.compile(r"[\W_]+")

# Category Sm has the signs of arithmetic, comparison, sets and logic; two of them are marks of prose as well.
_SYMBOLS = {sign for sign in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(sign) == "Sm"} - {"|", "~"}
_SIGNS = frozenset(_SYMBOLS | set("^*/°-"))
_SIGN = f"[{re.escape(''.join(sorted(_SIGNS)))}]"
_PART = re.compile(
    rf"(?P<number>\d{{1,3}}(?:(?:,|\{{,\}}|\\,)\d{{3}})+(?![\d])(?:\.\d+)?|\d*\.\d+|\d+[!%]?)"
    rf"|(?P<kept>[^\W\d_]+|[^\W_]|{_SIGN}|!(?=\s*=)|['′](?=\())"
    rf"|(?P<bracket>[(){{}}\[\]|])(?=\s*(?P<sign>{_SIGN}|!)?)"
)
_THOUSANDS = re.compile(r",|\{,\}|\\,")


def squeezed(text: str) -> str:
    """Lower case, and nothing but letters and digits: texts that differ in case, spacing, marks or signs become one."""
    return _NOT_WORD.sub("", text.lower())


def squeezed_formula(text: str) -> str:
    """Lower case letters, numbers, signs of arithmetic, and the brackets beside these; all else is dropped.

    `sin(-60)` is not `sin 60`, `3.5` not `35`, `1 2` not `12` and `2(3+4)` not `2*3+4`; but `1,000` is `1000`.
    """
    parts: list[str] = []
    for part in _PART.finditer(text.lower()):
        before = parts[-1][-1] if parts else ""
        found = part[0]
        if part["number"]:
            found = _THOUSANDS.sub("", found)
            parts.append(f" {found}" if before.isdigit() else found)
        elif part["kept"] or part["sign"] or before in _SIGNS:
            parts.append(found)
    return "".join(parts)


def text_hash(*texts: str, size: int = 8) -> int:
    """A hash of texts, the same on every machine; `size` is in bytes."""
    digest = hashlib.blake2b(digest_size=size)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "big")


def numbers_in(text: str) -> list[str]:
    """The numbers of a text, in their order of size as text: `1,000` is `1000`, and `3,5` are two."""
    return sorted(_THOUSANDS.sub("", part["number"]) for part in _PART.finditer(text) if part["number"])
