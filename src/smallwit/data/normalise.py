"""Normal forms of texts for comparison."""

import hashlib
import re
import sys
import unicodedata

_NOT_WORD = re.compile(r"[\W_]+")

# Unicode category Sm: signs of arithmetic, comparison, sets and logic. Two of them are also marks of prose.
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
    """Return the letters and digits of a text in lower case, without spacing, marks and signs."""
    return _NOT_WORD.sub("", text.lower())


def squeezed_formula(text: str) -> str:
    """Return the letters in lower case, numbers, signs of arithmetic, and the brackets beside these signs.

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
    """Return a hash of texts of `size` bytes, the same on every machine."""
    digest = hashlib.blake2b(digest_size=size)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "big")


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text, sorted as texts: `1,000` is `1000`, and `3,5` are two numbers."""
    return sorted(_THOUSANDS.sub("", part["number"]) for part in _PART.finditer(text) if part["number"])
