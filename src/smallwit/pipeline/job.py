"""What a stage is told, and what it may say while it works."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallwit.recipe.schema import Recipe, TrainStage


@dataclass(frozen=True)
class Job:
    """One node of a pipeline, with everything that its process, or each of its `processes`, needs to know.

    `inputs` maps the names of models, stages and `tokenizer` to folders (or hub ids). `folder` is where the artifact is
    published, `work` the stage's own folder in the run.
    """

    kind: str
    name: str
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
    def processes(self) -> int:
        """How many processes run it together."""
        counts = [s.processes for s in self.recipe.stages if isinstance(s, TrainStage) and s.name == self.name]
        return counts[0] if counts and self.kind == "train" else 1


class Stopped(Exception):
    """The stage was asked to stop, has saved what it had, and can be resumed."""


class Failed(Exception):
    """The stage cannot be finished. The message says why, and what to look at; a traceback would add nothing."""


class LeftAlone(Exception):
    """Another process of the same stage has ended or failed, so that this one cannot go on; that one says why."""


@dataclass(frozen=True)
class Reporter:
    """`progress(share, text)` tells how far a stage is, `say(text)` what the user should know of it; `stopping()` tells
    whether it was asked to stop."""

    progress: Callable[[float, str], None]
    say: Callable[[str], None]
    stopping: Callable[[], bool]


Info = dict[str, Any]
