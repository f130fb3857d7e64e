"""What is printed reaches every terminal: in encodings that lack a sign, at any width, without colours."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from report_run import make_run, read
from smallwit.console.progress import RunProgress
from smallwit.console.symbols import HANDLER, encodable
from smallwit.evaluation.scores import scores
from smallwit.evaluation.scores_table import print_scores
from smallwit.report.table import print_summary
from test_scores import sampled

ENCODINGS = ("utf-8", "ascii", "latin-1", "cp1252")


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart", models=("base", "sft", "rl", "teacher"))


class Screen:
    """A console whose stream has an encoding, as standard output has."""

    def __init__(self, encoding: str, width: int = 80, **options: Any) -> None:
        self.raw, self.encoding = io.BytesIO(), encoding
        stream = io.TextIOWrapper(self.raw, encoding=encoding, errors=HANDLER)
        self.console = Console(file=stream, width=width, **options)

    def text(self) -> str:
        self.console.file.flush()
        return self.raw.getvalue().decode(self.encoding)


def table_lines(text: str) -> list[str]:
    """The lines of tables: those that end as a line of the table does."""
    return [line for line in text.splitlines() if re.search(r"(time|\ds)\s*$", line)]


@pytest.mark.parametrize("encoding", ENCODINGS)
class TestEncodings:
    def test_the_final_table_keeps_every_number_and_its_columns(self, shared_run: Path, encoding: str) -> None:
        results = read(shared_run)
        results["models"][0]["scores"].pop("algebra")  # a dash stands there
        screen = Screen(encoding)
        print_summary(results, Path("runs/q/report.html"), screen.console)
        text = screen.text()
        for model in results["models"]:
            for score in model["scores"].values():
                half = f"{50 * (score['high'] - score['low']):.1f}"
                assert re.search(rf"{100 * score['mean']:.1f} ?{re.escape(encodable('±', encoding))}{half}", text)
        assert len({len(line) for line in table_lines(text)[1:5]}) == 1
        assert max(map(len, text.splitlines())) <= 80

    def test_a_score_that_is_not_known_is_a_dash(self, encoding: str) -> None:
        screen = Screen(encoding)
        rows = [row | {"tokens": None, "truncated": None} for row in sampled([[1], [0]])]
        print_scores({"m": {"t": scores(rows)}}, {"m": {"t": "s"}}, screen.console)
        assert screen.text().count(encodable("—", encoding)) >= 2

    def test_bars_are_drawn(self, encoding: str) -> None:
        screen = Screen(encoding, force_terminal=True)
        with RunProgress(screen.console) as progress:
            progress.start("evaluate “kd”")
            progress.update("evaluate “kd”", 0.5, "3 … 4")
            progress.end("evaluate “kd”", "done, ±0")
        assert encodable("evaluate “kd”: done, ±0", encoding) in screen.text()


def test_signs_are_spelled_only_where_they_are_lacking() -> None:
    text = "±1.2 — 3 … 中 \udc80"
    assert encodable(text, "ascii") == "+-1.2 - 3 ... \\u4e2d \\udc80"
    assert encodable(text, "latin-1") == "±1.2 - 3 ... \\u4e2d \\udc80"
    assert encodable(text, "cp1252") == "±1.2 — 3 … \\u4e2d \\udc80"
    assert encodable(text, "utf-8") == "±1.2 — 3 … 中 \\udc80"


@pytest.mark.slow
def test_the_command_ends_well_in_an_encoding_that_lacks_signs(shared_run: Path) -> None:
    variables = os.environ | {"PYTHONIOENCODING": "ascii:strict", "COLUMNS": "60", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "smallwit", "report", str(shared_run)]
    done = subprocess.run(command, capture_output=True, env=variables, timeout=600)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.decode("ascii")
    assert "report: " in printed
    assert "\x1b" not in printed


class TestWidths:
    @pytest.mark.parametrize("width", [30, 45, 60, 80, 200])
    def test_no_column_of_the_final_table_is_lost(self, shared_run: Path, width: int) -> None:
        screen = Screen("utf-8", width)
        print_summary(read(shared_run), Path("r.html"), screen.console)
        text = screen.text()
        heads = ("wordmath", "algebra", "functions", "% of", "teacher", "params", "training", "time", "65.3k", "3m 21s")
        for head in heads:
            assert head in text.replace("parameters", "params")
        if width >= 60:
            assert max(len(line.rstrip()) for line in text.splitlines()) <= width

    @pytest.mark.parametrize("width", [30, 60, 80])
    def test_no_column_of_an_evaluation_is_lost(self, width: int) -> None:
        screen = Screen("utf-8", width)
        print_scores({"m": {"a-long-name-of-a-suite": scores(sampled([[1], [0]]))}}, {"m": {"t": "s"}}, screen.console)
        (head, row) = (line for line in screen.text().splitlines() if line.startswith(("suite", "a-long")))
        assert head.split()[-5:] == ["n", "cut", "none", "boxes", "tokens"]
        assert row.split()[0] == "a-long-name-of-a-suite"
        assert len(row.split()) == 10

    @pytest.mark.parametrize("terminal", [True, False])
    def test_without_colours_there_are_none(
        self, shared_run: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        screen = Screen("utf-8", 60, force_terminal=terminal)
        results = read(shared_run)
        results["lowered"] = [json.loads(json.dumps(results["comparisons"][0] | {"a": "rl", "b": "sft"}))]
        print_summary(results, Path("r.html"), screen.console)
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", screen.text())
        assert ("\x1b" in screen.text()) == terminal  # bold is no colour
