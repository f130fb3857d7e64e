"""Scores of runs as lines of one Markdown table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from smallwit.evaluation.statistics import mean_interval, paired_comparison

Model = tuple[Path, str]
"""A run's folder and the name of a model that was measured in it."""


def scores(models: Sequence[Model]) -> dict[tuple[str, str], float]:
    """The score of each problem, by family and id: the mean of models that differ by their seed alone.

    Raises `KeyError` where a run has no such model.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for run, name in models:
        files = sorted((run / "evaluation" / name).glob("*.jsonl"))
        if not files:
            raise KeyError(f"{run} has no measured model {name}")
        for file in files:
            for text in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(text)
                found.setdefault((file.stem, row["id"]), []).append(row["score"])
    return {problem: fmean(values) for problem, values in found.items()}


def pooled(*models: Model) -> float:
    """Test score over the problems of all families in per cent."""
    return 100 * fmean(scores(models).values())


def better(models: Sequence[Model], than: Sequence[Model]) -> str:
    """How much better models are than others on the same problems, in points with the 95 % interval."""
    found, other = scores(models), scores(than)
    families = [family for family, _ in found]
    pair = paired_comparison(list(found.values()), [other[key] for key in found], strata=families)
    return _percent(pair.difference, pair.low, pair.high, sign="+")


def cells(label: str, models: Sequence[Model], families: Sequence[str]) -> list[str]:
    """The first cells of models' line: their label, their score in each family and in all."""
    found = scores(models)
    means = [fmean(value for (name, _), value in found.items() if name == family) for family in families]
    return [label, *(f"{100 * mean:.1f}" for mean in means), _percent(*mean_interval(list(found.values())))]


def teraflops(results: Mapping[str, Any], name: str) -> str:
    """What a model's training took; nothing for one that the recipe was given."""
    (entry,) = (entry for entry in results["models"] if entry["name"] == name)
    return f"{entry['training_flops'] / 1e12:.2f}" if entry["training_flops"] else ""


def _percent(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def print_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """A Markdown table."""
    print()
    for line in (head, ["---"] * len(head), *lines):
        print(f"| {' | '.join(line)} |")
