"""The answer of a run in sentences that follow from its scores and paired comparisons by fixed rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from smallwit.console.numbers import human_flops, percent
from smallwit.evaluation.seed_table import SeedTable
from smallwit.evaluation.statistics import holm
from smallwit.report.format import Model, Results, gap, overall_score, share_of_teacher, students, teacher_of

_SIGNIFICANT = 0.05
RULES = (
    "The model with the highest score over all problems is named first. The teacher, exported models, and models that "
    "were not measured on all tasks are left out.",
    "A model is told apart from it if their paired difference over all problems has p < 0.05 after Holm's correction "
    "for all models compared with it. All others count as equally good: take the one with the least training compute.",
    "A gain over the model that it began from, and a distance to the teacher, is claimed if p < 0.05.",
)


def answer_lines(results: Results, table: SeedTable, origins: Mapping[str, str]) -> list[str]:
    """Return the sentences: the best model, which to take, its gain, its distance to the teacher, what exports lose.

    `table` has the samples of the run's models, `origins` what each stage began from. There are no sentences without a
    model to name.
    """
    own = [model for model in students(results) if model["name"] in table.models]
    if not own:
        return []
    best = max(own, key=overall_score)
    problems = sum(score["n"] for score in best["scores"].values())
    lines = [f"{best['name']} has the highest score, {percent(overall_score(best))} % of {problems:,} problems."]
    lines += _equals(best, own, table)
    start = _start(best["name"], table, origins)
    if found := _overall(table, best["name"], start):
        sure = "" if found["p"] < _SIGNIFICANT else ", no gain that this run shows"
        lines.append(f"{best['name']} has {gap(found)} over {start}, which it began from{sure}.")
    teacher = teacher_of(results)
    if teacher is not None and (found := _overall(table, best["name"], teacher["name"])):
        share = share_of_teacher(best, teacher)
        reached = "" if share is None else f"{best['name']} reaches {share:.1f} % of the teacher’s score: "
        sure = "" if found["p"] < _SIGNIFICANT else ", not told apart from it"
        lines.append(f"{reached}{gap(found)} to {teacher['name']}{sure}.")
    return [line.replace(" -", " −").replace("[-", "[−").replace("(-", "(−") for line in [*lines, *_exports(results)]]


def _equals(best: Model, own: Sequence[Model], table: SeedTable) -> list[str]:
    """Return a sentence about the models that are as good as the best one, and which of them to take."""
    pairs = [(other, _overall(table, other["name"], best["name"])) for other in own]
    compared = [(other, found) for other, found in pairs if found is not None]
    if not compared:
        return []
    adjusted = holm([found["p"] for _, found in compared])
    near = [pair for pair, p in zip(compared, adjusted, strict=True) if p >= _SIGNIFICANT]
    if not near:
        return [f"Every other model scores lower: take {best['name']}."]
    listed = "; ".join(f"{other['name']} ({gap(found)})" for other, found in near)
    cheapest = min([best, *(other for other, _ in near)], key=lambda model: model["training_flops"])
    spent = human_flops(cheapest["training_flops"])
    return [f"Not told apart from it: {listed}. Take {cheapest['name']}, which took the least compute, {spent}."]


def _exports(results: Results) -> list[str]:
    """Return a sentence for each exported model, by the last of its comparisons, which is over all tasks."""
    exported = [model["name"] for model in results["models"] if "number_format" in model]
    last = {entry["a"]: entry for entry in results["comparisons"] if entry["a"] in exported}
    return [
        f"{name} {'differs from' if found['p'] < _SIGNIFICANT else 'is not told apart from'} {found['b']}: "
        f"{gap(found)}."
        for name, found in last.items()
    ]


def _start(name: str, table: SeedTable, origins: Mapping[str, str]) -> str:
    """Return the first measured model of the path of a model, which may be itself."""
    start, ahead = name, dict(origins)
    while name in ahead:
        name = ahead.pop(name)
        start = name if name in table.models else start
    return start


def _overall(table: SeedTable, a: str, b: str) -> Mapping[str, Any] | None:
    """Return the comparison over all tasks as in results.json; `None` for a model with itself, or without samples."""
    found = table.compare(a, b) if a != b and {a, b} <= table.models.keys() else []
    return found[-1][0] if found else None
