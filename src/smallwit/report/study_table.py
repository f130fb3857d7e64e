"""The table of a study in the terminal, and its advice below."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallwit.console.symbols import encodable
from smallwit.console.tables import print_whole
from smallwit.report.study import COSTS, Results, budget_line, cost, interval, method_lines, over_baseline, ranked


def study_table(results: Results) -> Table:
    """Return the table: a row an arm, the best first."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("pipeline", style="bold")
    heads = ["score, %", f"over {results['baseline']}", "p", "P(best)", *(name for name in COSTS.values())]
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    arms = ranked(results)
    for arm, after in zip(arms, [*arms[1:], None], strict=True):
        costs = [cost(arm, key) for key in COSTS]
        cells = [arm["name"], interval(arm["score"]), *over_baseline(arm), f"{arm['best']:.2f}", *costs]
        table.add_row(*map(Text, cells), end_section=after is not None and after["budget"] != arm["budget"])
    return table


def print_study(results: Results, folder: Path, console: Console) -> None:
    """Print the table, the advice, the rules that it follows, and where the page is."""
    console.print()
    print_whole(console, study_table(results))
    console.print()
    _line(console, budget_line(results), "dim")
    for line in method_lines(results):
        _line(console, line, "dim")
    for advice in results["advice"]:
        console.print()
        for line in advice["text"]:
            _line(console, line, "bold")
    console.print()
    for rule in results["rules"]:
        _line(console, f"rule: {rule}", "dim")
    console.print()
    console.print(Text(f"study: {folder / 'study.html'}"), soft_wrap=True)


def _line(console: Console, text: str, style: str) -> None:
    console.print(Text(encodable(text, console.encoding), style=style))
