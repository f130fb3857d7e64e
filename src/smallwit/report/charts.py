"""Draw the report's charts with matplotlib, each in the light and in the dark theme.

matplotlib is imported where it is used: that takes longer than the rest of the report.
"""

import io
import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smallwit.console.sanitize import escape_control
from smallwit.report.format import display_order
from smallwit.report.themes import DARK, LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 4.4  # inches
_MAX_POINTS = 240  # of one line: more than a small chart has pixels for
_DARK_COLORS = dict(zip(LIGHT.colors.values(), DARK.colors.values(), strict=True))

# Metrics that get a panel, in this order, and what they are called. The keys "a/b" are lines in panel "a".
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
    """A chart as two SVG images, `light` and `dark`, in data URIs.

    `label` is the text for screen readers; `legend` has the name and the number of the colour of each series.
    """

    title: str
    label: str
    light: str
    dark: str
    legend: list[tuple[str, int]] = field(default_factory=list)


def score_chart(results: Mapping[str, Any], task: str) -> Chart:
    """Draw the models' scores on one task in per cent, as dots with their 95 % intervals."""
    models = [model for model in display_order(results) if task in model["scores"]]

    def draw(axes: "Axes") -> None:
        from matplotlib import rcParams

        ink = rcParams["text.color"]
        colors = {results.get("baseline"): "C1", results.get("teacher"): ink}
        for row, model in enumerate(models):
            mean, low, high = (100 * model["scores"][task][key] for key in ("mean", "low", "high"))
            color = colors.get(model["name"], "C0")
            axes.plot([low, high], [row, row], color=color, linewidth=2, solid_capstyle="round")
            axes.plot([mean], [row], "o", color=color, markersize=5.5)
            axes.text(104, row, f"{mean:.1f}", va="center", fontsize=10.5)
        axes.set_xlim(0, 100)
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_yticks(range(len(models)), [escape_control(model["name"]) for model in models])
        axes.tick_params(axis="y", labelcolor=ink)
        axes.grid(axis="x")

    means = ", ".join(f"{model['name']} {100 * model['scores'][task]['mean']:.1f}" for model in models)
    label = f"{task}, score in per cent: {means}"
    return Chart(task, label, *draw_chart(draw, height=0.62 + 0.3 * len(models), left=0.3, right=0.87))


def metric_charts(stage: str, rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draw one chart for each metric of `PANELS` that the stage logged: a smoothed line over the faint raw one.

    `rows` are the steps in order, as in metrics.jsonl. Values that are missing or not finite are left out.
    """
    charts = []
    for key, title in PANELS.items():
        main = _column(rows, key)
        parts = {name.partition("/")[2]: _column(rows, name) for name in _parts(rows, key)}
        if any(len(steps) for steps, _ in (main, *parts.values())):
            charts.append(_metric_chart(stage, title, main, parts))
    return charts


def _parts(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Return the "key/..." columns of `rows`, or none if a single one would only repeat the main line."""
    found = list(dict.fromkeys(name for row in rows for name in row if name.startswith(f"{key}/")))
    return found if len(found) > 1 or not any(key in row for row in rows) else []


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[Floats, Floats]:
    """Return the steps and values at which `key` was logged as a finite number."""
    pairs = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    columns = np.asarray(finite, dtype=np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _metric_chart(
    stage: str, title: str, main: tuple[Floats, Floats], parts: Mapping[str, tuple[Floats, Floats]]
) -> Chart:
    steps, values = main
    smooth = _smooth(values)

    def draw(axes: "Axes") -> None:
        for number, (part_steps, part_values) in enumerate(parts.values(), start=1):
            axes.plot(*_thin(part_steps, _smooth(part_values)), color=f"C{number}", linewidth=1.1)
        if smooth is values:
            axes.plot(steps, values, color="C0", linewidth=1.8, marker="o", markersize=3.5)
        else:
            axes.plot(*_thin(steps, values), color="C0", linewidth=0.8, alpha=0.3)
            axes.plot(*_thin(steps, smooth), color="C0", linewidth=1.8)
        _limits(axes, [values, *(part[1] for part in parts.values())])
        axes.grid(axis="y")
        axes.locator_params(axis="y", nbins=5)
        axes.locator_params(axis="x", nbins=6, integer=True)

    label = f"{stage}: {title}"
    legend = [(name, number % len(LIGHT.series)) for number, name in enumerate(parts, start=1)]
    if len(values):
        label += f", {len(values):,} points, first {values[0]:.3g}, last {smooth[-1]:.3g}"
        legend = [("all", 0), *legend] if legend else []
    return Chart(title, label, *draw_chart(draw, height=2.3, left=0.125, right=0.975), legend)


def _limits(axes: "Axes", lines: Sequence[Floats]) -> None:
    """Fit the height to most of the values: the loss of the first step must not flatten the rest."""
    known = [values for values in lines if len(values)]
    low = min(float(np.quantile(values, 0.005)) for values in known)
    high = max(float(np.quantile(values, 0.99)) for values in known)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low - margin, high + margin)


def _smooth(values: Floats) -> Floats:
    """Return the centred moving average over a twentieth of the line, or `values` itself if there are under 40."""
    if len(values) < 40:
        return values
    window = np.ones(len(values) // 40 * 2 + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _thin(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return at most `_MAX_POINTS` of the points, evenly spaced, the last one included."""
    if len(values) <= _MAX_POINTS:
        return steps, values
    chosen = np.unique(np.linspace(0, len(values) - 1, _MAX_POINTS).round().astype(int))
    return steps[chosen], values[chosen]


def histogram(values: Sequence[float], title: str) -> Chart:
    """Draw how often each value occurs: 40 bars of equal width; the last one holds all above the 99th percentile."""
    heights, edges = np.histogram(np.minimum(values, np.percentile(values, 99)), bins=40)

    def draw(axes: "Axes") -> None:
        axes.stairs(heights, edges, fill=True, color="C0")
        axes.set_xlim(edges[0], edges[-1])
        axes.grid(axis="y")
        axes.locator_params(axis="y", nbins=4, integer=True)

    label = f"{title}: median {np.median(values):,.0f}, 99th percentile {edges[-1]:,.0f}"
    return Chart(title, label, *draw_chart(draw, height=1.9, left=0.1, right=0.98))


def draw_chart(draw: "Callable[[Axes], None]", height: float, left: float, right: float) -> tuple[str, str]:
    """Return the light and the dark image of a chart as data URIs; `draw` fills its axes.

    `height` is in inches, the margins are fixed. The dark image is the light one with the other theme's colours:
    drawing takes most of a report's time.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    # The default style comes first, so that a matplotlibrc of the user's changes nothing.
    with style.context(["default", LIGHT.rc()]):
        figure = Figure(figsize=(_WIDTH, height))
        draw(figure.add_axes((left, 0.27 / height, right - left, 1 - 0.36 / height)))
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    light = buffer.getvalue()
    dark = re.sub("(?<=: )#[0-9a-f]{6}", lambda color: _DARK_COLORS.get(color[0], color[0]), light)
    return _data_uri(light), _data_uri(dark)


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
