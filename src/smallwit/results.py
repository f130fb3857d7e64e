"""`results.json`: scores with intervals and signatures, and paired comparisons, from the rows of the evaluations."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smallwit.evaluation.comparison import compare_tasks
from smallwit.evaluation.scores import Scores, scores
from smallwit.recipe.schema import Recipe

Rows = dict[str, list[dict[str, Any]]]

SCORE_KEYS = ("mean", "low", "high", "strict", "n", "bounds")
COMPARISON_KEYS = ("task", "difference", "low", "high", "p")


def summarise(
    recipe: Recipe, evaluation: Path, costs: Mapping[str, dict[str, Any]], signatures: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """The part of results.json that depends on the samples (schema 1).

    `evaluation` holds TASK.jsonl in a folder for each model. `costs` gives the models and their order; `signatures`, by
    model, the tasks and theirs. Raises `ValueError` when no response to a task has a verdict.
    """
    rows = {name: _read(evaluation / name, signatures[name]) for name in costs}
    models = [{"name": name} | cost | {"scores": _scores(rows[name], signatures[name])} for name, cost in costs.items()]
    comparisons = [c for pair in recipe.comparisons for c in _compare(recipe, pair.a, pair.b, rows)]
    return {"schema": 1, "run": recipe.name, "seed": recipe.seed, "models": models, "comparisons": comparisons}


def _scores(rows: Rows, signatures: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {task: _score(scores(samples)) | {"signature": signatures[task]} for task, samples in rows.items()}


def _score(found: Scores) -> dict[str, Any]:
    """What the schema has of a score. Samples without a verdict are counted, with the means that they may have cost."""
    entry = {key: value for key, value in found.as_json().items() if key in SCORE_KEYS}
    return entry | ({"unverified": found.unverified} if found.unverified else {})


def _read(folder: Path, tasks: Iterable[str]) -> Rows:
    rows: Rows = {}
    for task in tasks:
        with (folder / f"{task}.jsonl").open(encoding="utf-8") as lines:
            rows[task] = [json.loads(line) for line in lines]
    return rows


def _compare(recipe: Recipe, a: str, b: str, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """One comparison a task on the problems that both have a verdict for, and one over all tasks."""
    tasks, pooled = compare_tasks(rows[a], rows[b], recipe.seed)
    entries = [found.as_json() for found in (*tasks, pooled) if found is not None]
    return [{"a": a, "b": b} | {key: entry[key] for key in COMPARISON_KEYS} for entry in entries]
