"""What a stage is told, and what it may say while it works."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallwit.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One node of a pipeline, with everything that its process needs to know.

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


class Stopped(Exception):
    """The stage was asked to stop, has saved what it had, and can be resumed."""


class Failed(Exception):
    """The stage cannot be finished. The message says why, and what to look at; a traceback would add nothing."""


@dataclass(frozen=True)
class Reporter:
    """`progress(share, text)` tells how far a stage is, `say(text)` what the user should know of it; `stopping()` tells
    whether it was asked to stop."""

    progress: Callable[[float, str], None]
    say: Callable[[str], None]
    stopping: Callable[[], bool]


Info = dict[str, Any]
