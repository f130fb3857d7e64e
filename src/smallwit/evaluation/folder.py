"""The folder of an evaluation: `protocol.json`, `TASK.jsonl` with the samples, `scores.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.evaluation.protocol import EvaluationProtocol, differences
from smallwit.storage.artifacts import write_atomically
from smallwit.storage.jsonl import parse_json

PROTOCOL_SCHEMA = 2
SCORES_SCHEMA = 1
RESUMED_BATCHES = "resumed_batches"
"""The key with the number of batches, by task, that an interruption cut in two; absent where there are none."""
_OF_MODEL = ("identity", "reference")


def admit(
    folder: Path, model: Mapping[str, str], protocols: Mapping[str, EvaluationProtocol], *, ignored: str | None = None
) -> None:
    """Write what is going to be measured, and how. The field `ignored` of a protocol may differ from what is there.

    Raises `UserError` where the folder holds samples of another model or by another protocol: they could not be told
    from those that are to come.
    """
    path = folder / "protocol.json"
    new: dict[str, Any] = {
        "schema": PROTOCOL_SCHEMA,
        "model": dict(model),
        "protocols": {name: p.as_json() for name, p in protocols.items()},
    }
    if path.is_file():
        old = _read(path, "protocols")
        if old["model"]["identity"] != model["identity"]:
            raise UserError(
                f"{folder}: holds samples of {old['model']['reference']}, which is not the model {model['reference']} "
                "as it is now; name another folder by --out"
            )
        for name, protocol in new["protocols"].items():
            found = differences(old["protocols"].get(name, protocol), protocol)
            found.pop(ignored or "", None)
            if found:
                changed = "; ".join(list(found.values())[:4])
                raise UserError(
                    f"{folder}: holds samples of {name} by another protocol ({changed}); name another folder by --out"
                )
        new["protocols"] = old["protocols"] | new["protocols"]
        new |= {RESUMED_BATCHES: old[RESUMED_BATCHES]} if RESUMED_BATCHES in old else {}
    write_atomically(path, json.dumps(new, indent=1, ensure_ascii=False))


def count_resumed_batch(folder: Path, task: str) -> None:
    """Count in `protocol.json` a batch of a task that goes on after an interruption."""
    path = folder / "protocol.json"
    data = _read(path, "protocols")
    counts = data.get(RESUMED_BATCHES, {})
    data[RESUMED_BATCHES] = counts | {task: counts.get(task, 0) + 1}
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False))


def write_strata(folder: Path, strata: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `strata.json`: by task, the strata of each problem. Nothing is written if no problem has any."""
    found = {task: dict(problems) for task, problems in strata.items() if problems}
    if found:
        write_atomically(folder / "strata.json", json.dumps(found, ensure_ascii=False))


def write_scores(folder: Path, model: Mapping[str, str], scores: Mapping[str, Any]) -> None:
    """Write `scores.json`: by task, with those that are there of other tasks."""
    path = folder / "scores.json"
    old = _read(path, "scores")["scores"] if path.is_file() else {}
    data = {"schema": SCORES_SCHEMA, "model": dict(model), "scores": old | dict(scores)}
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False))


def _read(path: Path, key: str) -> dict[str, Any]:
    try:
        data = parse_json(path.read_bytes())
        if not isinstance(data[key], dict) or not all(isinstance(data["model"][name], str) for name in _OF_MODEL):
            raise ValueError(f"{key} is of another type")
    except (ValueError, KeyError, TypeError) as error:
        what = "is not what `smallwit eval` writes"
        raise UserError(f"{path}: {what}; delete it with the samples beside it, or name another folder") from error
    found: dict[str, Any] = data
    return found
