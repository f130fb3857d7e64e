"""Replace characters that the output's encoding lacks, so that printing never fails.

PYTHONIOENCODING, a C locale or an old Windows console may support only ASCII, Latin-1 or cp1252. Then `+-` replaces a
plus-minus sign and `-` a dash; a character without a replacement is escaped (`\\u4e2d`).
"""

import codecs
import io
import sys

HANDLER = "smallwit.spelled"
"""The name of this error handler, for `errors=`."""
_SPELLINGS = {
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{EM DASH}": "-",
    "\N{EN DASH}": "-",
    "\N{MINUS SIGN}": "-",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MIDDLE DOT}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
}


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(sign) or _escaped(sign) for sign in lacking), error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode()


codecs.register_error(HANDLER, _replace_unencodable)


def encodable(text: str, encoding: str) -> str:
    """Return a text with replacements for the characters that `encoding` lacks."""
    return text.encode(encoding, HANDLER).decode(encoding)


def install_encoding_fallbacks() -> None:
    """Replace the characters that their encodings lack on standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
