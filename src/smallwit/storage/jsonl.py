"""Strict JSON: no NaN and Infinity, which Python's own writer allows, and no traceback for deep nesting."""

import json
import math
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the data of a JSON text. Raises `ValueError` for other text, and for data that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_line(value: Any) -> str:
    """Return JSON data as text in one line, without a line feed. Numbers that are not finite become null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """Return JSON data with null in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
