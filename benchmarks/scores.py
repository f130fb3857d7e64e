"""Scores of runs as lines of one Markdown table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smallwit.evaluation.statistics import mean_interval


def pooled(run: Path, model: str) -> tuple[float, float, float]:
    """A model's test score over the problems of all families in per cent, and the ends of its 95 % interval."""
    files = sorted((run / "evaluation" / model).glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    mean, low, high = mean_interval([row["score"] for row in rows])
    return 100 * mean, 100 * low, 100 * high


def line(label: str, run: Path, results: Mapping[str, Any], name: str) -> str:
    """The table's line of the model `name`, from its run's folder and results.json."""
    (model,) = (model for model in results["models"] if model["name"] == name)
    scores = [f"{100 * score['mean']:.1f}" for score in model["scores"].values()]
    mean, low, high = pooled(run, name)
    # A model that the recipe was given has cost this run nothing.
    cost = f"{model['training_flops'] / 1e12:.2f}" if model["training_flops"] else ""
    return " | ".join(["", label, *scores, f"{mean:.1f} [{low:.1f}, {high:.1f}]", cost, ""]).strip()


def print_table(families: Sequence[str], lines: Iterable[str]) -> None:
    """The lines below a head; scores in per cent."""
    head = ["", *families, "all [95 % interval]", "TFLOP"]
    print(f"\n| {' | '.join(head)} |")
    print("| --- " * len(head) + "|")
    for each in lines:
        print(each)
