"""The terminal output of `smallwit compare`."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from smallwit.console.numbers import p_value, percent, points
from smallwit.evaluation.comparison import POOLED, TaskComparison
from smallwit.evaluation.reasons import Transitions
from smallwit.evaluation.statistics import Interval

_SHOWN = 8
_TESTS = {"McNemar": "exact McNemar", "bootstrap": "paired bootstrap"}


def print_comparison(
    console: Console,
    a: str,
    b: str,
    comparisons: Sequence[TaskComparison],
    reasons: Mapping[str, Transitions],
    notes: Sequence[str],
) -> None:
    """Print a paragraph for each task, with its `reasons`.

    Lines are never wrapped; in a file or a pipe they are plain text.
    """

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(f"a  {a}")
    say(f"b  {b}")
    for note in notes:
        say(note, "bold red" if "DIFFERENT" in note else "yellow")
    several = sum(found.task != POOLED for found in comparisons) > 1
    for found in comparisons:
        say("")
        for text, style in _lines(found, several):
            say(text, style)
        if found.task in reasons:
            for text in _reasons(reasons[found.task]):
                say(text)


def _lines(found: TaskComparison, several: bool) -> list[tuple[str, str]]:
    n, paired, entry = len(found.outcomes), found.paired, found.as_json()
    low, high = (points(end).lstrip("+") for end in (paired.low, paired.high))
    p = f"{p_value(paired.p)} ({_TESTS[paired.test]})"
    if several and found.p_holm is not None:
        p += f", {p_value(found.p_holm)} after Holm"
    counts = ", ".join(f"{found.count(word):,} {word}" for word in ("won", "lost", "tied"))
    lines = [
        (f"{found.task}, n {n:,}: a {percent(entry['mean_a'])} %, b {percent(entry['mean_b'])} %", "bold"),
        (f"  a - b       {points(paired.difference)} points [{low}, {high}], {p}", ""),
        (f"  a / b       {_share(found.ratio)}", ""),
        (f"  detectable  a true difference of {points(found.detectable).lstrip('+')} points (80 % power)", ""),
        (f"  problems    {counts}", ""),
    ]
    for word in ("won", "lost"):
        ids = [outcome.id for outcome in found.outcomes if outcome.outcome == word]
        if ids and found.task != POOLED:
            lines.append((f"  {word:<11} {few(ids)}", "dim"))
    return lines


def _reasons(found: Transitions) -> Iterator[str]:
    for name, counts in (("answers a", found.of_a()), ("answers b", found.of_b())):
        yield f"  {name:<11} {', '.join(f'{reason} {count:,}' for reason, count in counts.items())}"
    gains = ", ".join(f"{reason} {points(share)}" for reason, share in found.gains().items())
    yield f"  gained by   {gains} points" if gains else "  gained by   nothing"
    changed = [f"{old} > {new} {count:,}" for (old, new), count in found.counts.most_common() if old != new]
    yield f"  b > a       {few(changed) or 'no answer changed its kind'}"


def _share(ratio: Interval) -> str:
    if ratio.mean != ratio.mean:
        return "b scores 0, so there is no share of it"
    high = "no bound" if ratio.high == float("inf") else f"{ratio.high:.1f}"
    return f"{ratio.mean:.1f} % [{ratio.low:.1f}, {high}]"


def few(ids: Sequence[str]) -> str:
    """Return the first ids, and how many more there are."""
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else "")
