"""The results of a run that goes on or was stopped: what its finished evaluations say so far."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.evaluation.seed_table import SeedTable
from smallwit.recipe.yaml import read_yaml

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def results_so_far(path: Path, recipe: str, ledger: Mapping[str, Any], samples: Mapping[str, Rows]) -> dict[str, Any]:
    """Return the content of results.json for the models that are measured, of the first seed and without comparisons.

    `samples` has the rows of each model by task. Raises `UserError` for a recipe that cannot be read.
    """
    settings: Mapping[str, Any] = read_yaml(recipe, str(path / "recipe.resolved.yaml"))[0]
    table = SeedTable({name: [rows] for name, rows in samples.items()}, settings["seed"])
    plan = _read(path / "plan.json").get("nodes", {})
    order = [node.removeprefix("evaluate ") for node in plan if node.startswith("evaluate ")]
    stages = {stage["name"]: stage for stage in ledger["stages"]}
    models = []
    for name in sorted(samples, key=lambda name: order.index(name) if name in order else len(order)):
        about = _read(path / "evaluation" / name / "manifest.json")
        made = _read(path / "stages" / plan.get(name, {}).get("folder", "") / "artifact" / "manifest.json")
        spent = stages.get(name, {})
        models.append(
            {
                "name": name,
                "parameters": about["parameters"],
                "training_flops": spent.get("cumulative_flops", 0.0),
                "seconds": spent.get("seconds", 0.0),
                "scores": {
                    task: table.score(name, task) | {"signature": about["signatures"][task]} for task in samples[name]
                },
            }
            | {key: made[key] for key in ("number_format", "bytes") if "number_format" in made}
        )
    attempts = ledger.get("attempts", [])
    return {
        "schema": 1,
        "run": settings["name"],
        "seed": settings["seed"],
        "models": models,
        "comparisons": [],
        "seconds": sum(attempt["seconds"] for attempt in attempts),
        "peak_memory_gb": max((attempt["peak_memory_gb"] for attempt in attempts), default=0.0),
        **{role: settings[role] for role in ("teacher", "baseline") if settings.get(role) in samples},
    }


def _read(file: Path) -> Mapping[str, Any]:
    """Return a JSON file of the run, nothing where there is none yet. Raises `UserError` for a damaged one."""
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON as it was written ({error}); run the recipe again") from error
    return found
