"""The end of a run in the terminal: what it shows, at any width, with and without colours."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from report_run import SIGNATURE, TASKS, make_run, read
from smallwit.console import numbers
from smallwit.report import format as fmt
from smallwit.report.table import print_summary


def summary(results: dict[str, Any], width: int, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    print_summary(results, Path("runs/quickstart/report.html"), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.mark.parametrize("width", [80, 120])
def test_summary_fits_the_width_and_shows_every_number(shared_run: Path, width: int) -> None:
    results = read(shared_run)
    text = summary(results, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    for model in results["models"]:
        for score in model["scores"].values():
            assert re.search(rf"{100 * score['mean']:.1f} ?±{50 * (score['high'] - score['low']):.1f}", text)
    for shown in ("n 40", "65.3k", "914k", "210 G", "45.6 T", "3m 21s", "8m 32s (512 s)", "2.31 GB", SIGNATURE):
        assert shown in text
    rows = [line.split("  ")[0].strip() for line in text.splitlines()]
    places = [rows.index(row) for row in ("base", "sft", "kd", "rl")]
    assert places == sorted(places)
    assert "report: runs/quickstart/report.html" in text


def test_summary_says_what_each_comparison_found(shared_run: Path) -> None:
    results = read(shared_run)
    results["comparisons"] = [
        {
            "a": "rl",
            "b": "sft-equal-compute",
            "task": "pooled",
            "difference": 0.123,
            "low": 0.098,
            "high": 0.149,
            "p": 1e-12,
        },
        {"a": "rl", "b": "teacher", "task": "algebra", "difference": -0.004, "low": -0.02, "high": 0.012, "p": 0.6171},
    ]
    text = summary(results, 80)
    assert "rl - sft-equal-compute, pooled: +12.3 points [9.8, 14.9], p = 1e-12\n" in text
    assert "rl - teacher, algebra: -0.4 points [-2.0, 1.2], p = 0.62\n" in text


def test_summary_of_more_tasks_than_fit_leaves_no_column_out(shared_run: Path) -> None:
    results = read(shared_run)
    more = ("gsm8k", "math500", "humaneval", "olympiadbench", "minerva")
    for model in results["models"]:
        for task in more:
            model["scores"][task] = dict(model["scores"]["algebra"])
    text = summary(results, 80)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for task in (*TASKS, *more):
        assert task in text
    assert text.count("3m 21s") == len(re.findall(r"^rl  ", text, re.MULTILINE)) > 1


def test_summary_has_colour_only_on_a_terminal(shared_run: Path) -> None:
    assert "\x1b[1m" in summary(read(shared_run), 100, force_terminal=True)


def test_path_of_the_report_is_never_broken_into_two_lines(shared_run: Path) -> None:
    path = Path("/somewhere/" + "deep/" * 30 + "report.html")
    console = Console(file=io.StringIO(), width=80)
    print_summary(read(shared_run), path, console)
    assert f"report: {path}\n" in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_teacher_there_is_no_share_of_it(tmp_path: Path) -> None:
    results = read(make_run(tmp_path, models=("sft", "rl")))
    text = summary(results, 120)
    assert "teacher" not in text
    assert "rl" in text


def test_models_measured_under_different_protocols_are_called_out(shared_run: Path) -> None:
    results = read(shared_run)
    assert fmt.signature_lines(results) == [f"signature: {SIGNATURE}"]
    for model in results["models"]:
        model["scores"]["algebra"]["signature"] = "other"
    assert f"signature, wordmath: {SIGNATURE}" in fmt.signature_lines(results)
    results["models"][0]["scores"]["algebra"]["signature"] = "third"
    [line] = [line for line in fmt.signature_lines(results) if "differ" in line]
    assert "algebra" in line
    assert "third (teacher)" in line


def test_a_strict_reading_that_differs_is_shown(shared_run: Path) -> None:
    results = read(shared_run)
    assert fmt.strict_lines(results) == []
    results["models"][4]["scores"]["algebra"] |= {"mean": 0.875, "strict": 0.85}
    assert fmt.strict_lines(results) == ["strict reading, rl: algebra 85.0 (-2.5)"]


def test_share_of_the_teacher_is_the_mean_over_tasks() -> None:
    def model(*means: float) -> dict[str, Any]:
        return {"scores": {task: {"mean": mean} for task, mean in zip(TASKS, means, strict=False)}}

    assert fmt.share_of_teacher(model(0.4, 0.9, 0.3), model(0.8, 0.9, 0.6)) == pytest.approx(100 * (0.5 + 1 + 0.5) / 3)
    assert fmt.share_of_teacher(model(0.4), model(0.0)) is None
    assert fmt.share_of_teacher(model(0.4), None) is None


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.human_count(65_310), "65.3k"),
        (numbers.human_count(494_032_768), "494M"),
        (numbers.human_count(999_700), "1.0M"),
        (numbers.human_count(512), "512"),
        (numbers.human_flops(1.23e12), "1.2 TFLOP"),
        (numbers.human_flops(8.12e11), "812 GFLOP"),
        (numbers.human_flops(3e21), "3.0 ZFLOP"),
        (numbers.human_flops(0), "0 FLOP"),
        (numbers.human_seconds(0.42), "0.4s"),
        (numbers.human_seconds(59.7), "1m 00s"),
        (numbers.human_seconds(412), "6m 52s"),
        (numbers.human_seconds(7_260), "2h 01m"),
        (numbers.human_bytes(1_234_567), "1.2 MB"),
        (numbers.points(-0.0001), "0.0"),
        (numbers.points(0.123), "+12.3"),
        (numbers.p_value(0.0), "p < 1e-300"),
        (numbers.p_value(3.4e-5), "p = 3e-5"),
        (numbers.p_value(0.0341), "p = 0.034"),
        (numbers.p_value(1.0), "p = 1"),
    ],
)
def test_numbers_read_like_numbers(shown: str, expected: str) -> None:
    assert shown == expected
