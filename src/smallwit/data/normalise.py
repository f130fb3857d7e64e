"""Normal forms of texts for comparison."""

import hashlib
import re
import unicodedata
from functools import cache

_NOT_WORD = re.compile(r"[\W_]+")

_THOUSANDS = re.compile(r",|\{,\}|\\,")


@cache
def _signs() -> frozenset[str]:
    """Return the signs of arithmetic, comparison, sets and logic: Unicode's category Sm, and what is typed for them."""
    # They are all in the first two planes. To look through the others, too, takes 0.2 s in each process of a stage.
    symbols = {sign for sign in map(chr, range(0x20000)) if unicodedata.category(sign) == "Sm"}
    # These two are also marks of prose.
    return frozenset(symbols - {"|", "~"} | set("^*/°-"))


@cache
def _part() -> re.Pattern[str]:
    """Return the pattern of the parts of a formula that are kept."""
    sign = f"[{re.escape(''.join(sorted(_signs())))}]"
    return re.compile(
        rf"(?P<number>\d{{1,3}}(?:(?:,|\{{,\}}|\\,)\d{{3}})+(?![\d])(?:\.\d+)?|\d*\.\d+|\d+[!%]?)"
        rf"|(?P<kept>[^\W\d_]+|[^\W_]|{sign}|!(?=\s*=)|['′](?=\())"
        rf"|(?P<bracket>[(){{}}\[\]|])(?=\s*(?P<sign>{sign}|!)?)"
    )


def squeezed(text: str) -> str:
    """Return the letters and digits of a text in lower case, without spacing, marks and signs."""
    return _NOT_WORD.sub("", text.lower())


def squeezed_formula(text: str) -> str:
    """Return the letters in lower case, numbers, signs of arithmetic, and the brackets beside these signs.

    `sin(-60)` is not `sin 60`, `3.5` not `35`, `1 2` not `12` and `2(3+4)` not `2*3+4`; but `1,000` is `1000`.
    """
    parts: list[str] = []
    for part in _part().finditer(text.lower()):
        before = parts[-1][-1] if parts else ""
        found = part[0]
        if part["number"]:
            found = _THOUSANDS.sub("", found)
            parts.append(f" {found}" if before.isdigit() else found)
        elif part["kept"] or part["sign"] or before in _signs():
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
    return sorted(_THOUSANDS.sub("", part["number"]) for part in _part().finditer(text) if part["number"])
