"""Signs that an encoding lacks are spelled in others, so that no terminal or pipe ends a command.

PYTHONIOENCODING, a C locale or an old Windows console may know ASCII, Latin-1 or cp1252 alone. What is printed then has
`+-` for a plus-minus sign and `-` for a dash; a character without such a spelling is escaped (`\\u4e2d`), and nothing
is lost.
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


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(sign) or _escaped(sign) for sign in lacking), error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode()


codecs.register_error(HANDLER, _spell)


def encodable(text: str, encoding: str) -> str:
    """A text as it is printed in an encoding."""
    return text.encode(encoding, HANDLER).decode(encoding)


def install_encoding_fallbacks() -> None:
    """Let standard output and error spell what their encodings lack."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
