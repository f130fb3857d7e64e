"""`results.json`: scores with intervals and signatures, and paired comparisons, from the rows of the evaluations."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smallwit.evaluation.scores import scores
from smallwit.evaluation.statistics import paired_comparison
from smallwit.recipe import Recipe

Rows = dict[str, list[dict[str, Any]]]


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
    return {task: scores(samples).as_json() | {"signature": signatures[task]} for task, samples in rows.items()}


def _read(folder: Path, tasks: Iterable[str]) -> Rows:
    rows: Rows = {}
    for task in tasks:
        with (folder / f"{task}.jsonl").open(encoding="utf-8") as lines:
            rows[task] = [json.loads(line) for line in lines]
    return rows


def _compare(recipe: Recipe, a: str, b: str, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """One comparison a task on the problems that both have a verdict for, and one over all tasks."""
    comparisons = []
    firsts: list[float] = []
    seconds: list[float] = []
    strata: list[str] = []
    for task in rows[a]:
        other = {row["id"]: row["score"] for row in rows[b].get(task, ())}
        pairs = [(row["score"], other.get(row["id"])) for row in rows[a][task]]
        known = [(first, second) for first, second in pairs if first is not None and second is not None]
        if not known:
            continue
        first, second = [pair[0] for pair in known], [pair[1] for pair in known]
        comparisons.append(_entry(a, b, task, first, second, None, recipe.seed))
        firsts += first
        seconds += second
        strata += [task] * len(first)
    if len(comparisons) > 1:
        comparisons.append(_entry(a, b, "pooled", firsts, seconds, strata, recipe.seed))
    return comparisons


def _entry(
    a: str, b: str, task: str, first: list[float], second: list[float], strata: list[str] | None, seed: int
) -> dict[str, Any]:
    found = paired_comparison(first, second, seed, strata=strata)
    numbers = {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    return {"a": a, "b": b, "task": task} | numbers
