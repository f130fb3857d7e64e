"""The job of a stage's process, its reports, and the exceptions that end it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage


@dataclass(frozen=True)
class Job:
    """A stage with all that its processes need.

    `inputs` maps the names of models, stages and `tokenizer` to folders (or hub ids). `folder` is the
    place of the artifact, `work` the stage's own folder in the run. `flops` is the budget of the stage, if it has one.
    `about` are the entries of the manifest that say what the key depends on, `pins` the commits of the hub to read.
    `track` names the trackers that get its metrics.
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
    about: Mapping[str, Any] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    track: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the stage."""
        return self.stage.name

    def manifest(self, info: "Info") -> dict[str, Any]:
        """Return the manifest of the artifact that the stage makes, with its cost and content `info`."""
        return {"key": self.key, "name": self.name, **self.about, **info}

    @property
    def origin_key(self) -> str:
        """Return the key that the stage's unfinished work began with: another one if it was adopted."""
        return str((self.about.get("adopted") or {}).get("origin", self.key))


class Stopped(Exception):
    """The stage was asked to stop; it has saved its state and can be resumed."""


class Failed(Exception):
    """The stage cannot be finished. The message gives the reason and the remedy; no traceback is needed."""


class PeerFailed(Exception):
    """Another process of the same stage has ended or failed, so this one cannot go on. That process reports why."""


@dataclass(frozen=True)
class Reporter:
    """Callbacks of a stage: `progress(share, text)` with a share of 0..1, `say(text)` for a line to the user.

    `stopping()` returns whether the stage was asked to stop.
    """

    progress: Callable[[float, str], None]
    say: Callable[[str], None]
    stopping: Callable[[], bool]


Info = dict[str, Any]
"""The entries of a manifest about the cost and the content of an artifact."""
