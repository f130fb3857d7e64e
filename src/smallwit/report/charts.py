"""Draw the report's charts: small SVGs by matplotlib with the colours and fonts of the page's style sheet.

matplotlib writes fixed colours. It draws here in a few reserved colours, which CSS variables then replace, so that one
chart serves the light and the dark theme. matplotlib is imported on use, because the import takes long.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from smallwit.console.sanitize import escape_control
from smallwit.report.format import display_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

SERIES = 6  # CSS colours --series-0 (the main line) to --series-5
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line"} | {
    f"#0404{n:02x}": f"--series-{n}" for n in range(SERIES)
}
_MAX_POINTS = 240  # of one line; a small chart has no more pixels

# Metrics with a panel, in this order, and their titles. "a/b" keys are drawn as lines of panel "a".
PANELS = {
    "loss": "Loss",
    "reward": "Reward",
    "validation": "Validation score",
    "kl": "KL",
    "entropy": "Entropy",
    "length": "Response length, tokens",
}

Floats = NDArray[np.float64]


@dataclass
class Chart:
    """A chart: `svg` for the page, `title`, and `legend` as (name, number of the CSS series colour)."""

    svg: Markup
    title: str
    legend: list[tuple[str, int]]


def _series(number: int) -> str:
    return f"#0404{number % SERIES:02x}"


def score_chart(results: Mapping[str, Any], task: str) -> Chart:
    """Return a chart of the models' scores on a task in per cent, as dots with 95 % intervals."""
    models = [model for model in display_order(results) if task in model["scores"]]
    colors = {results.get("baseline"): _series(1), results.get("teacher"): _INK}
    figure, axes = _figure(width=4.4, height=0.62 + 0.3 * len(models), left=0.3, right=0.87)
    for row, model in enumerate(models):
        score = model["scores"][task]
        mean, low, high = (100 * score[key] for key in ("mean", "low", "high"))
        color = colors.get(model["name"], _series(0))
        axes.plot([low, high], [row, row], color=color, linewidth=2, solid_capstyle="round")
        axes.plot([mean], [row], "o", color=color, markersize=5.5)
        axes.text(104, row, f"{mean:.1f}", va="center", color=_INK, fontsize=10.5)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_yticks(range(len(models)), [escape_control(model["name"]) for model in models])
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)  # a dollar sign in a name is not mathematics
        tick.set_color(_INK)
    axes.grid(axis="x", color=_LINE, linewidth=0.7)
    means = ", ".join(f"{model['name']} {100 * model['scores'][task]['mean']:.1f}" for model in models)
    return Chart(_svg(figure, f"score-{task}", f"{task}, score in per cent: {means}"), task, [])


def metric_charts(stage: str, rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart for each metric of `PANELS` that the stage logged: a smoothed line over the faint raw one.

    `rows` are the steps in order, as in metrics.jsonl. Values that are missing or not finite are left out.
    """
    charts = []
    for key, title in PANELS.items():
        main = _column(rows, key)
        parts = {name: _column(rows, name) for name in _parts(rows, key)}
        if len(main[0]) or parts:
            charts.append(_metric_chart(f"{stage}-{key}", f"{stage}: {title}", title, main, parts))
    return charts


def _parts(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Return the "key/..." columns of `rows`; none if there is only one, which would repeat the main line."""
    found = list(dict.fromkeys(name for row in rows for name in row if name.startswith(f"{key}/")))
    return found if len(found) > 1 or not any(key in row for row in rows) else []


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[Floats, Floats]:
    """Return the steps and values where `key` was logged as a finite number."""
    pairs = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    columns = np.asarray(finite, dtype=np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _metric_chart(
    name: str, label: str, title: str, main: tuple[Floats, Floats], parts: Mapping[str, tuple[Floats, Floats]]
) -> Chart:
    figure, axes = _figure(width=4.4, height=2.3, left=0.125, right=0.975)
    legend: list[tuple[str, int]] = []
    for number, (part, (steps, values)) in enumerate(parts.items(), start=1):
        axes.plot(*_thin(steps, _smooth(values)), color=_series(number), linewidth=1.1)
        legend.append((part.partition("/")[2], number % SERIES))
    steps, values = main
    if len(values):
        smooth = _smooth(values)
        if smooth is values:
            axes.plot(steps, values, color=_series(0), linewidth=1.8, marker="o", markersize=3.5)
        else:
            axes.plot(*_thin(steps, values), color=_series(0), linewidth=0.8, alpha=0.3)
            axes.plot(*_thin(steps, smooth), color=_series(0), linewidth=1.8)
        legend = [("all", 0), *legend] if legend else []
        label += f", {len(values):,} points, first {values[0]:.3g}, last {smooth[-1]:.3g}"
    _limits(axes, [values, *(part[1] for part in parts.values())])
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    axes.locator_params(axis="y", nbins=5)
    axes.locator_params(axis="x", nbins=6, integer=True)
    return Chart(_svg(figure, name, label), title, legend)


def _limits(axes: "Axes", lines: Sequence[Floats]) -> None:
    """Set the vertical limits from quantiles, so that a high first loss does not flatten the rest of the line."""
    known = [values for values in lines if len(values)]
    low = min(float(np.quantile(values, 0.005)) for values in known)
    high = max(float(np.quantile(values, 0.99)) for values in known)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)


def _smooth(values: Floats) -> Floats:
    """Return a centred moving average over a twentieth of the line; `values` itself if there are fewer than 40."""
    if len(values) < 40:
        return values
    window = np.ones(len(values) // 40 * 2 + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _thin(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return at most `_MAX_POINTS` of the points, evenly spaced, with the last one."""
    if len(values) <= _MAX_POINTS:
        return steps, values
    chosen = np.unique(np.linspace(0, len(values) - 1, _MAX_POINTS).round().astype(int))
    return steps[chosen], values[chosen]


def histogram(values: Sequence[float], title: str) -> Chart:
    """Return a histogram with bars of equal width up to the 99th percentile; the last bar has all larger values."""
    heights, edges = np.histogram(np.minimum(values, np.percentile(values, 99)), bins=40)
    figure, axes = _figure(width=4.4, height=1.9, left=0.1, right=0.98)
    axes.stairs(heights, edges, fill=True, color=_series(0))
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(_whole_ticks())
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    label = f"{title}: median {np.median(values):,.0f}, 99th percentile {edges[-1]:,.0f}"
    return Chart(_svg(figure, title, label), title, [])


def _whole_ticks() -> "MaxNLocator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, integer=True)


def _figure(width: float, height: float, left: float, right: float) -> tuple["Figure", "Axes"]:
    """Return an empty chart of `width` x `height` inches with fixed margins and only reserved colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)
    axes = figure.add_axes((left, 0.27 / height, right - left, 1 - (0.27 + 0.09) / height))
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(length=0, colors=_MUTED, labelsize=10)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: "Figure", name: str, label: str) -> Markup:
    """Return the figure as one deterministic <svg> element without fixed size or colours, and with unique ids."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": escape_control(name), "path.simplify": True}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # A style element would apply to the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # Ids must be unique in the page; groups without references need none.
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'\bd="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    text = re.sub(r"\s*\n\s*", "\n", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(escape_control(label))}"', 1))
