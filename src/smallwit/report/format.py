"""Format models, scores and comparisons, the same for the terminal and the HTML report."""

from collections.abc import Mapping, Sequence
from typing import Any

from smallwit.console.numbers import p_value, percent, points

Model = Mapping[str, Any]
Results = Mapping[str, Any]


def set_apart(results: Results) -> list[str]:
    """Return the names of the baseline and the teacher, if the recipe names them."""
    return [results[role] for role in ("baseline", "teacher") if role in results]


def display_order(results: Results) -> list[Model]:
    """Return the models of a results.json: those of the path in order, then the baseline, then the teacher."""
    apart = set_apart(results)
    return sorted(results["models"], key=lambda m: apart.index(m["name"]) + 1 if m["name"] in apart else 0)


def task_names(results: Results) -> list[str]:
    """Return the tasks of all scores, in the order in which they first appear."""
    return list(dict.fromkeys(task for model in results["models"] for task in model["scores"]))


def teacher_of(results: Results) -> Model | None:
    """Return the teacher of the recipe, if it was measured."""
    return next((model for model in results["models"] if model["name"] == results.get("teacher")), None)


def final_student(results: Results) -> Model | None:
    """Return the model of the headline: the last one of the path, or the best by validation if a stage lowered scores.

    The teacher, the baseline and exported models are not on the path.
    """
    own = [m for m in results["models"] if m["name"] not in set_apart(results) and "number_format" not in m]
    chosen = results.get("headline", {}).get("model")
    return next((model for model in own if model["name"] == chosen), own[-1] if own else None)


def students(results: Results) -> list[Model]:
    """Return the models that were measured on all tasks, without the teacher and exported models."""
    tasks = set(task_names(results))
    every = [model for model in results["models"] if model["name"] != results.get("teacher")]
    return [model for model in every if "number_format" not in model and model["scores"].keys() == tasks]


def overall_score(model: Model) -> float:
    """Return the mean score of a model over all problems of its tasks."""
    scores = model["scores"].values()
    return float(sum(score["mean"] * score["n"] for score in scores) / sum(score["n"] for score in scores))


def lowered_lines(results: Results) -> list[str]:
    """Return a line for each stage that lowered the score: "rl: -6.3 points [-9.1, -3.4] to kd, p = 0.004"."""
    several = len(task_names(results)) > 1
    lines = []
    for entry in results.get("lowered", []):
        low, high = (points(entry[end]).lstrip("+") for end in ("low", "high"))
        stage = entry["a"] + (f", {entry['task']}" if several else "")
        change = f"{points(entry['difference'])} points [{low}, {high}] to {entry['b']}"
        lines.append(f"{stage}: {change}, {p_value(entry['p'])}")
    return lines


def headline_line(results: Results) -> str | None:
    """Return a line with the model of the headline, if a stage lowered the score."""
    if "headline" not in results:
        return None
    chosen = results["headline"]
    if not chosen["validation"]:
        remedy = "give the stages the same validation section, and it will be the best of them"
        return f"headline: {chosen['model']}, the last stage; {remedy}"
    scores = ", ".join(f"{name} {percent(score)}" for name, score in chosen["validation"].items())
    return f"headline: {chosen['model']}, the best stage by validation ({scores})"


def share_of_teacher(model: Model, teacher: Model | None) -> float | None:
    """Return the score in per cent of the teacher's: the mean over the tasks that both were scored on.

    `None` without a teacher, without a common task, or if the teacher scored 0 on one of them.
    """
    if teacher is None:
        return None
    pairs = [(score["mean"], teacher["scores"].get(task)) for task, score in model["scores"].items()]
    common = [(mean, other["mean"]) for mean, other in pairs if other is not None]
    if not common or any(other == 0 for _, other in common):
        return None
    return 100 * sum(mean / other for mean, other in common) / len(common)


def signature_lines(results: Results) -> list[str]:
    """Return lines with the protocol signatures of the scores.

    One line if all signatures are equal, else one line for each task. A line warns of a task whose models have
    different signatures: their scores cannot be compared. Those of exported models name another number format.
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for model in display_order(results):
        for task, score in model["scores"].items() if "number_format" not in model else ():
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


def export_lines(results: Results) -> list[str]:
    """Return a line for each exported model: "rl-q8_0: 71,360 bytes in q8_0, 5,100 tokens/s"."""
    exported = [model for model in display_order(results) if "number_format" in model]
    measured = [model for model in display_order(results) if "tokens_per_second" in model]
    lines = [f"{model['name']}: {model['bytes']:,} bytes in {model['number_format']}, read back" for model in exported]
    speeds = [f"{model['name']} {model['tokens_per_second']:,.0f}" for model in measured if model["tokens_per_second"]]
    return [*lines, f"tokens a second: {', '.join(speeds)}"] if speeds else lines


def strict_lines(results: Results) -> list[str]:
    """Return a line for each model whose strict score differs from the lenient score in the tables."""
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


def seeds_line(results: Results) -> str | None:
    """Return a line about the seeds of the scores and of their intervals, if the run has several."""
    if "seeds" not in results:
        return None
    fixed = [model["name"] for model in display_order(results) if "seeds" not in model]
    without = f"; of problems alone for {', '.join(fixed)}, which no seed changes" if fixed else ""
    return (
        f"{len(results['seeds'])} seeds; intervals over seeds and problems (Student's t, pooled seed spread){without}"
    )


def seed_words(results: Results) -> str:
    """Return the seeds of a run in words: "seed 0", or "seeds 0 to 2"."""
    seeds = results.get("seeds")
    return f"seeds {seeds[0]} to {seeds[-1]}" if seeds else f"seed {results['seed']}"


def sample_counts(results: Results, task: str) -> str:
    """Return the number of problems of a task's scores: "500", or "480 to 500" if the models differ."""
    counts = sorted({model["scores"][task]["n"] for model in results["models"] if task in model["scores"]})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def comparison_line(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as a line: "rl - sft, pooled: +12.3 points [9.8, 14.9], p = 1e-12"."""
    return f"{comparison['a']} - {comparison['b']}, {comparison['task']}: {difference(comparison)}"


def difference(comparison: Mapping[str, Any]) -> str:
    """Return the figures of a comparison: "+12.3 points [9.8, 14.9], p = 1e-12"."""
    return f"{gap(comparison)}, {p_value(comparison['p'])}"


def gap(comparison: Mapping[str, Any]) -> str:
    """Return the difference of a comparison with its interval: "+12.3 points [9.8, 14.9]"."""
    low, high = (points(comparison[end]).lstrip("+") for end in ("low", "high"))
    return f"{points(comparison['difference'])} points [{low}, {high}]"


def forest(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the comparisons with their bars' positions (per cent of the width) on a common scale with zero."""
    low = min((comparison["low"] for comparison in comparisons), default=0.0)
    high = max((comparison["high"] for comparison in comparisons), default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    return [
        {
            **comparison,
            "from": place(comparison["low"]),
            "width": round(place(comparison["high"]) - place(comparison["low"]), 2),
            "at": place(comparison["difference"]),
            "zero": place(0.0),
            "clear": comparison["low"] > 0 or comparison["high"] < 0,
        }
        for comparison in comparisons
    ]
