"""Write the report of a run: one HTML file that opens offline, with a light and a dark theme."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from smallwit.console import numbers
from smallwit.evaluation.seed_table import SeedTable
from smallwit.evaluation.statistics import Interval, ratio_interval
from smallwit.report import format as fmt
from smallwit.report.charts import Chart, metric_charts, score_chart
from smallwit.report.load import Row, Run, load_run
from smallwit.report.pages import environment, style
from smallwit.report.samples import browser
from smallwit.storage.artifacts import write_atomically

_HERE = Path(__file__).parent


def write_report(run_dir: Path) -> Path:
    """Write `run_dir`/report.html from the run folder's other files and return its path.

    The page needs no network, and its content policy forbids any access. It is written in one step; the same run
    folder gives the same bytes. Raises `UserError` if the folder lacks results.json, ledger.json or
    recipe.resolved.yaml.
    """
    page = render(load_run(run_dir))
    # A lone surrogate in a name or a recipe cannot be encoded; the report must be written all the same.
    write_atomically(run_dir / "report.html", page.encode("utf-8", errors="replace").decode("utf-8"))
    return run_dir / "report.html"


def render(run: Run) -> str:
    """Return the HTML of the report."""
    templates = environment()
    for name in ("human_count", "human_flops", "human_seconds", "human_bytes", "percent", "points", "p_value"):
        templates.filters[name] = getattr(numbers, name)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    results = run.results
    models = fmt.display_order(results)
    names = dict.fromkeys([*(model["name"] for model in models), *run.samples])
    apart = fmt.set_apart(results)
    return templates.get_template("page.html").render(
        run=run,
        results=results,
        ledger=run.ledger,
        models=models,
        apart=apart,
        tasks=fmt.task_names(results),
        counts={task: fmt.sample_counts(results, task) for task in fmt.task_names(results)},
        teacher=fmt.teacher_of(results),
        shares={model["name"]: fmt.share_of_teacher(model, fmt.teacher_of(results)) for model in models},
        tiles=_tiles(results),
        signatures=fmt.signature_lines(results),
        strict=fmt.strict_lines(results),
        lowered=fmt.lowered_lines(results),
        headline=fmt.headline_line(results),
        seeds=fmt.seeds_line(results),
        seed_words=fmt.seed_words(results),
        ratios=_ratios(run, [model["name"] for model in models]),
        forest=fmt.forest(results["comparisons"]),
        score_charts=[score_chart(results, task) for task in fmt.task_names(results)],
        stages=_stages(run),
        absent=[stage.absent for stage in run.metrics if stage.absent],
        browser=browser(run.samples, list(names), apart, fmt.task_names(results)),
        style=style(),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
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
    """Return the name, the number of logged steps and the charts of every stage with logged steps."""
    return [(stage.name, len(stage.rows), metric_charts(stage.name, stage.rows)) for stage in run.metrics if stage.rows]
