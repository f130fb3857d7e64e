"""How often intervals over seeds and problems hold the true value, by simulation: `make bench-seeds`.

A score is 0 or 1: seed s of a model solves problem p with the chance logistic(skill + S[s] + Q[p]), where S and Q are
normal. Problems are easier or harder for all models (correlation 0.7 between two models). The true mean of a model, and
so each true difference, is an integral over S and Q. S is such that the seeds' true means spread by 5 points, or by 1,
for a model at 50 per cent, and by sqrt(m (1 - m)) of that for one at m.

It prints the coverage of 95 % intervals, in per cent of the simulated runs, and writes `bench/seed-coverage.json`. Then
studies of eight pipelines whose true means are drawn anew each time: how likely the named best is said to be the best,
and how often it is.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from smallwit.evaluation.seeds import SeedSpreads, difference_over_seeds, mean_over_seeds
from smallwit.evaluation.statistics import Interval
from smallwit.study.statistics import ArmScores

LOW, HIGH = 93.0, 97.0
MEANS = (0.4, 0.55, 0.7, 0.85)
DIFFICULTY = 2.0  # standard deviation of the problems, in logits
SAME_PROBLEMS = 0.7
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A simulated run: its seeds and problems, the spread of seeds at 50 per cent (0..1), the models' true means.

    `shared` is the correlation of the seeds' luck between models, `linear` whether spreads go with m (1 - m).
    """

    seeds: int
    problems: int
    spread: float
    means: tuple[float, ...] = MEANS
    shared: float = 0.0
    linear: bool = False

    @property
    def spreads(self) -> list[float]:
        """Return the spread of the seeds' true means of each model."""
        return [self.spread * (4 * m * (1 - m)) ** (1.0 if self.linear else 0.5) for m in self.means]


def expected(skill: float, deviation: float) -> float:
    """Return the mean of logistic(skill + deviation z) over a normal z."""
    return float((WEIGHTS * expit(skill + deviation * NODES)).sum() / WEIGHTS.sum())


def logits(mean: float, spread: float) -> tuple[float, float]:
    """Return the skill of a model, and the deviation of its seeds in logits, for its true mean and spread."""
    seed = 0.0
    for _ in range(20):
        whole = float(np.hypot(DIFFICULTY, seed))
        skill = float(brentq(lambda skill, whole=whole: expected(skill, whole) - mean, -30, 30))
        slope = (expected(skill + 1e-3, whole) - expected(skill - 1e-3, whole)) / 2e-3
        seed = spread / slope
    return skill, seed


def simulated(
    case: Case, rng: np.random.Generator, settings: Sequence[tuple[float, float]]
) -> tuple[list[Floats], Floats]:
    """Return the scores `[N, P]` of each model in one run, and those `[1, P]` of a model without seeds at 50 %."""
    n, p = case.seeds, case.problems
    luck, hard = rng.standard_normal((n, 1)), rng.standard_normal((1, p))

    def solved(skill: Floats | float) -> Floats:
        problem = SAME_PROBLEMS**0.5 * hard + (1 - SAME_PROBLEMS) ** 0.5 * rng.standard_normal((1, p))
        chance = expit(skill + DIFFICULTY * problem)
        return (rng.random(chance.shape) < chance).astype(np.float64)

    scores = []
    for skill, deviation in settings:
        own = rng.standard_normal((n, 1))
        scores.append(solved(skill + deviation * (case.shared**0.5 * luck + (1 - case.shared) ** 0.5 * own)))
    return scores, solved(0.0)


def bootstrap(values: Floats, rng: np.random.Generator) -> Interval:
    """Return the percentile interval of a bootstrap over the seeds' means."""
    means = values.mean(1)
    drawn = means[rng.integers(0, len(means), (1000, len(means)))].mean(1)
    return Interval(float(means.mean()), *map(float, np.quantile(drawn, [0.025, 0.975])))


def seeds_alone(values: Floats) -> Interval:
    """Return Student's t on the seeds' means alone."""
    means = values.mean(1)
    half = float(stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5)
    return Interval(float(means.mean()), float(means.mean()) - half, float(means.mean()) + half)


def satterthwaite(values: Floats) -> Interval:
    """Return Student's t over seeds and problems with the degrees of freedom of Satterthwaite 1946."""
    n, p = values.shape
    seeds = float(values.mean(1).var(ddof=1)) / n
    shared = (float(values.sum(0).var(ddof=1)) - float(values.var(1, ddof=1).sum())) / (n * (n - 1))
    variance = seeds + max(0.0, shared / p)
    half = float(stats.t.ppf(0.975, (n - 1) * (variance / seeds) ** 2) * variance**0.5) if seeds > 0 else 0.0
    return Interval(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)


def coverage(case: Case, runs: int, seed: int) -> dict[str, list[float]]:
    """Return the coverage in per cent of each interval, one number for each model or pair of models."""
    rng = np.random.default_rng(seed)
    settings = [logits(*each) for each in zip(case.means, case.spreads, strict=True)]
    hits: dict[str, list[list[bool]]] = {}

    def note(name: str, low: float, truth: float, high: float, place: int) -> None:
        hits.setdefault(name, [[] for _ in range(place + 1)])
        hits[name] += [[] for _ in range(place + 1 - len(hits[name]))]
        hits[name][place].append(low <= truth <= high)

    for _ in range(runs):
        scores, fixed = simulated(case, rng, settings)
        pooled = SeedSpreads.pooled(scores)
        for place, (own, truth) in enumerate(zip(scores, case.means, strict=True)):
            alone = SeedSpreads.pooled([own])
            for name, found in (
                ("mean, bootstrap over seeds", bootstrap(own, rng)),
                ("mean, t on seeds", seeds_alone(own)),
                ("mean, Satterthwaite", satterthwaite(own)),
                ("mean, one model", mean_over_seeds(own, alone.mean)),
                ("mean, pooled", mean_over_seeds(own, pooled.mean)),
            ):
                note(name, found.low, truth, found.high, place)
            against = difference_over_seeds(own, fixed, pooled)
            note("difference, one fixed", against.low, truth - 0.5, against.high, place)
        for place, (a, b) in enumerate(combinations(range(len(scores)), 2)):
            truth = case.means[a] - case.means[b]
            two = SeedSpreads.pooled([scores[a], scores[b]])
            change = seeds_alone(scores[a] - scores[b])
            note("difference, t on seeds", change.low, truth, change.high, place)
            for name, spreads in (("difference, two models", two), ("difference, pooled", pooled)):
                compared = difference_over_seeds(scores[a], scores[b], spreads)
                note(name, compared.low, truth, compared.high, place)
    return {name: [100 * float(np.mean(each)) for each in places] for name, places in hits.items()}


def best_named(seeds: int, runs: int, spread: float = 0.05) -> tuple[float, float]:
    """Return the mean probability that studies give to the best that they name, and how often it is, in per cent."""
    rng = np.random.default_rng(seeds)
    said, right = [], []
    for _ in range(runs):
        means = rng.normal(0.6, spread, 8).clip(0.3, 0.9)
        case = Case(seeds, 500, spread, tuple(means))
        scores, _ = simulated(case, rng, [logits(*each) for each in zip(case.means, case.spreads, strict=True)])
        study = ArmScores(scores, ["task"] * case.problems)
        named = int(study.means.argmax())
        said.append(study.best_probability(range(8))[named])
        right.append(named == means.argmax())
    return 100 * float(np.mean(said)), 100 * float(np.mean(right))


OURS = ("mean, one model", "mean, pooled", "difference, two models", "difference, pooled", "difference, one fixed")


def main() -> int:
    parser = argparse.ArgumentParser(description="Coverage of intervals over seeds and problems.")
    parser.add_argument("--runs", type=int, default=800, help="simulated runs of each case")
    parser.add_argument("--out", type=Path, default=Path("bench/seed-coverage.json"))
    options = parser.parse_args()
    started = time.monotonic()
    crossed = [Case(n, p, s) for s in (0.05, 0.01) for p in (200, 500, 1000) for n in (3, 5, 10)]
    # Beyond the model: seeds with luck in common, and a spread that goes to zero faster than is assumed.
    beyond = [Case(n, 500, 0.05, shared=0.6) for n in (3, 5, 10)]
    beyond += [Case(n, 500, 0.05, (0.05, 0.4, 0.7, 0.95), linear=True) for n in (3, 5, 10)]
    entries: list[dict[str, object]] = []
    for case in [*crossed, *beyond]:
        found = coverage(case, options.runs, seed=case.seeds * case.problems)
        barred = case in crossed
        what = ", ".join(["common luck"] * (case.shared > 0) + ["other spreads"] * case.linear)
        print(f"{case.seeds} seeds, {case.problems} problems, spread {100 * case.spread:g} points {what}".rstrip())
        for name, places in found.items():
            mean = float(np.mean(places))
            held = LOW <= mean <= HIGH if barred and name in OURS else None
            mark = "" if held is None else "held" if held else "MISSED"
            print(f"    {name:<28} {mean:5.1f}   ({min(places):.1f} to {max(places):.1f})  {mark}")
            entries.append({**vars(case), "interval": name, "coverage": mean, "each": places, "held": held})
    for seeds in (3, 5, 10):
        said, right = best_named(seeds, options.runs)
        print(f"{seeds} seeds: the named best is said to be the best with {said:.1f} %, and is in {right:.1f} %")
        entries.append({"seeds": seeds, "best": "named", "said": said, "right": right})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    missed = sum(entry.get("held") is False for entry in entries)
    judged = sum(entry.get("held") is not None for entry in entries)
    print(f"{judged - missed} of {judged} within {LOW:g} to {HIGH:g} %; {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
