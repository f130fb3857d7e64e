"""Sentences about the results of a study, the same for the terminal, the page and the exports."""

from collections.abc import Mapping
from typing import Any

from smallwit.console.numbers import human_count, human_flops, human_seconds, p_value, percent, points

Results = Mapping[str, Any]
COSTS = {"flops": "compute", "teacher_tokens": "teacher tokens", "seconds": "time"}


def ranked(results: Results) -> list[Mapping[str, Any]]:
    """Return the arms: those of the smallest budget first, of a budget the best first."""
    return sorted(results["arms"], key=lambda arm: (arm["budget"], -arm["score"]["mean"]))


def cost(arm: Mapping[str, Any], key: str) -> str:
    """Return a cost of an arm with its unit."""
    show = {"flops": human_flops, "seconds": human_seconds, "teacher_tokens": human_count}[key]
    return show(arm["cost"][key])


def interval(figures: Mapping[str, float]) -> str:
    """Return a score with its interval, as "45.5 [43.3, 47.7]"."""
    return f"{percent(figures['mean'])} [{percent(figures['low'])}, {percent(figures['high'])}]"


def over_baseline(arm: Mapping[str, Any]) -> tuple[str, str]:
    """Return the difference to the baseline with its interval, and p after Holm; both empty for the baseline."""
    found = arm["over_baseline"]
    if found is None:
        return "", ""
    low, high = (points(found[end]).lstrip("+") for end in ("low", "high"))
    return f"{points(found['difference'])} [{low}, {high}]", p_value(found["p_holm"]).removeprefix("p = ")


def budget_line(results: Results) -> str:
    """Return what every pipeline could spend, and whether the teacher's answers count."""
    budget = results["budget"]
    show = human_flops if budget["unit"] == "flops" else human_count
    unit = " of training" if budget["unit"] == "flops" else " teacher tokens"
    amounts = ", ".join(show(amount) for amount in budget["amounts"])
    answers = f"; making rows and stored log-probs is {budget['answers']}" if budget["unit"] == "flops" else ""
    return f"Budget of a pipeline after {results['after']['name']}: {amounts}{unit}{answers}."


def method_lines(results: Results) -> list[str]:
    """Return what the intervals are over, how much a seed moves a score, and what could have been shown."""
    seeds, smallest = len(results["seeds"]), results["smallest_difference"]
    return [
        f"{seeds} seeds, {results['problems']:,} problems, crossed: 95 % intervals over both (Student's t, seed spread "
        "pooled over the pipelines). p after Holm's correction.",
        f"A seed moves a score by {percent(results['seed_spread'])} points (standard deviation). With {seeds} seeds a "
        f"measured difference of {percent(smallest['interval'])} points has p = 0.05 before correction, and a true one "
        f"of {percent(smallest['power_80'])} is shown with 80 % chance.",
        *held_out_lines(results),
    ]


def held_out_lines(results: Results) -> list[str]:
    """Return how advice from some of the seeds held on the others; none for two seeds."""
    held = results["held_out"]
    if held is None:
        return []
    rest, splits = len(results["seeds"]) - held["chosen_by"], held["splits"]
    return [
        f"Advice of {held['chosen_by']} seeds checked on the other {rest}, in all {splits} splits: their best pipeline "
        f"was the best there in {held['held']}, that one or one not told apart from it in {held['named']}, and lost "
        f"{percent(held['lost'])} points to the best there on average; "
        f"{held['same_sign']} of {held['shown']} differences that they showed had the same sign there."
    ]
