"""Render pages from templates, with all inserted text escaped."""

from pathlib import Path
from typing import Any

import jinja2

from smallwit.console.sanitize import escape_control

_HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Return the templates of this folder. Inserted text is escaped for HTML, and its control characters too."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    # Markup (a subclass of str) is from this package: style, script and charts.
    return escape_control(value) if type(value) is str else value
