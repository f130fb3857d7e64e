"""The advice of a study: sentences that follow from its numbers by fixed rules."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from smallwit.console.numbers import p_value, percent, points
from smallwit.study.statistics import MOST_SEEDS, SIGNIFICANT, ArmScores

RULES = (
    "The pipeline with the highest mean score at a budget is named first.",
    "A pipeline is told apart from it if their paired difference has p < 0.05 after Holm's correction for all pairs at "
    "this budget. All others count as equally good: of them take the one that is simplest to run.",
    "A gain over the baseline is claimed if p < 0.05 after Holm's correction for all pipelines compared with it.",
    "Where others are not told apart: the seeds that would show the difference to the best of them with 80 % chance.",
)


def advise(scores: ArmScores, own: Sequence[int], baseline: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the advice at one budget, by the rules of `RULES`.

    `own` are the arms of the budget, `baseline` is one of them, `names` has the pipeline of each arm of the study.
    """
    best = max(own, key=lambda arm: scores.means[arm])
    apart = {
        pair.a if pair.b == best else pair.b: pair.p_holm < SIGNIFICANT
        for pair in scores.compared(list(combinations(own, 2)))
        if best in (pair.a, pair.b)
    }
    tied = sorted((arm for arm in apart if not apart[arm]), key=lambda arm: -scores.means[arm])
    (gain,) = [
        pair for pair in scores.compared([(arm, baseline) for arm in own if arm != baseline]) if pair.a == best
    ] or [None]
    needed = scores.seeds_needed(best, tied[0]) if tied else None
    chance = scores.best_probability(own)[list(own).index(best)]
    first = f"{names[best]} has the highest score, {percent(float(scores.means[best]))} %"
    lines = [f"{first}, and is the best with probability {chance:.2f}."]
    if gain is not None:
        found = gain.compared
        low, high = (points(end).lstrip("+") for end in (found.low, found.high))
        text = f"{points(found.difference)} points [{low}, {high}] over {names[baseline]}, {p_value(gain.p_holm)}"
        verdict = "a gain" if gain.p_holm < SIGNIFICANT and found.difference > 0 else "no gain that this study shows"
        lines.append(f"It is {text} after Holm: {verdict}.")
    elif best == baseline:
        lines.append("It is the baseline: no pipeline was measured to be better.")
    if not tied:
        lines.append(f"Every other pipeline is told apart from it: take {names[best]}.")
    else:
        listed = ", ".join(names[arm] for arm in tied)
        lines.append(f"Not told apart from it: {listed}. Take the simplest of these and {names[best]}.")
        difference = points(float(scores.means[best] - scores.means[tied[0]])).lstrip("+")
        closest = f"the {difference} points between {names[best]} and {names[tied[0]]}"
        if needed is None:
            lines.append(f"{MOST_SEEDS} seeds would not show {closest} on these problems.")
        else:
            lines.append(f"{needed} seeds would show {closest} with 80 % chance.")
    return {
        "best": names[best],
        "tied": [names[arm] for arm in tied],
        "gain": gain is not None and gain.p_holm < SIGNIFICANT and gain.compared.difference > 0,
        "seeds_needed": needed,
        "text": lines,
    }
