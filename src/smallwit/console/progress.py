"""Show the progress of a run: bars with the time left on a terminal, heartbeat lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from smallwit.console.numbers import human_seconds

HEARTBEAT_SECONDS = 10.0
LARGEST_SHARE = 0.99
"""What a node shows at most while it runs: its end is a line of its own."""


TimeLeft = Callable[[Mapping[str, float]], float]
"""Returns the seconds until a run ends, from the shares of its running nodes that are done."""


@dataclass
class _Running:
    """How far a node is. `since` it told of itself, with the share `first`; `reached` is when its share last grew."""

    share: float = 0.0
    text: str = "starting"
    first: float = 0.0
    since: float | None = None
    reached: float = 0.0

    def update(self, share: float, text: str) -> None:
        before, now = self.share, time.monotonic()
        self.share, self.text = min(share, LARGEST_SHARE), text
        if self.since is None:
            self.since, self.first = now, self.share
        if self.share > before:
            self.reached = now

    def __str__(self) -> str:
        if self.since is None or self.share <= self.first:
            return f"{self.share:.0%} ({self.text})"
        # What a step has taken so far says nothing of the others: the time left would grow until the step ends.
        seconds = (self.reached - self.since) * (1 - self.share) / (self.share - self.first)
        return f"{self.share:.0%} ({self.text}, {human_seconds(seconds)} left)"


class _Bars(Progress):
    """Bars, below what `above` returns."""

    above: Callable[[], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is above the bars, then the bars."""
        if self.above is not None:
            yield self.above()
        yield from super().get_renderables()


class RunProgress:
    """The progress display of a run: a line for each running node. A context manager.

    `left` tells the seconds of the whole run that are left; `above` returns what a terminal shows above these lines.
    """

    def __init__(
        self,
        console: Console,
        left: TimeLeft | None = None,
        above: Callable[[], RenderableType] | None = None,
    ) -> None:
        self.console, self.left = console, left
        self.started = time.monotonic()
        self.beat = self.started
        self.running: dict[str, _Running] = {}
        self.lines: dict[str, TaskID] = {}
        self.bars = _Bars(
            TextColumn("{task.fields[name]}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", style="dim", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bars.above = above
        self.whole = self.bars.add_task("", total=None, name="run", text="") if left is not None else None

    def __enter__(self) -> "RunProgress":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def start(self, name: str) -> None:
        """Add a line for a node that starts."""
        self.running[name] = _Running()
        self.lines[name] = self.bars.add_task("", total=1.0, name=name, text="starting")

    def update(self, name: str, share: float, text: str) -> None:
        """Set the completed share (0..1) of a node."""
        self.running[name].update(share, text)
        self.bars.update(self.lines[name], completed=self.running[name].share, text=text)

    def end(self, name: str, outcome: str) -> None:
        """Remove the line of a node, and print its outcome."""
        del self.running[name]
        self.bars.remove_task(self.lines.pop(name))
        self.say(f"{name}: {outcome}")

    def say(self, text: str) -> None:
        """Print a permanent line, after the time since the start."""
        self.console.print(f"[{self._elapsed()}] {text}", highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Print a heartbeat line every `HEARTBEAT_SECONDS` if there is no terminal."""
        now = time.monotonic()
        running = list(self.running.items())  # other threads may change the dictionary
        left = self.left({name: state.share for name, state in running}) if self.left is not None else None
        text = f"about {human_seconds(left)} left in all" if left is not None else ""
        if self.whole is not None:
            self.bars.update(self.whole, text=text)
        if self.console.is_terminal or now - self.beat < HEARTBEAT_SECONDS:
            return
        self.beat = now
        if running:
            self.say("; ".join([*(f"{name} {state}" for name, state in running), *filter(None, [text])]))

    def _elapsed(self) -> str:
        return human_seconds(time.monotonic() - self.started).rjust(7)
