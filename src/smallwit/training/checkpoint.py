"""Checkpoints of a stage: published whole, verified on load; the two newest are kept."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from smallwit.storage.artifacts import (
    BrokenArtifact,
    link_files,
    publish,
    read_manifest,
    remove,
    remove_leftovers,
)
from smallwit.training.checkpoint_folder import clear, newest_first, set_aside

KEPT = 2
_LOG = "log.jsonl"


class Checkpoints:
    """The folder `checkpoints/` of one stage. Checkpoints with another `key`, of another configuration, are set aside.

    `log` is the path of the stage's log. Each checkpoint has a copy of it; `logged` is the copy in the checkpoint that
    `load` has found, if there is one. `complaints` has a message for each damaged checkpoint that `load` found.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.log = folder / f"{key}.jsonl"
        self.logged: bytes | None = None
        self.complaints: list[str] = []

    def log_size(self) -> int:
        """Return the length of the log in bytes."""
        return self.log.stat().st_size if self.log.is_file() else 0

    def save(self, step: int, tensors: dict[str, Any], state: dict[str, Any], log_size: int | None = None) -> None:
        """Publish `step_N` with tensors (model, optimizer, best), plain state and the log, then drop the oldest.

        `log_size` bytes are copied of a log that grows meanwhile, or all.
        """

        def write(folder: Path) -> None:
            # Through a Python file: on a full disk torch's own only reports an unexpected position.
            with (folder / "tensors.pt").open("wb") as file:
                torch.save(tensors, file)
            (folder / "state.json").write_text(json.dumps(state))
            if self.log.is_file():
                with self.log.open("rb") as log:
                    (folder / _LOG).write_bytes(log.read(-1 if log_size is None else log_size))

        publish(self.folder / f"step_{step:08d}", write, {"key": self.key, "step": step})
        for old in newest_first(self.folder)[KEPT:]:
            remove(old)

    def load(self) -> tuple[dict[str, Any], dict[str, Any], list[str]] | None:
        """Return the newest whole checkpoint: tensors, state, and complaints about newer ones."""
        remove_leftovers(self.folder)
        set_aside(self.folder, self.key)
        for folder in newest_first(self.folder):
            try:
                read_manifest(folder, check_content=True)
            except BrokenArtifact as error:
                self.complaints.append(str(error))
                remove(folder)
                continue
            try:
                # Only tensors and plain data: anything else in a pickle is refused and never run.
                tensors = torch.load(folder / "tensors.pt", map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                self.complaints.append(f"{folder / 'tensors.pt'}: holds more than tensors ({str(error).split('.')[0]})")
                remove(folder)
                continue
            log = folder / _LOG
            self.logged = log.read_bytes() if log.is_file() else None
            return tensors, json.loads((folder / "state.json").read_text()), self.complaints
        return None

    def begin(self, training: Path, step: int) -> None:
        """Publish `step_N` with the files of another stage's checkpoint, which are shared."""
        about = {"key": self.key, "step": step}
        publish(self.folder / f"step_{step:08d}", lambda folder: link_files(training, folder), about)

    def clear(self) -> None:
        """Delete the checkpoints of this key: the stage has published its artifact."""
        clear(self.folder, self.key)
