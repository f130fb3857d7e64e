"""Sentences about the results of a study, the same for the terminal, the page and the exports."""

from collections.abc import Mapping
from typing import Any

from smallwit.console.numbers import human_count, human_flops, human_seconds, p_value, percent, points

Results = Mapping[str, Any]
COSTS = {"flops": "compute", "teacher_tokens": "teacher tokens", "seconds": "time", "dollars": "cost"}
_SHOW = {"flops": human_flops, "teacher_tokens": human_count, "seconds": human_seconds, "dollars": "${:.2f}".format}


def ranked(results: Results) -> list[Mapping[str, Any]]:
    """Return the arms: those of the smallest budget first, of a budget the best first."""
    return sorted(results["arms"], key=lambda arm: (arm["budget"], -arm["score"]["mean"]))


def cost(arm: Mapping[str, Any], key: str) -> str:
    """Return a cost of an arm with its unit."""
    return _SHOW[key](arm["cost"][key])


def costs(results: Results) -> dict[str, str]:
    """Return the headings of the costs that the arms have, by key."""
    return {key: head for key, head in COSTS.items() if key in results["arms"][0]["cost"]}


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
    """Return what every pipeline could spend, whether answers of a teacher count, and what a budget of time took."""
    budget = results["budget"]
    unit = budget["unit"]
    what = {"flops": " of training", "teacher_tokens": " teacher tokens"}.get(unit, " of this machine")
    amounts = ", ".join(_SHOW[unit](amount) for amount in budget["amounts"])
    answers = "" if unit == "teacher_tokens" else f"; making rows and stored log-probs is {budget['answers']}"
    line = f"Budget of a pipeline after {results['after']['name']}: {amounts}{what}{answers}."
    took = [arm["time_over_budget"] for arm in results["arms"] if arm["time_over_budget"] is not None]
    if took:
        line += " By measured rates it became FLOPs, and what it pays for took "
        line += f"{100 * min(took):.0f} to {100 * max(took):.0f} % of that time, beside what else ran."
    return line


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
    """Return how advice from some of the seeds held on the others; none for two seeds, and for equal scores."""
    held = results["held_out"]
    if held is None:
        return []
    rest, splits = len(results["seeds"]) - held["chosen_by"], held["splits"]
    same = f"{held['same_sign']} of {held['shown']} differences that they showed had the same sign there"
    return [
        f"Advice of {held['chosen_by']} seeds checked on the other {rest}, in all {splits} splits: their best pipeline "
        f"was the best there in {held['held']}, that one or one not told apart from it in {held['named']}, and lost "
        f"{percent(held['lost'])} points to the best there on average; "
        f"{same if held['shown'] else 'they showed no difference'}."
    ]
