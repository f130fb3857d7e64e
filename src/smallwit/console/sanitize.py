"""Text of others as it may be shown: on a terminal and on a page nothing in it is obeyed.

Names, rows, responses and what servers say may hold what a terminal acts on (escape sequences, carriage returns) and
what turns the order of the text around it. Such characters are shown by their escapes, as `\\x1b`.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

# Control characters but tab and line feed, marks that embed or override a direction, line separators, annotations,
# tags that nobody sees, and halves of characters.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def escape_control(text: str) -> str:
    """`text` with every character that would be obeyed as an escape; the same text where there is none."""
    if _OBEYED.search(text) is None:
        return text
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def escape_control_data(value: Any) -> Any:
    """JSON data with all its texts, and the names in it, made visible."""
    if isinstance(value, str):
        return escape_control(value)
    if isinstance(value, dict):
        return {escape_control_data(name): escape_control_data(inner) for name, inner in value.items()}
    return [escape_control_data(inner) for inner in value] if isinstance(value, list | tuple) else value


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line, on standard output by default."""
    print(escape_control(str(text)), file=file or sys.stdout)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape_control(super().format(record))


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), sys.stderr)


def escape_log_output() -> None:
    """Make visible text of what Python itself writes to standard error: warnings, where nobody has set up logging, and
    the traceback of an exception that nobody has caught."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())
    sys.excepthook = _show
