"""How a page is made of a template: what is put in is text, and stays text."""

from pathlib import Path
from typing import Any

import jinja2

from smallwit.console.sanitize import escape_control

_HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Templates of this folder. Every text that is put in is escaped, and made visible."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    # Markup, a str of another class, is our own: style, script and drawings.
    return escape_control(value) if type(value) is str else value
