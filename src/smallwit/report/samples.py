"""Choose the samples of a report, and pack them as JSON that is safe inside of HTML."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from markupsafe import Markup

from smallwit.console.sanitize import escape_control_data
from smallwit.report.load import Row

PER_CELL = 60  # samples of one model on one task
_BUDGET = 1_200_000  # bytes of all samples together, so that the page stays under 2 MB with its drawings
_TEXT_LIMIT = 6_000  # characters of one text; longer ones lose their middle


@dataclass(frozen=True)
class Outcomes:
    """Counts of outcomes of a model's responses to a task, over all samples and not only the embedded ones."""

    model: str
    task: str
    total: int
    right: int
    ungraded: int
    no_answer: int
    over_limit: int
    truncated: int
    tokens: float
    embedded: int


@dataclass(frozen=True)
class Browser:
    """The samples as JSON for the page's script tag, and counts of all samples."""

    data: Markup
    outcomes: list[Outcomes]


def browser(
    samples: Mapping[str, Mapping[str, list[Row]]],
    names: Sequence[str],
    apart: Sequence[str],
    task_order: Sequence[str],
) -> Browser:
    """Pack the samples `samples[model][task]` (rows of evaluation/MODEL/TASK.jsonl).

    Models come in the order of `names`, tasks in `task_order` and then any others that have samples. The page begins
    with the last model that is not set `apart`.
    """
    found = {task for by_task in samples.values() for task in by_task}
    tasks = [*(task for task in task_order if task in found), *sorted(found.difference(task_order))]
    problems: dict[str, list[list[Any]]] = {task: [] for task in tasks}
    cells, outcomes = [], []
    for task in tasks:
        rows_of = {model: samples[model][task] for model in names if samples.get(model, {}).get(task)}
        if not rows_of:
            continue
        limit = _limit(list(rows_of.values()), _BUDGET / len(tasks))
        places: dict[tuple[str, str], int] = {}
        for model, rows in rows_of.items():
            chosen = choose(rows, limit)
            packed = [_pack(row, places, problems[task]) for row in chosen]
            outcomes.append(_outcomes(model, task, rows, len(packed)))
            right = outcomes[-1].right
            cells.append({"model": model, "task": task, "total": len(rows), "right": right, "rows": packed})
    models = [name for name in names if any(cell["model"] == name for cell in cells)]
    first = next((name for name in reversed(models) if name not in apart), models[-1] if models else None)
    data = {"models": models, "first": first, "tasks": tasks, "problems": problems, "cells": cells}
    return Browser(script_json(data), outcomes)


def choose(rows: Sequence[Row], limit: int) -> list[Row]:
    """Return at most `limit` of `rows`, in their order.

    Two thirds are evenly spaced, so that models measured on the same problems show the same ones. The rest have the
    rarer verdict, so that there are examples of both.
    """
    if len(rows) <= limit:
        return list(rows)
    chosen = set(_spaced(range(len(rows)), limit * 2 // 3))
    right = [i for i, row in enumerate(rows) if is_right(row)]
    wrong = [i for i, row in enumerate(rows) if not is_right(row)]
    for group in sorted((right, wrong), key=len):
        chosen.update(_spaced([i for i in group if i not in chosen], limit - len(chosen)))
    return [rows[i] for i in sorted(chosen)]


def is_right(row: Row) -> bool:
    """Return whether a sample counts as right in the report: its lenient score is 1."""
    return row["score"] == 1


def script_json(data: Any) -> Markup:
    """Return JSON that is safe inside of a script element: it has no `<`, `>` or `&`.

    Non-ASCII characters, control characters and marks of text direction are escaped.
    """
    text = json.dumps(escape_control_data(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _limit(cells: Sequence[Sequence[Row]], budget: float) -> int:
    """Return how many samples each model of a task may show so that all of them fit the budget (bytes)."""
    responses = sum(mean(len(json.dumps(_clip(row.get("response")))) + 100 for row in rows) for rows in cells)
    prompts = mean(len(json.dumps([_clip(row.get("prompt")), _clip(row.get("gold"))])) for row in cells[0])
    # Twice the prompts: the samples that are added for their verdict have other problems.
    return max(1, min(PER_CELL, int(budget / (responses + 2 * prompts))))


def _pack(row: Row, places: dict[tuple[str, str], int], problems: list[list[Any]]) -> list[Any]:
    """Return a sample as a list. `problems` keeps its prompt and gold once for all models."""
    key = (str(row["id"]), str(row.get("prompt")))
    if key not in places:
        places[key] = len(problems)
        problems.append([str(row["id"]), _clip(row.get("prompt")), _clip(row.get("gold"))])
    verdict = [row.get("score"), row.get("strict"), _clip(row.get("answer")), row.get("reason")]
    return [places[key], *verdict, _clip(row.get("response")), row.get("tokens"), bool(row.get("truncated"))]


def _clip(value: Any) -> str | None:
    """Return `value` as text, without its middle if it is long: the answer is at the end."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _spaced(items: Sequence[int], count: int) -> list[int]:
    """Return `count` of `items`, evenly spaced (all of them if there are fewer)."""
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def _outcomes(model: str, task: str, rows: Sequence[Row], embedded: int) -> Outcomes:
    reasons = Counter(row.get("reason") for row in rows)
    return Outcomes(
        model=model,
        task=task,
        total=len(rows),
        right=sum(is_right(row) for row in rows),
        ungraded=sum(row["score"] is None for row in rows),
        no_answer=reasons["no-answer"],
        over_limit=reasons["limit"],
        truncated=sum(bool(row.get("truncated")) for row in rows),
        tokens=mean(row.get("tokens") or 0 for row in rows),
        embedded=embedded,
    )
