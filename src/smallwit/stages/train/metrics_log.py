"""The metrics of a train stage, one JSON object a step."""

import json
import time
from collections.abc import Sequence
from math import isfinite
from typing import Any

from smallwit.stages.job import Reporter
from smallwit.storage.append_log import AppendLog
from smallwit.training.loop import Trainer
from smallwit.training.tracking import Tracker

_REPORT_SECONDS = 0.2


class MetricsLog:
    """The log of a train stage's metrics; each step that it logs is also reported as progress, and to `trackers`."""

    def __init__(self, log: AppendLog, trainer: Trainer, reporter: Reporter, trackers: Sequence[Tracker] = ()) -> None:
        self.log, self.trainer, self.reporter, self.trackers = log, trainer, reporter, trackers
        self.reported = 0.0

    def rewind(self, step: int, content: bytes | None) -> None:
        """Restore the log of the checkpoint at `step` from its `content`, and report how many steps are missing.

        Steps that a killed attempt logged after the checkpoint are dropped.
        """
        content = content if step and content is not None else b""
        numbered = [(_step_of(line), line) for line in content.splitlines()]
        kept = {number: line for number, line in numbered if number is not None and number <= step}
        if missing := step - len(kept):
            self.reporter.say(f"its log is damaged and lacks {missing} of the {step} steps before the checkpoint")
        self.log.replace([kept[number] + b"\n" for number in sorted(kept)])
        for tracker in self.trackers:
            tracker.write([json.loads(kept[number]) for number in sorted(kept)])

    def total(self, name: str) -> int:
        """Return the sum of a count over all steps and sources, those of earlier attempts included."""
        rows = [json.loads(line) for _, line in self.log.lines()]
        return int(sum(value for row in rows for key, value in row.items() if key.rpartition("/")[2] == name))

    def write(self, metrics: dict[str, Any]) -> None:
        """Append the metrics of a step, and report the progress at most five times a second."""
        row = {key: _rounded(value) for key, value in metrics.items()}
        self.log.append(json.dumps(row, allow_nan=False).encode() + b"\n")
        for tracker in self.trackers:
            tracker.write([row])
        now = time.monotonic()
        if now - self.reported >= _REPORT_SECONDS:
            self.reported = now
            shown = [f"{key} {metrics[key]:.3g}" for key in ("loss", "reward", "validation") if key in metrics]
            share = self.trainer.budget.share(self.trainer.progress)
            self.reporter.progress(min(share, 1.0), f"step {metrics['step']}, {', '.join(shown)}")


def _step_of(line: bytes) -> int | None:
    """Return the step of a line of the log, or `None` if the line is damaged."""
    try:
        number = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if isinstance(number, int) and number >= 1 else None


def _rounded(value: float) -> float | None:
    """Return a number with six digits, or `None` if it is not finite (JSON has no such number)."""
    return value if isinstance(value, int) else float(f"{value:.6g}") if isfinite(value) else None
