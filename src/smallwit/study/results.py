"""Read the run of a study, and summarise it as `study.json`: what its table, its page and its exports show."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from smallwit.evaluation.scores import problem_means
from smallwit.evaluation.seed_table import SampleRows
from smallwit.pipeline.seeds import seeded_name
from smallwit.recipe.stage import Stage
from smallwit.report.load import Run
from smallwit.study.advice import RULES, advise, against
from smallwit.study.expand import Arm, ExpandedStudy
from smallwit.study.statistics import ArmScores, Pair


def study_results(expanded: ExpandedStudy, run: Run) -> dict[str, Any]:
    """Return the content of study.json (schema 1) for a run that has ended; scores are fractions of 1.

    Raises `ValueError` if there is no problem on which every arm has a verdict with every seed.
    """
    study, arms = expanded.study, expanded.arms
    scores = _aligned([run.seeds[arm.end] for arm in arms])
    costs = [_cost(expanded, expanded.own_stages(arm), run.ledger) for arm in arms]
    unit = study.budget.unit
    # What all spend alike orders nothing; the time that they took may.
    axis = unit if len(study.budget.amounts) > 1 else "seconds"
    number = {arm.name: place for place, arm in enumerate(arms)}
    baseline = {arm.budget: number[arm.name] for arm in arms if arm.pipeline == study.baseline}
    over_baseline: dict[int, Pair] = {}
    best: dict[int, float] = {}
    advice = []
    for amount in study.budget.amounts:
        own = [number[arm.name] for arm in arms if arm.budget == amount]
        base = baseline[amount]
        over_baseline |= {pair.a: pair for pair in against(scores, own, base)}
        best |= dict(zip(own, scores.best_probability(own), strict=True))
        advice.append({"budget": amount} | advise(scores, own, base, [arm.name for arm in arms]))
    front = scores.front_probability([cost[axis] for cost in costs])
    on_front = scores.front([cost[axis] for cost in costs])
    median = sorted(range(len(arms)), key=lambda arm: scores.means[arm])[len(arms) // 2]
    other = next(arm for arm in range(len(arms)) if arm != median)
    held = scores.held_out()
    (start,) = (model for model in run.results["models"] if model["name"] == study.after)
    return {
        "schema": 1,
        "study": study.name,
        "seeds": [study.seed + number for number in range(study.seeds)],
        "problems": scores.scores[0].shape[1],
        "tasks": list(dict.fromkeys(scores.strata)),
        "baseline": study.baseline,
        "budget": {"unit": unit, "amounts": study.budget.amounts, "answers": study.budget.answers},
        "front_axis": axis,
        "after": {"name": study.after, "scores": {task: score["mean"] for task, score in start["scores"].items()}},
        "arms": [
            {
                "name": arm.name,
                "pipeline": arm.pipeline,
                "budget": arm.budget,
                "model": arm.end,
                "stages": [stage.name for stage in expanded.own_stages(arm)],
                "score": scores.interval(place)._asdict(),
                "tasks": _by_task(run.results, arm.end),
                "seeds": [float(mean) for mean in scores.scores[place].mean(1)],
                "cost": costs[place],
                "time_over_budget": _time_over_budget(expanded, arm, run.ledger),
                "best": best[place],
                "front": {"on": on_front[place], "probability": front[place]},
                "over_baseline": _pair(over_baseline[place], arms) if place in over_baseline else None,
            }
            for place, arm in enumerate(arms)
        ],
        "seed_spread": scores.seed_spread,
        "smallest_difference": {
            "interval": scores.detectable(median, other, power=0.5),
            "power_80": scores.detectable(median, other),
        },
        "pairs": [_pair(pair, arms) for pair in scores.compared(list(combinations(range(len(arms)), 2)))],
        "advice": advice,
        "rules": list(RULES),
        "held_out": None if held is None else held._asdict(),
        "signatures": {task: score["signature"] for task, score in start["scores"].items()},
    }


def _aligned(models: Sequence[Sequence[SampleRows]]) -> ArmScores:
    """Return the scores of the arms on the problems for which every arm has a verdict with every seed."""
    means = [
        [{(task, id): mean for task in rows for id, mean in problem_means(rows[task]).items()} for rows in seeds]
        for seeds in models
    ]
    runs = [run for seeds in means for run in seeds]
    common = [problem for problem in runs[0] if all(problem in run for run in runs)]
    if not common:
        raise ValueError("there is no problem on which every pipeline has a verdict with every seed")
    scores = [np.asarray([[run[problem] for problem in common] for run in seeds]) for seeds in means]
    return ArmScores(scores, [task for task, _ in common])


def _cost(expanded: ExpandedStudy, stages: Sequence[Stage], ledger: Mapping[str, Any]) -> dict[str, float]:
    """Return what stages cost, the mean of the seeds: FLOPs, seconds, teacher tokens and, with a price, dollars."""
    entries, recipe = {entry["name"]: entry for entry in ledger["stages"]}, expanded.recipe
    cost = {"flops": 0.0, "seconds": 0.0, "teacher_tokens": 0.0}
    trained = {stage.name for stage in stages if stage.makes == "model"}
    paid = 0.0
    for stage in stages:
        taught = stage.makes == "rows" and trained.isdisjoint(stage.asked_models())
        names = [seeded_name(stage.name, recipe.seed + number, recipe) for number in range(recipe.seeds)]
        made = [entries[name] for name in names if name in entries]
        for key in cost:
            cost[key] += sum(entry[key] for entry in made) / len(made)
        if taught:
            # The ledger has the tokens that a model of this machine wrote as those of the stage.
            cost["teacher_tokens"] += sum(entry["tokens"] for entry in made if not entry["teacher_tokens"]) / len(made)
        if any(map(recipe.is_remote, stage.asked_models())):
            paid += sum(entry["teacher_tokens"] for entry in made) / len(made)
    prices = recipe.prices
    return cost if prices is None else cost | {"dollars": prices.dollars(cost["seconds"], None, paid)}


def _time_over_budget(expanded: ExpandedStudy, arm: Arm, ledger: Mapping[str, Any]) -> float | None:
    """Return the seconds that stages took over those of their budget; `None` where the budget is no time."""
    budget = expanded.study.budget
    if not budget.timed:
        return None
    counted = [stage for stage in expanded.own_stages(arm) if stage.makes in budget.counted]
    took = _cost(expanded, counted, ledger)["seconds"]
    return took / budget.seconds_of(arm.budget, expanded.recipe.prices)


def _by_task(results: Mapping[str, Any], name: str) -> dict[str, dict[str, float]]:
    (model,) = (model for model in results["models"] if model["name"] == name)
    return {task: {key: score[key] for key in ("mean", "low", "high")} for task, score in model["scores"].items()}


def _pair(pair: Pair, arms: Sequence[Arm]) -> dict[str, Any]:
    found = pair.compared
    figures = {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    return {"a": arms[pair.a].name, "b": arms[pair.b].name, **figures, "p_holm": pair.p_holm}
