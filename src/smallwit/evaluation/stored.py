"""Evaluations on disk: a folder of `smallwit eval`, or an evaluation of a run; and whether two can be compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.evaluation.protocol import differences
from smallwit.evaluation.scores import Row
from smallwit.rows import read_rows
from smallwit.storage.paths import path_of
from smallwit.suggestions import hint

PROTOCOL = "protocol.json"
# What a protocol says of the choice of problems, and of the model itself: the rest has to be the same.
_CHOICE = frozenset(("problems", "data", "prompts"))
_MODELS_OWN = frozenset(("generator.chat_template", "generator.chat_template_kwargs", "generator.ends", "encoded"))


@dataclass(frozen=True)
class StoredEvaluation:
    """The sample rows of each task, and each task's protocol: its fields, among them its `signature`."""

    name: str
    rows: Mapping[str, list[Row]]
    protocols: Mapping[str, Mapping[str, Any]]


def read_evaluation(reference: str) -> StoredEvaluation:
    """Return the evaluation at `reference`: its folder, or `runs/NAME:STAGE`.

    Raises `UserError` when there is none, or its files are not those that an evaluation writes.
    """
    folder = _folder(reference)
    protocols = _protocols(folder)
    rows = {task: _rows(folder / f"{task}.jsonl") for task in protocols}
    return StoredEvaluation(reference, rows, protocols)


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the differences of two protocols of a task: those that forbid a comparison, and those to report.

    Other problems and another chat template are only reported: the problems that both have are compared, and a chat
    template with its options belongs to its model.
    """
    if a["signature"] == b["signature"]:
        return [], []
    found = differences(a, b)
    said = _CHOICE | _MODELS_OWN
    return [found[f] for f in found if f not in said], [found[f] for f in found if f in said]


def common_rows(a: Sequence[Row], b: Sequence[Row], across_protocols: bool) -> tuple[list[Row], list[Row], list[str]]:
    """Return the rows of the problems that both have, of `a` and of `b`, and the ids that stand for different problems.

    A problem is the same if its id, its text and its gold answer are; across protocols its text may be another.
    """
    keys = ("gold",) if across_protocols else ("prompt", "gold")
    first, second = ({row["id"]: [row[key] for key in keys] for row in rows} for rows in (a, b))
    same = {id for id in first if id in second and first[id] == second[id]}
    unlike = [id for id in first if id in second and id not in same]
    return [row for row in a if row["id"] in same], [row for row in b if row["id"] in same], unlike


def _folder(reference: str) -> Path:
    path = path_of(reference)
    if path.is_dir():
        return path
    run, _, stage = reference.rpartition(":")
    evaluations = path_of(run) / "evaluation"
    if not run or not evaluations.is_dir():
        what = "name a folder of `smallwit eval`, or a run's stage as runs/NAME:STAGE"
        raise UserError(f"evaluation {reference}: there is no such folder; {what}")
    stages = sorted(folder.name for folder in evaluations.iterdir() if folder.is_dir())
    if stage not in stages:
        raise UserError(f"evaluation {reference}: run {run} has no evaluation of '{stage}'; {hint(stage, stages)}")
    return evaluations / stage


def _protocols(folder: Path) -> dict[str, Mapping[str, Any]]:
    try:
        return dict(json.loads((folder / PROTOCOL).read_text(encoding="utf-8"))["protocols"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = "name a folder of `smallwit eval`, or a run's stage as runs/NAME:STAGE"
        raise UserError(f"evaluation {folder}: has no {PROTOCOL} that can be read; {what}") from error


def _rows(path: Path) -> list[Row]:
    rows: list[Row] = [*read_rows(path, columns={"id": str})[0]]
    needed = ("prompt", "gold", "answer", "score", "strict")
    missing = [key for row in rows for key in needed if key not in row]
    if missing:
        raise UserError(f"{path}: its rows have no '{missing[0]}'; it is no file of samples")
    return rows
