"""The colours that the report's charts and its page share, in a light and a dark theme."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Theme:
    """Colours of text (`ink`), of ticks (`muted`), of axes and grid (`line`), and of the series in their order."""

    ink: str
    muted: str
    line: str
    series: tuple[str, ...]

    @property
    def colors(self) -> dict[str, str]:
        """Return the colours by name: ink, muted, line, series-0 and so on."""
        named = {"ink": self.ink, "muted": self.muted, "line": self.line}
        return named | {f"series-{number}": color for number, color in enumerate(self.series)}

    def css(self) -> str:
        """Return the colours as CSS variables, --ink and so on."""
        return " ".join(f"--{name}: {color};" for name, color in self.colors.items())

    def rc(self) -> dict[str, Any]:
        """Return the settings of matplotlib for a chart in this theme."""
        from cycler import cycler

        return {
            "text.color": self.ink,
            "text.parse_math": False,  # a dollar sign in a name is a dollar sign
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "axes.prop_cycle": cycler(color=self.series),
            "axes.edgecolor": self.line,
            "axes.facecolor": "none",
            "axes.spines.left": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": self.line,
            "grid.linewidth": 0.7,
            "figure.frameon": False,
            # The metrics of text come from the font that matplotlib brings along.
            "font.sans-serif": ["DejaVu Sans"],
            "svg.fonttype": "none",
            "svg.hashsalt": "smallwit",
        }


LIGHT = Theme(
    ink="#1d1c1a",
    muted="#68635b",
    line="#e3dfd6",
    series=("#0c7275", "#c2561f", "#5663b8", "#94750c", "#98478c", "#4a7d34"),
)
DARK = Theme(
    ink="#ebe8e2",
    muted="#a39e94",
    line="#33373e",
    series=("#4fbcbb", "#ee8a55", "#95a1f2", "#d8b64a", "#d98bcd", "#93c97b"),
)
