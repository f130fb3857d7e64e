"""Experiment trackers: copies of the metrics of train stages, for programs that draw them. On this machine only.

A tracker is a function of a stage's log. A stage that goes on gives it the steps of before again, so that it has each
step once whenever the stage was killed.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

from smallwit.errors import UserError
from smallwit.suggestions import hint
from smallwit.tasks.registry import classes_in

TRL_NAMES = {
    "lr": "learning_rate",
    "length": "completions/mean_length",
    "truncated": "completions/clipped_ratio",
    "no_signal": "frac_reward_zero_std",
    "clip_low": "clip_ratio/low_mean",
    "clip_high": "clip_ratio/high_mean",
    "time/step": "step_time",
}
"""TRL's names of metrics that mean the same; `loss`, `grad_norm`, `reward`, `kl` and `entropy` have one name.

TRL's `num_tokens` is not `tokens`: it counts prompts, too.
"""


class Tracker:
    """Writes the metrics of a stage. A context manager; `key` is that of the stage, another one for another recipe."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The module that must be installed; the extra of smallwit that brings it has the tracker's name."""

    def __init__(self, run_dir: Path, stage: str, key: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} defines no __init__()")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the metrics of steps, as in metrics.jsonl. Steps that were written before are not written twice."""
        raise NotImplementedError(f"{type(self).__name__} defines no write()")

    def close(self) -> None:
        """Write what is still held back."""
        raise NotImplementedError(f"{type(self).__name__} defines no close()")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def trackers_by_name() -> dict[str, type[Tracker]]:
    """Return the classes of trackers by name."""
    return {each.name: each for each in classes_in("smallwit.training.trackers", Tracker)}


def check_trackers(names: Sequence[str]) -> None:
    """Raise `UserError` for a tracker that is not known or not installed."""
    known = trackers_by_name()
    for name in names:
        if name not in known:
            raise UserError(f"--track {name}: there is no such tracker; {hint(name, known)}")
        if find_spec(known[name].package) is None:
            raise UserError(f"--track {name}: {known[name].package} is not installed: pip install 'smallwit[{name}]'")


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite metrics of a step by the names that trackers give them."""
    return {_tracked(name): value for name, value in row.items() if value is not None and name != "step"}


def _tracked(name: str) -> str:
    kind, _, part = name.partition("/")
    return f"rewards/{part}/mean" if kind == "reward_part" else TRL_NAMES.get(name, name)
