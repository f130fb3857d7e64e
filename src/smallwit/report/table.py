"""Print a results.json in the terminal: the table, the comparisons, the cost and the path of the report."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallwit.console.numbers import human_count, human_flops, human_seconds, percent
from smallwit.console.symbols import encodable
from smallwit.console.tables import least_width, print_whole
from smallwit.report.format import (
    comparison_line,
    display_order,
    export_lines,
    headline_line,
    lowered_lines,
    sample_counts,
    seed_words,
    seeds_line,
    set_apart,
    share_of_teacher,
    signature_lines,
    strict_lines,
    task_names,
    teacher_of,
)

NAME_WIDTH = 13
"""Characters of a model's name in one line of the table; a longer name is broken behind a hyphen where it has one."""


def render_table(
    results: Mapping[str, Any], compact: bool = False, tasks: Sequence[str] | None = None, encoding: str = "utf-8"
) -> Table:
    """Return the table of a results.json: a row a model, a column a task, then share of the teacher, size and cost.

    A score is in per cent with half the width of its 95 % interval. `compact` puts units into the head instead of the
    cells, so that three tasks fit in 80 columns. `tasks` are those to show (all of them by default). Characters that
    `encoding` lacks are replaced.
    """
    models, teacher = display_order(results), teacher_of(results)
    columns: dict[str, list[str]] = {}
    for task in tasks or task_names(results):
        columns[f"{task}\nn {sample_counts(results, task)}"] = [_score(m["scores"].get(task), compact) for m in models]
    if teacher is not None:
        shares = [share_of_teacher(model, teacher) for model in models]
        columns["% of\nteacher"] = ["—" if share is None else f"{share:.1f}" for share in shares]
    columns["params" if compact else "parameters"] = [human_count(model["parameters"]) for model in models]
    flops = [human_flops(model["training_flops"]) for model in models]
    if compact:
        columns["training\nFLOP"] = [text.removesuffix("FLOP").strip() for text in flops]
    else:
        columns["training\ncompute"] = flops
    columns["time"] = [human_seconds(model["seconds"]) for model in models]
    columns = {
        encodable(head, encoding): [encodable(cell, encoding) for cell in cells] for head, cells in columns.items()
    }

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    names = {model["name"]: fill(encodable(model["name"], encoding), NAME_WIDTH) for model in models}
    table.add_column(Text("model"), min_width=max(len(line) for name in names.values() for line in name.splitlines()))
    for head, cells in columns.items():
        # rich takes the longest word of a column as its minimum width, but cells have several words.
        width = max(len(line) for cell in (head, *cells) for line in cell.splitlines())
        table.add_column(Text(head), justify="right", min_width=width)
    for model, *row in zip(models, *columns.values(), strict=True):
        if model["name"] in set_apart(results):
            table.add_section()
        table.add_row(Text(names[model["name"]], style="bold"), *map(Text, row))
    return table


def _score(score: Mapping[str, Any] | None, compact: bool) -> str:
    if score is None:
        return "—"
    half = 100 * (score["high"] - score["low"]) / 2
    return f"{percent(score['mean'])}{'' if compact else ' '}±{half:.1f}"


def print_summary(results: Mapping[str, Any], report_path: Path, console: Console) -> None:
    """Print the summary of a run: table, comparisons, signature, time, memory and the report's path.

    The console decides about colours and widths: a file or a pipe gets plain text.
    """
    console.print()
    for table in _fitting_tables(results, console):
        print_whole(console, table)
        console.print()
    share = "; % of teacher: mean of tasks" if teacher_of(results) else ""
    _line(console, f"Scores in per cent, ± half of the 95 % interval{share}.", "dim")
    if (seeds := seeds_line(results)) is not None:
        _line(console, f"{seeds}. Compute and time: mean of the seeds.", "dim")
    for line in [*export_lines(results), *strict_lines(results)]:
        _line(console, line, "dim")
    if lowered := lowered_lines(results):
        console.print()
    for line in lowered:
        _line(console, f"lowered the score: {line}", "bold red")
    if (headline := headline_line(results)) is not None:
        _line(console, headline, "bold")
    if results["comparisons"]:
        console.print()
    for comparison in results["comparisons"]:
        _line(console, comparison_line(comparison), "bold" if comparison["task"] == "pooled" else "")
    console.print()
    for line in signature_lines(results):
        _line(console, line, "red" if "differ" in line else "dim")
    spent = f"{human_seconds(results['seconds'])} ({results['seconds']:.0f} s)"
    _line(console, f"whole run: {spent}, peak memory {results['peak_memory_gb']:.2f} GB, {seed_words(results)}")
    # Not wrapped: a path in two lines cannot be clicked or copied.
    console.print(Text(f"report: {report_path}"), soft_wrap=True)


def _fitting_tables(results: Mapping[str, Any], console: Console) -> list[Table]:
    """Return tables that fit the console: one in full, one compact, or several with a few tasks each.

    A table of a single task may still be wider than the console.
    """

    def fits(table: Table) -> bool:
        return least_width(console, table) <= console.width

    render = partial(render_table, results, encoding=console.encoding)
    whole = [render(), render(compact=True)]
    for table in whole:
        if fits(table):
            return [table]
    groups: list[list[str]] = []
    for task in task_names(results):
        if groups and fits(render(compact=True, tasks=[*groups[-1], task])):
            groups[-1].append(task)
        else:
            groups.append([task])
    return [render(compact=True, tasks=group) for group in groups]


def _line(console: Console, text: str, style: str = "") -> None:
    """Print a line as plain text: task names and intervals have brackets, which rich would read as markup."""
    console.print(Text(encodable(text, console.encoding), style=style))
