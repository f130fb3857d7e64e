"""The table of a study in the terminal, and its advice below."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallwit.console.symbols import encodable
from smallwit.console.tables import print_whole
from smallwit.report.study import Results, budget_line, cost, costs, interval, method_lines, over_baseline, ranked


def study_table(results: Results) -> Table:
    """Return the table: a row an arm, the best first."""
    arms = ranked(results)
    rows = [
        [
            arm["name"],
            interval(arm["score"]),
            *over_baseline(arm),
            f"{arm['best']:.2f}",
            *(cost(arm, key) for key in costs(results)),
        ]
        for arm in arms
    ]
    heads = ["pipeline", "score, %", f"over {results['baseline']}", "p", "P(best)", *costs(results).values()]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, head in enumerate(heads):
        # rich takes the longest word of a column as its minimum width, but cells have several words.
        width = max(len(cell) for cell in (head, *(row[place] for row in rows)))
        table.add_column(Text(head), justify="right" if place else "left", min_width=width, no_wrap=True)
    for number, row in enumerate(rows):
        last = number + 1 < len(arms) and arms[number + 1]["budget"] != arms[number]["budget"]
        table.add_row(Text(row[0], style="bold"), *map(Text, row[1:]), end_section=last)
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
