"""The folder of an evaluation: `protocol.json`, `TASK.jsonl` with the samples, `scores.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallwit.artifacts import write_atomically
from smallwit.errors import UserError
from smallwit.evaluation.protocol import Protocol, differences

SCHEMA = 1


def admit(folder: Path, model: Mapping[str, str], protocols: Mapping[str, Protocol]) -> None:
    """Write what is going to be measured, and how. Raises `UserError` where the folder holds samples of another model
    or by another protocol: they could not be told from those that are to come."""
    path = folder / "protocol.json"
    new: dict[str, Any] = {
        "schema": SCHEMA,
        "model": dict(model),
        "protocols": {name: p.as_json() for name, p in protocols.items()},
    }
    if path.is_file():
        old = _read(path)
        if old["model"]["identity"] != model["identity"]:
            raise UserError(
                f"{folder}: holds samples of {old['model']['reference']}, which is not the model {model['reference']} "
                "as it is now; name another folder by --out"
            )
        for name, protocol in new["protocols"].items():
            if name in old["protocols"] and old["protocols"][name] != protocol:
                changed = "; ".join(list(differences(old["protocols"][name], protocol).values())[:4])
                raise UserError(
                    f"{folder}: holds samples of {name} by another protocol ({changed}); name another folder by --out"
                )
        new["protocols"] = old["protocols"] | new["protocols"]
    write_atomically(path, json.dumps(new, indent=1, ensure_ascii=False))


def write_scores(folder: Path, model: Mapping[str, str], scores: Mapping[str, Any]) -> None:
    """Write `scores.json`: by task, with those that are there of other tasks."""
    path = folder / "scores.json"
    old = _read(path)["scores"] if path.is_file() else {}
    data = {"schema": SCHEMA, "model": dict(model), "scores": old | dict(scores)}
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False))


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is not what `smallwit eval` writes; name another folder by --out") from error
    return data
