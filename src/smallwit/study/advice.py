"""The advice of a study: sentences that follow from its numbers by fixed rules."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from smallwit.console.numbers import p_value, percent, points
from smallwit.study.statistics import MOST_SEEDS, SIGNIFICANT, ArmScores, Pair, tied

RULES = (
    "The pipeline with the highest mean score at a budget is named first.",
    "A pipeline is told apart from it if their paired difference has p < 0.05 after Holm's correction for all pairs at "
    "this budget. All others count as equally good: of them take the one that is simplest to run.",
    "A gain over the baseline is claimed if p < 0.05 after Holm's correction for all pipelines compared with it.",
    "Where others are not told apart: the seeds that would show the difference to the best of them with 80 % chance.",
)


def advise(scores: ArmScores, own: Sequence[int], baseline: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the advice at one budget, by the rules of `RULES`.

    `own` are the arms of the budget, `baseline` is one of them, `names` has the name of each arm of the study. Of arms
    with the highest score the baseline is named, if it is one of them.
    """
    best = max(own, key=lambda arm: (scores.means[arm], arm == baseline))
    near = tied(best, scores.compared(list(combinations(own, 2))))
    near.sort(key=lambda arm: -scores.means[arm])
    level = [arm for arm in own if scores.means[arm] == scores.means[best]]
    found = {"best": names[best], "tied": [names[arm] for arm in near]}
    if len(level) == len(own):
        return found | {"gain": False, "seeds_needed": None, "text": [_all_level(float(scores.means[best]))]}
    gain = next((pair for pair in against(scores, own, baseline) if pair.a == best), None)
    chance = scores.best_probability(own)[list(own).index(best)]
    score = percent(float(scores.means[best]))
    lines = [f"{names[best]} has the highest score, {score} %, and is the best with probability {chance:.2f}."]
    if len(level) > 1:
        lines.append(f"The same score: {', '.join(names[arm] for arm in level if arm != best)}.")
    if gain is None:
        lines.append("It is the baseline: no pipeline was measured to be better.")
    else:
        over = gain.compared
        low, high = (points(end).lstrip("+") for end in (over.low, over.high))
        text = f"{points(over.difference)} points [{low}, {high}] over {names[baseline]}, {p_value(gain.p_holm)}"
        lines.append(f"It is {text} after Holm: {'a gain' if _shown(gain) else 'no gain that this study shows'}.")
    if near:
        listed = ", ".join(names[arm] for arm in near)
        lines.append(f"Not told apart from it: {listed}. Take the simplest of these and {names[best]}.")
    else:
        lines.append(f"Every other pipeline is told apart from it: take {names[best]}.")
    needed = None
    below = next((arm for arm in near if arm not in level), None)
    if below is not None:
        needed = scores.seeds_needed(best, below)
        difference = points(float(scores.means[best] - scores.means[below])).lstrip("+")
        between = f"the {difference} points between {names[best]} and {names[below]}"
        no = f"{MOST_SEEDS} seeds would not show {between} on these problems."
        lines.append(no if needed is None else f"{needed} seeds would show {between} with 80 % chance.")
    return found | {"gain": gain is not None and _shown(gain), "seeds_needed": needed, "text": lines}


def against(scores: ArmScores, own: Sequence[int], baseline: int) -> list[Pair]:
    """Return the comparisons of the arms of a budget with their baseline."""
    return scores.compared([(arm, baseline) for arm in own if arm != baseline])


def _all_level(mean: float) -> str:
    """Return the advice where all arms have this mean score."""
    remedies = {0.0: "easier problems, a stronger model or a larger budget", 1.0: "harder problems"}
    take = remedies.get(mean, "the simplest")
    return f"All pipelines score {percent(mean)} %, and nothing tells them apart: take {take}."


def _shown(pair: Pair) -> bool:
    return pair.p_holm < SIGNIFICANT and pair.compared.difference > 0
