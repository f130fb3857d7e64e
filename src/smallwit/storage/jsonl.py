"""JSON that every reader takes: Python's own writes NaN and Infinity, which are no JSON."""

import json
import math
from typing import Any


def json_line(value: Any) -> str:
    """The text of JSON data in one line, without its end; numbers that are not finite are null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """JSON data with null in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
