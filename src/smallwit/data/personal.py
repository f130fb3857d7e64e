"""Detection of personal data by patterns: mail and postal addresses, phone and account numbers, keys and tokens.

The patterns are tuned for few false alarms in mathematics and code; check digits must be right. Names of people, and
stories about them, are not detected.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from smallwit.data.context import StepContext
from smallwit.data.row_access import prompt_and_completion
from smallwit.data.turns import tools_text
from smallwit.errors import UserError
from smallwit.rows import Row


class PersonalDataFinding(NamedTuple):
    """A kind of personal data, and the matched text with its middle removed."""

    kind: str
    text: str


def findings(text: str) -> Iterator[PersonalDataFinding]:
    """Yield all matches in `text`, kind by kind."""
    for kind, pattern, right in _FORMS:
        for match in pattern.finditer(text):
            if right(match[0]):
                yield PersonalDataFinding(kind, redacted(match[0]))


def redacted(text: str) -> str:
    """Return the first and last characters of a text, so that a report does not disclose what it reports."""
    shown = max(1, min(4, len(text) // 4))
    return f"{text[:shown]}...{text[-shown:]}"


def screened(rows: Iterator[Row], context: StepContext, action: str) -> Iterator[Row]:
    """Yield the rows, and scan each for personal data before a step sends it to a model.

    Findings go to the side file `personal-data`. When `action` is `stop`, raises `UserError` at the first one, before
    that row is sent anywhere.
    """
    found: Counter[str] = Counter()
    for row in rows:
        prompt, completion = prompt_and_completion(row)
        for finding in findings("\n".join(filter(None, (prompt, completion, tools_text(row))))):
            if action == "stop":
                raise UserError(_stopped(row, finding))
            found[finding.kind] += 1
            about = {"id": row["id"], "origin": row["origin"]}
            context.write_side_file("personal-data", about | {"kind": finding.kind, "text": finding.text})
            context.note("personal data", dict(found))
        yield row


def _stopped(row: Row, finding: PersonalDataFinding) -> str:
    return (
        f"row {row['id']} of {row['origin']} holds what looks like {finding.kind} ({finding.text}), and would go to a "
        "model; drop it by a filter, or set on_personal_data: report"
    )


def _any(text: str) -> bool:
    return True


def _digits(text: str) -> list[int]:
    return [int(sign) for sign in text if sign.isdecimal()]


def _luhn(text: str) -> bool:
    """Return whether the check digit of a payment card is right (ISO/IEC 7812-1)."""
    digits = _digits(text)[::-1]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """Return whether the check digits of an account number are right (ISO 13616): 1 modulo 97."""
    plain = text.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _public(text: str) -> bool:
    """Return whether an internet address is public. One of fewer than six digits is more likely a version number."""
    try:
        return ipaddress.ip_address(text).is_global and len(_digits(text)) >= 6 and not text.endswith(".0")
    except ValueError:
        return False


def _mixed(text: str) -> bool:
    """Return whether a secret has letters and digits, and so is no word or call."""
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
