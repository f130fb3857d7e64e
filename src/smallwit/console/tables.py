"""Tables that lose no column on a narrow terminal."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def least_width(console: Console, table: Table) -> int:
    """The columns that a table needs to show every cell whole."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).minimum


def print_whole(console: Console, table: Table) -> None:
    """Print a table. Where it is wider than the console its lines are too: rich would leave out what does not fit."""
    needed = least_width(console, table)
    if needed > console.width:
        console = Console(
            file=console.file, width=needed, force_terminal=console.is_terminal, no_color=console.no_color
        )
    console.print(table)
