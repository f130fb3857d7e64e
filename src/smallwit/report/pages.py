"""The templates and the style sheet of the HTML pages."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from smallwit.console.sanitize import visible
from smallwit.report.themes import DARK, LIGHT

_HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Return the environment of this folder's templates. It escapes every text and makes control characters visible."""
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
    # Markup, a str of another class, is our own: style and script.
    return visible(value) if type(value) is str else value
