"""Render the page of a study: one HTML file that opens offline."""

from smallwit.console import numbers
from smallwit.report.charts import Chart, Spot, cost_chart, score_chart
from smallwit.report.format import forest
from smallwit.report.pages import render_page
from smallwit.report.study import Results, budget_line, cost, costs, held_out_lines, method_lines, ranked

_AXES = {
    "flops": (1e12, "TFLOP of training"),
    "seconds": (60.0, "minutes of a seed"),
    "teacher_tokens": (1e3, "k tokens"),
    "dollars": (1.0, "dollars"),
}


def study_page(results: Results) -> str:
    """Return the HTML of a study; the same results give the same text."""
    arms = ranked(results)
    tasks = results["tasks"] if len(results["tasks"]) > 1 else []
    return render_page(
        "study.html",
        about="study",
        title=results["study"],
        skip="advice",
        results=results,
        arms=arms,
        tasks=tasks,
        costs=[(arm, [cost(arm, key) for key in costs(results)]) for arm in arms],
        heads=[*costs(results).values()],
        tiles=_tiles(results),
        budget=budget_line(results),
        method=method_lines(results)[:2],
        held_out=held_out_lines(results),
        charts=[_scores(results), _front(results)],
        against=forest(
            [arm["over_baseline"] | {"p": arm["over_baseline"]["p_holm"]} for arm in arms if arm["over_baseline"]]
        ),
    )


def _tiles(results: Results) -> list[tuple[str, str]]:
    """Return the main numbers as (number, label): the best pipeline of the largest budget first."""
    best = results["advice"][-1]["best"]
    (last,) = (arm for arm in results["arms"] if arm["name"] == best)
    rivals = [arm for arm in results["arms"] if arm["budget"] == last["budget"]]
    level = sum(arm["score"]["mean"] == last["score"]["mean"] for arm in rivals)
    whose = best if level == 1 else f"{level} pipelines"
    found = [(f"{numbers.percent(last['score']['mean'])} %", f"{whose}, the highest score")]
    found.append((f"{last['best']:.2f}", f"probability that {best} is the best"))
    if (gain := last["over_baseline"]) is not None:
        what = f"points over {results['baseline']}, {numbers.p_value(gain['p_holm'])}".replace("e-", "e−")
        found.append((numbers.points(gain["difference"]).replace("-", "−"), what))
    seeds = len(results["seeds"])
    smallest = numbers.percent(results["smallest_difference"]["power_80"])
    return [*found, (smallest, f"points, the smallest difference that {seeds} seeds show with 80 % chance")]


def _scores(results: Results) -> Chart:
    models = [{"name": arm["name"], "scores": {"score": arm["score"]}} for arm in ranked(results)]
    base = next(arm["name"] for arm in results["arms"] if arm["pipeline"] == results["baseline"])
    chart = score_chart({"models": models, "baseline": base}, "score")
    chart.title = "Score in per cent"
    return chart


def _front(results: Results) -> Chart:
    """Draw the score of each arm against its cost, with its interval."""
    axis = results["front_axis"]
    unit, name = _AXES[axis]
    arms = results["arms"]
    spots = [Spot(arm["name"], arm["cost"][axis], arm["front"]["on"], **arm["score"]) for arm in arms]
    on = ", ".join(f"{arm['name']} ({arm['front']['probability']:.2f})" for arm in arms if arm["front"]["on"])
    label = f"score in per cent against {name}; on the front, with probability: {on}"
    return cost_chart(spots, f"Score against {name}", label, unit)
