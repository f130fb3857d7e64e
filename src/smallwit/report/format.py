"""How numbers, names and models read, the same in the terminal and in the HTML report."""

from collections.abc import Mapping
from typing import Any

from smallwit.console.numbers import p_value, percent, points

Model = Mapping[str, Any]
Results = Mapping[str, Any]


def set_apart(results: Results) -> list[str]:
    """Return the names of the baseline and the teacher, as far as the recipe named them."""
    return [results[role] for role in ("baseline", "teacher") if role in results]


def display_order(results: Results) -> list[Model]:
    """Return the models of a results.json: the path's own in their order, then the baseline, then the teacher."""
    apart = set_apart(results)
    return sorted(results["models"], key=lambda m: apart.index(m["name"]) + 1 if m["name"] in apart else 0)


def task_names(results: Results) -> list[str]:
    """Every task that any model was scored on, in the order they first appear."""
    return list(dict.fromkeys(task for model in results["models"] for task in model["scores"]))


def teacher_of(results: Results) -> Model | None:
    """Return the model that the recipe calls its teacher, if it was measured."""
    return next((model for model in results["models"] if model["name"] == results.get("teacher")), None)


def final_student(results: Results) -> Model | None:
    """Return the model of the headline: the last one of the path, neither the teacher nor the baseline; or the best by
    validation where a stage lowered the score."""
    own = [model for model in results["models"] if model["name"] not in set_apart(results)]
    chosen = results.get("headline", {}).get("model")
    return next((model for model in own if model["name"] == chosen), own[-1] if own else None)


def lowered_lines(results: Results) -> list[str]:
    """Return the stages that lowered the score: "rl: -6.3 points [-9.1, -3.4] to kd, p = 0.004"."""
    several = len(task_names(results)) > 1
    lines = []
    for entry in results.get("lowered", []):
        low, high = (points(entry[end]).lstrip("+") for end in ("low", "high"))
        stage = entry["a"] + (f", {entry['task']}" if several else "")
        change = f"{points(entry['difference'])} points [{low}, {high}] to {entry['b']}"
        lines.append(f"{stage}: {change}, {p_value(entry['p'])}")
    return lines


def headline_line(results: Results) -> str | None:
    """Which model the headline is of, where a stage lowered the score."""
    if "headline" not in results:
        return None
    chosen = results["headline"]
    if not chosen["validation"]:
        remedy = "give the stages the same validation section, and it will be the best of them"
        return f"headline: {chosen['model']}, the last stage; {remedy}"
    scores = ", ".join(f"{name} {percent(score)}" for name, score in chosen["validation"].items())
    return f"headline: {chosen['model']}, the best stage by validation ({scores})"


def share_of_teacher(model: Model, teacher: Model | None) -> float | None:
    """Per cent of the teacher's score, a plain mean over the tasks that both were scored on.

    `None` without a teacher, without a common task, or where the teacher scored 0 on one of them.
    """
    if teacher is None:
        return None
    pairs = [(score["mean"], teacher["scores"].get(task)) for task, score in model["scores"].items()]
    common = [(mean, other["mean"]) for mean, other in pairs if other is not None]
    if not common or any(other == 0 for _, other in common):
        return None
    return 100 * sum(mean / other for mean, other in common) / len(common)


def signature_lines(results: Results) -> list[str]:
    """The protocol signatures behind the scores, in as few lines as say it all.

    One line if every score has the same signature, else one a task; a task whose models were measured under
    different protocols is called out, for its scores cannot be compared.
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for model in display_order(results):
        for task, score in model["scores"].items():
            seen.setdefault(task, {}).setdefault(score["signature"], []).append(model["name"])
    every = {signature for by_signature in seen.values() for signature in by_signature}
    if len(every) == 1:
        return [f"signature: {every.pop()}"]
    lines = []
    for task, by_signature in seen.items():
        if len(by_signature) == 1:
            lines.append(f"signature, {task}: {next(iter(by_signature))}")
        else:
            parts = "; ".join(f"{signature} ({', '.join(names)})" for signature, names in by_signature.items())
            lines.append(f"signatures differ, do not compare, {task}: {parts}")
    return lines


def strict_lines(results: Results) -> list[str]:
    """Where the strict reading gives another score than the lenient one that the tables show; one line a model."""
    lines = []
    for model in display_order(results):
        gaps = [
            f"{task} {100 * score['strict']:.1f} ({100 * (score['strict'] - score['mean']):+.1f})"
            for task, score in model["scores"].items()
            if score["strict"] is not None and abs(score["strict"] - score["mean"]) >= 0.0005
        ]
        if gaps:
            lines.append(f"strict reading, {model['name']}: {', '.join(gaps)}")
    return lines


def sample_counts(results: Results, task: str) -> str:
    """The number of problems behind a task's scores: "500", or "480 to 500" where the models differ."""
    counts = sorted({model["scores"][task]["n"] for model in results["models"] if task in model["scores"]})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def comparison_line(comparison: Mapping[str, Any]) -> str:
    """One comparison of a results.json: "rl - sft, pooled: +12.3 points [9.8, 14.9], p = 1e-12"."""
    low, high = (points(comparison[end]).lstrip("+") for end in ("low", "high"))
    pair = f"{comparison['a']} - {comparison['b']}, {comparison['task']}"
    return f"{pair}: {points(comparison['difference'])} points [{low}, {high}], {p_value(comparison['p'])}"
