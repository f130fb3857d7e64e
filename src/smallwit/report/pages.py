"""Render pages from templates, with all inserted text escaped."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from smallwit.console.sanitize import escape_control
from smallwit.report.themes import DARK, LIGHT

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


def style() -> Markup:
    """Return the style sheet of a page: the colours of the charts as CSS variables, then page.css."""
    themes = f":root {{ {LIGHT.css()} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {DARK.css()} }} }}\n"
    return Markup(themes + (_HERE / "page.css").read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    # Markup (a subclass of str) is from this package: style, script and charts.
    return escape_control(value) if type(value) is str else value
