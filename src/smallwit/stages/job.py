"""What the process of a stage is told, and what it may say while it works."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage


@dataclass(frozen=True)
class Job:
    """A stage with everything that its process, or each of its processes, needs to know.

    `inputs` maps the names of models, stages and `tokenizer` to folders (or hub ids). `folder` is where the artifact is
    published, `work` the stage's own folder in the run. `flops` is the budget of a stage that has one.
    """

    stage: Stage
    key: str
    recipe: Recipe
    base: Path
    data_dir: Path | None
    device: str
    dtype: str
    threads: int
    folder: Path
    work: Path
    inputs: dict[str, str] = field(default_factory=dict)
    flops: float | None = None

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.stage.name


class Stopped(Exception):
    """The stage was asked to stop, has saved what it had, and can be resumed."""


class Failed(Exception):
    """The stage cannot be finished. The message says why, and what to look at; a traceback would add nothing."""


class PeerFailed(Exception):
    """Another process of the same stage has ended or failed, so this one cannot go on. That process says why."""


@dataclass(frozen=True)
class Reporter:
    """Reports from a stage: `progress(share, text)` how far it is, `say(text)` what the user should know; `stopping()`
    returns whether it was asked to stop."""

    progress: Callable[[float, str], None]
    say: Callable[[str], None]
    stopping: Callable[[], bool]


Info = dict[str, Any]
"""What a stage cost and made, for its manifest."""
