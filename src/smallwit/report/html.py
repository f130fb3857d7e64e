"""Write the report of a run: one HTML file that opens offline, with a light and a dark theme."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from smallwit.console import numbers
from smallwit.evaluation.seed_table import SeedTable
from smallwit.evaluation.statistics import Interval, ratio_interval
from smallwit.report import format as fmt
from smallwit.report.answer import RULES, answer_lines
from smallwit.report.charts import Chart, Spot, cost_chart, metric_charts, score_chart
from smallwit.report.load import Row, Run, load_run
from smallwit.report.pages import render_page
from smallwit.report.samples import Browser, browser
from smallwit.report.spent import PARTS, spent_by_stage
from smallwit.storage.artifacts import write_atomically

_CURVES = 900_000  # bytes of the curves of all stages together


def write_report(run_dir: Path) -> Path:
    """Write `run_dir`/report.html from the run folder's other files and return its path.

    The page needs no network, and its content policy forbids any access. It is written in one step; the same run
    folder gives the same bytes. Raises `UserError` if the folder lacks results.json, ledger.json or
    recipe.resolved.yaml.
    """
    write_atomically(run_dir / "report.html", render(load_run(run_dir)))
    return run_dir / "report.html"


def render(run: Run, version: str = "") -> str:
    """Return the HTML of the report. With a `version` the page asks its server for the present one, and loads it."""
    results = run.results
    models, tasks, teacher = fmt.display_order(results), fmt.task_names(results), fmt.teacher_of(results)
    found = browser(run.samples, results)
    return render_page(
        "page.html",
        scripts=["page.js", *(["live.js"] if version else [])],
        live=bool(version),
        version=version,
        about="report",
        title=results["run"],
        skip="answer",
        run=run,
        results=results,
        ledger=run.ledger,
        answer=answer_lines(results, SeedTable(run.seeds, results["seed"]), run.origins),
        rules=RULES,
        models=models,
        apart=fmt.set_apart(results),
        tasks=tasks,
        counts={task: fmt.sample_counts(results, task) for task in tasks},
        teacher=teacher,
        shares={model["name"]: fmt.share_of_teacher(model, teacher) for model in models},
        tiles=_tiles(results),
        signatures=fmt.signature_lines(results),
        strict=fmt.strict_lines(results),
        lowered=fmt.lowered_lines(results),
        headline=fmt.headline_line(results),
        seeds=fmt.seeds_line(results),
        seed_words=fmt.seed_words(results),
        ratios=_ratios(run, [model["name"] for model in models]),
        forest=fmt.forest(results["comparisons"]),
        score_charts=[score_chart(results, task) for task in tasks],
        cost_charts=_cost_charts(results),
        stages=_stages(run),
        absent=[stage.absent for stage in run.metrics if stage.absent],
        spent=spent_by_stage(run),
        parts=PARTS,
        browser=found,
        endings=_endings(found),
    )


def _tiles(results: fmt.Results) -> list[tuple[str, str]]:
    """Return the main numbers of the run as (number, label); only those that the results have."""
    tiles: list[tuple[str, str]] = []
    student, teacher = fmt.final_student(results), fmt.teacher_of(results)
    if student is not None and teacher is not None:
        share = fmt.share_of_teacher(student, teacher)
        if share is not None:
            smaller = teacher["parameters"] / student["parameters"]
            size = f", with 1/{smaller:.3g} of its parameters" if smaller > 1.05 else ""
            whose = f", by {student['name']}" if "headline" in results else ""
            tiles.append((f"{share:.1f} %", f"of the teacher’s score{whose}{size}"))
    if student is not None:
        for comparison in results["comparisons"]:
            if (comparison["a"], comparison["b"], comparison["task"]) == (
                student["name"],
                results.get("baseline"),
                "pooled",
            ):
                text = f"points over {comparison['b']}, {numbers.p_value(comparison['p']).replace('e-', 'e−')}"
                tiles.append((numbers.points(comparison["difference"]).replace("-", "−"), text))
        text = f"training compute of {numbers.human_count(student['parameters'])} parameters"
        tiles.append((numbers.human_flops(student["training_flops"]), text))
    tiles.append(
        (numbers.human_seconds(results["seconds"]), f"the whole run, in {results['peak_memory_gb']:.2f} GB at most")
    )
    return tiles


def _ratios(run: Run, names: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Return the score in per cent of the teacher's by model and task, over problems with a verdict for both."""
    reference = run.results.get("teacher", "")
    teacher = run.samples.get(reference, {})
    table = SeedTable(run.seeds)
    ratios: dict[str, dict[str, Interval]] = {}
    for name in names:
        if name == reference:
            continue
        if len(run.seeds.get(name, ())) > 1 or len(run.seeds.get(reference, ())) > 1:
            found = {task: table.ratio(name, reference, task) for task in run.samples[name] if task in teacher}
            ratios |= {name: {task: ratio for task, ratio in found.items() if ratio is not None}} if found else {}
            continue
        for task, rows in run.samples.get(name, {}).items():
            pairs = _paired(rows, teacher.get(task, []))
            if pairs and any(score for _, score in pairs):
                own, other = zip(*pairs, strict=True)
                ratios.setdefault(name, {})[task] = ratio_interval(own, other)
    return ratios


def _paired(rows: Sequence[Row], others: Sequence[Row]) -> list[tuple[float, float]]:
    scores = {row["id"]: row["score"] for row in others}
    pairs = [(row["score"], scores.get(row["id"])) for row in rows]
    return [(own, other) for own, other in pairs if own is not None and other is not None]


def _stages(run: Run) -> list[tuple[str, int, list[Chart]]]:
    """Return the name, the number of logged steps and the charts of every stage with logged steps.

    The page stays small: stages after the first `_CURVES` bytes have no charts.
    """
    found: list[tuple[str, int, list[Chart]]] = []
    size = 0
    for stage in run.metrics:
        if stage.rows:
            charts = metric_charts(stage.name, stage.rows) if size < _CURVES else []
            size += sum(len(chart.svg) for chart in charts)
            found.append((stage.name, len(stage.rows), charts))
    return found


def _cost_charts(results: fmt.Results) -> list[Chart]:
    """Return the chart of score against training compute, if there are two models that differ in it."""
    models = fmt.students(results)
    costs = {model["name"]: model["training_flops"] for model in models}
    if len(set(costs.values())) < 2:
        return []
    scores = {model["name"]: fmt.overall_score(model) for model in models}
    spots = [
        Spot(name, cost, not any(costs[o] <= cost and scores[o] > scores[name] for o in costs), scores[name])
        for name, cost in costs.items()
    ]
    unit = 1000.0 ** int(math.log(max(costs.values()), 1000))
    named = numbers.human_flops(unit).partition(" ")[2]
    label = f"score over all problems in per cent, and training compute in {named}: " + ", ".join(
        f"{spot.name} {100 * spot.mean:.1f}, {spot.cost / unit:.3g}" for spot in spots
    )
    return [cost_chart(spots, f"Score in per cent against training compute, {named}", label, unit)]


def _endings(found: Browser) -> list[tuple[str, int, Counter[str]]]:
    """Return the number of samples of each model, and how many of them have each kind of verdict."""
    kinds: dict[str, Counter[str]] = {}
    for one in found.outcomes:
        kinds.setdefault(one.model, Counter()).update(one.kinds)
    return [(name, counts.total(), counts) for name, counts in kinds.items()]
