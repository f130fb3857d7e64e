"""Choose the samples of a report, and pack them as JSON that is safe inside of HTML."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from markupsafe import Markup

from smallwit.console.sanitize import escape_control_data
from smallwit.evaluation.reasons import OTHER_FORM, RIGHT, reason_of
from smallwit.report.format import Results, difference, display_order, final_student, task_names
from smallwit.report.load import Row

PER_TASK = 100
"""Problems of a task whose texts are in the page, at most."""
_BUDGET = 1_200_000  # bytes of all texts together
_TEXT_LIMIT = 6_000  # characters of one text; longer ones lose their middle
_LISTED = 10_000  # problems of all tasks together whose verdicts are in the page
_KINDS = 20  # kinds of verdicts that are told apart: a task of the user's may have any number of reasons
_UNGRADED, _OTHER = "not graded", "other"

Samples = Mapping[str, Mapping[str, Sequence[Row]]]
"""The rows of evaluation/MODEL/TASK.jsonl, by model and task."""
_Key = tuple[str, int]
"""The id of a problem and the number of a sample, from 0."""


@dataclass(frozen=True)
class Outcomes:
    """What became of a model's responses to a task: counts of all samples, and not only of the embedded ones."""

    model: str
    task: str
    total: int
    kinds: Mapping[str, int]
    truncated: int
    tokens: float


@dataclass(frozen=True)
class Browser:
    """The samples as JSON for the page's script tag, the kinds of verdicts, and counts of all samples."""

    data: Markup
    kinds: list[str]
    outcomes: list[Outcomes]


def browser(samples: Samples, results: Results) -> Browser:
    """Pack the samples of a run: the verdict on every problem, and the texts of some of them.

    A problem with several samples is listed once for each. The page begins with the model of the headline.
    """
    measured = [model["name"] for model in display_order(results)]
    names = [name for name in dict.fromkeys([*measured, *samples]) if samples.get(name)]
    found = {task for name in names for task, rows in samples[name].items() if rows}
    tasks = [*(task for task in task_names(results) if task in found), *sorted(found.difference(task_names(results)))]
    kinds = _kinds([row for name in names for rows in samples[name].values() for row in rows])
    problems, cells, outcomes = {}, [], []
    for task in tasks:
        rows_of = {name: _by_sample(samples[name][task]) for name in names if samples[name].get(task)}
        keys = list(dict.fromkeys(key for rows in rows_of.values() for key in rows))
        verdicts = [{name: _kind(rows[key], kinds) for name, rows in rows_of.items() if key in rows} for key in keys]
        texts = _texts(rows_of, keys, verdicts, _BUDGET / len(tasks))
        rest = [key for key in keys if key not in texts.problems][: _LISTED // len(tasks)]
        problems[task] = [*texts.problems.values(), *([_label(key)] for key in rest)]
        for name, rows in rows_of.items():
            letters = "".join(_letter(rows[key], kinds) if key in rows else "-" for key in (*texts.problems, *rest))
            answers = texts.answers[name]
            cells.append({"model": name, "task": task, "total": len(rows), "verdicts": letters, "rows": answers})
            outcomes.append(_outcomes(name, task, list(rows.values()), kinds))
    last = final_student(results)
    first = last["name"] if last is not None and last["name"] in names else next(iter(names), None)
    pairs = [[each["a"], each["b"], each["task"], difference(each)] for each in results["comparisons"]]
    about = {"models": names, "first": first, "tasks": tasks, "kinds": kinds, "right": [RIGHT, OTHER_FORM]}
    data = about | {"problems": problems, "cells": cells, "comparisons": pairs}
    return Browser(script_json(data), kinds, outcomes)


def choose(verdicts: Sequence[Mapping[str, str]], limit: int) -> list[int]:
    """Return the places of at most `limit` problems, in order; `verdicts` has the kinds of verdicts by model.

    Half are evenly spaced. The others bring what is rare among the chosen ones: a kind of verdict of a model, or a
    problem that one model solved and another did not.
    """
    if len(verdicts) <= limit:
        return list(range(len(verdicts)))
    half = (limit + 1) // 2
    chosen = {place * len(verdicts) // half for place in range(half)}
    shown = [_shown_by(each) for each in verdicts]
    examples = Counter(what for place in chosen for what in shown[place])
    wanted = 0
    while len(chosen) < limit:
        wanted += 1
        for place, what in enumerate(shown):
            if len(chosen) < limit and place not in chosen and any(examples[each] < wanted for each in what):
                chosen.add(place)
                examples.update(what)
    return sorted(chosen)


def script_json(data: Any) -> Markup:
    """Return JSON that is safe inside of a script element: it has no `<`, `>` or `&`.

    Non-ASCII characters, control characters and marks of text direction are escaped.
    """
    text = json.dumps(escape_control_data(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _shown_by(verdicts: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return what a problem is an example of: (model, kind), and (model that solved it, model that did not)."""
    right = [name for name, kind in verdicts.items() if kind in (RIGHT, OTHER_FORM)]
    return {*verdicts.items(), *((a, b) for a in right for b in verdicts if b not in right)}


@dataclass(frozen=True)
class _Texts:
    """Packed problems by sample, and for each model its packed answers to them, `None` where it has none."""

    problems: dict[_Key, list[Any]]
    answers: dict[str, list[Any]]


def _texts(
    rows_of: dict[str, dict[_Key, Row]],
    keys: Sequence[_Key],
    verdicts: Sequence[Mapping[str, str]],
    budget: float,
) -> _Texts:
    """Return as many problems of a task with their texts as fit the budget (bytes), at least one."""
    asked = {key: row for rows in reversed([*rows_of.values()]) for key, row in rows.items()}
    limit = PER_TASK
    while True:
        chosen = [keys[place] for place in choose(verdicts, limit)]
        problems = {key: [_label(key), *(_clip(asked[key].get(part)) for part in ("prompt", "gold"))] for key in chosen}
        answers = {
            name: [_pack(rows[key]) if key in rows else None for key in chosen] for name, rows in rows_of.items()
        }
        size = len(json.dumps([[*problems.values()], answers]))
        if size <= budget or limit == 1:
            return _Texts(problems, answers)
        limit = max(1, min(limit - 1, int(limit * budget / size)))


def _by_sample(rows: Sequence[Row]) -> dict[_Key, Row]:
    return {(str(row["id"]), row.get("sample") or 0): row for row in rows}


def _label(key: _Key) -> str:
    id, number = key
    return f"{id}, sample {number + 1}" if number else id


def _kinds(rows: Sequence[Row]) -> list[str]:
    """Return the kinds of verdicts: what is right, then the others, the most frequent first."""
    found = [kind for kind, _ in Counter(reason_of(row) or _UNGRADED for row in rows).most_common()]
    ordered = sorted(found, key=lambda kind: (kind != RIGHT, kind != OTHER_FORM))
    return ordered if len(ordered) <= _KINDS else [*ordered[: _KINDS - 1], _OTHER]


def _kind(row: Row, kinds: Sequence[str]) -> str:
    kind = reason_of(row) or _UNGRADED
    return kind if kind in kinds else _OTHER


def _letter(row: Row, kinds: Sequence[str]) -> str:
    """Return a verdict as a letter, `a` for the first kind; a capital one if a limit cut the response."""
    letter = chr(ord("a") + kinds.index(_kind(row, kinds)))
    return letter.upper() if row.get("truncated") else letter


def _pack(row: Row) -> list[Any]:
    verdict = [row["score"], row["strict"], _clip(row.get("answer")), row.get("reason")]
    return [*verdict, _clip(row.get("response")), row.get("tokens")]


def _clip(value: Any) -> str | None:
    """Return `value` as text, without its middle if it is long: the answer is at the end."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _outcomes(model: str, task: str, rows: Sequence[Row], kinds: Sequence[str]) -> Outcomes:
    return Outcomes(
        model=model,
        task=task,
        total=len(rows),
        kinds=Counter(_kind(row, kinds) for row in rows),
        truncated=sum(bool(row.get("truncated")) for row in rows),
        tokens=mean(row.get("tokens") or 0 for row in rows),
    )
