"""Text that looks like personal data: mail and postal addresses, phone and account numbers, keys and tokens.

A scanner of patterns, tuned to stay silent on mathematics and code: where a form has check digits they must be right.
It finds what has a form; names and stories about people it does not see.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    """What kind of personal data a text seems to hold, and the place, its middle blotted out."""

    kind: str
    text: str


def findings(text: str) -> Iterator[Finding]:
    """Everything in `text` that looks like personal data, kind by kind."""
    for kind, pattern, right in _FORMS:
        for match in pattern.finditer(text):
            if right(match[0]):
                yield Finding(kind, blotted(match[0]))


def blotted(text: str) -> str:
    """The ends of a text, so that a report can be read without giving away what it reports."""
    shown = max(1, min(4, len(text) // 4))
    return f"{text[:shown]}...{text[-shown:]}"


def _any(text: str) -> bool:
    return True


def _digits(text: str) -> list[int]:
    return [int(sign) for sign in text if sign.isdecimal()]


def _luhn(text: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    digits = _digits(text)[::-1]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """The check digits of account numbers (ISO 13616): 1 modulo 97."""
    plain = text.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _public(text: str) -> bool:
    """An address of somebody's machine. One of fewer than six digits is rather a version number."""
    try:
        return ipaddress.ip_address(text).is_global and len(_digits(text)) >= 6 and not text.endswith(".0")
    except ValueError:
        return False


def _mixed(text: str) -> bool:
    """A secret of letters and digits, and not a word or a call."""
    secret = re.split(r"[:=]\s*", text, maxsplit=1)[1].strip("'\"")
    return any(sign.isdecimal() for sign in secret) and any(sign.isalpha() for sign in secret)


_STREET = r"(?:Street|St\.?|Avenue|Ave\.?|Road|Rd\.?|Boulevard|Blvd\.?|Lane|Ln\.?|Drive|Dr\.?|Court|Ct\.?|Way|Place)"
_FORMS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("an e-mail address", re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b"), _any),
    (
        "a phone number",
        re.compile(
            r"(?<![\w.+*/=${-])(?:\+1[ .-]?)?(?:\(\d{3}\) ?|\d{3}([.-]))\d{3}[.-]\d{4}(?![\w-]|\.\d)"
            r"|(?<![\w)}$])\+\d{1,3}[ .-]\(?\d{1,4}\)?(?:[ .-]\d{2,4}){2,4}(?!\w)"
            r"|(?<![\w)}$])\+[1-9]\d{9,13}(?!\w)"
        ),
        _any,
    ),
    (
        "a postal address",
        re.compile(
            rf"\b\d{{1,5}} (?:[A-Z][a-z]+ ){{1,3}}{_STREET},? (?:(?:Apt|Suite|Unit)\.? \w+,? )?"
            r"(?:[A-Z][a-z]+ ?){1,3},? [A-Z]{2}(?: \d{5})?\b"
            r"|\b[A-ZÄÖÜ][a-zäöüß]+(?:straße|strasse|str\.|weg|platz|allee) \d{1,4}[a-z]?, ?\d{5} [A-ZÄÖÜ]"
        ),
        _any,
    ),
    (
        "a social security number",
        re.compile(r"(?<![\w.+*/=-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])"),
        _any,
    ),
    ("a payment card's number", re.compile(r"(?<![\w.-])[3-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?![\w-])"), _luhn),
    ("an account number", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"), _iban),
    ("an internet address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"), _public),
    (
        "a key or token",
        re.compile(
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{22,}\b"
            r"|\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[\w-]{35}\b"
            r"|\bhf_[A-Za-z0-9]{30,}\b|\bglpat-[\w-]{20,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
            r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
        ),
        _any,
    ),
    (
        "a secret",
        re.compile(
            r"(?i)\b(?:api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token|secret[_-]?key|client[_-]?secret|password|passwd)"
            r"['\"]?\s*[:=]\s*(?:['\"][^\s'\"]{8,}['\"]|[A-Za-z0-9+/_-]{12,}(?![(\w]))"
        ),
        _mixed,
    ),
)
