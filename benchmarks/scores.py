"""Scores of runs as lines of one Markdown table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smallwit.evaluation.statistics import mean_interval, paired_comparison

Model = tuple[Path, str]
"""A run's folder and the name of a model that was measured in it."""


def scores(model: Model) -> dict[tuple[str, str], float]:
    """The score of each problem, by family and id. Raises `KeyError` where a run has no such model."""
    run, name = model
    found = {}
    for file in sorted((run / "evaluation" / name).glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found |= {(file.stem, row["id"]): row["score"] for row in rows}
    if not found:
        raise KeyError(f"{run} has no measured model {name}")
    return found


def pooled(model: Model) -> float:
    """Test score over the problems of all families in per cent."""
    found = scores(model)
    return 100 * sum(found.values()) / len(found)


def line(label: str, model: Model, results: Mapping[str, Any], than: Model | None = None) -> str:
    """The table's line of a model, with how much better it is than another on the same problems."""
    (entry,) = (entry for entry in results["models"] if entry["name"] == model[1])
    cells = [label, *(f"{100 * score['mean']:.1f}" for score in entry["scores"].values())]
    found = scores(model)
    cells.append(_percent(*mean_interval(list(found.values()))))
    if than is None:
        cells.append("")
    else:
        other, families = scores(than), [family for family, _ in found]
        pair = paired_comparison(list(found.values()), [other[key] for key in found], strata=families)
        cells.append(_percent(pair.difference, pair.low, pair.high, sign="+"))
    # A model that the recipe was given has cost this run nothing.
    cells.append(f"{entry['training_flops'] / 1e12:.2f}" if entry["training_flops"] else "")
    return f"| {' | '.join(cells)} |"


def _percent(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def print_table(families: Sequence[str], than: str, lines: Iterable[str]) -> None:
    """The lines below a head; scores and differences in per cent with their 95 % intervals."""
    head = ["", *families, "all", f"more than {than}", "TFLOP"]
    print(f"\n| {' | '.join(head)} |")
    print("| --- " * len(head) + "|")
    for each in lines:
        print(each)
