"""Print tables without losing columns on a narrow terminal."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def least_width(console: Console, table: Table) -> int:
    """Return the width in characters that a table needs to show every cell whole."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).minimum


def print_whole(console: Console, table: Table) -> None:
    """Print a whole table, even if it is wider than the console (rich would cut it)."""
    needed = least_width(console, table)
    if needed > console.width:
        console = Console(
            file=console.file, width=needed, force_terminal=console.is_terminal, no_color=console.no_color
        )
    console.print(table)
