"""Render pages from templates, with all inserted text escaped."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from smallwit.console import numbers
from smallwit.console.sanitize import escape_control
from smallwit.report.themes import DARK, LIGHT

_HERE = Path(__file__).parent
_FILTERS = ("human_count", "human_flops", "human_seconds", "human_bytes", "percent", "points", "p_value")


def render_page(template: str, *, scripts: Sequence[str] = (), live: bool = False, **values: Any) -> str:
    """Return the HTML of a template of this folder. Inserted text is escaped for HTML, and its control characters too.

    The page's content policy allows no access to the network, and no script but `scripts`, files of this folder. With
    `live` these may ask the server that the page comes from.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {name: getattr(numbers, name) for name in _FILTERS}
    sources = [(_HERE / script).read_text(encoding="utf-8") for script in scripts]
    page = templates.get_template(template).render(
        scripts=[Markup(source) for source in sources], policy=_policy(sources, live), style=_style(), **values
    )
    # A lone surrogate in a name or a recipe cannot be encoded; the page must be written all the same.
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _policy(scripts: Sequence[str], live: bool) -> Markup:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = [" ".join(["script-src", *(f"'sha256-{digest}'" for digest in digests)])] if scripts else []
    own = ["connect-src 'self'"] if live else []
    fixed = ["img-src data:", "base-uri 'none'", "form-action 'none'"]
    return Markup("; ".join(["default-src 'none'", "style-src 'unsafe-inline'", *allowed, *own, *fixed]))


def _style() -> Markup:
    """Return the style sheet of a page: the colours of the charts as CSS variables, then page.css."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK.css()} }} }}"
    return Markup(f":root {{ {LIGHT.css()} }}\n{dark}\n" + (_HERE / "page.css").read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    # Markup (a subclass of str) is from this package: style, script, policy and charts.
    return escape_control(value) if type(value) is str else value
