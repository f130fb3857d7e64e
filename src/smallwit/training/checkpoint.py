"""Checkpoints of a stage in progress: published whole, verified on load, the two newest kept."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from smallwit.storage.artifacts import BrokenArtifact, publish, read_manifest, remove_leftovers

KEPT = 2
_LOG = "log.jsonl"


class Checkpoints:
    """The folder `checkpoints/` of one stage. `key` is the stage's: those of another configuration are dropped.

    `log` is a file there for what the stage logs until it is done. Each checkpoint has a copy of it, as it was then;
    `logged` is that of the checkpoint that `load` has found, if it has one. `complaints` says of each checkpoint that
    `load` found damaged what was wrong with it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.log = folder / f"{key}.jsonl"
        self.logged: bytes | None = None
        self.complaints: list[str] = []

    def save(self, step: int, tensors: dict[str, Any], state: dict[str, Any]) -> None:
        """Publish `step_N` with tensors (model, optimizer, best) and plain state, then drop the oldest."""

        def write(folder: Path) -> None:
            # Through a file of Python's: torch's own says nothing of a full disk but that its position is unexpected.
            with (folder / "tensors.pt").open("wb") as file:
                torch.save(tensors, file)
            (folder / "state.json").write_text(json.dumps(state))
            if self.log.is_file():
                shutil.copyfile(self.log, folder / _LOG)

        publish(self.folder / f"step_{step:08d}", write, {"key": self.key, "step": step})
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old)

    def load(self) -> tuple[dict[str, Any], dict[str, Any], list[str]] | None:
        """The newest checkpoint that is whole: tensors, state, and what was wrong with newer ones."""
        remove_leftovers(self.folder)
        for folder in self._newest_first():
            try:
                manifest = read_manifest(folder, check_content=True)
            except BrokenArtifact as error:
                self.complaints.append(str(error))
                shutil.rmtree(folder)
                continue
            if manifest["key"] != self.key:
                shutil.rmtree(folder)
                continue
            try:
                # Tensors and plain data alone: whatever else stands in a pickle is refused, and never run.
                tensors = torch.load(folder / "tensors.pt", map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                self.complaints.append(f"{folder / 'tensors.pt'}: holds more than tensors ({str(error).split('.')[0]})")
                shutil.rmtree(folder)
                continue
            log = folder / _LOG
            self.logged = log.read_bytes() if log.is_file() else None
            return tensors, json.loads((folder / "state.json").read_text()), self.complaints
        return None

    def clear(self) -> None:
        """Delete all: the stage has published its artifact."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"), reverse=True)
