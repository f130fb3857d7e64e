"""An endpoint's key, taken out of what is kept and of what is shown: some servers repeat it, and some libraries too."""

import json
import re
from urllib.parse import quote

KEY = "(the key)"
_LONG = 16
"""A shorter key (`EMPTY`, as many local servers have it) may be a word of an answer, so it is left in there."""
_TELLING = 8
"""So many first characters of a key are taken for a part of it: a reply may be cut anywhere."""
_SEARCHED = 1 << 16
_ESCAPED = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|[/\\])")


def without_key(body: bytes, key: str | None) -> bytes:
    """A reply in JSON as it may be kept: without the key, should the server have put it there."""
    if key is None or len(key) < _LONG:
        return body
    body = _spelled(body)
    for form in dict.fromkeys([key, json.dumps(key)[1:-1], quote(key, safe="")]):
        body = body.replace(form.encode(), KEY.encode())
    return body


def hidden(body: bytes, key: str | None) -> str:
    """A text as it may be shown: without the key or the beginning of it, in whatever mixture of URL's and JSON's
    escapes, in capitals or not."""
    text = _spelled(body[:_SEARCHED]).decode(errors="replace")
    if not key:
        return text
    parts, start = [], 0
    for found in re.finditer("".join(map(_either, key[:_TELLING])), text, re.IGNORECASE):
        if found.start() >= start:
            parts.append(text[start : found.start()])
            start = _end(text, found.end(), key[_TELLING:])
    return KEY.join([*parts, text[start:]])


def _either(character: str) -> str:
    return f"(?:{re.escape(character)}|%{ord(character):02x})"


def _end(text: str, place: int, rest: str) -> int:
    """Where in `text`, from `place` on, what is written of `rest` ends."""
    for character in rest:
        found = re.compile(_either(character), re.IGNORECASE).match(text, place)
        if found is None:
            break
        place = found.end()
    return place


def _spelled(body: bytes) -> bytes:
    """JSON whose printable ASCII characters stand as themselves: `\\/` and `\\u0041` are ways to write others."""
    return _ESCAPED.sub(_plain, body)


def _plain(found: re.Match[bytes]) -> bytes:
    """A character for its escape; a quotation mark, a backslash and a control character keep theirs."""
    if found[1] is None:
        return b"/" if found[0] == b"\\/" else found[0]
    character = bytes([int(found[1], 16)])
    return found[0] if character in b'"\\\x7f' else character
