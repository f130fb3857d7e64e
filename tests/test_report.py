"""The report of a made-up run: the numbers it shows, what it does with odd input, and that it stays shut."""

import base64
import hashlib
import json
import math
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from report_run import SIGNATURE, SKILL, TASKS, Page, change, make_run, read, sample, write_lines
from smallwit.console import numbers
from smallwit.console.sanitize import escape_control, escape_control_data
from smallwit.errors import UserError
from smallwit.evaluation.statistics import ratio_interval
from smallwit.report.charts import score_chart
from smallwit.report.html import write_report
from smallwit.report.samples import PER_TASK, choose, script_json
from smallwit.report.themes import DARK, LIGHT

HOSTILE = [
    "</script><script>document.title='broken out'</script>",
    "<!--<script>",
    "]]></svg><img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp; \u2028\u2029 \x00 \ud800 雪 🙂",
    "{{ 7 * 7 }} {% raw %} ${7*7} `x` \\u003c \\",
]


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report written, for tests that only look."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "quickstart")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it that can be odd, and its report."""
    run = make_run(tmp_path_factory.mktemp("runs") / "odd", models=("teacher", "sft", "kd", "rl"))
    # Stages: one cached, one without a folder, one with steps that are skipped, repeated and empty.
    (run / "stages" / "00-teacher" / "metrics.jsonl").unlink()
    (run / "stages" / "02-kd" / "metrics.jsonl").unlink()
    (run / "stages" / "02-kd").rmdir()
    change(run, "ledger.json", lambda ledger: ledger["stages"][0].update(cached=True))
    odd = [{"step": 1, "loss": math.nan}, {"step": 2, "loss": 5.0}, {"step": 3}, {"step": 2, "loss": 4.0}]
    write_lines(run / "stages" / "01-sft" / "metrics.jsonl", [*odd, {"step": 4, "loss": 3}])
    unknown = {"reward/algebra": math.nan, "reward/wordmath": math.nan}
    write_lines(run / "stages" / "03-rl" / "metrics.jsonl", [{"step": 1, "lr": 0.1, **unknown}])
    # Samples: cut lines, one that no grader could read, and texts that want out.
    file = run / "evaluation" / "sft" / "algebra.jsonl"
    lines = file.read_text().splitlines()
    lines[6], lines[9] = '{"id": "cut of', '{"id": "no score"}'
    file.write_text("\n".join(lines))
    file = run / "evaluation" / "rl" / "wordmath.jsonl"
    rows = [json.loads(line) for line in file.open()]
    rows[0] |= {"score": None, "strict": None, "answer": None, "reason": "infrastructure"}
    write_lines(file, rows)
    hostile = [sample("rl", "algebra", i, random.Random(i)) for i in range(len(HOSTILE))]
    for row, text in zip(hostile, HOSTILE, strict=True):
        row |= {"id": text, "prompt": text + "?", "response": text, "gold": text, "answer": text}
    write_lines(run / "evaluation" / "rl" / "algebra.jsonl", hostile)
    (run / "recipe.resolved.yaml").write_text("name: '</pre></details><script>alert(1)</script>'\n")
    change(run, "results.json", lambda results: results.update(run="<script>alert(2)</script>"))
    write_report(run)
    return run


def cell_of(page: Page, model: str, task: str) -> dict[str, Any]:
    [cell] = [cell for cell in page.samples["cells"] if (cell["model"], cell["task"]) == (model, task)]
    return cell


def test_report_shows_scores_comparisons_ledger_and_recipe(shared_run: Path) -> None:
    page, results = Page(shared_run / "report.html"), read(shared_run)
    for model in results["models"]:
        for score in model["scores"].values():
            assert f" {100 * score['mean']:.1f} {100 * score['low']:.1f} to {100 * score['high']:.1f}" in page.text
    for row in results["comparisons"]:
        assert numbers.points(row["difference"]).replace("-", "−") in page.text
    for shown in (
        "sft-equal-compute",
        "54.0k",
        "No host was contacted.",
        SIGNATURE,
        "name: quickstart",
        "8m 32s",
    ):
        assert shown in page.text


def test_share_of_the_teacher_in_the_report_has_the_paired_interval(shared_run: Path) -> None:
    rows = {
        model: [json.loads(line) for line in (shared_run / "evaluation" / model / "algebra.jsonl").open()]
        for model in ("rl", "teacher")
    }
    ratio = ratio_interval(*([row["score"] for row in rows[model]] for model in ("rl", "teacher")))
    assert f"{ratio.mean:.1f} % {ratio.low:.1f} to {ratio.high:.1f}" in Page(shared_run / "report.html").text


def test_report_asks_nothing_of_the_network(shared_run: Path) -> None:
    page = Page(shared_run / "report.html")
    links = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "srcset", "href", "xlink:href")
    ]
    assert links
    assert all((value or "").startswith(("#", "data:")) for value in links)
    assert "@import" not in (shared_run / "report.html").read_text()
    assert not re.search(r"url\((?!#)", page.source)
    assert not re.search(r'href="(?!#|data:)', page.source)
    [policy] = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_page_allows_exactly_its_own_script(shared_run: Path) -> None:
    page = Page(shared_run / "report.html")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in (shared_run / "report.html").read_text()
    assert len(page.scripts) == 2


def test_ids_are_unique_and_every_control_has_a_label(shared_run: Path) -> None:
    page = Page(shared_run / "report.html")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [a["href"] for tag, a in page.tags if tag == "a"]
    assert all((anchor or "").removeprefix("#") in ids for anchor in anchors)
    # A control sits inside its label, so as many labels as controls.
    controls = [tag for tag, _ in page.tags if tag in ("select", "input")]
    assert len([tag for tag, _ in page.tags if tag == "label"]) == len(controls)


def test_every_stage_has_its_curves_in_the_pages_own_colours(shared_run: Path) -> None:
    page = Page(shared_run / "report.html")
    titles = [attributes["aria-label"] or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    for stage in SKILL:
        assert sum(title.startswith(f"{stage}: Loss, 60 points") for title in titles) == 1
    assert any(title.startswith("rl: Reward") for title in titles)
    assert not any(title.startswith("sft: Reward") for title in titles)
    assert [title.split(",")[0] for title in titles[:3]] == list(TASKS)
    charts = page.charts()
    assert len(charts) == len(titles)
    assert "var(--series-0)" in charts[0]
    assert not re.search(r"#[0-9a-f]{6}\b", "".join(charts))
    assert set(re.findall(r"var\(--([\w-]+)\)", "".join(charts))) <= LIGHT.colors().keys()
    assert all(theme.css() in page.source for theme in (LIGHT, DARK))


def test_names_are_drawn_as_they_are_written(odd_run: Path) -> None:
    results = read(odd_run)
    name = f"$x_1$ & <b> {HOSTILE[2]} \x00"
    results["models"][1]["name"] = name
    chart = score_chart(results, "algebra")
    elements = ElementTree.fromstring(chart.svg).iter()
    assert escape_control(name) in {text for element in elements for text in element.itertext()}


def test_the_same_run_gives_the_same_bytes_and_leaves_nothing_beside_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, models=("sft", "rl"))
    before = {path.name for path in run.iterdir()}
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert {path.name for path in run.iterdir()} == before | {"report.html"}
    # Without a teacher there is nothing to be a share of.
    assert "teacher’s score" not in first.decode()


def test_nothing_in_a_models_output_breaks_out_of_its_place(odd_run: Path) -> None:
    page = Page(odd_run / "report.html")
    assert len(page.scripts) == 2
    assert not re.search("[<>&]", page.scripts[0])
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert "img" not in {tag for tag, _ in page.tags}
    assert "</pre></details><script>alert(1)</script>" in page.text
    rows, problems = cell_of(page, "rl", "algebra")["rows"], page.samples["problems"]["algebra"]
    shown = [(problem, row[4]) for problem, row in zip(problems, rows, strict=True) if row is not None]
    assert shown == [([text, text + "?", text], text) for text in escape_control_data(HOSTILE)]


def test_script_json_holds_visible_text_and_refuses_what_is_not_json() -> None:
    assert json.loads(script_json(HOSTILE)) == escape_control_data(HOSTILE)
    with pytest.raises(ValueError):
        script_json([math.nan])


def test_a_stage_without_metrics_is_stated(odd_run: Path) -> None:
    text = Page(odd_run / "report.html").text
    assert "teacher: no metrics (taken from the cache, trained in an earlier run)" in text
    assert "kd: no metrics (nothing was trained in it)" in text


def test_odd_metrics_do_not_stop_the_report(odd_run: Path) -> None:
    text = (odd_run / "report.html").read_text()
    # The step that is not finite is left out, and of a step that was logged twice the second counts.
    assert "sft: Loss, 2 points, first 4, last 3" in text
    assert "None of the logged metrics is drawn here; all of them are in" in text


def test_unreadable_lines_are_counted_and_placed(odd_run: Path) -> None:
    text = Page(odd_run / "report.html").text
    assert "evaluation/sft/algebra.jsonl: 2 unreadable lines left out, the first is line 7" in text


def test_ungraded_samples_are_neither_right_nor_part_of_a_ratio(odd_run: Path) -> None:
    page = Page(odd_run / "report.html")
    rl, teacher = (
        [json.loads(line)["score"] for line in (odd_run / "evaluation" / model / "wordmath.jsonl").open()]
        for model in ("rl", "teacher")
    )
    cell, kinds = cell_of(page, "rl", "wordmath"), page.samples["kinds"]
    assert cell["rows"][0][0] is None
    found = Counter(kinds[ord(letter) - ord("a")] for letter in cell["verdicts"].lower())
    assert (found["right"], found["not graded"]) == (rl.count(1.0), 1)
    ratio = ratio_interval(rl[1:], teacher[1:])
    assert f"{ratio.mean:.1f} % {ratio.low:.1f} to {ratio.high:.1f}" in page.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", None, "results.json: cannot be read"),
        ("ledger.json", "{", "ledger.json: not JSON"),
        ("ledger.json", '{"schema": 1, "stages": []}', "ledger.json: not JSON as it was written"),
        ("results.json", '{"schema": 2}', "not of schema 1"),
        ("recipe.resolved.yaml", None, "recipe.resolved.yaml: cannot be read"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    run = make_run(tmp_path, n=2, steps=2, models=("sft",))
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_chosen_problems_hold_what_is_rare_of_each_model_and_pair() -> None:
    verdicts = [{"sft": "wrong", "rl": "right"} for _ in range(500)]
    verdicts[123] = {"sft": "wrong", "rl": "cut"}
    verdicts[321] = {"sft": "right", "rl": "wrong"}
    chosen = choose(verdicts, 60)
    assert len(chosen) == 60
    assert chosen == sorted(chosen)
    assert {123, 321} <= set(chosen)
    assert {place * 500 // 30 for place in range(30)} <= set(chosen)
    assert choose(verdicts[:50], 60) == list(range(50))


@pytest.mark.slow
def test_a_large_run_stays_under_two_megabytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "large", n=500, steps=1500)
    for file in (folder / "evaluation").glob("*/*.jsonl"):
        rows = [json.loads(line) for line in file.open()]
        for i, row in enumerate(rows):
            row["response"] = f"Let us think about number {i}.\n" * (40 + i % 40) + row["response"]
        rows[0]["response"] = "x" * 1_000_000
        write_lines(file, rows)
    report = write_report(folder)
    assert report.stat().st_size < 2_000_000
    page = Page(report)
    cells = page.samples["cells"]
    assert len(cells) == 18
    assert all(cell["total"] == len(cell["verdicts"]) == 500 for cell in cells)
    assert all(1 < len(cell["rows"]) <= PER_TASK for cell in cells)
    # Long texts lose their middle, and say how much.
    assert "994,000 characters left out" in cells[0]["rows"][0][4]
