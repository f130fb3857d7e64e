"""Show a forecast: a table of the stages, their memory by part, and whether it fits."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.table import Table

from smallwit.console.numbers import human_bytes, human_count, human_flops, human_seconds, percent
from smallwit.console.tables import print_whole
from smallwit.pipeline.forecast import Forecast, Planner, Totals, totals_of
from smallwit.pipeline.rates import Rates
from smallwit.stages.estimate import no_signal_share


def print_forecasts(
    planner: Planner, rates: Rates, available: float, pass_rate: float | None, console: Console
) -> None:
    """Print the forecasts of a planner that has estimated its nodes, for a device with so many bytes `available`."""
    found = planner.forecasts(rates)
    priced = planner.plan.recipe.prices is not None
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for heading in ("parameters", "memory", "FLOPs", "time", *(["cost"] if priced else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        cost = [_dollars(planner, each.seconds)] if priced else []
        size = human_bytes(each.peak)
        table.add_row(
            each.name, human_count(each.parameters), size, human_flops(each.flops), _time(each.seconds), *cost
        )
    print_whole(console, table)
    for line in [
        *_memory_lines(planner, found, available),
        f"speed: {rates.about}",
        *_notes(planner, found, pass_rate),
    ]:
        console.print(line, soft_wrap=True)


def totals_line(totals: Totals, available: float) -> str:
    """Return a plan's totals in one line."""
    time = f"about {human_seconds(totals.seconds)}" if totals.seconds is not None else "an unknown time"
    return (
        f"{time}, {human_flops(totals.flops)}, at most {human_bytes(totals.peak)} of memory "
        f"({human_bytes(available)} are free)"
    )


def _memory_lines(planner: Planner, found: list[Forecast], available: float) -> Iterator[str]:
    yield from _grouped((each.name, _parts(each.memory)) for each in found)
    yield from _grouped((each.name, f"on the host {_parts(each.host)}") for each in found if each.host)
    totals = totals_of(planner.plan, found, planner.device)
    yield f"in all: {totals_line(totals, available)}"
    short = max(found, key=lambda each: each.peak, default=None)
    if short is not None and totals.peak > available:
        alone = short.peak <= available
        first = "workers: 1" if alone else short.advice
        yield f"it does not fit: {short.name} needs {human_bytes(short.peak)}; first change {first}"
    elif short is not None:
        yield f"it fits; for more room first change {short.advice} of {short.name}"


def _notes(planner: Planner, found: list[Forecast], pass_rate: float | None) -> Iterator[str]:
    for name in planner.unknown:
        yield f"{name}: not estimated (a server, a dataset, or rows that are not there yet)"
    yield from _signal_lines(planner, pass_rate)
    yield from _grouped((each.name, note) for each in found for note in each.notes)
    if any(node.stage.makes == "scores" for node in planner.plan.nodes.values()):
        yield "the time of graders is not in it"


def _signal_lines(planner: Planner, given: float | None) -> Iterator[str]:
    """Yield a line for each source of groups: the share of them that is expected to give no signal."""
    for node in planner.plan.nodes.values():
        for name, group in node.stage.groups().items():
            rate = planner.known(node).pass_rate if given is None else given
            if rate is None:
                yield f"{node.name}, {name}: no pass rate is known; give --pass-rate"
                continue
            share = percent(no_signal_share(rate, group))
            yield (
                f"{node.name}, {name}: {share} % of groups of {group} give no signal if every problem is solved "
                f"{percent(rate)} % of the time; more, as problems differ"
            )


def _grouped(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield each text once, after the names that it is said of."""
    names: dict[str, list[str]] = {}
    for name, text in named:
        names.setdefault(text, []).append(name)
    yield from (f"{', '.join(those)}: {text}" for text, those in names.items())


def _parts(memory: Mapping[str, float]) -> str:
    """Return the parts of memory, the largest first, without those below a hundredth."""
    shown = [part for part in sorted(memory.items(), key=lambda part: -part[1]) if part[1] > sum(memory.values()) / 100]
    return " + ".join(f"{name} {human_bytes(size)}" for name, size in shown)


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else human_seconds(seconds)


def _dollars(planner: Planner, seconds: float | None) -> str:
    prices = planner.plan.recipe.prices
    return "?" if prices is None or seconds is None else f"${prices.dollars(seconds, None, 0.0):.2f}"
