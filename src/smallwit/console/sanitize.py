"""Escape control characters in untrusted text before it is shown on a terminal or a page.

Names, rows, responses and messages of servers may hold characters that control a terminal (escape sequences, carriage
returns) or change the direction of text. Such characters are shown as escapes, for example `\\x1b`.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

# Control characters except tab and line feed, marks of text direction, line separators, annotations, invisible tags,
# and surrogates.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def escape_control(text: str) -> str:
    """Return `text` with its control characters escaped."""
    if _OBEYED.search(text) is None:
        return text
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def escape_control_data(value: Any) -> Any:
    """Return JSON data with the control characters of all texts and keys escaped."""
    if isinstance(value, str):
        return escape_control(value)
    if isinstance(value, dict):
        return {escape_control_data(name): escape_control_data(inner) for name, inner in value.items()}
    return [escape_control_data(inner) for inner in value] if isinstance(value, list | tuple) else value


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line with its control characters escaped, on standard output by default."""
    print(escape_control(str(text)), file=file or sys.stdout)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape_control(super().format(record))


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), sys.stderr)


def escape_log_output() -> None:
    """Escape control characters in Python's own output to standard error.

    This is the output of logging without a handler, and the traceback of an uncaught exception.
    """
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())
    sys.excepthook = _show
