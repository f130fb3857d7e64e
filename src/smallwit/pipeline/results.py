"""Summarise a run as `results.json`: scores with intervals and signatures, and paired comparisons.

`lowered` lists stages that score lower than the model that they started from; the key is absent if there is none. If
such a stage is on the path of the last model, `headline` names the model to report: the stage on that path with the
best validation score.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smallwit.evaluation.comparison import compare_tasks
from smallwit.evaluation.scores import Scores, by_stratum, scores
from smallwit.recipe.schema import Recipe
from smallwit.report.format import final_student

Rows = dict[str, list[dict[str, Any]]]

SCORE_KEYS = ("mean", "low", "high", "strict", "n", "bounds")
COMPARISON_KEYS = ("task", "difference", "low", "high", "p")
_SIGNIFICANT = 0.05


def summarise(
    recipe: Recipe,
    evaluation: Path,
    costs: Mapping[str, dict[str, Any]],
    signatures: Mapping[str, Mapping[str, str]],
    validations: Mapping[str, float],
) -> dict[str, Any]:
    """Return the part of results.json that depends on the samples (schema 1).

    `evaluation` has a folder for each model, with a file TASK.jsonl for each task. `costs` gives the models in their
    order, `signatures` the protocol signature of each task by model, `validations` the validation scores of stages.
    Raises `ValueError` when no response to a task has a verdict.
    """
    rows = {name: _read(evaluation / name, signatures[name]) for name in costs}
    models = [
        {"name": name} | cost | {"scores": _scores(rows[name], signatures[name], _strata(evaluation / name))}
        for name, cost in costs.items()
    ]
    comparisons = [c for pair in recipe.comparisons for c in _compare(recipe, pair.a, pair.b, rows)]
    lowered = _lowered(recipe, rows)
    named = {"teacher": recipe.teacher, "baseline": recipe.baseline}
    roles = {role: name for role, name in named.items() if name is not None}
    about = {"schema": 1, "run": recipe.name, "seed": recipe.seed, "models": models, "comparisons": comparisons}
    lowered_entry = {"lowered": lowered} if lowered else {}
    lowering = {entry["a"] for entry in lowered}
    results = about | roles | lowered_entry
    return results | _headline(recipe, results, lowering, validations)


def _lowered(recipe: Recipe, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Return the stages that score lower than their start, overall and by task, as comparisons with p < 0.05."""
    found = []
    for name in rows:
        origin = next((one for one in _path(recipe, name)[1:] if one in rows), None)
        if origin is None:
            continue
        tasks, pooled = compare_tasks(rows[name], rows[origin], recipe.seed)
        several = [(one, one.p_holm) for one in tasks] if pooled else [(one, one.paired.p) for one in tasks]
        for comparison, p in [*([(pooled, pooled.paired.p)] if pooled else ()), *several]:
            if comparison.paired.difference < 0 and p is not None and p < _SIGNIFICANT:
                entry = comparison.as_json()
                found.append({"a": name, "b": origin} | {key: entry[key] for key in COMPARISON_KEYS})
    return found


def _path(recipe: Recipe, name: str) -> list[str]:
    """Return the path of a model: itself, the model that it started from, and so on to the first."""
    origins = {stage.name: stage.starts_from for stage in recipe.stages if stage.starts_from is not None}
    path = [name]
    while path[-1] in origins:
        path.append(origins[path[-1]])
    return path


def _headline(
    recipe: Recipe, results: Mapping[str, Any], lowered: set[str], validations: Mapping[str, float]
) -> dict[str, Any]:
    """Return the `headline` entry if a stage on the path of the last model lowered the score, else nothing.

    It holds the chosen model and the validation scores of the choice. If the stages were not validated on the same
    problems, there are no scores and the model is the last one.
    """
    last = final_student(results)
    path = _path(recipe, last["name"]) if last is not None else []
    if not lowered.intersection(path):
        return {}
    measured = {model["name"] for model in results["models"]}
    terms = {stage.name: stage.validated_on(recipe) for stage in recipe.stages}
    alike = [name for name in path if name in measured and name in validations and terms[name] == terms[path[0]]]
    scored = {name: validations[name] for name in reversed(alike)} if path[0] in alike and len(alike) > 1 else {}
    return {"headline": {"model": max(scored, key=scored.__getitem__, default=path[0]), "validation": scored}}


def _scores(rows: Rows, signatures: Mapping[str, str], strata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    entries = {task: _score(scores(samples)) | {"signature": signatures[task]} for task, samples in rows.items()}
    for task, groups in strata.items():
        entries[task]["strata"] = by_stratum(rows[task], groups)
    return entries


def _strata(folder: Path) -> dict[str, Any]:
    """Return the strata of the problems by task, where the evaluation wrote some."""
    path = folder / "strata.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _score(found: Scores) -> dict[str, Any]:
    """Return the entry of a score. Samples without a verdict are counted, with bounds on the mean."""
    entry = {key: value for key, value in found.as_json().items() if key in SCORE_KEYS}
    return entry | ({"unverified": found.unverified} if found.unverified else {})


def _read(folder: Path, tasks: Iterable[str]) -> Rows:
    rows: Rows = {}
    for task in tasks:
        with (folder / f"{task}.jsonl").open(encoding="utf-8") as lines:
            rows[task] = [json.loads(line) for line in lines]
    return rows


def _compare(recipe: Recipe, a: str, b: str, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Return a comparison for each task, on the problems with a verdict for both models, and one over all tasks."""
    tasks, pooled = compare_tasks(rows[a], rows[b], recipe.seed)
    entries = [found.as_json() for found in (*tasks, pooled) if found is not None]
    return [{"a": a, "b": b} | {key: entry[key] for key in COMPARISON_KEYS} for entry in entries]
