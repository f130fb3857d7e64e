"""Summarise a run as `results.json`: scores with intervals and signatures, and paired comparisons.

`lowered` lists stages that score lower than the model that they started from; the key is absent if there is none. If
such a stage is on the path of the last model, `headline` names the model to report: the stage on that path with the
best validation score.

With several seeds the figures of a model that depends on them are means over the seeds, `seeds` of the model has those
of each seed, and `seeds` at the top lists the seeds; both keys are absent otherwise.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from smallwit.evaluation.comparison import POOLED
from smallwit.evaluation.scores import tokens_per_second
from smallwit.evaluation.seed_table import SeedTable
from smallwit.pipeline.seeds import seed_of, stage_name
from smallwit.recipe.schema import Recipe
from smallwit.report.format import final_student

Rows = dict[str, list[dict[str, Any]]]

_SIGNIFICANT = 0.05
_COSTS_OF_SEED = ("training_flops", "seconds")


def summarise(
    recipe: Recipe,
    evaluation: Path,
    costs: Mapping[str, dict[str, Any]],
    signatures: Mapping[str, Mapping[str, str]],
    validations: Mapping[str, float],
) -> dict[str, Any]:
    """Return the part of results.json that depends on the samples (schema 1).

    `evaluation` has a folder for each model, with a file TASK.jsonl for each task. `costs` gives the models in their
    order, then their further seeds by the names of their artifacts, `signatures` the protocol signature of each task by
    model, `validations` the validation scores of stages. Raises `ValueError` when no response to a task has a verdict.
    """
    seeds: dict[str, list[str]] = {}
    for name in costs:
        seeds.setdefault(stage_name(name), []).append(name)
    rows = {name: [_read(evaluation / each, signatures[each]) for each in of] for name, of in seeds.items()}
    table = SeedTable(rows, recipe.seed)
    models = [_model(name, of, recipe, costs, table, signatures[name]) for name, of in seeds.items()]
    for model in models:
        for task, groups in _strata(evaluation / model["name"]).items():
            model["scores"][task]["strata"] = table.by_stratum(model["name"], task, groups)
    exported = {model["name"] for model in models if "number_format" in model}
    for model in models:
        # Measured beside each other: an exported model and the one that it was made of.
        if exported.intersection([model["name"], *(s.name for s in recipe.stages if s.starts_from == model["name"])]):
            found = [row for by_task in rows[model["name"]] for of in by_task.values() for row in of]
            model["tokens_per_second"] = tokens_per_second(found)
    comparisons = [entry for pair in recipe.comparisons for entry, _ in table.compare(pair.a, pair.b)]
    lowered = [entry for entry in _lowered(recipe, table) if entry["a"] not in exported]  # those are compared anyway
    named = {"teacher": recipe.teacher, "baseline": recipe.baseline}
    roles = {role: name for role, name in named.items() if name is not None}
    about = {"schema": 1, "run": recipe.name, "seed": recipe.seed, "models": models, "comparisons": comparisons}
    if recipe.seeds > 1:
        about["seeds"] = [recipe.seed + number for number in range(recipe.seeds)]
    lowered_entry = {"lowered": lowered} if lowered else {}
    lowering = {entry["a"] for entry in lowered}
    results = about | roles | lowered_entry
    known = {name: [validations[each] for each in of if each in validations] for name, of in seeds.items()}
    return results | _headline(recipe, results, lowering, {name: mean(found) for name, found in known.items() if found})


def _model(
    name: str,
    seeds: Sequence[str],
    recipe: Recipe,
    costs: Mapping[str, dict[str, Any]],
    table: SeedTable,
    signatures: Mapping[str, str],
) -> dict[str, Any]:
    """Return the entry of a model; its cost is that of one seed, the mean if there are several."""
    scores = {task: table.score(name, task) | {"signature": signatures[task]} for task in signatures}
    if len(seeds) == 1:
        return {"name": name} | costs[name] | {"scores": scores}
    means = {task: table.means(name, task) for task in signatures}
    each = [
        {"seed": seed_of(seed, recipe)}
        | {key: costs[seed][key] for key in _COSTS_OF_SEED}
        | {"scores": {task: means[task][number] for task in signatures}}
        for number, seed in enumerate(seeds)
    ]
    cost = {key: mean(costs[seed][key] for seed in seeds) for key in _COSTS_OF_SEED}
    return {"name": name} | costs[name] | cost | {"scores": scores, "seeds": each}


def _lowered(recipe: Recipe, table: SeedTable) -> list[dict[str, Any]]:
    """Return the stages that score lower than their start, overall and by task, as comparisons with p < 0.05."""
    found = []
    for name in table.models:
        origin = next((one for one in _path(recipe, name)[1:] if one in table.models), None)
        if origin is None:
            continue
        for entry, p in sorted(table.compare(name, origin), key=lambda compared: compared[0]["task"] != POOLED):
            if entry["difference"] < 0 and p < _SIGNIFICANT:
                found.append(entry)
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


def _strata(folder: Path) -> dict[str, Any]:
    """Return the strata of the problems by task, where the evaluation wrote some."""
    path = folder / "strata.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _read(folder: Path, tasks: Iterable[str]) -> Rows:
    rows: Rows = {}
    for task in tasks:
        with (folder / f"{task}.jsonl").open(encoding="utf-8") as lines:
            rows[task] = [json.loads(line) for line in lines]
    return rows
