"""The terminal output of `smallwit eval`: a line for each model and task, and the signatures."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smallwit.console.symbols import encodable
from smallwit.console.tables import print_whole
from smallwit.evaluation.scores import Estimate, Scores
from smallwit.evaluation.statistics import Interval

_LEGEND = (
    "in per cent; score: the lenient reading, strict: the declared format only;",
    "cut: by the token limit; none: no answer; boxes: several different ones",
)


def print_scores(
    scores: Mapping[str, Mapping[str, Scores]], signatures: Mapping[str, Mapping[str, str]], console: Console
) -> None:
    """Print scores in per cent with their 95 % intervals, rates of failures, and signatures, by model and task."""
    for model, tasks in scores.items():
        console.print()
        if len(scores) > 1:
            console.print(model, highlight=False, markup=False, style="bold", soft_wrap=True)
        print_whole(console, _table(tasks, console.encoding))
        for task, found in tasks.items():
            for line in _further(found):
                console.print(f"{task}: {line}", highlight=False, markup=False, soft_wrap=True)
    for line in _LEGEND:
        console.print(line, highlight=False)
    of: dict[str, list[str]] = {}
    for model, by_task in signatures.items():
        for signature in by_task.values():
            of.setdefault(signature, []).append(model)
    for signature, models in of.items():
        whose = "" if len(models) == len(signatures) else f" ({', '.join(models)})"
        console.print(f"signature: {signature}{whose}", highlight=False, markup=False, soft_wrap=True)


def _table(tasks: Mapping[str, Scores], encoding: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in ("suite", "score", "95 %", "strict", "95 %", "n", "cut", "none", "boxes", "tokens"):
        table.add_column(Text(head), justify="left" if head == "suite" else "right", no_wrap=True)
    for task, found in tasks.items():
        each = f"{found.fewest}-{found.most}" if found.fewest < found.most else str(found.most)
        count = f"{found.problems:,}" + (f"x{each}" if found.most > 1 else "")
        rates = [_rate(rate) for rate in (found.truncated, found.no_answer, found.several)]
        tokens = "—" if found.mean_tokens is None else f"{found.mean_tokens:.0f}"
        cells = (task, *_cells(found.lenient.mean), *_cells(found.strict.mean), count, *rates, tokens)
        table.add_row(*(Text(encodable(cell, encoding)) for cell in cells))
    return table


def print_ratios(ratios: Mapping[str, Interval], against: str, console: Console) -> None:
    """Print the ratios to another model's scores, in per cent."""
    for task, ratio in ratios.items():
        line = f"{task}: {ratio.mean:.1f} % of {against}'s score (95 %: {ratio.low:.1f} to {ratio.high:.1f})"
        if ratio.mean != ratio.mean:
            line = f"{task}: {against} scores 0, so there is no share of it"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _cells(estimate: Estimate) -> tuple[str, str]:
    return f"{100 * estimate.mean:.1f}", f"{100 * estimate.low:.1f}-{100 * estimate.high:.1f}"


def _estimate(estimate: Estimate, found: Scores) -> str:
    mean, interval = _cells(estimate)
    fewer = f"; n {estimate.n:,} of {found.problems:,}" if estimate.n < found.problems else ""
    return f"{mean} ({interval}{fewer})"


def _rate(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f}"


def _further(found: Scores) -> list[str]:
    """Return the lines that only some evaluations have: scores of several samples, and failures of the grader."""
    lines = []
    for title, estimates in (("pass", found.lenient.pass_at), ("maj", found.lenient.majority_at)):
        if estimates:
            lines.append(", ".join(f"{title}@{k} {_estimate(e, found)}" for k, e in estimates.items()))
    bounds = found.lenient.mean.bounds
    if bounds is not None:
        share = f"{100 * found.failed:.1f} % of the responses have no verdict, as the grader itself failed"
        lines.append(f"{share}; with them the score is {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}")
    return lines
